"""Outliers: residuals of every score by model, and the least probable scores beside their predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from factorlab.inference.floor import share_of_range
from factorlab.inference.outliers import Outliers
from factorlab.plots.labels import name_points
from factorlab.plots.style import (
    FAINT,
    INK,
    PALETTE,
    caption,
    crowding,
    name_rows,
    new_figure,
    short_names,
    styled,
)
from factorlab.scores import ScoreTable

MOST_MODELS = 60
MOST_CELLS = 16
MOST_NAMED = 30


@styled
def outlier_scores(outliers: Outliers, table: ScoreTable) -> Figure:
    """Left: residual of every score in standard deviations of its prediction, a row a model; right: the least
    probable scores as observed and as predicted without them.

    Models are in the order of their least probable score; flagged scores are named.

    Parameters
    ----------
    outliers : Outliers
    table : ScoreTable
        The table they are of.
    """
    cells = outliers.cells
    models = list(dict.fromkeys(cells["model"]))
    shown, hidden = models[:MOST_MODELS], models[MOST_MODELS:]
    top = cells.head(max(MOST_CELLS, min(int(cells["flagged"].sum()), 40)))
    tall = max(0.19 * crowding(len(shown)) * len(shown), 0.27 * len(top))
    figure = new_figure(11.0, 2.0 + tall, "Scores against what everything else says of them")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    _strip(left, cells[cells["model"].isin(shown)], shown)
    _beside(right, top, table)
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=3.5, color=FAINT, label="a score"),
        Line2D([], [], linestyle="none", marker="D", color=PALETTE[0], label="flagged"),
        Line2D([], [], linestyle="none", marker="o", color=INK, label="observed"),
        Line2D(
            [], [], marker="|", color=PALETTE[1], linewidth=3, alpha=0.5,
            label=f"predicted without it, {100 * cells['level'].iloc[0]:g} % interval",
        ),
    ]  # fmt: skip
    together = " and the benchmarks that share its items" if outliers.leave == "group" else ""
    note = f"Each score is predicted from the model's other scores, budgets and family, without it{together}."
    if (~cells["weighted"]).any():
        note += " Light bars: k-hat above 0.7, the fit has seen the score."
    if hidden:
        note += f" {len(hidden)} models whose scores are all more probable are not shown."
    if (top["reason"] == "zero").any():
        note += " An exact 0 is judged by the chance that a working evaluation gives exactly 0, not by its residual."
    caption(figure, handles, note)
    named = cells[cells["flagged"] & cells["model"].isin(shown)].head(MOST_NAMED)
    y = named["model"].map({model: n for n, model in enumerate(shown)}).to_numpy(dtype=float)
    texts = [str(name) for name in named["benchmark"]]
    # Last: placing names settles the layout.
    name_points(left, named["residual"].to_numpy(), y, texts, [PALETTE[0]] * len(named))
    return figure


def _strip(axes: Axes, cells: pd.DataFrame, models: list[str]) -> None:
    row = {model: n for n, model in enumerate(models)}
    y = cells["model"].map(row).to_numpy(dtype=float)
    x, flagged = cells["residual"].to_numpy(), cells["flagged"].to_numpy(dtype=bool)
    name_rows(axes, short_names(models))
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=-1)
    axes.plot(x[~flagged], y[~flagged], linestyle="none", marker="o", markersize=3, color=FAINT)
    axes.plot(x[flagged], y[flagged], linestyle="none", marker="D", markersize=5, color=PALETTE[0])
    axes.set_title("all scores, by model")
    axes.set_xlabel("observed less predicted (sd of the prediction)")
    reach = max(4.2, 1.12 * np.abs(x).max())
    axes.set_xlim(-reach, reach)


def _beside(axes: Axes, top: pd.DataFrame, table: ScoreTable) -> None:
    standard = table.standardised()
    shift, factor = share_of_range(table)
    place = [table.benchmark_names.index(b) for b in top["benchmark"]]

    def share(column: str) -> np.ndarray:
        z = standard.sign[place] * (top[column].to_numpy() - standard.location[place]) / standard.scale[place]
        return np.asarray(shift[place] + factor[place] * z)

    observed, predicted, one, other = map(share, ("observed", "predicted", "lower", "upper"))
    rows = np.arange(len(top))
    labels = [
        f"{m}, {b}: p {p:.4f}" if p >= 1e-4 else f"{m}, {b}: p {p:.0e}"
        for m, b, p in zip(short_names(list(top["model"]), 24), top["benchmark"], top["p"], strict=True)
    ]
    colours = [PALETTE[0] if f else INK for f in top["flagged"]]
    name_rows(axes, labels, colours)
    for weighted, alpha in ((True, 0.5), (False, 0.22)):
        pick = top["weighted"].to_numpy(dtype=bool) == weighted
        axes.hlines(rows[pick], one[pick], other[pick], color=PALETTE[1], linewidth=4, alpha=alpha)
    axes.plot(predicted, rows, linestyle="none", marker="|", markersize=8, color=PALETTE[1])
    for flagged, colour, marker in ((False, INK, "o"), (True, PALETTE[0], "D")):
        pick = top["flagged"].to_numpy(dtype=bool) == flagged
        axes.plot(
            observed[pick], rows[pick], linestyle="none", marker=marker, markersize=5, color=colour, zorder=4
        )
    axes.set_title(f"the {len(top)} least probable")
    axes.set_xlabel("score (share of the benchmark's range)")
