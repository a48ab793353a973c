"""Abilities of models: with intervals, against raw scores, as ranks and as differences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from factorlab.errors import InputError
from factorlab.inference.solution import FactorSolution
from factorlab.plots.intervals import (
    Interval,
    choose_factors,
    describe,
    factor_index,
    horizontal_bars,
    interval,
    interval_words,
    is_identified,
    leaves_out,
    solution_interval,
)
from factorlab.plots.style import (
    FAINT,
    INK,
    PALETTE,
    Groups,
    benchmark_names,
    blank_rows,
    caption,
    crowding,
    group_models,
    mark_not_identified,
    name_rows,
    new_figure,
    short_names,
    styled,
)
from factorlab.scores import ScoreTable

UNIT = "ability (sd over models)"
ROW = 0.19


@styled
def ability_intervals(
    solution: FactorSolution,
    table: ScoreTable | None = None,
    *,
    factors: Sequence[str] | None = None,
    by: str = "group",
    level: float = 0.94,
) -> Figure:
    """Ability of each model on each factor with its interval, by group, highest on the first factor on top.

    Parameters
    ----------
    solution : FactorSolution
    table : ScoreTable, optional
        For the groups.
    factors : sequence of str, optional
        All of them when not given.
    by : str
        Column of the models table.
    level : float
    """
    chosen = choose_factors(solution, factors)
    groups = group_models(solution.models, table, by)
    shown = solution_interval(solution, "ability", level)
    order = _grouped_order(shown.mean[:, chosen[0]], groups)
    figure = new_figure(
        2.6 + 2.5 * len(chosen),
        1.7 + ROW * crowding(len(order)) * len(order),
        f"Abilities: {describe(solution, level)}",
    )
    panels = figure.subplots(1, len(chosen), squeeze=False)[0]
    names = short_names([solution.models[i] for i in order])
    for axes, k in zip(panels, chosen, strict=True):
        name_rows(axes, names) if axes is panels[0] else blank_rows(axes, len(order))
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.set(title=solution.factors[k], xlabel=UNIT)
        _group_bars(axes, Interval(*(part[order, k] for part in shown)), groups, groups.member[order])
        for row in np.flatnonzero(np.diff(groups.member[order])):
            axes.axhline(row + 0.5, color=FAINT, linewidth=0.6)
        if not is_identified(solution, k):
            mark_not_identified(axes)
    caption(figure, groups.legend(), _remark(solution, level))
    return figure


@styled
def ability_against_scores(
    solution: FactorSolution,
    table: ScoreTable,
    factor: str,
    *,
    benchmarks: Sequence[str] | None = None,
    by: str = "group",
    level: float = 0.94,
) -> Figure:
    """A factor's ability against the raw scores of its benchmarks.

    Parameters
    ----------
    solution : FactorSolution
    table : ScoreTable
    factor : str
    benchmarks : sequence of str, optional
        The six with the largest loadings when not given.
    by : str
        Column of the models table.
    level : float

    Raises
    ------
    InputError
        An unknown factor or benchmark, or a solution of other models.
    """
    k = factor_index(solution, factor)
    chosen = _strongest(solution, k, benchmarks)
    rows, columns = _positions(solution.models, table.model_names), _positions(chosen, table.benchmark_names)
    groups = group_models(solution.models, table, by)
    shown = solution_interval(solution, "ability", level)
    ability = Interval(*(part[:, k] for part in shown))
    loading = solution.loading_mean()[factor]
    across = min(3, len(chosen))
    down = int(np.ceil(len(chosen) / across))
    figure = new_figure(
        max(4.5, 3.1 * across), 1.3 + 2.6 * down, f"{factor} and the scores of its benchmarks"
    )
    panels = figure.subplots(down, across, squeeze=False).ravel()
    names = benchmark_names(chosen, table)
    z = NormalDist().inv_cdf((1 + min(level, 0.999)) / 2)
    for axes, j, name in zip(panels, columns, chosen, strict=False):
        y, error = table.scores[rows, j], z * table.se[rows, j]
        crosses(axes, ability, Interval(y, y - error, y + error), groups)
        place = chosen.index(name)
        weight = f"{loading[name]:.2f}".replace("-", "−")
        axes.set_title(f"{names.labels[place]}  (loading {weight})", color=names.colours[place])
        axes.set(xlabel=f"{factor} {UNIT}", ylabel="score")
        axes.grid()
        if not is_identified(solution, k):
            mark_not_identified(axes)
    for axes in panels[len(chosen) :]:
        axes.remove()
    words = f"{interval_words(solution, level)} of the ability, " if solution.n_draws > 1 else ""
    bars = f"Bars: {words}{100 * level:g} % of the score's sampling error where it is known."
    caption(figure, [*groups.legend(), *names.legend], bars)
    return figure


@styled
def rank_intervals(
    solution: FactorSolution,
    factor: str,
    table: ScoreTable | None = None,
    *,
    by: str = "group",
    level: float = 0.94,
) -> Figure:
    """Rank of each model on one factor, over the draws; 1 is the ablest.

    Parameters
    ----------
    solution : FactorSolution
    factor : str
    table : ScoreTable, optional
        For the groups.
    by : str
        Column of the models table.
    level : float
    """
    k = factor_index(solution, factor)
    ability, models = _complete(solution, k)
    ranks = rankdata(-ability, axis=1, method="min")
    shown = interval(ranks, 1.0 if leaves_out(solution) else level)
    order = np.argsort(shown.mean, kind="stable")
    groups = group_models(models, table, by)
    title = f"Ranks on {factor}: {describe(solution, level)}"
    figure = new_figure(7.0, 1.7 + ROW * crowding(len(order)) * len(order), title)
    axes = figure.subplots()
    name_rows(axes, short_names([models[i] for i in order]))
    _group_bars(axes, shown.take(order), groups, groups.member[order])
    axes.set(xlabel=f"rank on {factor} (1 = highest ability)", xlim=(0, len(models) + 1))
    if not is_identified(solution, k):
        mark_not_identified(axes)
    caption(figure, groups.legend(), f"Point: mean rank. {_remark(solution, level)}".strip())
    return figure


@styled
def paired_differences(
    solution: FactorSolution, factor: str, *, models: Sequence[str] | None = None, level: float = 0.94
) -> Figure:
    """Which models differ: the difference to the next in order, and the probability of each pair's order.

    Parameters
    ----------
    solution : FactorSolution
    factor : str
    models : sequence of str, optional
        All of them when not given.
    level : float

    Raises
    ------
    InputError
        An unknown factor or model, or fewer than two models.
    """
    k = factor_index(solution, factor)
    ability, names = _complete(solution, k, models)
    if len(names) < 2:
        raise InputError(f"paired differences need two models, {len(names)} given; name more of them")
    order = np.argsort(-ability.mean(axis=0), kind="stable")
    ability, names = ability[:, order], short_names([names[i] for i in order])
    step = interval(ability[:, :-1] - ability[:, 1:], 1.0 if leaves_out(solution) else level)
    above = (ability[:, :, None] > ability[:, None, :]).mean(axis=0)
    side = max(2.6, ROW * crowding(len(names)) * len(names))
    figure = new_figure(6.6 + side, 2.6 + side, f"Who is ahead on {factor}: {describe(solution, level)}")
    left, right = figure.subplots(1, 2, width_ratios=[3.2, side])
    name_rows(left, names)
    clear = step.lower > 0
    for sure, colour in ((True, PALETTE[1]), (False, FAINT)):
        pick = clear == sure
        horizontal_bars(left, step.take(pick), np.flatnonzero(pick) + 0.5, colour)
    left.axvline(0, color=INK, linewidth=0.8)
    left.set(title="difference to the next below", xlabel=f"difference of {factor} {UNIT}")
    left.set_ylim(len(names) - 0.5, -0.5)
    _order_probabilities(figure, right, above, names)
    if not is_identified(solution, k):
        mark_not_identified(left)
    caption(figure, [], f"Left: {interval_words(solution, level)}, blue where it lies above zero.")
    return figure


def _order_probabilities(figure: Figure, axes: Axes, above: np.ndarray, names: list[str]) -> None:
    """Upper triangle: the lower one is its complement."""
    shown = np.ma.masked_array(above, np.tril(np.ones_like(above, dtype=bool)))
    image = axes.imshow(shown, cmap="Blues", vmin=0.5, vmax=1, aspect="auto")
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7.5 * crowding(len(names)))
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.set_title("probability that the row's model is above the column's")
    if len(names) <= 15:
        for i, j in zip(*map(np.ndarray.tolist, np.triu_indices(len(names), 1)), strict=True):
            colour = "white" if above[i, j] > 0.8 else INK
            axes.text(
                j,
                i,
                f"{above[i, j]:.2f}",
                ha="center",
                va="center",
                fontsize=6,
                color=colour,
                in_layout=False,
            )
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30)
    bar.set_label("share of draws; pale: the order is open")


def _complete(
    solution: FactorSolution, k: int, models: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Draws of one ability (draw, model), for the models that have one in every draw, and their names."""
    chosen = _positions(models, solution.models) if models is not None else list(range(len(solution.models)))
    ability = solution.stacked("ability")[:, chosen, k]
    whole = np.isfinite(ability).all(axis=0)
    return ability[:, whole], [solution.models[i] for i, ok in zip(chosen, whole, strict=True) if ok]


def _positions(names: Sequence[str], known: Sequence[str]) -> list[int]:
    place = {name: i for i, name in enumerate(known)}
    for name in names:
        if name not in place:
            raise InputError(
                f"'{name}' is not among {len(known)} names of the table or fit; give one of its own"
            )
    return [place[name] for name in names]


def _strongest(solution: FactorSolution, k: int, benchmarks: Sequence[str] | None) -> list[str]:
    if benchmarks is not None:
        _positions(benchmarks, solution.benchmarks)
        return list(benchmarks)
    size = np.abs(solution.stacked("loading")[:, :, k].mean(axis=0))
    return [solution.benchmarks[j] for j in np.argsort(-size, kind="stable")[:6]]


def _grouped_order(value: np.ndarray, groups: Groups) -> np.ndarray:
    """Groups in their order, within each the highest first; models without a value last."""
    return np.lexsort((-np.nan_to_num(value, nan=-np.inf), groups.member))


def _group_bars(axes: Axes, shown: Interval, groups: Groups, index: np.ndarray) -> None:
    for g, (colour, marker) in enumerate(zip(groups.colours, groups.markers, strict=True)):
        pick = index == g
        horizontal_bars(axes, shown.take(pick), np.flatnonzero(pick).astype(float), colour, marker)


def crosses(axes: Axes, x: Interval, y: Interval, groups: Groups) -> None:
    """Points with bars both ways, by group."""
    for g, (colour, marker) in enumerate(zip(groups.colours, groups.markers, strict=True)):
        pick = groups.member == g
        axes.hlines(y.mean[pick], x.lower[pick], x.upper[pick], color=colour, linewidth=0.8, alpha=0.5)
        axes.vlines(x.mean[pick], y.lower[pick], y.upper[pick], color=colour, linewidth=0.8, alpha=0.5)
        axes.plot(
            x.mean[pick], y.mean[pick], linestyle="none", marker=marker, markersize=4.5, color=colour,
            markeredgecolor="white", markeredgewidth=0.4,
        )  # fmt: skip


def _remark(solution: FactorSolution, level: float) -> str:
    words = interval_words(solution, level)
    return f"Bars: {words}." if solution.n_draws > 1 else f"{words[0].upper()}{words[1:]}."
