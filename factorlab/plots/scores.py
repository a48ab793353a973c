"""Raw scores: every model on every benchmark, by group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from factorlab.errors import InputError
from factorlab.plots.style import (
    FAINT,
    Groups,
    benchmark_names,
    caption,
    group_models,
    name_rows,
    new_figure,
    styled,
)
from factorlab.scores import ScoreTable

ROWS_A_COLUMN = 24
SPREAD = 20.0
"""Scores whose largest benchmark exceeds the smallest this many times are shown standardised."""


@styled
def scores_by_group(
    table: ScoreTable, *, benchmarks: Sequence[str] | None = None, by: str = "group"
) -> Figure:
    """Scores by benchmark and group of models; the area of a bubble is the number of parameters.

    Lines through the bubbles are plus and minus one standard error, the tick is the median of the group.
    Scores on very different scales are shown standardised.

    Parameters
    ----------
    table : ScoreTable
    benchmarks : sequence of str, optional
        All of them when not given.
    by : str
        Column of the models table.

    Raises
    ------
    InputError
        For a benchmark the table does not have.
    """
    chosen = _chosen(table, benchmarks)
    values, errors, xlabel = _values(table, chosen)
    groups = group_models(table.model_names, table, by)
    area = _bubble_area(table)
    columns = min(3, int(np.ceil(len(chosen) / ROWS_A_COLUMN)))
    parts = np.array_split(np.arange(len(chosen)), columns)
    row = max(0.3, 0.14 * len(groups.names))
    title = "Scores by group of models" if len(groups.names) > 1 else "Scores"
    figure = new_figure(1.5 + 6.4 * columns, 1.6 + row * len(parts[0]), title)
    panels = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
    names = benchmark_names([table.benchmark_names[j] for j in chosen], table)
    for axes, part in zip(panels, parts, strict=True):
        name_rows(axes, [names.labels[p] for p in part], [names.colours[p] for p in part])
        _bubbles(axes, values[:, part], errors[:, part], groups, area)
        axes.set_xlabel(xlabel)
    errors_known = (
        "Line: ± 1 standard error." if np.isfinite(errors).any() else "Standard errors are unknown."
    )
    tick = "Black tick: median of the group. " if len(groups.names) > 1 else ""
    caption(figure, [*groups.legend(), *names.legend, *_size_legend(table)], f"{tick}{errors_known}")
    return figure


def _chosen(table: ScoreTable, benchmarks: Sequence[str] | None) -> list[int]:
    names = table.benchmark_names
    for name in benchmarks or ():
        if name not in names:
            raise InputError(f"no benchmark '{name}' in table '{table.name}'; it has {', '.join(names)}")
    return [names.index(b) for b in benchmarks] if benchmarks is not None else list(range(len(names)))


def _values(table: ScoreTable, chosen: list[int]) -> tuple[np.ndarray, np.ndarray, str]:
    """Scores and errors (model, chosen), standardised where the scales differ too much for one axis."""
    scores, errors = table.scores[:, chosen], table.se[:, chosen]
    largest = np.nanmax(np.abs(scores), axis=0)
    if largest.max() <= SPREAD * max(largest.min(), 1e-12) or len(table.model_names) < 2:
        return scores, errors, "score (in the units of the metric)"
    standard = table.standardised()
    return standard.z[:, chosen], standard.z_se[:, chosen], "standardised score (sd over models)"


def _parameters(table: ScoreTable) -> pd.Series | None:
    if "params_b" not in table.models or table.scored_models["params_b"].isna().all():
        return None
    return table.scored_models["params_b"].astype(float)


def _bubble_area(table: ScoreTable) -> np.ndarray:
    """Marker area in points squared, (model,); 20 where the size is unknown."""
    size = _parameters(table)
    if size is None:
        return np.full(len(table.model_names), 20.0)
    return np.where(size.isna(), 20.0, 150.0 * size / size.max()).clip(6)


def _size_legend(table: ScoreTable) -> list[Line2D]:
    size = _parameters(table)
    if size is None:
        return []
    largest = float(size.max())
    smallest = max(float(size.min()), largest * 0.04)
    shown = dict.fromkeys([smallest, largest])
    return [
        Line2D(
            [], [], linestyle="none", marker="o", markerfacecolor="none", markeredgecolor=FAINT,
            markersize=float(np.sqrt(150.0 * b / largest)), label=f"{b:.3g} B parameters",
        )
        for b in shown
    ]  # fmt: skip


def _bubbles(axes: Axes, values: np.ndarray, errors: np.ndarray, groups: Groups, area: np.ndarray) -> None:
    """One band a group within each benchmark's row."""
    n_groups = len(groups.names)
    half = 0.42 / n_groups
    for g in range(n_groups):
        member = groups.member == g
        x, se = values[member], errors[member]
        row = np.arange(values.shape[1]) + ((g + 0.5) / n_groups - 0.5) * 0.84
        y = np.broadcast_to(row, x.shape)
        axes.hlines(
            y.ravel(), (x - se).ravel(), (x + se).ravel(), color=groups.colours[g], linewidth=0.7, alpha=0.5
        )
        axes.scatter(
            x.ravel(), y.ravel(), s=np.repeat(area[member], x.shape[1]), color=groups.colours[g],
            marker=groups.markers[g], alpha=0.45, edgecolor=groups.colours[g], linewidth=0.5,
        )  # fmt: skip
        several = np.isfinite(x).sum(axis=0) > 1
        if n_groups > 1 and several.any():
            middle = np.nanmedian(x[:, several], axis=0)
            axes.vlines(middle, row[several] - half, row[several] + half, color="black", linewidth=1.2)
