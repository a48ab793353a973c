"""Associations read off a joint posterior: differences of correlations, contrasts within lineages, priors."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from factorlab.errors import InputError
from factorlab.inference.budgets import BudgetRegression
from factorlab.plots.intervals import Interval, horizontal_bars
from factorlab.plots.style import (
    INK,
    MARKERS,
    PALETTE,
    blank_rows,
    caption,
    language_name,
    name_rows,
    new_figure,
    short,
    styled,
)


@styled
def rho_difference(
    first: np.ndarray,
    second: np.ndarray,
    *,
    names: tuple[str, str] = ("rho(PC2, ja)", "rho(PC2, en)"),
    level: float = 0.94,
) -> Figure:
    """Posterior of two correlations and of their difference.

    Parameters
    ----------
    first, second : ndarray, (draw,)
        The same draws of both; other shapes are flattened.
    names : (str, str)
    level : float

    Raises
    ------
    InputError
        Arrays of different lengths, or fewer than two draws.
    """
    a, b = np.ravel(first), np.ravel(second)
    whole = np.isfinite(a) & np.isfinite(b) if a.shape == b.shape else np.zeros(0, dtype=bool)
    if whole.sum() < 2:
        raise InputError(
            f"a difference of correlations needs the same draws of both, {a.size} and {b.size} given; "
            "use the draws of a joint posterior"
        )
    a, b = a[whole], b[whole]
    figure = new_figure(7.2, 4.8, f"{names[0]} − {names[1]}")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for values, name, colour in ((a, names[0], PALETTE[0]), (b, names[1], PALETTE[1])):
        _density(upper, values, colour, name, level)
    _density(lower, a - b, PALETTE[2], "difference", level)
    lower.axvline(0, color=INK, linewidth=0.9)
    share = float((a > b).mean())
    lower.set_title(
        f"probability that it is positive: {_probability(share, len(a))}", loc="right", fontsize=9
    )
    lower.set_xlabel("correlation with the log budget, and difference of correlations")
    for axes in (upper, lower):
        axes.set_ylabel("density")
        axes.grid(axis="x")
    handles = upper.get_legend_handles_labels()[0] + lower.get_legend_handles_labels()[0]
    caption(figure, handles, f"Bar: {100 * level:g} % interval; dot: median. {len(a)} draws.")
    return figure


@styled
def lineage_contrasts(regression: BudgetRegression, factor: str = "PC2") -> Figure:
    """Ability of each continually pre-trained model less that of its base model, beside what was added.

    Parameters
    ----------
    regression : BudgetRegression
        A joint one, with ``contrasts``.
    factor : str

    Raises
    ------
    InputError
        No contrasts, or none of this factor.
    """
    table = getattr(regression, "contrasts", None)
    if table is None or table.empty or factor not in set(table["factor"]):
        raise InputError(
            f"no contrasts within lineages of '{factor}' in this {regression.method} regression; "
            "they need a joint posterior, base_model in the models table and scores of both"
        )
    rows = table[table["factor"] == factor].sort_values("mean", ascending=False, kind="stable")
    labels = [
        f"{short(m, 32)}  −  {short(b, 22)}" for m, b in zip(rows["model"], rows["base_model"], strict=True)
    ]
    figure = new_figure(8.6, 1.6 + 0.26 * len(rows), f"{factor}: continually pre-trained model less its base")
    axes = figure.subplots()
    name_rows(axes, labels)
    shown = Interval(*(rows[c].to_numpy(dtype=float) for c in ("mean", "lower", "upper")))
    horizontal_bars(axes, shown, np.arange(len(rows), dtype=float), PALETTE[1])
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel(f"difference of {factor} ability (sd over models)")
    added = [c for c in rows.columns if c.startswith("log10_tokens_")]
    for place, (_, row) in enumerate(rows.iterrows()):
        words = [_growth(float(row[c]), c.removeprefix("log10_tokens_")) for c in added]
        axes.text(
            1.01, place, "  ".join(w for w in words if w), transform=axes.get_yaxis_transform(),
            va="center", fontsize=7, color="#555555",
        )  # fmt: skip
    level = f"{100 * float(rows['level'].iloc[0]):g} %"
    caption(figure, [], f"Bars: {level} interval. At the right: tokens of the model over tokens of its base.")
    return figure


@styled
def prior_sensitivity(frame: pd.DataFrame, *, reference: str | None = None) -> Figure:
    """How key quantities move with the priors, a panel a quantity, a row a setting.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns ``setting, quantity, mean, lower, upper``; a row a fit and quantity.
    reference : str, optional
        The setting whose interval is shaded; the first when not given.

    Raises
    ------
    InputError
        Missing columns, no rows, an unknown reference.
    """
    lost = {"setting", "quantity", "mean", "lower", "upper"} - set(frame.columns)
    if lost or frame.empty:
        raise InputError(f"prior sensitivity needs rows and columns setting, quantity, mean, lower, upper; "
                         f"missing: {', '.join(sorted(lost)) or 'rows'}")  # fmt: skip
    settings = [str(s) for s in dict.fromkeys(frame["setting"])]
    quantities = [str(q) for q in dict.fromkeys(frame["quantity"])]
    base = settings[0] if reference is None else reference
    if base not in settings:
        raise InputError(f"no setting '{base}' in the frame; it has {', '.join(settings)}")
    across = min(4, len(quantities))
    down = int(np.ceil(len(quantities) / across))
    figure = new_figure(
        2.4 + 2.5 * across, 1.0 + down * (0.9 + 0.26 * len(settings)), "What other priors give"
    )
    panels = figure.subplots(down, across, squeeze=False)
    names = [short(s, 30) for s in settings]
    fitted = np.array([s == base for s in settings])
    for place, axes in enumerate(panels.ravel()):
        if place >= len(quantities):
            axes.remove()
            continue
        rows = frame[frame["quantity"] == quantities[place]].drop_duplicates("setting").set_index("setting")
        rows = rows.reindex(settings)
        name_rows(axes, names) if place % across == 0 else blank_rows(axes, len(settings))
        shown = Interval(*(rows[c].to_numpy(dtype=float) for c in ("mean", "lower", "upper")))
        axes.axvspan(rows["lower"][base], rows["upper"][base], color=PALETTE[1], alpha=0.12, linewidth=0)
        for pick, colour, marker in ((fitted, PALETTE[1], MARKERS[1]), (~fitted, INK, MARKERS[0])):
            horizontal_bars(axes, shown.take(pick), np.flatnonzero(pick).astype(float), colour, marker)
        axes.set_title(short(quantities[place], 36))
        axes.set_xlabel("value")
    caption(figure, [], f"Points: mean; bars: interval. Shaded: interval with {base}.")
    return figure


def _growth(change: float, language: str) -> str:
    """Times as many tokens, as "Japanese ×46"; nothing where they are as good as the same."""
    if np.isnan(change) or abs(change) < 0.02:
        return ""
    if np.isposinf(change):
        return f"{language_name(language)} from none"
    times = 10**change
    return (
        f"{language_name(language)} ×{times:.0f}"
        if times >= 10
        else f"{language_name(language)} ×{times:.1f}"
    )


def _density(axes: Axes, values: np.ndarray, colour: str, name: str, level: float) -> None:
    lower, middle, upper = np.quantile(values, [(1 - level) / 2, 0.5, (1 + level) / 2])
    label = f"{name}: {middle:.2f} [{lower:.2f}, {upper:.2f}]".replace("-0", "−0")
    bins = max(10, min(50, len(values) // 20))
    height = axes.hist(values, bins=bins, density=True, color=colour, alpha=0.45, label=label)[0]
    low = -0.05 * float(np.max(height))
    axes.hlines(low, lower, upper, color=colour, linewidth=3)
    axes.plot(middle, low, "o", color=colour, markersize=6, markeredgecolor="white")


def _probability(share: float, draws: int) -> str:
    """Never 0 or 1: the draws cannot say so."""
    least = 1 / draws
    if share < least:
        return f"below {least:.2g}"
    return f"above {1 - least:.4g}" if share > 1 - least else f"{share:.3f}"
