"""How far the headline correlations move when models are left out or drawn again."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from factorlab.errors import InputError
from factorlab.plots.intervals import METHODS
from factorlab.plots.style import (
    FAINT,
    INK,
    PALETTE,
    blank_rows,
    caption,
    crowding,
    name_rows,
    new_figure,
    short_names,
    styled,
)

MOST_PANELS = 4
MOST_ROWS = 60


@styled
def headline_moves(
    summary: pd.DataFrame, headlines: pd.DataFrame, *, scheme: str, method: str = "pca"
) -> Figure:
    """Headline rho's of every refit beside that of the whole table and its interval.

    A panel for each budget, with the factor that goes most closely with it. Left-out units are rows, those
    that move the panels most first; a bootstrap, whose samples have no names, is a histogram.

    Parameters
    ----------
    summary, headlines : pandas.DataFrame
        As in `factorlab.refits.Refits`.
    scheme : str
    method : str
        "pca", "ml" or "bayes", for the title.

    Raises
    ------
    InputError
        When there is no correlation with a budget.
    """
    chosen = choose_headlines(headlines)
    wide = summary.pivot(index="unit", columns="factor")
    values = np.column_stack([wide[f"rho_{row['budget']}", row["factor"]] for _, row in chosen.iterrows()])
    words = scheme.replace("-", " ").replace("kfold", "k-fold")
    title = f"Headline correlations, {words} ({METHODS.get(method, method)}, {len(values)} fits)"
    band = Patch(
        facecolor=PALETTE[1], alpha=0.15, label=f"{100 * chosen['level'].iloc[0]:g} % interval of it"
    )
    line = Line2D([], [], color=INK, linewidth=1.2, label="whole table")
    if scheme == "bootstrap":
        figure = new_figure(1.4 + 3.0 * len(chosen), 3.6, title)
        for axes, (_, row), drawn in zip(
            _panels(figure, len(chosen)), chosen.iterrows(), values.T, strict=True
        ):
            _frame(axes, row)
            drawn = drawn[np.isfinite(drawn)]
            axes.hist(drawn, bins=int(np.clip(len(drawn) // 8, 5, 40)), color=PALETTE[1], alpha=0.7)
            axes.set_ylabel("fits" if axes is figure.axes[0] else "")
        caption(figure, [line, band])
        return figure
    order = _order(values, chosen)
    rows, hidden = order[:MOST_ROWS], order[MOST_ROWS:]
    names = [str(unit).removeprefix("without ").removeprefix("lineage ") for unit in wide.index[rows]]
    figure = new_figure(2.6 + 2.6 * len(chosen), 1.7 + 0.24 * crowding(len(rows)) * len(rows), title)
    for axes, (_, row), drawn in zip(_panels(figure, len(chosen)), chosen.iterrows(), values.T, strict=True):
        if axes is figure.axes[0]:
            name_rows(axes, short_names(names, 30))
        else:
            blank_rows(axes, len(rows))
        _frame(axes, row)
        _dots(axes, drawn[rows], float(row["whole"]))
    note = "" if scheme == "kfold" else "Rows: who was left out, the largest moves first."
    if len(hidden):
        moved = np.nanmax(np.abs(values[hidden] - chosen["whole"].to_numpy()))
        note += f" The other {len(hidden)} refits move every panel by {moved:.2f} at most."
    dot = Line2D([], [], linestyle="none", marker="o", color=PALETTE[1], markersize=5, label="refit")
    ring = Line2D(
        [],
        [],
        linestyle="none",
        marker="D",
        color=PALETTE[0],
        markersize=5,
        label="the refit that moves most",
    )
    caption(figure, [line, band, dot, ring], note.strip())
    return figure


def choose_headlines(headlines: pd.DataFrame) -> pd.DataFrame:
    """Of each budget the factor with the largest absolute rho at hand; the total only where it is alone."""
    rows = headlines[headlines["form"] == "at_hand"] if len(headlines) else headlines
    rows = rows[np.isfinite(rows["whole"].astype(float))] if len(rows) else rows
    if not len(rows):
        raise InputError("no correlation with a budget in these refits; the models table needs budgets")
    if (rows["budget"] != "total").any():
        rows = rows[rows["budget"] != "total"]
    best = rows.assign(size=rows["whole"].abs()).sort_values("size", ascending=False, kind="stable")
    best = best.drop_duplicates("budget").head(MOST_PANELS)
    return best.sort_values(["factor", "size"], ascending=[True, False], kind="stable")


def _panels(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False)[0])


def _frame(axes: Axes, row: pd.Series) -> None:
    """Title, the whole table's rho and its interval."""
    axes.set_title(f"{row['factor']} ~ {row['budget']}")
    axes.set_xlabel("rho with the log budget")
    if np.isfinite([row["lower"], row["upper"]]).all():
        axes.axvspan(row["lower"], row["upper"], color=PALETTE[1], alpha=0.15, linewidth=0, zorder=-2)
    axes.axvline(row["whole"], color=INK, linewidth=1.2)
    axes.grid(axis="x")


def _dots(axes: Axes, drawn: np.ndarray, whole: float) -> None:
    place = np.arange(len(drawn))
    axes.hlines(place, whole, drawn, color=FAINT, linewidth=1.0)
    axes.plot(drawn, place, linestyle="none", marker="o", markersize=4.5, color=PALETTE[1])
    if np.isfinite(drawn).any():
        most = int(np.nanargmax(np.abs(drawn - whole)))
        axes.plot(drawn[most], most, linestyle="none", marker="D", markersize=6, color=PALETTE[0])


def _order(values: np.ndarray, chosen: pd.DataFrame) -> np.ndarray:
    """Units by their largest move, in widths of the whole table's intervals."""
    width = (chosen["upper"] - chosen["lower"]).to_numpy(dtype=float)
    moved = np.abs(values - chosen["whole"].to_numpy(dtype=float)) / np.where(np.isfinite(width), width, 1.0)
    return np.argsort(-np.nan_to_num(moved).max(axis=1), kind="stable")
