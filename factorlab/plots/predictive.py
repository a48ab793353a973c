"""Posterior predictive checks: scores the fit would give to the same models, beside those observed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from factorlab.errors import InputError
from factorlab.inference.solution import FactorSolution
from factorlab.plots.correlations import label_cells
from factorlab.plots.intervals import describe, interval
from factorlab.plots.labels import name_points
from factorlab.plots.style import (
    FAINT,
    INK,
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

FAR = 3.0
"""Cells further from their prediction than this many sd are written out."""


class Replicates(NamedTuple):
    """Standardised scores as observed and as the fit would give them again.

    Attributes
    ----------
    observed : ndarray, (model, benchmark)
        NaN where missing.
    drawn : ndarray, (draw, model, benchmark)
        New scores of the same models; NaN where the observed one is missing.
    """

    observed: np.ndarray
    drawn: np.ndarray


def replicate(
    solution: FactorSolution, table: ScoreTable | None = None, *, draws: int = 400, seed: int = 0
) -> Replicates:
    """Draw scores again: ``z_ij = mean_j + loading_j' ability_i + pair_sd_g omega_ig + noise``.

    The noise has the unique sd and, for a posterior, the standard error of the cell; the noise of PCA and ML
    holds the sampling error already.

    Parameters
    ----------
    solution : FactorSolution
    table : ScoreTable, optional
        For the declared groups of benchmarks that share items; without it a pair factor is left out.
    draws : int
        At most so many draws of the solution, evenly spaced; a point is used this many times.
    seed : int
    """
    rng = np.random.default_rng(seed)
    observed = solution.constants["z"].transpose("model", "benchmark").values
    if solution.n_draws > 1:
        pick = np.unique(np.linspace(0, solution.n_draws - 1, min(draws, solution.n_draws)).astype(int))
    else:
        pick = np.zeros(draws, dtype=int)
    loading, ability, mean, noise_sd = (
        solution.stacked(name)[pick] for name in ("loading", "ability", "mean", "noise_sd")
    )
    fitted = mean[:, None, :] + np.einsum("dmk,djk->dmj", ability, loading)
    error = np.nan_to_num(solution.constants["z_se"].transpose("model", "benchmark").values)
    if solution.method in ("pca", "ml"):
        error = np.zeros_like(error)
    sd = np.sqrt(noise_sd[:, None, :] ** 2 + error**2)
    drawn = fitted + sd * rng.standard_normal(fitted.shape)
    member = _membership(solution, table)
    if member.shape[1]:
        omega = rng.standard_normal((len(pick), len(observed), member.shape[1]))
        drawn += np.einsum("dmg,dg,jg->dmj", omega, solution.stacked("pair_sd")[pick], member)
    return Replicates(observed, np.where(np.isfinite(observed), drawn, np.nan))


def pairwise_correlations(z: np.ndarray) -> np.ndarray:
    """Correlations of columns over the rows both have: (..., row, column) -> (..., column, column)."""
    seen = np.isfinite(z).astype(float)
    value = np.nan_to_num(z)
    turned, turned_seen = np.swapaxes(value, -1, -2), np.swapaxes(seen, -1, -2)
    n = turned_seen @ seen
    total = turned @ seen
    square = np.swapaxes(value**2, -1, -2) @ seen
    other = np.swapaxes(total, -1, -2)
    spread = (n * square - total**2) * (n * np.swapaxes(square, -1, -2) - other**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (n * (turned @ value) - total * other) / np.sqrt(np.maximum(spread, 0))
    return np.where((n >= 3) & (spread > 1e-12), r, np.nan)


@styled
def predictive_correlations(
    solution: FactorSolution,
    table: ScoreTable | None = None,
    *,
    level: float = 0.94,
    draws: int = 400,
    seed: int = 0,
) -> Figure:
    """Correlations between benchmarks as observed and in replicated scores, a point a pair.

    Parameters
    ----------
    solution : FactorSolution
    table : ScoreTable, optional
    level : float
    draws, seed : int
        See `replicate`.

    Raises
    ------
    InputError
        With one benchmark there is no pair.
    """
    if len(solution.benchmarks) < 2:
        raise InputError("correlations need two benchmarks, this fit has one; use a wider table")
    made = replicate(solution, table, draws=draws, seed=seed)
    first, second = np.tril_indices(len(solution.benchmarks), -1)
    observed = pairwise_correlations(made.observed)[first, second]
    shown = interval(pairwise_correlations(made.drawn)[:, first, second], level)
    out = (observed < shown.lower) | (observed > shown.upper)
    figure = new_figure(
        6.4, 6.2, f"Correlations of benchmarks: {describe(solution).split(',')[0]} against the data"
    )
    axes = figure.subplots()
    for pick, colour, word in ((~out, PALETTE[1], "inside"), (out, PALETTE[0], "outside")):
        axes.vlines(
            observed[pick], shown.lower[pick], shown.upper[pick], color=colour, linewidth=0.8, alpha=0.45
        )
        axes.plot(
            observed[pick], shown.mean[pick], linestyle="none", marker="o" if word == "inside" else "s",
            markersize=3.5, color=colour,
            label=f"{word} the {100 * level:g} % interval: {int(pick.sum())} pairs",
        )  # fmt: skip
    axes.axline((0, 0), slope=1, color=FAINT, linewidth=0.8, zorder=0)
    axes.set(xlabel="observed correlation", ylabel="replicated correlation (mean and interval)")
    axes.grid()
    caption(figure, axes.get_legend_handles_labels()[0], "Replicates: new scores of the same models.")
    names = short_names(solution.benchmarks, 16)
    distance = np.where(out, np.abs(observed - shown.mean), 0)
    order = np.argsort(-np.nan_to_num(distance), kind="stable")[: min(6, int(out.sum()))]
    pairs = [f"{names[i]} / {names[j]}" for i, j in zip(second, first, strict=True)]
    name_points(axes, observed, shown.mean, pairs, [INK] * len(pairs), order=order)
    return figure


@styled
def predictive_floor(
    solution: FactorSolution, table: ScoreTable, *, level: float = 0.94, draws: int = 400, seed: int = 0
) -> Figure:
    """How many models score at the floor, or at chance, as observed and in replicated scores.

    Parameters
    ----------
    solution : FactorSolution
        A fit of this table.
    table : ScoreTable
        For the declared minimum (0 when none is) and chance level.
    level : float
    draws, seed : int
        See `replicate`.

    Raises
    ------
    InputError
        No benchmark of the fit for which higher is better.
    """
    made = replicate(solution, table, draws=draws, seed=seed)
    facts = table.benchmarks.loc[solution.benchmarks]
    keep = facts["higher_is_better"].to_numpy(dtype=bool)
    if not keep.any():
        raise InputError(
            f"no benchmark of '{table.name}' has higher_is_better: there is no floor to compare with"
        )
    lowest = facts["min"].astype(float).fillna(0.0).to_numpy()
    chance = facts["chance"].astype(float).to_numpy()
    levels = [
        ("at the floor (zero, or the declared minimum)", lowest),
        ("at or below chance", np.where(chance > 0, chance, np.nan)),
    ]
    names = benchmark_names(solution.benchmarks, table)
    rows = [(title, limit, np.flatnonzero(keep & np.isfinite(limit))) for title, limit in levels]
    rows = [entry for entry in rows if len(entry[2])]
    tall = max(len(entry[2]) for entry in rows)
    figure = new_figure(
        2.2 + 3.6 * len(rows), 1.8 + 0.24 * tall, "Scores at the floor: the fit against the data"
    )
    panels = figure.subplots(1, len(rows), squeeze=False)[0]
    for axes, (title, limit, pick) in zip(panels, rows, strict=True):
        name_rows(axes, [names.labels[j] for j in pick], [names.colours[j] for j in pick])
        _floor_counts(axes, made, _standard(solution, limit)[pick], pick, level)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("number of models")
    handles = [
        Line2D([], [], marker="o", color=INK, linestyle="none", label="observed"),
        Line2D(
            [], [], marker="D", color=PALETTE[3], linestyle="none", label="observed, outside the interval"
        ),
        Line2D(
            [], [], color=PALETTE[1], linewidth=4, alpha=0.5, label=f"replicated, {100 * level:g} % interval"
        ),
    ]
    caption(figure, [*handles, *names.legend])
    return figure


@styled
def predictive_outliers(
    solution: FactorSolution,
    table: ScoreTable | None = None,
    *,
    level: float = 0.94,
    draws: int = 400,
    seed: int = 0,
) -> Figure:
    """How far each model, and each of its scores, lies from what the fit would give again.

    Left: mean square of a model's residuals beside the same of replicated scores; right: the residuals, in
    predictive sd, written out beyond 3. A ring marks a score of exactly zero.

    Parameters
    ----------
    solution : FactorSolution
    table : ScoreTable, optional
    level : float
    draws, seed : int
        See `replicate`.
    """
    made = replicate(solution, table, draws=draws, seed=seed)
    centre, spread = made.drawn.mean(axis=0), np.maximum(made.drawn.std(axis=0), 1e-9)
    residual = (made.observed - centre) / spread
    has = np.isfinite(residual).any(axis=1)
    residual, again = residual[has], ((made.drawn - centre) / spread)[:, has]
    models = [m for m, ok in zip(solution.models, has, strict=True) if ok]
    size = np.nanmean(residual**2, axis=1)
    shown = interval(np.nanmean(again**2, axis=2), level)
    names = benchmark_names(solution.benchmarks, table, 22)
    wide = max(3.5, 0.27 * crowding(len(names.labels)) * len(names.labels))
    title = f"Unusual models and scores, given {describe(solution).split(',')[0]}"
    figure = new_figure(6.2 + wide, 2.9 + 0.19 * crowding(len(models)) * len(models), title)
    left, right = figure.subplots(1, 2, width_ratios=[2.6, wide])
    name_rows(left, short_names(models))
    left.set_ylim(len(models) - 0.5, -0.5)
    left.hlines(range(len(models)), shown.lower, shown.upper, color=PALETTE[1], linewidth=4, alpha=0.4)
    far = size > shown.upper
    for pick, colour, marker in ((~far, INK, "o"), (far, PALETTE[0], "s")):
        left.plot(
            size[pick], np.flatnonzero(pick), linestyle="none", marker=marker, markersize=4.5, color=colour
        )
    left.set(xlabel="mean square residual", title="models")
    image = right.imshow(residual, cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto")
    right.set_facecolor("#d9d9d9")
    right.spines[:].set_visible(False)
    label_cells(
        right,
        names.labels,
        [""] * len(models),
        names.colours,
        [INK] * len(models),
        7.5 * crowding(len(names.labels)),
    )
    right.set_yticks([])
    right.set_title("scores")
    for i, j in np.argwhere(np.abs(np.nan_to_num(residual)) > FAR):
        right.text(
            j,
            i,
            f"{residual[i, j]:.0f}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=6.5,
            color="white",
            in_layout=False,
        )
    zero = _zero_cells(solution, table)[has]
    at = np.argwhere(zero)
    right.plot(
        at[:, 1], at[:, 0], linestyle="none", marker="o", markersize=8, markerfacecolor="none", color=INK
    )
    figure.colorbar(image, ax=right, aspect=35, extend="both").set_label("residual (predictive sd)")
    words = f"Blue: {100 * level:g} % of replicated scores; squares lie above it."
    words += " The fit has seen these scores: residuals run small."
    caption(figure, names.legend, f"{words}{' Ring: a score of exactly zero.' if len(at) else ''}")
    return figure


def _membership(solution: FactorSolution, table: ScoreTable | None) -> np.ndarray:
    """Which benchmarks share which pair factor, (benchmark, pair); no columns where there are none."""
    none = np.zeros((len(solution.benchmarks), 0))
    if "pair_sd" not in solution.draws or table is None:
        return none
    declared = table.benchmarks["shared_items_group"]
    members = {
        "+".join(str(b) for b in declared.index[declared == group]): [
            str(b) for b in declared.index[declared == group]
        ]
        for group in declared.dropna().unique()
    }
    labels = [str(p) for p in solution.draws["pair"].values]
    if not all(label in members for label in labels):
        return none
    columns = [[float(b in members[label]) for b in solution.benchmarks] for label in labels]
    return np.array(columns).reshape(len(labels), -1).T


def _standard(solution: FactorSolution, score: np.ndarray) -> np.ndarray:
    """A score per benchmark (higher is better) in the fit's standardised units."""
    return (score - solution.constants["location"].values) / solution.constants["scale"].values


def _floor_counts(axes: Axes, made: Replicates, limit: np.ndarray, pick: np.ndarray, level: float) -> None:
    near = limit + 1e-9
    observed = (made.observed[:, pick] <= near).sum(axis=0)
    shown = interval((made.drawn[:, :, pick] <= near).sum(axis=1).astype(float), level)
    rows = np.arange(len(pick))
    axes.hlines(rows, shown.lower, shown.upper, color=PALETTE[1], linewidth=4, alpha=0.5)
    axes.plot(shown.mean, rows, linestyle="none", marker="|", markersize=7, color=PALETTE[1])
    out = (observed < shown.lower) | (observed > shown.upper)
    axes.plot(observed[~out], rows[~out], linestyle="none", marker="o", markersize=4.5, color=INK)
    axes.plot(observed[out], rows[out], linestyle="none", marker="D", markersize=5.5, color=PALETTE[3])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlim(-0.5, max(3.0, 1.1 * max(float(observed.max()), float(np.nanmax(shown.upper)))))


def _zero_cells(solution: FactorSolution, table: ScoreTable | None) -> np.ndarray:
    """Scores of exactly zero, (model, benchmark), where the table tells."""
    if table is None:
        return np.zeros((len(solution.models), len(solution.benchmarks)), dtype=bool)
    score = table.data["score"].reindex(model=solution.models, benchmark=solution.benchmarks)
    return score.transpose("model", "benchmark").values == 0
