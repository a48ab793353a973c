"""Draws of two solutions put on one scale, paired, and measured against each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from factorlab.inference.identify import congruence, match, principal_angles, procrustes
from factorlab.inference.solution import FactorSolution

Align = Literal["match", "procrustes"]

MEASURES = ("congruence", "rmse_loading", "rmse_score", "score_correlation")
"""What is measured of each factor, in the order of `Measured.values`."""

_PAIRING_SEED = 0
_CHUNK_NUMBERS = 4_000_000  # numbers of one array held at once


class Matching(NamedTuple):
    """Which factors go together: index in the first, index in the second, sign; (common factor,)."""

    first: np.ndarray
    second: np.ndarray
    sign: np.ndarray


class Measured(NamedTuple):
    """Paired draws on one scale.

    Attributes
    ----------
    first, second : ndarray, (pair, benchmark, factor)
        Loadings.
    values : dict of str to ndarray, (pair, factor)
        Of the names in `MEASURES`.
    angles : ndarray, (pair, angle)
        Cosines.
    """

    first: np.ndarray
    second: np.ndarray
    values: dict[str, np.ndarray]
    angles: np.ndarray


def common_models(first: FactorSolution, second: FactorSolution) -> list[str]:
    """Models with an ability in both; complete-case fits leave some without."""
    have = [
        {
            str(m)
            for m, ok in zip(s.models, np.isfinite(s.stacked("ability")).all(axis=(0, 2)), strict=True)
            if ok
        }
        for s in (first, second)
    ]
    return [m for m in first.models if m in have[0] and m in have[1]]


def scale_ratio(first: FactorSolution, second: FactorSolution, benchmarks: list[str]) -> np.ndarray:
    """Standard deviation of scores that the second was fitted with over that of the first, (benchmark,)."""
    scales = [s.constants["scale"].sel(benchmark=benchmarks).values for s in (first, second)]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = scales[1] / scales[0]
    return np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0)


def _rows(names: list[str], wanted: list[str]) -> np.ndarray:
    return pd.Index(names).get_indexer(pd.Index(wanted))


def match_factors(
    first: FactorSolution, second: FactorSolution, benchmarks: list[str], scale: np.ndarray
) -> Matching:
    """One linear assignment of mean loadings; the solution with fewer factors is the reference."""
    a = first.loading_mean().loc[benchmarks].to_numpy()
    b = second.loading_mean().loc[benchmarks].to_numpy() * scale[:, None]
    if b.shape[1] >= a.shape[1]:
        order, sign = match(b, a)
        return Matching(np.arange(a.shape[1]), order, sign)
    order, sign = match(a, b)
    back = np.argsort(order)
    return Matching(order[back], back, sign[back])


def measure(
    first: FactorSolution,
    second: FactorSolution,
    benchmarks: list[str],
    models: list[str],
    scale: np.ndarray,
    matching: Matching,
    align: Align,
) -> Measured:
    """Loadings and measures of agreement of every pair of draws."""
    eye = np.eye(len(matching.sign))
    sides = (
        _Picked(first, _rows(first.benchmarks, benchmarks), _rows(first.models, models), matching.first, eye),
        _Picked(
            second, _rows(second.benchmarks, benchmarks), _rows(second.models, models), matching.second,
            eye * matching.sign,
        ),
    )  # fmt: skip
    apart = align == "procrustes"
    row = max(len(models), len(benchmarks)) * len(eye)
    if apart:
        sides = (sides[0], sides[1]._replace(turn=_rotation(sides, scale, row)))
    pieces = []
    for pairs in _pairs(first.n_draws, second.n_draws, row):
        one = _on_scale(sides[0], pairs[0], apart)
        two = _on_scale(sides[1], pairs[1], apart)
        loading = two[0] * scale[:, None]
        pieces.append((one[0], loading, *_agreement(one, (loading, two[1]))))
    joined = [np.concatenate(part) for part in zip(*pieces, strict=True)]
    return Measured(joined[0], joined[1], dict(zip(MEASURES, joined[2:6], strict=True)), joined[6])


class _Picked(NamedTuple):
    """A solution with the rows of its benchmarks and models, its factors, and how they are turned."""

    solution: FactorSolution
    benchmarks: np.ndarray
    models: np.ndarray
    factors: np.ndarray
    turn: np.ndarray


def _rotation(sides: tuple[_Picked, _Picked], scale: np.ndarray, row: int) -> np.ndarray:
    """Signs, then the rotation of the second's mean loadings that is nearest to the first's."""
    means = []
    for side in sides:
        n = side.solution.n_draws
        total = sum(_on_scale(side, index, True)[0].sum(axis=0) for index, _ in _pairs(n, 1, row))
        means.append(total / n)
    return sides[1].turn @ procrustes(means[1] * scale[:, None], means[0])


def _pairs(n_first: int, n_second: int, row: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of paired draws, in chunks; the shorter list is gone through again, all draws enter."""
    n = max(n_first, n_second)
    rng = np.random.default_rng(_PAIRING_SEED)
    other = rng.permutation(np.arange(n) % n_second) if n_first > 1 else np.arange(n) % n_second
    step = max(1, _CHUNK_NUMBERS // row)
    for start in range(0, n, step):
        index = np.arange(start, min(start + step, n))
        yield index % n_first, other[index]


def _on_scale(side: _Picked, draws: np.ndarray, decorrelate: bool) -> tuple[np.ndarray, np.ndarray]:
    """Loadings (pair, benchmark, factor) and abilities (pair, model, factor), sd 1 over the models.

    Decorrelated by the symmetric root of the abilities' correlation, which moves the axes least.
    """
    loading = side.solution.stacked("loading")[draws][:, side.benchmarks][:, :, side.factors]
    ability = side.solution.stacked("ability")[draws][:, side.models][:, :, side.factors]
    if len(side.models) < 2:
        return loading @ side.turn, np.full_like(ability, np.nan)
    ability = ability - ability.mean(axis=1, keepdims=True)
    spread = ability.std(axis=1, keepdims=True)
    spread = np.where(spread > 0, spread, 1.0)
    loading, ability = loading * spread, ability / spread
    if decorrelate:
        value, vector = np.linalg.eigh(np.swapaxes(ability, 1, 2) @ ability / ability.shape[1])
        root = np.sqrt(np.maximum(value, 1e-9))[:, None, :]
        back = np.swapaxes(vector, 1, 2)
        loading, ability = loading @ ((vector * root) @ back), ability @ ((vector / root) @ back)
    return loading @ side.turn, ability @ side.turn


def _agreement(
    one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Congruence, RMSE of loadings and of scores, correlation of scores, cosines of angles."""
    (a, s), (b, t) = one, two
    if not s.shape[1]:
        s = t = np.full((len(a), 1, a.shape[2]), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (
            congruence(a, b),
            np.sqrt(((b - a) ** 2).mean(axis=1)),
            np.sqrt(((t - s) ** 2).mean(axis=1)),
            (s * t).mean(axis=1),
            principal_angles(a, b),
        )
