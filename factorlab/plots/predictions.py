"""Predicted scores: medians with raw and recalibrated intervals, beside what other models score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from factorlab.errors import InputError
from factorlab.inference.predict.prediction import Prediction
from factorlab.plots.style import (
    FAINT,
    INK,
    PALETTE,
    benchmark_names,
    blank_rows,
    caption,
    name_rows,
    new_figure,
    short,
    styled,
)

MOST_MODELS = 6
ROW = 0.27


@styled
def predictions_figure(prediction: Prediction, *, models: Sequence[str] | None = None) -> Figure:
    """A panel a model, a row a predicted benchmark: median, recalibrated and raw interval, other models' scores.

    Scores are shown as the fraction of each benchmark's range; benchmarks without one are standardised.

    Parameters
    ----------
    prediction : Prediction
    models : sequence of str, optional
        The first 6 predicted ones when not given.

    Raises
    ------
    InputError
        A model without a prediction.
    """
    cells = prediction.cells
    have = list(dict.fromkeys(cells["model"]))
    chosen = list(models) if models is not None else have[:MOST_MODELS]
    unknown = [m for m in chosen if m not in have]
    if unknown:
        raise InputError(f"'{unknown[0]}' has no predicted cell; predicted are {have}")
    table = prediction.mixture.table
    benchmarks = [b for b in table.benchmark_names if (cells["benchmark"] == b).any()]
    names = benchmark_names(benchmarks, table)
    width = 2.2 + 3.4 * len(chosen)
    figure = new_figure(max(width, 6.5), 1.7 + ROW * len(benchmarks), "Predicted scores")
    panels = figure.subplots(1, len(chosen), squeeze=False, sharex=True)[0]
    for axes, model in zip(panels, chosen, strict=True):
        if axes is panels[0]:
            name_rows(axes, names.labels, names.colours)
        else:
            blank_rows(axes, len(benchmarks))
        _panel(axes, prediction, model, benchmarks)
        beyond = cells.loc[cells["model"] == model, "extrapolates"].iloc[0]
        axes.set_title(short(model, 34) + ("\nbeyond what was seen" if beyond else ""), fontsize=9)
        axes.set_xlabel("score (fraction of the range)")
    percent = f"{100 * prediction.mixture.settings.level:.0f} %"
    recalibrated = prediction.mixture.calibration is not None
    wide = "recalibrated " if recalibrated else "raw "
    handles = [
        Line2D([], [], marker="o", color=PALETTE[1], lw=3, label=f"median and {wide}{percent} interval"),
        *([Line2D([], [], color=INK, lw=1, label=f"raw {percent} interval")] if recalibrated else []),
        Line2D([], [], marker="|", ls="", color=FAINT, label="scores of the other models"),
    ]
    caption(figure, handles, "Recalibrated on held-out cells of the table itself." if recalibrated else "")
    return figure


def _panel(axes: Axes, prediction: Prediction, model: str, benchmarks: list[str]) -> None:
    mixture = prediction.mixture
    columns, table = mixture.inputs.columns, mixture.table
    own = prediction.cells[prediction.cells["model"] == model]
    for y, name in enumerate(benchmarks):
        j = table.benchmark_names.index(name)
        seen = columns.y[np.isfinite(columns.y[:, j]), j]
        axes.plot(seen, np.full(len(seen), y), "|", color=FAINT, ms=6, mew=0.8, zorder=1)
        row = own[own["benchmark"] == name]
        if row.empty:
            continue
        at = np.array([j])
        low, high, raw_low, raw_high, median = (
            float(columns.from_scores(row[c].to_numpy(dtype=float), at)[0])
            for c in ("low", "high", "raw_low", "raw_high", "median")
        )
        axes.plot([low, high], [y, y], color=PALETTE[1], lw=3, alpha=0.75, solid_capstyle="butt", zorder=2)
        axes.plot([raw_low, raw_high], [y, y], color=INK, lw=0.9, zorder=3)
        axes.plot([median], [y], "o", color=PALETTE[1], mec="white", mew=0.6, ms=5, zorder=4)
