"""Prediction: what models would score where they were not evaluated, with honest intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.inference.predict.calibration import CELL, MODEL
from factorlab.inference.predict.columns import visible
from factorlab.inference.predict.kernel import LINEAR
from factorlab.inference.predict.mixture import Mixture, PredictionSettings, fit_mixture
from factorlab.inference.watch import Progress
from factorlab.lineage import build_lineage
from factorlab.score_table import ScoreTable


@dataclass(frozen=True)
class Prediction:
    """Predicted scores of cells.

    Attributes
    ----------
    cells : pandas.DataFrame
        A row a cell: model, benchmark, basis ("cell": the model has other scores; "model": it has none),
        median, low, high (recalibrated; the raw ones where nothing was held out), raw_low, raw_high,
        expected (median of the score without unique noise and measurement error), extrapolates (why, or "").
    samples : ndarray, (sample, cell)
        Raw samples of new scores, joint over cells in the parameters, in the benchmarks' units.
    mixture : Mixture
    notes : tuple of str
    """

    cells: pd.DataFrame
    samples: np.ndarray
    mixture: Mixture
    notes: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """The cells."""
        return self.cells.copy()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: cells, calibration, members with their weights, notes."""
        how = self.mixture.settings
        calibration = self.mixture.calibration
        return {
            "level": how.level,
            "likelihood": how.likelihood,
            "cells": self.cells.to_dict(orient="records"),
            "calibration": None if calibration is None else calibration._asdict(),
            "members": [
                {"name": f.member.name, "weight": float(w), "held_out_log_score": float(s), "rhat": f.rhat}
                for f, w, s in zip(
                    self.mixture.fits, self.mixture.weights, self.mixture.member_scores, strict=True
                )
            ],
            "notes": list(self.notes),
        }

    def beats(self, rival: str) -> pd.DataFrame:
        """Probability that each predicted cell's score is higher than a rival's.

        Parameters
        ----------
        rival : str
            A model of the table. Its own score where it has one (as it stands), else its prediction.

        Returns
        -------
        pandas.DataFrame
            model, benchmark, rival_score (NaN where predicted), probability. A benchmark where lower is better
            is turned.

        Raises
        ------
        InputError
            An unknown rival.
        """
        table = self.mixture.table
        if rival not in table.model_names:
            raise InputError(f"'{rival}' is no model of the table; it has {table.model_names}")
        i = table.model_names.index(rival)
        column = np.array([table.benchmark_names.index(b) for b in self.cells["benchmark"]])
        row = np.full(len(column), i)
        theirs = self.mixture.inputs.columns.to_scores(self.mixture.predict(row, column).samples, column)
        own = np.where(self.mixture.observed[i, column], table.scores[i, column], np.nan)
        theirs = np.where(np.isfinite(own), own, theirs)
        sign = self.mixture.inputs.columns.sign[column]
        better = sign * (self.samples - theirs)
        chance = (better > 0).mean(axis=0) + 0.5 * (better == 0).mean(axis=0)
        return self.cells[["model", "benchmark"]].assign(rival=rival, rival_score=own, probability=chance)


def predict(
    table: ScoreTable,
    settings: PredictionSettings | None = None,
    *,
    models: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
    observed: np.ndarray | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Predict the cells of a table that have no score.

    Parameters
    ----------
    table : ScoreTable
        New models are rows without scores (`factorlab.inference.predict.new_models.add_models`).
    settings : PredictionSettings, optional
    models, benchmarks : sequence of str, optional
        Cells of these only.
    observed : ndarray of bool, (model, benchmark), optional
        Cells that may be seen; all others are predicted. All that have a score when not given.
    workers, cluster, progress
        Where the fits run, see `factorlab.batch.run_batch`.

    Raises
    ------
    InputError
        Nothing to predict, an unknown name, a table too small.
    """
    seen = visible(table, observed)
    row, column = _targets(table, seen, models, benchmarks)
    mixture = fit_mixture(table, settings, observed=seen, workers=workers, cluster=cluster, progress=progress)
    return predict_cells(mixture, row, column)


def _targets(
    table: ScoreTable, seen: np.ndarray, models: Sequence[str] | None, benchmarks: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    wanted = ~seen
    for names, have, label, axis in (
        (models, table.model_names, "model", 0),
        (benchmarks, table.benchmark_names, "benchmark", 1),
    ):
        if names is None:
            continue
        unknown = [n for n in names if n not in have]
        if unknown:
            raise InputError(f"'{unknown[0]}' is no {label} of table '{table.name}'; it has {have}")
        keep = np.isin(have, list(names))
        wanted = wanted & (keep[:, None] if axis == 0 else keep[None, :])
    row, column = np.nonzero(wanted)
    if not len(row):
        raise InputError(
            f"nothing to predict: every cell asked for of table '{table.name}' has a score; add a model with "
            "--new, or take scores out"
        )
    return row, column


def predict_cells(mixture: Mixture, row: np.ndarray, column: np.ndarray) -> Prediction:
    """Predictions of cells from a fitted mixture.

    Parameters
    ----------
    mixture : Mixture
    row, column : ndarray of int, (cell,)
    """
    level = mixture.settings.level
    columns = mixture.inputs.columns
    drawn = mixture.predict(row, column)
    tail = (1 - level) / 2
    low, median, high = np.quantile(drawn.samples, [tail, 0.5, 1 - tail], axis=0)
    scored = np.asarray(mixture.observed.any(axis=1))
    basis = np.where(scored[row], CELL, MODEL)
    factor = np.ones(len(row))
    if mixture.calibration is not None:
        found = np.array([mixture.calibration.factor[b] for b in basis], dtype=float)
        factor = np.where(np.isfinite(found), found, 1.0)
    wide_low, wide_high = median - factor * (median - low), median + factor * (high - median)
    bounded = columns.kind[column] != LINEAR
    wide_low = np.where(bounded, np.clip(wide_low, 0, 1), wide_low)
    wide_high = np.where(bounded, np.clip(wide_high, 0, 1), wide_high)

    def turn(values: np.ndarray) -> np.ndarray:
        return columns.to_scores(values, column)

    def ends(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.minimum(turn(a), turn(b)), np.maximum(turn(a), turn(b))

    outer, inner = ends(wide_low, wide_high), ends(low, high)
    beyond = extrapolations(mixture)
    names, benchmarks = np.array(mixture.table.model_names), np.array(mixture.table.benchmark_names)
    frame = pd.DataFrame(
        {
            "model": names[row],
            "benchmark": benchmarks[column],
            "basis": basis,
            "median": turn(median),
            "low": outer[0],
            "high": outer[1],
            "raw_low": inner[0],
            "raw_high": inner[1],
            "expected": turn(np.median(drawn.expected, axis=0)),
            "extrapolates": [beyond[i] for i in row],
        }
    )
    return Prediction(frame, turn(drawn.samples), mixture, _notes(mixture, basis))


def extrapolations(mixture: Mixture) -> list[str]:
    """Why a prediction of each model goes beyond what was seen; "" where it does not.

    Beyond: a predictor above or below that of every scored model, or a lineage of which none was scored.
    """
    table, x = mixture.table, mixture.inputs.predictors
    scored = np.asarray(mixture.observed.any(axis=1))
    family = build_lineage(table.models).family_of(table.model_names)
    known_families = set(family[scored])
    out = []
    for i in range(len(table.model_names)):
        reasons = []
        for p, name in enumerate(x.names):
            others = scored & x.known[:, p]
            others[i] = False
            if not x.known[i, p] or not others.any():
                continue
            if x.x[i, p] > x.x[others, p].max() + 1e-9:
                reasons.append(f"{name} above every scored model's")
            elif x.x[i, p] < x.x[others, p].min() - 1e-9:
                reasons.append(f"{name} below every scored model's")
        if not scored[i] and mixture.inputs.kin.names and family[i] not in known_families:
            reasons.append("no scored model of its lineage")
        out.append("; ".join(reasons))
    return out


def _notes(mixture: Mixture, basis: np.ndarray) -> tuple[str, ...]:
    notes = list(mixture.inputs.columns.notes)
    c = mixture.calibration
    if c is None:
        notes.append("Intervals are raw: nothing was held out to recalibrate them.")
    else:
        for kind, what in ((CELL, "models that have other scores"), (MODEL, "models without a score")):
            if (basis == kind).any() and np.isfinite(c.factor[kind]):
                notes.append(
                    f"Held-out cells of {what}: {100 * c.raw_coverage[kind]:.0f} % of {c.n[kind]} in raw "
                    f"{100 * c.level:.0f} % intervals, {100 * c.coverage[kind]:.0f} % in recalibrated ones "
                    f"(each side times {c.factor[kind]:.2f})."
                )
            elif (basis == kind).any():
                notes.append(f"Intervals of {what} are raw: too few of their like were held out.")
    if not mixture.inputs.predictors.names and (basis == MODEL).any():
        notes.append(
            "No predictors (params_b, tokens, release_date): models without a score are the average one."
        )
    return (*notes, *mixture.problems)
