"""What each benchmark would tell of an ability, and where more instances stop helping."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from factorlab.inference.information import NextBenchmarks
from factorlab.plots.style import (
    FAINT,
    INK,
    MARKERS,
    PALETTE,
    benchmark_names,
    caption,
    crowding,
    name_rows,
    new_figure,
    short_names,
    styled,
)
from factorlab.scores import ScoreTable

MOST_ROWS = 40
MOST_CURVES = 5


@styled
def information_gain(found: NextBenchmarks, table: ScoreTable | None = None) -> Figure:
    """Information of every candidate with its interval, and curves of it against instances.

    On each curve a diamond marks where sampling variance equals unique variance: beyond it the unique noise
    of the benchmark is the larger part, and more instances tell little more.

    Parameters
    ----------
    found : NextBenchmarks
    table : ScoreTable, optional
        For the languages of the benchmarks.
    """
    rows = found.candidates.head(MOST_ROWS)
    who = "a new model" if found.model is None else f"'{found.model}'"
    left_height = 1.9 + 0.25 * crowding(len(rows)) * len(rows)
    figure = new_figure(11.5, max(4.2, left_height), f"What a benchmark tells of {found.ability} of {who}")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    names = benchmark_names(list(rows["benchmark"]), table)
    _forest(left, rows, names.labels, names.colours, found)
    _curves(right, found)
    handles = [
        Line2D([], [], color=INK, marker="o", markersize=5, label=f"mean, {100 * found.level:g} % interval"),
        Line2D([], [], color=FAINT, marker="|", linestyle="none", markersize=9, label="ceiling: instances without end"),
        Line2D(
            [], [], color=INK, marker="D", linestyle="none", markersize=6, markerfacecolor="white",
            label="sampling variance = unique variance",
        ),
        *names.legend,
    ]  # fmt: skip
    hidden = len(found.candidates) - len(rows)
    note = (
        f"1 nat makes the ability's standard deviation e = 2.7 times smaller (0.69: half). Best first, by "
        f"information{' per ' + found.cost_unit if found.by == 'cost' else ''}; intervals are of the posterior of "
        f"the parameters.{f' {hidden} more benchmarks are in the table.' if hidden else ''}"
    )
    caption(figure, handles, note)
    return figure


def _forest(
    axes: Axes, rows: pd.DataFrame, labels: list[str], colours: list[str], found: NextBenchmarks
) -> None:
    place = np.arange(len(rows))
    counts = [_count(n) for n in rows["n"]]
    sized = bool(rows["enough"].notna().any() or (rows["n"] > 1).any())
    name_rows(
        axes,
        [f"{label}  ({n})" if sized else label for label, n in zip(labels, counts, strict=True)],
        colours,
    )
    axes.plot(rows["ceiling"], place, linestyle="none", marker="|", markersize=9, color=FAINT)
    axes.hlines(place, rows["information_lower"], rows["information_upper"], color=INK, linewidth=1.4)
    axes.scatter(rows["information"], place, s=24, color=INK, zorder=3, clip_on=False)
    axes.set_xlim(left=0)
    axes.set_title("Run once" + (" (instances in brackets)" if sized else ""))
    axes.set_xlabel(f"information on {found.ability} (nats)")


def _curves(axes: Axes, found: NextBenchmarks) -> None:
    """The candidates that could tell most, by their ceilings."""
    chosen = found.candidates.nlargest(MOST_CURVES, "ceiling")
    labels = short_names(list(chosen["benchmark"]), 24)
    for k, (label, (_, row)) in enumerate(zip(labels, chosen.iterrows(), strict=True)):
        curve = found.curves[found.curves["benchmark"] == row["benchmark"]]
        n, colour = curve["n"].to_numpy(), PALETTE[k % len(PALETTE)]
        axes.fill_between(n, curve["lower"], curve["upper"], color=colour, alpha=0.13, linewidth=0)
        axes.plot(n, curve["information"], color=colour, linewidth=1.6, label=label)
        _mark(axes, row["n"], curve, colour, MARKERS[0], colour)
        known = 0.0 if np.isnan(row["n_known"]) else row["n_known"]
        _mark(axes, row["enough"] - known, curve, colour, "D", "white")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.grid()
    axes.set_title("More instances (dot: run once)")
    axes.set_xlabel(
        "instances run (log scale)" if found.model is None else "further instances run (log scale)"
    )
    axes.set_ylabel(f"information on {found.ability} (nats)")
    axes.legend(loc="upper left")


def _mark(axes: Axes, n: float, curve: pd.DataFrame, colour: str, marker: str, face: str) -> None:
    inside = np.isfinite(n) and curve["n"].min() <= n <= curve["n"].max()
    if inside:
        height = np.interp(np.log(n), np.log(curve["n"]), curve["information"])
        axes.plot(
            n, height, marker=marker, markersize=7 if marker == "D" else 6, color=colour,
            markerfacecolor=face, markeredgewidth=1.4, zorder=4,
        )  # fmt: skip


def _count(n: float) -> str:
    return f"{n:,.0f}"
