"""Calibration: cells of the training table hidden again, what the mixture says of them, and what follows.

Held-out training cells do two things: they weigh the members of the mixture (stacking), and they say by how much
raw intervals are too narrow or too wide (conformal recalibration). No cell that is to be predicted is used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CELL, MODEL = "cell", "model"

SHARE = 0.2
"""Of the observed cells, hidden in a split."""

MODEL_SHARE = 0.15
"""Of the models, hidden whole in a split where models without scores are to be predicted."""

TINY = 1e-9


class Split(NamedTuple):
    """Cells that are hidden.

    Attributes
    ----------
    hidden : ndarray of bool, (model, benchmark)
    whole : ndarray of bool, (model,)
        Models all of whose cells are hidden.
    """

    hidden: np.ndarray
    whole: np.ndarray


def draw_splits(
    observed: np.ndarray, n: int, *, seed: int, models: bool = False, share: float = SHARE,
    lineage: np.ndarray | None = None,
) -> list[Split]:  # fmt: skip
    """Random splits; each leaves every model that is not hidden whole at least one cell, and every benchmark too.

    Parameters
    ----------
    observed : ndarray of bool, (model, benchmark)
    n : int
    seed : int
    models : bool
        Hide some models whole.
    share : float
        Of the other models' cells that are hidden.
    lineage : ndarray, (model,), optional
        Hide whole lineages instead of single models: a model whose relatives have scores is predicted better
        than one of a lineage never seen, and says nothing of how sure that one is.
    """
    rng = np.random.default_rng(seed)
    scored = np.flatnonzero(observed.any(axis=1))
    out = []
    for _ in range(n):
        whole = np.zeros(len(observed), dtype=bool)
        if models:
            take = min(max(1, round(MODEL_SHARE * len(scored))), max(1, len(scored) - 2))
            whole[_choose_whole(scored, take, lineage, rng)] = True
        hidden = observed & (rng.random(observed.shape) < share)
        hidden[whole] = observed[whole]
        for i in np.flatnonzero(~whole & observed.any(axis=1)):
            if (hidden[i] == observed[i]).all():
                hidden[i, rng.choice(np.flatnonzero(observed[i]))] = False
        partial = ~whole[:, None] & observed
        for j in np.flatnonzero(observed.any(axis=0)):
            if (hidden[:, j] == observed[:, j]).all() and partial[:, j].any():
                hidden[rng.choice(np.flatnonzero(partial[:, j])), j] = False
        out.append(Split(hidden, whole))
    return out


def _choose_whole(
    scored: np.ndarray, take: int, lineage: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Models to hide whole: single ones, or lineages in random order until there are as many."""
    if lineage is None or len(np.unique(lineage[scored])) < 2:
        return np.asarray(rng.choice(scored, take, replace=False))
    chosen = np.zeros(0, dtype=int)
    for name in rng.permutation(np.unique(lineage[scored].astype(str))):
        own = scored[lineage[scored].astype(str) == name]
        if len(chosen) >= take:
            break
        if len(chosen) + len(own) <= len(scored) - 2:
            chosen = np.concatenate([chosen, own])
    return chosen


class HeldOut(NamedTuple):
    """Intervals of hidden cells beside what was there.

    Attributes
    ----------
    split : ndarray of int, (cell,)
    whole : ndarray of bool, (cell,)
        The cell's model was hidden whole.
    y, low, median, high : ndarray, (cell,)
        Score; raw equal-tailed interval.
    """

    split: np.ndarray
    whole: np.ndarray
    y: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray


class Calibration(NamedTuple):
    """By how much intervals of one level are to be widened.

    Attributes
    ----------
    level : float
    factor : dict of str to float
        For "cell" (the model has other scores) and "model" (it has none): each side of a raw interval is
        multiplied by this. NaN where nothing was held out.
    n : dict of str to int
        Held-out cells it rests on.
    raw_coverage, coverage : dict of str to float
        Of held-out cells by raw intervals; by intervals whose factor came from the other splits.
    """

    level: float
    factor: dict[str, float]
    n: dict[str, int]
    raw_coverage: dict[str, float]
    coverage: dict[str, float]


def nonconformity(held: HeldOut) -> np.ndarray:
    """Distance from the median in units of the interval's half on that side: at most 1 is covered, (cell,)."""
    above = held.y > held.median
    half = np.where(above, held.high - held.median, held.median - held.low)
    return np.abs(held.y - held.median) / np.maximum(half, TINY)


def conformal_factor(r: np.ndarray, level: float) -> float:
    """The ceil((n + 1) level)-th smallest of ``r``; NaN where n is too small for the level.

    References
    ----------
    Romano, Patterson & Candès 2019, Conformalized quantile regression, equation (8), scaled by the half-width.
    """
    rank = int(np.ceil((len(r) + 1) * level))
    return float(np.sort(r)[rank - 1]) if 1 <= rank <= len(r) else float("nan")


def calibrate(held: HeldOut, level: float) -> Calibration:
    """Factors from all splits, and the coverage of each split by the factors of the others."""
    r = nonconformity(held)
    factor, n, raw, cross = {}, {}, {}, {}
    for kind, chosen in ((CELL, ~held.whole), (MODEL, held.whole)):
        n[kind] = int(chosen.sum())
        factor[kind] = conformal_factor(r[chosen], level) if chosen.any() else float("nan")
        raw[kind] = float(np.mean(r[chosen] <= 1)) if chosen.any() else float("nan")
        inside = []
        for s in np.unique(held.split[chosen]):
            own, others = chosen & (held.split == s), chosen & (held.split != s)
            k = conformal_factor(r[others], level) if others.any() else float("nan")
            if np.isfinite(k):
                inside.append(r[own] <= k)
        cross[kind] = float(np.concatenate(inside).mean()) if inside else float("nan")
    return Calibration(level, factor, n, raw, cross)
