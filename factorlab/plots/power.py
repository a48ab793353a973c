"""Power: the chance to tell against the number of models, and the size of the rule below it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from factorlab.plots.style import FAINT, MARKERS, PALETTE, caption, new_figure, styled
from factorlab.power import PowerStudy

MOST_PANELS = 4


@styled
def power_curves(study: PowerStudy) -> Figure:
    """A panel a budget error; a line for each number of benchmarks and instances, with Wilson bands.

    Above the chance to tell what is true; below how often a difference is found where there is none (the dashed
    line is what the level says), or how often too many factors are.

    Parameters
    ----------
    study : PowerStudy
    """
    o, rows = study.options, study.settings
    errors = list(dict.fromkeys(rows["token_log_sd"]))[:MOST_PANELS]
    lines = rows[["benchmarks", "instances"]].drop_duplicates()
    title = (
        f"Chance to tell rho(PC{o.factor + 1}, {o.first}) from rho(PC{o.factor + 1}, {o.second})"
        if o.question == "difference"
        else f"Chance to find {o.factors} factors"
    )
    figure = new_figure(max(6.4, 2.2 + 3.1 * len(errors)), 5.6, title)
    axes = figure.subplots(2, len(errors), squeeze=False, sharex=True, sharey="row", height_ratios=[1.7, 1])
    for column, error in enumerate(errors):
        part = rows[rows["token_log_sd"] == error]
        for k, (_, line) in enumerate(lines.iterrows()):
            same = (
                part["instances"].isna()
                if pd.isna(line["instances"])
                else part["instances"] == line["instances"]
            )
            one = part[(part["benchmarks"] == line["benchmarks"]) & same].sort_values("models")
            aside = 0.012 * np.ptp(rows["models"]) * (k - (len(lines) - 1) / 2)
            _line(axes[0, column], one, ("share", "lower", "upper"), k, aside)
            low = ("size", "size_lower", "size_upper") if o.question == "difference" else ("too_many", "", "")
            _line(axes[1, column], one, low, k, aside)
        _frame(axes[0, column], axes[1, column], error, column == 0, study)
    note = f"Rule: {study.rule}. {o.simulations} tables each; bands: {100 * o.level:g} % Wilson intervals. Dotted: 0.8."
    if o.question == "difference":
        note += f" Dashed: the {100 * (1 - o.level):g} % that the level says."
    if len(set(rows["token_log_sd"])) > MOST_PANELS:
        note += (
            f" Other budget errors are in the table ({len(set(rows['token_log_sd'])) - MOST_PANELS} more)."
        )
    caption(figure, _legend(lines), note)
    return figure


def _line(axes: Axes, one: pd.DataFrame, columns: tuple[str, str, str], k: int, aside: float) -> None:
    colour, marker = PALETTE[k % len(PALETTE)], MARKERS[k % len(MARKERS)]
    x = one["models"].to_numpy() + aside  # beside each other where lines meet
    if columns[1]:
        lower, upper = (one[name].to_numpy(dtype=float) for name in columns[1:])
        axes.fill_between(x, lower, upper, color=colour, alpha=0.15, linewidth=0)
        axes.vlines(x, lower, upper, color=colour, linewidth=1)
    axes.plot(x, one[columns[0]], color=colour, marker=marker, markersize=5, linewidth=1.5)


def _frame(top: Axes, bottom: Axes, error: float, first: bool, study: PowerStudy) -> None:
    difference = study.options.question == "difference"
    top.set_title(f"error of log token counts {error:g}")
    top.set_ylim(-0.02, 1.02)
    top.axhline(0.8, color=FAINT, linewidth=0.8, linestyle=":")
    bottom.set_xlabel("models")
    ticks = sorted(set(study.settings["models"]))
    bottom.set_xticks(ticks if len(ticks) < 8 else ticks[:: len(ticks) // 6])
    for axes in (top, bottom):
        axes.grid()
    shown = "size_upper" if difference else "too_many"
    highest = float(np.nanmax(study.settings[shown].to_numpy(dtype=float), initial=0.1))
    bottom.set_ylim(0, min(1.0, 1.1 * max(highest, 0.15)))
    if difference:
        bottom.axhline(1 - study.options.level, color=FAINT, linewidth=1, linestyle="--")
    if first:
        top.set_ylabel(
            "share of tables in which\nit is told" if difference else "share of tables with\nthe right number"
        )
        bottom.set_ylabel("share without a\ndifference (size)" if difference else "share with\ntoo many")


def _legend(lines: pd.DataFrame) -> list[Line2D]:
    out = []
    for k, (_, line) in enumerate(lines.iterrows()):
        items = "" if pd.isna(line["instances"]) else f", {line['instances']:,.0f} instances each"
        label = f"{line['benchmarks']:.0f} benchmarks{items}"
        out.append(
            Line2D(
                [],
                [],
                color=PALETTE[k % len(PALETTE)],
                marker=MARKERS[k % len(MARKERS)],
                markersize=5,
                label=label,
            )
        )
    return out
