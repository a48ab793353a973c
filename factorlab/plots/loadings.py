"""Loadings: which benchmarks go with which factor, and how surely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from factorlab.errors import InputError
from factorlab.inference.solution import FactorSolution
from factorlab.plots.correlations import label_cells, write_numbers
from factorlab.plots.intervals import (
    Interval,
    choose_factors,
    describe,
    horizontal_bars,
    interval_words,
    is_identified,
    same_labels,
    solution_interval,
)
from factorlab.plots.style import (
    FAINT,
    INK,
    MARKERS,
    PALETTE,
    BenchmarkNames,
    benchmark_names,
    blank_rows,
    caption,
    crowding,
    mark_not_identified,
    name_rows,
    new_figure,
    short,
    styled,
)
from factorlab.scores import ScoreTable

SCALE = "loading (correlation of benchmark and ability)"
SOLUTION_COLOURS = (INK, PALETTE[2], PALETTE[3], PALETTE[4], PALETTE[5], PALETTE[1])


@styled
def loadings_heatmap(
    solution: FactorSolution, table: ScoreTable | None = None, *, level: float = 0.94
) -> Figure:
    """Mean loading of every benchmark on every factor.

    A dot marks a loading whose interval does not contain zero; a factor that is not identified is hatched.

    Parameters
    ----------
    solution : FactorSolution
    table : ScoreTable, optional
        For the languages of the benchmarks.
    level : float
    """
    shown = solution_interval(solution, "loading", level)
    names = benchmark_names(solution.benchmarks, table)
    n_rows, n_columns = shown.mean.shape
    figure = new_figure(
        3.6 + 0.8 * n_columns,
        2.0 + 0.24 * crowding(n_rows) * n_rows,
        f"Loadings: {describe(solution, level)}",
    )
    axes = figure.subplots()
    limit = max(1.0, float(np.nanmax(np.abs(shown.mean))))
    image = axes.imshow(shown.mean, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.spines[:].set_visible(False)
    size = 8 * crowding(n_rows)
    label_cells(axes, solution.factors, names.labels, [INK] * n_columns, names.colours, size)
    axes.set_xticks(range(n_columns), solution.factors, rotation=0, ha="center", fontsize=8)
    axes.xaxis.tick_top()
    sure, dark = shown.lower * shown.upper > 0, np.abs(shown.mean) > 0.65 * limit
    write_numbers(axes, shown.mean, dark, size)
    for pick, colour in ((sure & dark, "white"), (sure & ~dark, INK)):
        rows, columns = np.nonzero(pick)
        axes.plot(columns + 0.36, rows, linestyle="none", marker="o", markersize=2.6, color=colour)
    lost = [k for k in range(n_columns) if not is_identified(solution, k)]
    for k in lost:
        cover = Rectangle((k - 0.5, -0.5), 1, n_rows, facecolor="#ffffff90", edgecolor="#9a9a9a", hatch="///")
        cover.set_linewidth(0)
        axes.add_patch(cover)
    figure.colorbar(image, ax=axes, aspect=35).set_label(SCALE)
    words = [f"hatched: {solution.factors[k]} is not identified" for k in lost]
    if np.isfinite(shown.lower).any():
        words.insert(0, f"dot: the {interval_words(solution, level)} leaves out zero")
    caption(figure, names.legend, "; ".join(words))
    return figure


@styled
def loadings_forest(
    solutions: Sequence[FactorSolution],
    table: ScoreTable | None = None,
    *,
    factors: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    level: float = 0.94,
) -> Figure:
    """Loadings of several fits of one table side by side, with intervals where there are draws.

    Parameters
    ----------
    solutions : sequence of FactorSolution
        E.g. resampled PCA and a posterior. A factor is hatched when one of them does not identify it.
    table : ScoreTable, optional
        For the languages of the benchmarks.
    factors : sequence of str, optional
        All of the first solution's when not given.
    labels : sequence of str, optional
        Names of the solutions in the legend.
    level : float

    Raises
    ------
    InputError
        No solution, no benchmark in common, an unknown factor.
    """
    if not solutions:
        raise InputError("no solution to draw; give at least one")
    benchmarks = solutions[0].benchmarks
    for other in solutions[1:]:
        benchmarks = same_labels(benchmarks, other.benchmarks, "benchmark")
    chosen = [solutions[0].factors[k] for k in choose_factors(solutions[0], factors)]
    names = benchmark_names(benchmarks, table)
    figure, panels = _factor_panels(chosen, names, 0.15 * max(2, len(solutions)), "Loadings")
    words = list(labels) if labels is not None else [describe(s, level) for s in solutions]
    intervals = [_loading(s, benchmarks, level) for s in solutions]
    for axes, factor in zip(panels, chosen, strict=True):
        for s, solution in enumerate(solutions):
            if factor in solution.factors:
                offset = ((s + 0.5) / len(solutions) - 0.5) * 0.7
                k = solution.factors.index(factor)
                shown = Interval(*(part[:, k] for part in intervals[s]))
                rows = np.arange(len(benchmarks)) + offset
                horizontal_bars(axes, shown, rows, SOLUTION_COLOURS[s % 6], MARKERS[s % len(MARKERS)])
        if not all(is_identified(s, s.factors.index(factor)) for s in solutions if factor in s.factors):
            mark_not_identified(axes)
    handles = [
        Line2D(
            [], [], color=SOLUTION_COLOURS[s % 6], marker=MARKERS[s % len(MARKERS)], markersize=5, label=word
        )
        for s, word in enumerate(words)
    ]
    caption(figure, [*handles, *names.legend], "Loading: correlation of benchmark and ability.")
    return figure


@styled
def leave_one_out_loadings(
    resample: FactorSolution, table: ScoreTable | None = None, *, factors: Sequence[str] | None = None
) -> Figure:
    """Every loading with each model, or each lineage, left out in turn; the most telling one is named.

    Parameters
    ----------
    resample : FactorSolution
        ``kind="resample"`` with ``extra["left_out"]``, from `factorlab.inference.pca.resample_pca`.
    table : ScoreTable, optional
    factors : sequence of str, optional

    Raises
    ------
    InputError
        When the solution is not a resample.
    """
    left_out = resample.extra.get("left_out")
    if resample.kind != "resample" or left_out is None:
        raise InputError(
            f"leave-one-out loadings need a resampled fit, this one is of kind '{resample.kind}'; "
            "give the result of resample_pca"
        )
    lineages = resample.extra.get("left_out_lineage") or [None] * len(left_out)
    chosen = choose_factors(resample, factors)
    names = benchmark_names(resample.benchmarks, table)
    scheme = str(resample.extra.get("scheme", "resample")).replace("-", " ")
    title = f"PCA loadings, {scheme} ({resample.n_draws} fits)"
    figure, panels = _factor_panels([resample.factors[k] for k in chosen], names, 0.26, title)
    loading = resample.stacked("loading")
    for axes, k in zip(panels, chosen, strict=True):
        draws = loading[:, :, k]
        far = np.unravel_index(np.argmax(np.abs(draws - np.median(draws, axis=0))), draws.shape)
        who = lineages[far[0]] or ", ".join(map(str, left_out[far[0]]))
        rows = np.arange(draws.shape[1])
        places = np.tile(rows, len(draws))
        axes.plot(
            draws.ravel(), places, linestyle="none", marker="|", markersize=7, color=PALETTE[1], alpha=0.35
        )
        mean, sd = draws.mean(axis=0), draws.std(axis=0)
        axes.hlines(rows, mean - sd, mean + sd, color=INK, linewidth=2.2)
        axes.plot(mean, rows, linestyle="none", marker="o", markersize=3.5, color=INK)
        axes.plot(draws[far], far[1], marker="o", markersize=9, markerfacecolor="none", color=PALETTE[0])
        axes.set_title(f"without {short(who, 26)}", loc="right", fontsize=7.5, color=PALETTE[0])
    note = (
        "Black: mean ± 1 sd over the fits. Blue: one fit each. Ring: the largest move, and who was left out."
    )
    caption(figure, names.legend, f"Loading: correlation of benchmark and ability. {note}")
    return figure


def _loading(solution: FactorSolution, benchmarks: Sequence[str], level: float) -> Interval:
    """Of the benchmarks in their order, (benchmark, factor)."""
    rows = [solution.benchmarks.index(b) for b in benchmarks]
    return Interval(*(part[rows] for part in solution_interval(solution, "loading", level)))


def _factor_panels(
    factors: Sequence[str], names: BenchmarkNames, row: float, title: str
) -> tuple[Figure, list[Axes]]:
    """A panel a factor, a row a benchmark, zero marked."""
    n_rows = len(names.labels)
    figure = new_figure(1.9 + 2.5 * len(factors), 1.8 + max(0.24, row) * crowding(n_rows) * n_rows, title)
    panels = list(figure.subplots(1, len(factors), squeeze=False, sharex=True)[0])
    for axes, factor in zip(panels, factors, strict=True):
        name_rows(axes, names.labels, names.colours) if axes is panels[0] else blank_rows(axes, n_rows)
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.set_title(factor)
        axes.set_xlabel("loading")
    return figure, panels
