"""What to know of a score table before fitting it: shape, noise, suspect cells, gaps, budgets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from factorlab.lineage import STATUSES, published_log10_budget
from factorlab.metadata import listed
from factorlab.relations import exact_relations, near_copies
from factorlab.score_notes import relation_note
from factorlab.score_table import ScoreTable
from factorlab.suspects import suspect_zeros

KINDS = (
    *("zero", "at_chance", "outlier", "no_variance", "duplicate", "no_se"),
    *("budget_unknown", "budget_guessed"),
)
CHANCE_MARGIN = 0.05  # of the range above chance, or two standard errors, whichever is more


@dataclass(frozen=True)
class Flag:
    """One thing to look at.

    Attributes
    ----------
    model, benchmark : str or None
        The cell, or the model or benchmark alone.
    kind : str
        One of `KINDS`.
    detail : str
        What was seen, for a reader.
    """

    model: str | None
    benchmark: str | None
    kind: str
    detail: str


@dataclass(frozen=True)
class HealthReport:
    """Findings of `check`; nothing is changed in the table.

    Attributes
    ----------
    name : str
    n_models, n_benchmarks, n_cells, n_missing : int
        Size of the matrix and cells without a score.
    benchmarks : pandas.DataFrame
        Indexed by benchmark: ``language``, ``n_scores``, ``mean``, ``sd`` (ddof 1), ``lowest``, ``highest``,
        ``se`` (median), ``se_over_sd``, ``se_kind`` (the commonest), in score units.
    budgets : pandas.DataFrame
        A row a language (and ``total``): number of scored models by status (``official``, ``derived``,
        ``guessed``, ``none``, ``unknown``) and ``usable``, those with a published product of size and
        tokens. The total has no statuses, only ``usable``.
    flags : tuple of Flag
    gaps : tuple of str
        Metadata that is absent, in sentences.
    notes : tuple of str
        The table's own notes.
    """

    name: str
    n_models: int
    n_benchmarks: int
    n_cells: int
    n_missing: int
    benchmarks: pd.DataFrame
    budgets: pd.DataFrame
    flags: tuple[Flag, ...]
    gaps: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """The flags: model, benchmark, kind, detail."""
        return pd.DataFrame([asdict(f) for f in self.flags], columns=["model", "benchmark", "kind", "detail"])

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-able; NaN becomes None."""
        tables = {
            "benchmarks": self.benchmarks.reset_index(),
            "budgets": self.budgets.reset_index(),
        }
        return {
            "name": self.name,
            "shape": {
                "models": self.n_models,
                "benchmarks": self.n_benchmarks,
                "cells": self.n_cells,
                "missing": self.n_missing,
            },
            **{k: t.astype(object).where(t.notna(), None).to_dict("records") for k, t in tables.items()},
            "flags": [asdict(f) for f in self.flags],
            "gaps": list(self.gaps),
            "notes": list(self.notes),
        }


def check(table: ScoreTable) -> HealthReport:
    """Health of a table: shape, missing cells, noise against spread, suspect cells, gaps, budgets.

    A cell is flagged ``at_chance`` when a chance level above 0 is declared and the score is at most chance
    plus the larger of 0.05 of the range and two standard errors; ``zero`` as in
    `factorlab.suspects.suspect_zeros`.
    """
    budgets = _budgets(table)
    flags = [
        *_zero_flags(table),
        *_chance_flags(table),
        *_variance_flags(table),
        *_duplicate_flags(table),
        *_se_flags(table),
        *_budget_flags(table),
    ]
    return HealthReport(
        name=table.name,
        n_models=len(table.model_names),
        n_benchmarks=len(table.benchmark_names),
        n_cells=table.scores.size,
        n_missing=int(np.isnan(table.scores).sum()),
        benchmarks=_spread(table),
        budgets=budgets,
        flags=tuple(flags),
        gaps=tuple(_gaps(table)),
        notes=table.notes,
    )


def fraction_of_range(table: ScoreTable) -> np.ndarray:
    """Scores between 0 (the minimum) and 1 (the maximum), (model, benchmark).

    An undeclared minimum counts as 0, an undeclared maximum as the first of 1, 100 and the column's
    largest value that holds all scores; good enough to judge zeros by, not to report.
    """
    low = table.benchmarks["min"].to_numpy(dtype=float)
    high = table.benchmarks["max"].to_numpy(dtype=float)
    largest = np.nanmax(table.scores, axis=0)
    fallback = np.where(largest <= 1, 1.0, np.where(largest <= 100, 100.0, largest))
    low = np.where(np.isnan(low), 0.0, low)
    high = np.where(np.isnan(high), fallback, high)
    return (table.scores - low) / np.where(high > low, high - low, 1.0)


def _zero_flags(table: ScoreTable) -> list[Flag]:
    higher = table.benchmarks["higher_is_better"].to_numpy(dtype=bool)
    fraction = np.where(higher, fraction_of_range(table), np.nan)
    # A zero on the scale printed: with a minimum below 0, a score of 0 is nothing special.
    fraction = np.where((fraction == 0) & (table.scores != 0), 1e-9, fraction)
    cells = suspect_zeros(fraction, table.data["n_instances"].values)
    return [
        Flag(
            table.model_names[i],
            table.benchmark_names[j],
            "zero",
            f"exactly 0; the model's other scores predict {cells.predicted[i, j]:.0%} of the range "
            f"(probability of a real 0: {cells.probability[i, j]:.2g})",
        )
        for i, j in np.argwhere(cells.suspect)
    ]


def _chance_flags(table: ScoreTable) -> list[Flag]:
    chance = table.benchmarks["chance"].to_numpy(dtype=float)
    width = (table.benchmarks["max"] - table.benchmarks["min"]).to_numpy(dtype=float)
    width = np.where(np.isnan(width), 1.0, width)
    higher = table.benchmarks["higher_is_better"].to_numpy(dtype=bool)
    margin = np.fmax(CHANCE_MARGIN * width, 2 * table.se)
    near = (table.scores <= chance + margin) & (chance > 0) & higher
    return [
        Flag(
            table.model_names[i],
            table.benchmark_names[j],
            "at_chance",
            f"{table.scores[i, j]:.4g}, chance is {chance[j]:.4g}",
        )
        for i, j in np.argwhere(near)
    ]


def _variance_flags(table: ScoreTable) -> list[Flag]:
    if len(table.model_names) < 2:
        return []
    flags = []
    for j, name in enumerate(table.benchmark_names):
        values = np.unique(table.scores[np.isfinite(table.scores[:, j]), j])
        if len(values) < 2:
            flags.append(Flag(None, name, "no_variance", f"every score is {values[0]:.4g}"))
    return flags


def _duplicate_flags(table: ScoreTable) -> list[Flag]:
    names = table.benchmark_names
    exact = [
        Flag(None, names[r.target], "duplicate", relation_note(r, names))
        for r in exact_relations(table.scores)
    ]
    copies = [
        Flag(None, names[b], "duplicate", f"correlates 0.999 or more with '{names[a]}'")
        for a, b in near_copies(table.scores)
    ]
    return [*exact, *copies]


def _se_flags(table: ScoreTable) -> list[Flag]:
    unknown = (table.data["se_kind"].values == "unknown").sum(axis=0)
    return [
        Flag(None, name, "no_se", f"{count} scores without a standard error")
        for name, count in zip(table.benchmark_names, unknown, strict=True)
        if count
    ]


def _statuses(table: ScoreTable, language: str) -> pd.Series:
    """Status of each scored model's published count; a bare count is official, no count unknown."""
    models = table.scored_models
    count = models[f"tokens_b_{language}"].astype(float)
    plain = pd.Series(
        np.where(count.isna(), "unknown", np.where(count > 0, "official", "none")), models.index
    )
    column = f"tokens_b_{language}_status"
    return plain if column not in models else models[column].where(models[column].notna(), plain)


def _budget_flags(table: ScoreTable) -> list[Flag]:
    flags = []
    for language in table.languages:
        for model, status in _statuses(table, language).items():
            if status in ("unknown", "guessed"):
                detail = f"tokens in '{language}' are {'a guess' if status == 'guessed' else 'not known'}"
                flags.append(Flag(str(model), None, f"budget_{status}", detail))
    return flags


def _budgets(table: ScoreTable) -> pd.DataFrame:
    rows: dict[str, dict[str, float]] = {}
    sized = "params_b" in table.models
    total = ["total"] if "tokens_b_total" in table.models else []
    for language in [*table.languages, *total]:
        counts = {} if language == "total" else _statuses(table, language).value_counts().to_dict()
        usable = published_log10_budget(table.scored_models, language).notna().sum() if sized else 0
        blank = np.nan if language == "total" else 0
        rows[language] = {**{s: counts.get(s, blank) for s in STATUSES}, "usable": int(usable)}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*STATUSES, "usable"]).astype("Int64")
    return frame.rename_axis("language")


def _spread(table: ScoreTable) -> pd.DataFrame:
    scores = pd.DataFrame(table.scores, columns=table.benchmark_names)
    sd = scores.std(ddof=1)
    se = pd.DataFrame(table.se, columns=table.benchmark_names).median()
    kinds = []
    for j in range(len(table.benchmark_names)):
        seen = pd.Series(table.data["se_kind"].values[:, j])
        kinds.append(seen[seen != "missing"].mode().iloc[0])
    return pd.DataFrame(
        {
            "language": table.benchmarks["language"].to_numpy(),
            "n_scores": scores.notna().sum(),
            "mean": scores.mean(),
            "sd": sd,
            "lowest": scores.min(),
            "highest": scores.max(),
            "se": se,
            "se_over_sd": se / sd.where(sd > 0),
            "se_kind": kinds,
        },
        index=pd.Index(table.benchmark_names, name="benchmark"),
    )


def _gaps(table: ScoreTable) -> list[str]:
    gaps = []
    models, benchmarks = table.scored_models, table.benchmarks
    for column, use in (
        ("params_b", "budgets"),
        ("family", "lineage; each root stands for itself"),
        ("base_model", "lineage; every model is a root"),
    ):
        absent = models.index if column not in models else models.index[models[column].isna()]
        if column == "base_model" and column in models:
            continue  # empty for a root
        if len(absent):
            who = (
                "No model has"
                if len(absent) == len(models)
                else f"{len(absent)} of {len(models)} models have no"
            )
            names = "" if len(absent) == len(models) else f": {listed(list(absent))}"
            gaps.append(f"{who} {column} ({use}){names}.")
    if not table.languages:
        gaps.append("No tokens_b_<language> column: budgets are unknown for every model.")
    facts: tuple[str, ...] = ("language", "metric", "chance", "max", "n_instances")
    if np.isfinite(table.data["n_instances"].values).any():
        facts = facts[:-1]  # every score has its own
    everywhere = [column for column in facts if benchmarks[column].isna().all()]
    if everywhere:
        gaps.append(f"No benchmark declares {', '.join(everywhere)}: give a benchmarks table.")
    for column in facts:
        absent = benchmarks.index[benchmarks[column].isna()]
        if len(absent) and column not in everywhere:
            gaps.append(
                f"{len(absent)} of {len(benchmarks)} benchmarks declare no {column}: {listed(list(absent))}."
            )
    return gaps
