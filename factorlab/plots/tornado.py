"""Tornado: how far one headline number moves under each change, the largest moves first."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from factorlab.errors import InputError
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

MOST_ROWS = 18

GROUPS = {
    "tokens": ("assumed token counts", PALETTE[4]),
    "lineage": ("a lineage left out", PALETTE[1]),
    "from scratch": ("other models or scores", PALETTE[3]),
    "zeros": ("other models or scores", PALETTE[3]),
    "pairs": ("another form of the model", PALETTE[2]),
    "budget": ("another form of the model", PALETTE[2]),
    "factors": ("another form of the model", PALETTE[2]),
}
"""Kind of a change to the words of the legend and the colour."""


@styled
def tornado_bars(rows: pd.DataFrame, headline: str, *, level: float = 0.94, most: int = MOST_ROWS) -> Figure:
    """Bars from the number as it is to the number after each change, the largest first.

    The band is the interval of the number as it is, thin lines are those after a change, and diamonds the two-step
    answer of PCA, with its own value as it is as a dashed line. A change whose fit did not converge, or whose
    axis is another one, is hatched.

    Parameters
    ----------
    rows : pandas.DataFrame
        As in `factorlab.tornado.Tornado`.
    headline : str
    level : float
        Probability of the intervals, for the legend.
    most : int
        Changes that are shown.

    Raises
    ------
    InputError
        No such headline.
    """
    part = rows[(rows["headline"] == headline) & rows["median"].notna()]
    if part.empty:
        known = ", ".join(dict.fromkeys(rows["headline"]))
        raise InputError(f"no headline '{headline}' in this tornado; it has {known}")
    method = "bayes" if (part["method"] == "bayes").any() else "pca"
    main = part[part["method"] == method].reset_index(drop=True)
    shown, hidden = main.head(most), main.iloc[most:]
    words = "joint posterior" if method == "bayes" else "two-step PCA"
    figure = new_figure(
        8.6, 1.9 + 0.25 * crowding(len(shown)) * len(shown), f"{headline}: what moves it ({words})"
    )
    axes = figure.subplots()
    name_rows(axes, short_names([str(name) for name in shown["change"]], 44))
    base = main.iloc[0]
    if np.isfinite([base["base_low"], base["base_high"]]).all():
        axes.axvspan(
            base["base_low"], base["base_high"], color=PALETTE[5], alpha=0.18, linewidth=0, zorder=-2
        )
    axes.axvline(base["base_median"], color=INK, linewidth=1.2)
    place = np.arange(len(shown))
    troubled = shown["problem"].astype(bool).to_numpy()
    for doubtful in (False, True):
        pick = troubled == doubtful
        axes.barh(
            place[pick], shown["shift"][pick], left=shown["base_median"][pick], height=0.62,
            color=[GROUPS[kind][1] for kind in shown["kind"][pick]],
            hatch="////" if doubtful else None, edgecolor="white" if doubtful else "none", linewidth=0,
        )  # fmt: skip
    axes.hlines(place, shown["low"], shown["high"], color=INK, linewidth=0.9)
    handles = _handles(shown, base, level, bool(troubled.any()))
    if method == "bayes":
        handles += _beside(axes, part[part["method"] == "pca"], shown)
    axes.set_xlabel(f"{headline}{_unit(headline)}")
    note = "Rows: one change at a time, everything fitted again; the largest moves first."
    if len(hidden):
        note += f" The other {len(hidden)} changes move it by {hidden['shift'].abs().max():.3f} at most."
    caption(figure, handles, note)
    return figure


def _unit(headline: str) -> str:
    if headline.startswith("slope"):
        return " (sd of ability per factor of ten)"
    if headline.startswith("loading"):
        return " (sd of the score per sd of ability)"
    return ""


def _handles(shown: pd.DataFrame, base: pd.Series, level: float, troubled: bool) -> list[Line2D | Patch]:
    kinds = dict.fromkeys(GROUPS[kind] for kind in GROUPS if kind in set(shown["kind"]))
    out: list[Line2D | Patch] = [Patch(facecolor=colour, label=words) for words, colour in kinds]
    out.append(Line2D([], [], color=INK, linewidth=1.2, label="as it is"))
    if np.isfinite(base["base_low"]):
        out.append(Patch(facecolor=PALETTE[5], alpha=0.3, label=f"{100 * level:g} % interval of it"))
    if shown["low"].notna().any():
        out.append(
            Line2D([], [], color=INK, linewidth=0.9, label=f"{100 * level:g} % interval after the change")
        )
    if troubled:
        words = "not converged, or another axis"
        out.append(Patch(facecolor=FAINT, hatch="////", edgecolor="white", label=words))
    return out


def _beside(axes: Axes, pca: pd.DataFrame, shown: pd.DataFrame) -> list[Line2D]:
    """PCA's answers as diamonds; its own base as a dashed line."""
    if pca.empty:
        return []
    values = pca.set_index("change")["median"].reindex(shown["change"]).to_numpy()

    def diamonds(x: list[float] | np.ndarray, y: list[float] | np.ndarray) -> Line2D:
        return Line2D(
            x, y, linestyle="none", marker="D", markersize=4, markerfacecolor="white", color=FAINT,
            zorder=5, label="two-step PCA",
        )  # fmt: skip

    axes.add_line(diamonds(values, np.arange(len(values))))
    axes.axvline(float(pca["base_median"].iloc[0]), color=FAINT, linewidth=1.0, linestyle="--", zorder=-1)
    axes.autoscale_view(scaley=False)
    dashed = Line2D([], [], color=FAINT, linewidth=1.0, linestyle="--", label="two-step PCA, as it is")
    return [diamonds([], []), dashed]
