"""Abilities and training budgets: what goes with what, and how surely."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import t as student

from factorlab.inference.budgets import BudgetRegression, correlation_interval
from factorlab.inference.joint_budgets import BILLIONS, correlate
from factorlab.inference.solution import FactorSolution
from factorlab.lineage import published_log10_budget
from factorlab.plots.intervals import (
    Interval,
    factor_index,
    interval,
    interval_words,
    is_identified,
    solution_interval,
)
from factorlab.plots.labels import name_points
from factorlab.plots.style import (
    FAINT,
    INK,
    Groups,
    caption,
    group_models,
    language_name,
    mark_not_identified,
    new_figure,
    short_names,
    styled,
)
from factorlab.scores import ScoreTable


class Rho(NamedTuple):
    """Correlation of ability and log budget; NaN bounds where none can be had."""

    value: float
    lower: float
    upper: float
    level: float
    n: int

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return f"rho unknown (n = {self.n})"
        bounds = f" [{self.lower:.2f}, {self.upper:.2f}]" if np.isfinite(self.lower) else ""
        share = f"{100 * self.level:g} %, " if bounds else ""
        return f"rho = {self.value:.2f}{bounds} ({share}n = {self.n})".replace("-", "−")


class BudgetPoints(NamedTuple):
    """Ability and log budget of each model.

    Attributes
    ----------
    x, y : ndarray, (draw, model)
        log10(N D_l), not finite where unknown or zero; ability, sd over models. One row for a point.
    published : ndarray of bool, (model,)
        Models whose budget is published: rho and the line are theirs.
    zero : ndarray of bool, (model,)
        Models without tokens of the language.
    """

    x: np.ndarray
    y: np.ndarray
    published: np.ndarray
    zero: np.ndarray


@styled
def ability_against_budget(
    solution: FactorSolution,
    table: ScoreTable,
    factor: str = "PC2",
    language: str = "ja",
    *,
    regression: BudgetRegression | None = None,
    by: str = "group",
    names: bool = True,
    level: float = 0.94,
) -> Figure:
    """A factor's ability against log10(parameters x tokens), with error bars both ways.

    From a posterior that holds token counts, bars and band are its draws: the band is that of the
    least-squares line of every draw over the models with a published budget. From other solutions the
    budget is the published one and the band is the confidence band of ordinary least squares.

    Parameters
    ----------
    solution : FactorSolution
    table : ScoreTable
        For the published budgets and the groups.
    factor : str
    language : str
        A language of the budgets, or "total".
    regression : BudgetRegression, optional
        Its rho is printed; without it rho is that of the draws, or Pearson's r with Fisher's interval.
    by : str
        Column of the models table.
    names : bool
        Write the models' names where there is room.
    level : float

    Raises
    ------
    InputError
        Unknown factor, or no budget of the language.
    """
    k = factor_index(solution, factor)
    points = budget_points(solution, table, factor, language)
    x = interval(points.x, level)
    shown = solution_interval(solution, "ability", level)
    y = Interval(*(part[:, k] for part in shown))
    rho = _printed(regression, factor, language) or rho_at_hand(points, level)
    groups = group_models(solution.models, table, by)
    figure = new_figure(8.6, 6.4)
    axes = _panel(figure, points, x, y, groups)
    band = _band(axes, points, level)
    axes.set_title(f"{factor} and the {_budget_name(language)} budget", fontsize=12)
    axes.set_title(str(rho), loc="right", fontsize=11)
    if not is_identified(solution, k):
        mark_not_identified(axes)
        axes.set_title(f"{rho}   {factor} is not identified", loc="right", fontsize=9, color="#6a6a6a")
    axes.set_xlabel(f"log10(parameters × {_budget_name(language)} tokens)")
    figure.axes[0].set_ylabel(f"{factor} ability (sd over models)")
    words = "One draw: no bars. An association, no cause."
    if solution.n_draws > 1:
        words = f"Bars: {interval_words(solution, level)}. An association, no cause, over the models at hand."
    aside = _aside(np.asarray(solution.models), ~np.isfinite(x.mean), points.zero, language)
    caption(figure, [*groups.legend(), *band, *_hollow(points)], f"{words}{aside}")
    if names:
        _names(axes, x, y, points.published, solution.models)
    return figure


def budget_points(solution: FactorSolution, table: ScoreTable, factor: str, language: str) -> BudgetPoints:
    """Draws of ability and log budget of the solution's models; see `BudgetPoints`.

    Raises
    ------
    InputError
        Unknown factor, or no budget of the language.
    """
    k = factor_index(solution, factor)
    given = published_log10_budget(table.models, language).reindex(solution.models).to_numpy(dtype=float)
    tokens = table.models[f"tokens_b_{language}"].reindex(solution.models).to_numpy(dtype=float)
    y = solution.stacked("ability")[:, :, k]
    x = np.broadcast_to(given, (1, len(given)))
    if "log10_tokens" in solution.draws and language in solution.draws["language"].values:
        place = [str(l) for l in solution.draws["language"].values].index(language)
        x = solution.stacked("log10_tokens")[:, :, place] + solution.stacked("log10_params") + BILLIONS
    nothing = tokens == 0 if len(x) == 1 else np.isneginf(x).all(axis=0)
    return BudgetPoints(np.where(np.isfinite(x), x, np.nan), y, np.isfinite(given), np.asarray(nothing))


def rho_at_hand(points: BudgetPoints, level: float) -> Rho:
    """Correlation over the models with a published budget, over the draws or with Fisher's interval."""
    x, y = _published(points)
    n = x.shape[1]
    if n < 3:
        return Rho(np.nan, np.nan, np.nan, level, n)
    if len(x) == 1:
        return Rho(*correlation_interval(x[0], y[0], level), level, n)
    r = correlate(y[:, :, None], x)[:, 0]
    lower, middle, upper = np.nanquantile(r, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return Rho(float(middle), float(lower), float(upper), level, n)


def _published(points: BudgetPoints) -> tuple[np.ndarray, np.ndarray]:
    """x and y (draw, model) of the models that count, as many draws of both."""
    keep = points.published & np.isfinite(points.x).all(axis=0) & np.isfinite(points.y).all(axis=0)
    draws = max(len(points.x), len(points.y))
    return tuple(  # type: ignore[return-value]
        np.broadcast_to(part[:, keep], (draws, int(keep.sum()))) for part in (points.x, points.y)
    )


def _printed(regression: BudgetRegression | None, factor: str, language: str) -> Rho | None:
    """The row of a regression that says how this factor goes with this budget."""
    if regression is None:
        return None
    rows = regression.table
    row = rows[(rows["factor"] == factor) & (rows["budget"] == language) & (rows["form"] == "at_hand")]
    if row.empty:
        return None
    one = row.iloc[0]
    value, lower, upper, level = (float(one[c]) for c in ("median", "lower", "upper", "level"))
    return Rho(value, lower, upper, level, int(one["n"]))


def _budget_name(language: str) -> str:
    return "total" if language == "total" else language_name(language)


def _panel(figure: Figure, points: BudgetPoints, x: Interval, y: Interval, groups: Groups) -> Axes:
    """Points with bars both ways; models without a place on the x axis stand in a strip at the left."""
    lost = ~np.isfinite(x.mean)
    if lost.any():
        both = (lost & points.zero).any() and (lost & ~points.zero).any()
        strip, axes = figure.subplots(1, 2, sharey=True, width_ratios=[0.18 if both else 0.09, 1])
        _strip(strip, lost, points.zero, y, groups)
        axes.tick_params(axis="y", left=False)
    else:
        axes = figure.subplots()
    axes.grid()
    for g, (colour, marker) in enumerate(zip(groups.colours, groups.markers, strict=True)):
        for known in (True, False):
            pick = (groups.member == g) & (points.published == known) & ~lost
            alpha = 0.6 if known else 0.3
            axes.hlines(y.mean[pick], x.lower[pick], x.upper[pick], color=colour, linewidth=1, alpha=alpha)
            axes.vlines(x.mean[pick], y.lower[pick], y.upper[pick], color=colour, linewidth=1, alpha=alpha)
            axes.plot(
                x.mean[pick], y.mean[pick], linestyle="none", marker=marker, markersize=6, color=colour,
                markerfacecolor=colour if known else "white", markeredgecolor="white" if known else colour,
                markeredgewidth=0.5 if known else 1.2,
            )  # fmt: skip
    _limits(axes, points, x)
    return axes


def _limits(axes: Axes, points: BudgetPoints, x: Interval) -> None:
    """Room for every point and for the bars of published budgets; latent ones may leave the panel."""
    ends = np.concatenate([x.mean, x.lower[points.published], x.upper[points.published]])
    ends = ends[np.isfinite(ends)]
    if len(ends):
        margin = 0.06 * max(np.ptp(ends), 0.5)
        axes.set_xlim(ends.min() - margin, ends.max() + margin)


def _strip(axes: Axes, lost: np.ndarray, zero: np.ndarray, y: Interval, groups: Groups) -> None:
    places = np.where(zero, 0.0, 1.0)
    for g, (colour, marker) in enumerate(zip(groups.colours, groups.markers, strict=True)):
        pick = lost & (groups.member == g)
        axes.vlines(places[pick], y.lower[pick], y.upper[pick], color=colour, linewidth=1, alpha=0.3)
        axes.plot(
            places[pick], y.mean[pick], linestyle="none", marker=marker, markersize=5.5, color=colour,
            markerfacecolor="white", markeredgewidth=1.2,
        )  # fmt: skip
    shown = [(0.0, "no\ntokens", zero[lost].any()), (1.0, "not\npublished", (~zero[lost]).any())]
    ticks = [(place, word) for place, word, some in shown if some]
    axes.set_xticks([place for place, _ in ticks], [word for _, word in ticks], fontsize=6.5)
    axes.set_xlim(ticks[0][0] - 0.6, ticks[-1][0] + 0.6)
    axes.grid(axis="y")
    axes.set_facecolor("#f5f5f5")


def _band(axes: Axes, points: BudgetPoints, level: float) -> list[Artist]:
    """Regression line and band over the range of published budgets; handles for the legend."""
    x, y = _published(points)
    if x.shape[1] < 3 or np.ptp(x.mean(axis=0)) == 0:
        return []
    grid = np.linspace(x.mean(axis=0).min(), x.mean(axis=0).max(), 100)
    dx = x - x.mean(axis=1, keepdims=True)
    slope = (dx * y).sum(axis=1) / (dx**2).sum(axis=1)
    lines = y.mean(axis=1)[:, None] + slope[:, None] * (grid - x.mean(axis=1)[:, None])
    if len(lines) > 1:
        lower, middle, upper = np.quantile(lines, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
        words = f"least-squares line of the draws, {100 * level:g} % band"
    else:
        middle = lines[0]
        free = x.shape[1] - 2
        rest = y[0] - y[0].mean() - slope[0] * dx[0]
        error = np.sqrt(
            (rest**2).sum() / free * (1 / x.shape[1] + (grid - x[0].mean()) ** 2 / (dx[0] ** 2).sum())
        )
        reach = student.ppf((1 + level) / 2, free) * error
        lower, upper = middle - reach, middle + reach
        words = f"least-squares line, {100 * level:g} % confidence band"
    axes.fill_between(grid, lower, upper, color="#bdbdbd", alpha=0.45, linewidth=0, zorder=0)
    axes.plot(grid, middle, color="#555555", linewidth=1.4, zorder=0.5)
    return [Patch(facecolor="#bdbdbd", alpha=0.6, edgecolor="#555555", label=words)]


def _hollow(points: BudgetPoints) -> list[Artist]:
    if points.published.all():
        return []
    word = "hollow: no published budget, not in rho"
    return [Line2D([], [], linestyle="none", marker="o", color=FAINT, markerfacecolor="white", label=word)]


def _aside(models: np.ndarray, lost: np.ndarray, zero: np.ndarray, language: str, most: int = 12) -> str:
    """Who stands in the strip at the left, in words."""
    out = ""
    for what, pick in ((f"No {_budget_name(language)} tokens", lost & zero), ("Not published", lost & ~zero)):
        names = short_names([str(m) for m in models[pick]], 30)
        if names:
            more = f" and {len(names) - most} more" if len(names) > most else ""
            out += f"\n{what}: {', '.join(names[:most])}{more}."
    return out


def _names(axes: Axes, x: Interval, y: Interval, published: np.ndarray, models: list[str]) -> None:
    """Names of the models, published budgets and far points first, off the bars where there is room."""
    place = x.mean
    spread = np.nanstd(place) if np.isfinite(place).any() else 0.0
    far = np.nan_to_num((place - np.nanmean(place)) / spread) if spread > 0 else np.zeros(len(place))
    order = np.lexsort((-(far**2 + np.nan_to_num(y.mean) ** 2), ~published))
    bars = [
        np.column_stack([x.lower, y.mean, x.upper, y.mean]),
        np.column_stack([place, y.lower, place, y.upper]),
    ]
    colours = [INK if known else FAINT for known in published]
    labels = short_names(models, 26)
    name_points(axes, place, y.mean, labels, colours, order=order, lines=np.concatenate(bars))
