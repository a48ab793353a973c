"""Columns: benchmark scores on the scale that the prediction model works on, and the way back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from factorlab.inference.predict.kernel import BETA_BINOMIAL, BINOMIAL, LINEAR, LINK
from factorlab.inference.predict.specification import Likelihood
from factorlab.score_table import ScoreTable

UNKNOWN_SE = 0.003
"""Standard error, on the model's scale, of a score that has none: rounding; the unique noise holds the rest."""

PERCENT = (-1.0, 101.0)
"""An undeclared column whose scores all lie here may be percent."""

FRACTION = 1.5
"""Columns whose highest score is above this are no fractions."""

FEW = 3


class Columns(NamedTuple):
    """Scores on the model's scale: ``y = sign * (score - location) / scale``, + 1 where a link is flipped.

    Attributes
    ----------
    y, se, trials : ndarray, (model, benchmark)
        Score (NaN where missing or hidden), its standard error, its number of instances (NaN where
        unknown).
    kind : ndarray of int, (benchmark,)
        LINK (a range from 0 to 1), LINEAR (no range), or a count.
    location, scale, sign : ndarray, (benchmark,)
    lowest, highest : ndarray, (benchmark,)
        Of the observed cells, within 0 and 1.
    chance : ndarray, (benchmark,)
        Declared chance level on the model's scale; NaN where undeclared.
    notes : tuple of str
    """

    y: np.ndarray
    se: np.ndarray
    trials: np.ndarray
    kind: np.ndarray
    location: np.ndarray
    scale: np.ndarray
    sign: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    chance: np.ndarray
    notes: tuple[str, ...]

    def to_scores(self, y: np.ndarray, benchmark: np.ndarray) -> np.ndarray:
        """Values on the model's scale, (..., cell), in the benchmarks' own units."""
        flip = (self.sign[benchmark] < 0) & (self.kind[benchmark] != LINEAR)
        turned = np.where(flip, 1 - y, np.where(self.sign[benchmark] < 0, -y, y))
        return np.asarray(turned * self.scale[benchmark] + self.location[benchmark])

    def from_scores(self, scores: np.ndarray, benchmark: np.ndarray) -> np.ndarray:
        """The inverse of `to_scores`."""
        y = (scores - self.location[benchmark]) / self.scale[benchmark]
        flip = (self.sign[benchmark] < 0) & (self.kind[benchmark] != LINEAR)
        return np.asarray(np.where(flip, 1 - y, np.where(self.sign[benchmark] < 0, -y, y)))


def scale_columns(
    table: ScoreTable, observed: np.ndarray | None = None, likelihood: Likelihood = "student"
) -> Columns:
    """The observed scores of a table on the model's scale.

    A column with a declared range, or whose scores all look like fractions or percent, gets a link between
    its floor and its ceiling; any other is standardised and has none. Only observed cells are looked at.

    Parameters
    ----------
    table : ScoreTable
    observed : ndarray of bool, (model, benchmark), optional
        Cells that may be seen; all that have a score when not given.
    likelihood : {"student", "beta-binomial", "binomial"}
        Counts where a column has the number of instances of every observed cell and is not flipped.
    """
    seen = visible(table, observed)
    scores = np.where(seen, table.scores, np.nan)
    n_benchmarks = scores.shape[1]
    sign = np.where(table.benchmarks["higher_is_better"].to_numpy(dtype=bool), 1.0, -1.0)
    declared = table.benchmarks[["min", "max"]].to_numpy(dtype=float)
    percent = _is_percent(scores, declared)
    location, scale = np.zeros(n_benchmarks), np.ones(n_benchmarks)
    kind = np.full(n_benchmarks, LINK)
    for j in range(n_benchmarks):
        values = scores[seen[:, j], j]
        if np.isfinite(declared[j]).all():
            location[j], scale[j] = declared[j, 0], declared[j, 1] - declared[j, 0]
        elif percent and _within(values, PERCENT):
            scale[j] = 100.0
        elif not percent and _within(values, (0.0, 1.0)):
            pass
        else:
            kind[j] = LINEAR
            location[j] = np.median(values)
            scale[j] = np.std(values) or 1.0
            if len(np.unique(values)) < FEW:
                scale[j] = max(scale[j] if len(np.unique(values)) > 1 else 0.0, 0.1 * abs(location[j])) or 1.0
    empty = Columns(
        # The error of a hidden score tells the score where it is binomial.
        scores, np.where(seen, table.se, np.nan) / scale, table.data["n_instances"].values, kind, location, scale, sign,
        np.zeros(n_benchmarks), np.ones(n_benchmarks), np.full(n_benchmarks, np.nan), (),
    )  # fmt: skip
    every = np.arange(n_benchmarks)
    y = empty.from_scores(scores, every)
    chance = empty.from_scores(table.benchmarks["chance"].to_numpy(dtype=float), every)
    low, high = _extremes(y, seen)
    notes = _notes(table, declared, kind, percent)
    if likelihood != "student":
        notes += _count(kind, seen, empty.trials, declared, table, likelihood)
    return empty._replace(
        y=y,
        lowest=low,
        highest=high,
        chance=np.where(kind == LINEAR, np.nan, np.clip(chance, 0, 1)),
        notes=tuple(notes),
    )


def visible(table: ScoreTable, observed: np.ndarray | None) -> np.ndarray:
    """Cells with a score that may be seen, (model, benchmark)."""
    scored = np.isfinite(table.scores)
    return np.asarray(scored if observed is None else scored & observed)


def _within(values: np.ndarray, limits: tuple[float, float]) -> bool:
    return bool(((values >= limits[0]) & (values <= limits[1])).all())


def _is_percent(scores: np.ndarray, declared: np.ndarray) -> bool:
    """Whether undeclared columns that could be percent are: half of them have scores above 1.5."""
    highest = np.where(np.isfinite(scores), scores, -np.inf).max(axis=0, initial=-np.inf)
    lowest = np.where(np.isfinite(scores), scores, np.inf).min(axis=0, initial=np.inf)
    could = (
        np.isfinite(highest)
        & (lowest >= PERCENT[0])
        & (highest <= PERCENT[1])
        & ~np.isfinite(declared).all(axis=1)
    )
    return bool(could.any() and np.median(highest[could]) > FRACTION)


def _extremes(y: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.where(seen, y, np.inf).min(axis=0, initial=np.inf)
    high = np.where(seen, y, -np.inf).max(axis=0, initial=-np.inf)
    return np.clip(np.where(np.isfinite(low), low, 0.0), 0, 1), np.clip(
        np.where(np.isfinite(high), high, 1.0), 0, 1
    )


def _notes(table: ScoreTable, declared: np.ndarray, kind: np.ndarray, percent: bool) -> list[str]:
    notes = []
    guessed = ~np.isfinite(declared).all(axis=1) & (kind == LINK)
    if guessed.any():
        notes.append(
            f"{guessed.sum()} benchmarks without a declared range are taken for "
            f"{'percent' if percent else 'fractions'}."
        )
    linear = [b for b, k in zip(table.benchmark_names, kind, strict=True) if k == LINEAR]
    if linear:
        more = f" and {len(linear) - 5} more" if len(linear) > 5 else ""
        notes.append(
            f"Predicted without floor or ceiling, as no range is declared: {', '.join(linear[:5])}{more}."
        )
    return notes


def _count(
    kind: np.ndarray, seen: np.ndarray, trials: np.ndarray, declared: np.ndarray, table: ScoreTable,
    likelihood: Likelihood,
) -> list[str]:  # fmt: skip
    """Turn columns into counts, in place, where every observed cell says how many instances it has."""
    unit = np.isfinite(declared).all(axis=1) & (kind == LINK)
    known = (np.isfinite(trials) | ~seen).all(axis=0) & seen.any(axis=0)
    fraction = np.where(seen, table.scores, 0.0)
    inside = ((fraction >= 0) & (fraction <= 1)).all(axis=0) & (declared == [0.0, 1.0]).all(axis=1)
    counted = unit & known & inside & table.benchmarks["higher_is_better"].to_numpy(dtype=bool)
    kind[counted] = BETA_BINOMIAL if likelihood == "beta-binomial" else BINOMIAL
    if counted.all():
        return []
    return [
        f"{(~counted).sum()} of {len(counted)} benchmarks have no instance counts on a range from 0 to 1: "
        "Student noise for those."
    ]
