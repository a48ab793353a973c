"""How good predictions of hidden scores were: against what was there, by nominal coverage, by method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import binom

from factorlab.errors import InputError
from factorlab.inference.predict.schemes import SCHEMES
from factorlab.inference.predict.scoring import cross_fit_factors
from factorlab.inference.predict.validation import Validation
from factorlab.plots.style import FAINT, INK, PALETTE, blank_rows, caption, name_rows, new_figure, styled

LEVELS = np.linspace(0.05, 0.95, 19)

BAND = 0.95
"""Of a binomial number of covered cells, were they independent."""

RESAMPLES = 500

MOST_LINES = 1500
"""More intervals than this hide each other: every so many are drawn."""


class Reliability(NamedTuple):
    """Nominal and actual coverage of central intervals of one method on one scheme.

    Attributes
    ----------
    level, raw, recalibrated, low, high : ndarray, (level,)
        Recalibrated: by factors from the other folds; NaN with one fold. Low and high: central 95 % of a
        binomial share at the nominal level.
    n : int
    """

    level: np.ndarray
    raw: np.ndarray
    recalibrated: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int


def reliability(cells: pd.DataFrame, levels: np.ndarray = LEVELS) -> Reliability:
    """Coverage at every level: raw from the probability integral transforms, recalibrated from other folds.

    Parameters
    ----------
    cells : pandas.DataFrame
        Rows of `Validation.cells` of one scheme and one method.
    levels : ndarray
    """
    n = len(cells)
    pit = cells["pit"].to_numpy()
    y, median, low, high = (cells[name].to_numpy() for name in ("score", "median", "raw_low", "raw_high"))
    fold = cells["fold"].to_numpy()
    half = np.where(y > median, high - median, median - low)
    distance = np.abs(y - median) / np.maximum(half, 1e-9)
    recalibrated = []
    for level in levels:
        factor = cross_fit_factors(y, median, low, high, fold, float(level))
        recalibrated.append(np.mean(distance <= factor) if np.isfinite(factor).all() else np.nan)
    band = binom.interval(BAND, n, levels)
    return Reliability(
        levels,
        np.array([np.mean(np.abs(pit - 0.5) <= level / 2) for level in levels]),
        np.array(recalibrated),
        band[0] / n,
        band[1] / n,
        n,
    )


@styled
def validation_predictions(validation: Validation, method: str | None = None) -> Figure:
    """Predicted against observed scores with intervals, a panel a scheme.

    Both relative to the mean of the benchmark's training scores: what knowing the benchmark alone would say is
    the horizontal at 0.

    Parameters
    ----------
    validation : Validation
    method : str, optional
        One of those validated; the prediction mixture when not given.

    Raises
    ------
    InputError
        An unknown method.
    """
    chosen = _method(validation, method)
    cells = validation.cells[validation.cells["method"] == chosen]
    schemes = list(dict.fromkeys(cells["scheme"]))
    figure = new_figure(0.8 + 3.4 * len(schemes), 4.3, f"Hidden scores: {chosen}")
    level = validation.options.level
    for axes, scheme in zip(figure.subplots(1, len(schemes), squeeze=False)[0], schemes, strict=True):
        part = cells[cells["scheme"] == scheme]
        _scatter(axes, part)
        errors = np.abs(part["score"] - part["median"]) / part["unit"]
        axes.set_title(f"{SCHEMES[scheme]}\n{len(part)} cells, median error {errors.median():.3f}")
        axes.set_xlabel("observed score less benchmark mean")
        if axes is figure.axes[0]:
            axes.set_ylabel("predicted score less benchmark mean")
    handles = [
        Line2D([], [], marker="o", linestyle="-", linewidth=0.8, markersize=4, color=c, label=label)
        for c, label in (
            (PALETTE[1], f"score inside its {100 * level:g} % interval"),
            (PALETTE[0], "outside"),
        )
    ]
    note = "Score units are widths of the benchmark's range (spreads of its scores where it has none)."
    caption(figure, [*handles, Line2D([], [], color=INK, linewidth=0.8, label="predicted = observed")], note)
    return figure


def _scatter(axes: Axes, part: pd.DataFrame) -> None:
    known = part["low"].notna()
    low, high = part["low"].where(known, part["raw_low"]), part["high"].where(known, part["raw_high"])
    inside = ((part["score"] >= low) & (part["score"] <= high)).to_numpy()

    def relative(values: pd.Series) -> np.ndarray:
        return ((values - part["training_mean"]) / part["unit"]).to_numpy()

    x, y, bottom, top = (relative(v) for v in (part["score"], part["median"], low, high))
    drawn = np.arange(len(part)) % max(1, -(-len(part) // MOST_LINES)) == 0
    for pick, colour in ((inside & drawn, PALETTE[1]), (~inside & drawn, PALETTE[0])):
        axes.vlines(x[pick], bottom[pick], top[pick], color=colour, linewidth=0.5, alpha=0.3)
        axes.plot(x[pick], y[pick], "o", markersize=2.5, color=colour, alpha=0.8, markeredgewidth=0)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.axhline(0, color=FAINT, linewidth=0.6, linestyle=":")
    pad = 0.12 * (ends[1] - ends[0])
    axes.set_xlim(ends[0] - pad, ends[1] + pad)
    axes.set_ylim(min(ends[0], np.quantile(bottom, 0.02)) - pad, max(ends[1], np.quantile(top, 0.98)) + pad)
    axes.grid()


@styled
def validation_reliability(validation: Validation) -> Figure:
    """Nominal against actual coverage, a panel a scheme: raw, recalibrated, and where binomial chance ends.

    Parameters
    ----------
    validation : Validation
    """
    cells = validation.cells
    schemes = list(dict.fromkeys(cells["scheme"]))
    methods = list(dict.fromkeys(cells["method"]))
    figure = new_figure(0.8 + 3.2 * len(schemes), 4.4, "Coverage of prediction intervals")
    for axes, scheme in zip(figure.subplots(1, len(schemes), squeeze=False)[0], schemes, strict=True):
        for m, method in enumerate(methods):
            part = cells[(cells["scheme"] == scheme) & (cells["method"] == method)]
            if not len(part):
                continue
            found = reliability(part)
            if m == 0:
                axes.fill_between(found.level, found.low, found.high, color="#e3e3e3", linewidth=0, zorder=-1)
                axes.plot(found.level, found.recalibrated, color=PALETTE[1], linewidth=1.6, linestyle="--")
            axes.plot(found.level, found.raw, color=_colour(m), linewidth=1.8 if m == 0 else 0.9)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
        _own(axes, validation, scheme, methods[0])
        axes.set_title(SCHEMES[scheme])
        axes.set_xlabel("nominal coverage")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.grid()
        if axes is figure.axes[0]:
            axes.set_ylabel("share of hidden scores inside")
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=_colour(m), linewidth=1.8 if m == 0 else 0.9, label=f"{name}, raw")
        for m, name in enumerate(methods)
    ]
    handles.append(
        Line2D(
            [], [], color=PALETTE[1], linestyle="--", label=f"{methods[0]}, recalibrated on the other folds"
        )
    )
    handles.append(
        Line2D([], [], color=PALETTE[1], marker="D", linestyle="none", label="recalibrated as it predicts")
    )
    handles.append(Patch(facecolor="#e3e3e3", label="95 % of a binomial share"))
    caption(figure, handles, "The binomial band takes cells for independent: those of one model are not.")
    return figure


def _own(axes: Axes, validation: Validation, scheme: str, method: str) -> None:
    """The recalibrated interval that the method itself gives, at the one level that was asked for."""
    rows = validation.methods
    row = rows[(rows["scheme"] == scheme) & (rows["method"] == method)].iloc[0]
    if np.isfinite(row["coverage"]):
        axes.plot(
            validation.options.level, row["coverage"], "D", color=PALETTE[1], markersize=6,
            markeredgecolor="white", zorder=5,
        )  # fmt: skip


def _colour(m: int) -> str:
    return (PALETTE[1], PALETTE[0], PALETTE[2], FAINT)[m % 4]


@styled
def validation_errors(validation: Validation, *, seed: int = 0) -> Figure:
    """Absolute error of each method, a panel a scheme: mean with its interval, and median.

    Parameters
    ----------
    validation : Validation
    seed : int
        Of the bootstrap of models.
    """
    cells = validation.cells
    schemes = list(dict.fromkeys(cells["scheme"]))
    methods = list(dict.fromkeys(cells["method"]))
    figure = new_figure(2.4 + 2.7 * len(schemes), 1.6 + 0.34 * len(methods), "Error by method")
    for axes, scheme in zip(figure.subplots(1, len(schemes), squeeze=False)[0], schemes, strict=True):
        if axes is figure.axes[0]:
            name_rows(axes, methods)
        else:
            blank_rows(axes, len(methods))
        for m, method in enumerate(methods):
            part = cells[(cells["scheme"] == scheme) & (cells["method"] == method)]
            if not len(part):
                continue
            error = np.abs(part["score"] - part["median"]) / part["unit"]
            low, high = _bootstrap(error.to_numpy(), part["model"].to_numpy(), seed)
            axes.hlines(m, low, high, color=_colour(m), linewidth=2)
            axes.plot(error.mean(), m, "o", color=_colour(m), markersize=6)
            axes.plot(error.median(), m, "o", color="white", markeredgecolor=_colour(m), markersize=5)
        axes.set_xlim(left=0)
        axes.set_title(SCHEMES[scheme])
        axes.set_xlabel("absolute error (widths of the range)")
    handles = [
        Line2D([], [], marker="o", color=INK, linewidth=2, label="mean, 95 % interval over models"),
        Line2D([], [], marker="o", color="white", markeredgecolor=INK, linestyle="none", label="median"),
    ]
    caption(figure, handles)
    return figure


def _bootstrap(error: np.ndarray, model: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the mean error, models drawn again."""
    _, index = np.unique(model, return_inverse=True)
    total = np.bincount(index, error)
    count = np.bincount(index)
    pick = np.random.default_rng(seed).integers(len(total), size=(RESAMPLES, len(total)))
    low, high = np.quantile(total[pick].sum(axis=1) / count[pick].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _method(validation: Validation, method: str | None) -> str:
    methods = list(dict.fromkeys(validation.cells["method"]))
    if method is None:
        return str(methods[0])
    if method not in methods:
        raise InputError(f"method '{method}' was not validated; those that were: {', '.join(methods)}")
    return method
