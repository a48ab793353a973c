"""Validation: cells of a table are hidden, predicted by several methods, and compared with what was there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from factorlab import __version__
from factorlab.batch import run_batch
from factorlab.errors import InputError
from factorlab.inference.choose import score_counts
from factorlab.inference.predict.columns import scale_columns
from factorlab.inference.predict.fold_fits import METHODS, MIXTURE, fit_fold, units
from factorlab.inference.predict.schemes import Fold, Scheme, allowed_schemes, make_folds
from factorlab.inference.predict.scoring import cross_fit_factors, pit_histogram, summarise
from factorlab.inference.predict.specification import MOST_FACTORS
from factorlab.inference.predict.validation_options import ValidationOptions
from factorlab.inference.watch import Progress
from factorlab.score_table import ScoreTable


@dataclass(frozen=True)
class Validation:
    """How well each method predicts what was hidden from it.

    Attributes
    ----------
    table : ScoreTable
    options : ValidationOptions
    cells : pandas.DataFrame
        A row a scheme, method and hidden cell: ``scheme, method, fold, model, benchmark, score, median,
        raw_low, raw_high, low, high`` (recalibrated; NaN where nothing could be), ``training_mean`` (of the
        benchmark), ``unit`` (width of the benchmark's range, or the spread of its scores where it has none),
        ``log_density`` (per unit), ``crps`` (units), ``pit``.
    methods : pandas.DataFrame
        A row a scheme and method: `factorlab.inference.predict.scoring.summarise`.
    counts : pandas.DataFrame or None
        A row a number of factors: ``factors, elpd, se, difference, difference_se, chosen`` on held-out cells,
        as in `factorlab.inference.choose.FactorCount`.
    reused : int
        Fits kept by an earlier call.
    notes : tuple of str
    """

    table: ScoreTable
    options: ValidationOptions
    cells: pd.DataFrame
    methods: pd.DataFrame
    counts: pd.DataFrame | None
    reused: int
    notes: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """The methods."""
        return self.methods.copy()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: table, options, methods with their PIT histograms, numbers of factors, notes."""
        rows = self.methods.to_dict(orient="records")
        for row in rows:
            chosen = (self.cells["scheme"] == row["scheme"]) & (self.cells["method"] == row["method"])
            row["pit"] = pit_histogram(self.cells["pit"][chosen].to_numpy())
        options = {**asdict(self.options), "effort": self.options.effort._asdict()}
        return {
            "table": {"name": self.table.name, "digest": self.table.digest()},
            "options": options,
            "methods": rows,
            "factors": None if self.counts is None else self.counts.to_dict(orient="records"),
            "notes": list(self.notes),
        }


def validate(
    table: ScoreTable,
    options: ValidationOptions | None = None,
    *,
    folder: str | None = None,
    progress: Progress | None = None,
) -> Validation:
    """Hide scores that are known, predict them, and say how good the predictions were.

    Every method sees the same cells: the hidden scores, and their standard errors, are taken out of the table
    before anything is fitted, weighed or recalibrated.

    Parameters
    ----------
    table : ScoreTable
    options : ValidationOptions, optional
    folder : path, optional
        Keeps finished fits (`factorlab.batch.run_batch`): the same call goes on from them.
    progress : callable, optional

    Raises
    ------
    InputError
        A scheme that the table has no facts for, a table too small, a fit that failed.
    """
    how = options or ValidationOptions()
    how.settings()  # refuses a bad likelihood, level, number of factors before anything is fitted
    schemes = tuple(dict.fromkeys(how.schemes)) or allowed_schemes(table)
    folds = {scheme: make_folds(table, scheme, how.folds, how.seed) for scheme in schemes}
    tasks = _tasks(table, folds, how)
    batch = run_batch(
        fit_fold,
        tasks,
        shared=(table, folds, how),
        settings=_kept_with(table, how),
        workers=how.workers,
        cluster=how.cluster,
        folder=folder,
        tidy=folder is not None,
        stage="validation fits",
        progress=progress,
    )
    for name, text in batch.failures.items():
        raise InputError(f"the validation of {name} failed: {text}")
    frames = []
    for name, task in tasks.items():
        if task["method"] in METHODS and batch.results[name]["median"].size:
            fold = folds[task["scheme"]][task["fold"]]
            frames.append(_frame(table, fold, task, batch.results[name]))
    cells = _recalibrate(pd.concat(frames, ignore_index=True), how.level)
    methods = pd.DataFrame(
        [
            {"scheme": scheme, "method": method, **summarise(part)}
            for (scheme, method), part in cells.groupby(["scheme", "method"], sort=False)
        ]
    )
    counts = _counts(table, folds, tasks, batch.results) if "cells" in folds and how.counts else None
    return Validation(table, how, cells, methods, counts, batch.reused, _notes(table, folds, methods))


def _tasks(
    table: ScoreTable, folds: Mapping[Scheme, Sequence[Fold]], how: ValidationOptions
) -> dict[str, dict[str, Any]]:
    tasks: dict[str, dict[str, Any]] = {}
    for scheme, parts in folds.items():
        for f, fold in enumerate(parts):
            for method in METHODS:
                task: dict[str, Any] = {"scheme": scheme, "fold": f, "method": method}
                if method == MIXTURE and scheme == "lineage":
                    task["whole"] = "lineages"
                tasks[f"{scheme}, {fold.name}, {method}"] = task
            if scheme == "cells" and how.counts:
                for k in range(1, _most_factors(table) + 1):
                    tasks[f"{scheme}, {fold.name}, K={k}"] = {"scheme": scheme, "fold": f, "method": f"K={k}"}
    return tasks


def _most_factors(table: ScoreTable) -> int:
    return max(1, min(MOST_FACTORS, min(table.scores.shape) // 2))


def _kept_with(table: ScoreTable, how: ValidationOptions) -> dict[str, Any]:
    chosen = asdict(how)
    for name in ("workers", "cluster", "schemes", "counts"):  # do not shape a fit
        del chosen[name]
    return {
        "table": table.digest(),
        "options": {**chosen, "effort": list(how.effort)},
        "factorlab": __version__,
    }


def _frame(
    table: ScoreTable, fold: Fold, task: Mapping[str, Any], found: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    row, column = np.nonzero(fold.scored)
    seen = np.where(fold.hidden, np.nan, table.scores)
    known = np.isfinite(seen)
    middle = np.where(known, seen, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    nothing = np.full(len(row), np.nan)
    return pd.DataFrame(
        {
            "scheme": task["scheme"],
            "method": task["method"],
            "fold": fold.name,
            "model": np.array(table.model_names)[row],
            "benchmark": np.array(table.benchmark_names)[column],
            "score": table.scores[row, column],
            "median": found["median"],
            "raw_low": found["low"],
            "raw_high": found["high"],
            "low": found.get("own_low", nothing),
            "high": found.get("own_high", nothing),
            "training_mean": middle[column],
            "unit": units(table)[column],
            "log_density": found["log_density"],
            "crps": found["crps"],
            "pit": found["pit"],
        }
    )


def _recalibrate(cells: pd.DataFrame, level: float) -> pd.DataFrame:
    """Methods that do not recalibrate themselves get factors from the other folds."""
    out = []
    for _, part in cells.groupby(["scheme", "method"], sort=False):
        if part["low"].isna().all():
            y, median, low, high = (part[n].to_numpy() for n in ("score", "median", "raw_low", "raw_high"))
            factor = cross_fit_factors(y, median, low, high, part["fold"].to_numpy(), level)
            part = part.assign(low=median - factor * (median - low), high=median + factor * (high - median))
        out.append(part)
    return pd.concat(out, ignore_index=True)


def _counts(
    table: ScoreTable, folds: Mapping[Scheme, Sequence[Fold]], tasks: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Held-out log score of each number of factors; the fewest within one standard error of the best."""
    most = _most_factors(table)
    density = np.full((most, *table.scores.shape), np.nan)
    for name, task in tasks.items():
        if task["method"].startswith("K="):
            density[int(task["method"][2:]) - 1][folds["cells"][task["fold"]].scored] = results[name][
                "log_density"
            ]
    score = score_counts(density)
    factors = np.arange(1, most + 1)
    return pd.DataFrame(
        {
            "factors": factors,
            "elpd": score.elpd,
            "se": score.se,
            "difference": score.difference,
            "difference_se": score.difference_se,
            "chosen": factors == score.chosen,
        }
    )


def _notes(
    table: ScoreTable, folds: Mapping[Scheme, Sequence[Fold]], methods: pd.DataFrame
) -> tuple[str, ...]:
    notes = list(scale_columns(table).notes)
    for scheme, parts in folds.items():
        out = [m for m in METHODS if m not in set(methods["method"][methods["scheme"] == scheme])]
        if out:
            notes.append(f"{scheme}: the table is too small for {', '.join(out)}.")
        hidden = sum(int(p.hidden.sum()) for p in parts)
        scored = sum(int(p.scored.sum()) for p in parts)
        if hidden > scored:
            notes.append(
                f"{scheme}: {hidden - scored} cells of models of unknown compute were hidden and not scored."
            )
    if "compute" in folds:
        notes.append(
            "compute: one fold, so that only the mixture, which recalibrates itself, can be recalibrated."
        )
    return tuple(notes)
