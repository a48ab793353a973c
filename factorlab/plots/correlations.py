"""Correlations between benchmarks."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from factorlab.inference.pca import Correlation, benchmark_correlations
from factorlab.plots.style import benchmark_names, caption, new_figure, styled
from factorlab.scores import ScoreTable

NUMBERS_UP_TO = 30
"""Cells of larger tables are too small for numbers."""


@styled
def correlation_heatmap(table: ScoreTable, *, method: Correlation = "pearson") -> Figure:
    """Correlation of each pair of benchmarks over the models that have both.

    Parameters
    ----------
    table : ScoreTable
    method : {"pearson", "spearman"}
    """
    correlation = benchmark_correlations(table, method).to_numpy(dtype=float)
    n = len(correlation)
    names = benchmark_names(table.benchmark_names, table, 22)
    side = max(3.4, min(0.36 * n, 16.0))
    figure = new_figure(side + 2.6, side + 1.7, f"Correlations of benchmarks ({method.capitalize()})")
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(correlation), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_facecolor("#d9d9d9")
    axes.spines[:].set_visible(False)
    size = 8.0 if n <= NUMBERS_UP_TO else max(3.5, 8.0 * 0.8 * side / (0.36 * n))
    label_cells(axes, names.labels, names.labels, names.colours, names.colours, size)
    if n <= NUMBERS_UP_TO:
        write_numbers(axes, correlation, np.abs(correlation) > 0.65)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30)
    bar.set_label(f"{method.capitalize()} correlation over {_pairs(table)} models")
    caption(figure, names.legend)
    return figure


def _pairs(table: ScoreTable) -> str:
    """How many models a pair of benchmarks has in common, "35" or "3 to 35"."""
    seen = np.isfinite(table.scores).astype(int)
    common = seen.T @ seen
    low, high = int(common.min()), int(common.max())
    return str(high) if low == high else f"{low} to {high}"


def label_cells(
    axes: Axes,
    columns: list[str],
    rows: list[str],
    column_colours: list[str],
    row_colours: list[str],
    size: float = 8.0,
) -> None:
    """Names of the columns and rows of a heatmap, each in its colour."""
    axes.set_xticks(
        range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor", fontsize=size
    )
    axes.set_yticks(range(len(rows)), rows, fontsize=size)
    axes.tick_params(length=0)
    for text, colour in zip(axes.get_xticklabels(), column_colours, strict=True):
        text.set_color(colour)
    for text, colour in zip(axes.get_yticklabels(), row_colours, strict=True):
        text.set_color(colour)


def write_numbers(axes: Axes, values: np.ndarray, dark: np.ndarray, size: float = 6.5) -> None:
    """Two decimals in each cell, white on dark cells; nothing where missing."""
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = (
                f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("0.", ".", 1)
                if abs(value) < 0.995
                else f"{value:.0f}"
            )
            axes.text(
                j, i, text.replace("-", "−"), ha="center", va="center", fontsize=size,
                color="white" if dark[i, j] else "#222222", in_layout=False,
            )  # fmt: skip
