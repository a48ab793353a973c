"""From draws to centres and intervals, and the words that say what they are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from factorlab.errors import InputError
from factorlab.inference.solution import FactorSolution

METHODS = {"pca": "PCA", "ml": "ML factor analysis", "bayes": "Bayes", "truth": "truth"}


class Interval(NamedTuple):
    """Mean over draws and the bounds of an interval; NaN bounds for a single draw.

    Attributes
    ----------
    mean, lower, upper : ndarray
    """

    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def take(self, keep: np.ndarray) -> Interval:
        return Interval(self.mean[keep], self.lower[keep], self.upper[keep])


def interval(draws: np.ndarray, level: float = 0.94) -> Interval:
    """Equal-tailed interval along the first axis; not finite draws are left out.

    Parameters
    ----------
    draws : ndarray, (draw, ...)
    level : float
        1 gives the range.
    """
    check_level(level)
    ends = [(1 - level) / 2, (1 + level) / 2]
    finite = np.isfinite(draws)
    if len(draws) > 1 and finite.all():  # five times faster than leaving out what is not finite
        return Interval(draws.mean(axis=0), *np.quantile(draws, ends, axis=0))
    values = np.where(finite, draws, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any finite draw stay NaN
        mean = np.nanmean(values, axis=0)
        if len(values) < 2:
            return Interval(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
        lower, upper = np.nanquantile(values, ends, axis=0)
    return Interval(mean, lower, upper)


def check_level(level: float) -> None:
    if not 0 < level <= 1:
        raise InputError(
            f"level {level} is no probability of an interval; give one between 0 and 1, e.g. 0.94"
        )


def solution_interval(solution: FactorSolution, name: str, level: float = 0.94) -> Interval:
    """Interval of one variable of a solution; the range where each draw leaves something out."""
    return interval(solution.stacked(name), 1.0 if leaves_out(solution) else level)


def leaves_out(solution: FactorSolution) -> bool:
    return solution.kind == "resample" and str(solution.extra.get("scheme", "")).startswith("leave-one")


def describe(solution: FactorSolution, level: float = 0.94) -> str:
    """Method and kind of interval, e.g. "Bayes, 94 % interval"."""
    name = METHODS.get(solution.method, solution.method)
    return f"{name}, {interval_words(solution, level)}" if solution.n_draws > 1 else name


def interval_words(solution: FactorSolution, level: float = 0.94) -> str:
    """What the bars are: "94 % interval", "range, leave one model out", ..."""
    if solution.n_draws < 2:
        return "one draw, no interval"
    if leaves_out(solution):
        return f"range, {solution.extra['scheme'].replace('-', ' ')}"
    what = f"{100 * level:g} % interval"
    return f"{what} ({solution.extra['scheme']})" if solution.kind == "resample" else what


def is_identified(solution: FactorSolution, factor: int) -> bool:
    """False where the solution says that the data do not fix this axis."""
    told = list(solution.extra.get("identified", []))
    return bool(told[factor]) if factor < len(told) else True


def factor_index(solution: FactorSolution, factor: str) -> int:
    """Position of a factor.

    Raises
    ------
    InputError
        When the solution has no such factor.
    """
    if factor not in solution.factors:
        raise InputError(f"no factor '{factor}' in this solution; it has {', '.join(solution.factors)}")
    return solution.factors.index(factor)


def choose_factors(solution: FactorSolution, factors: Sequence[str] | None) -> list[int]:
    """Positions of the factors asked for; all of them when none is named."""
    return [factor_index(solution, f) for f in (solution.factors if factors is None else factors)]


def same_labels(first: Sequence[str], second: Sequence[str], what: str) -> list[str]:
    """Labels that both have, in the order of the first.

    Raises
    ------
    InputError
        When there are none.
    """
    shared = [name for name in first if name in set(second)]
    if not shared:
        raise InputError(f"the solutions share no {what}; give two fits of the same table")
    return shared


def horizontal_bars(
    axes: Axes,
    shown: Interval,
    rows: np.ndarray,
    colour: str,
    marker: str = "o",
    label: str = "",
    size: float = 4.5,
) -> None:
    """Points with horizontal intervals, one a row."""
    bars = np.isfinite(shown.lower) & np.isfinite(shown.upper)
    axes.hlines(rows[bars], shown.lower[bars], shown.upper[bars], color=colour, linewidth=1.4, alpha=0.75)
    axes.plot(
        shown.mean, rows, linestyle="none", marker=marker, markersize=size, color=colour,
        markeredgecolor="white", markeredgewidth=0.4, label=label or None,
    )  # fmt: skip
