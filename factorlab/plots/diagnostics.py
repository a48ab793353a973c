"""Whether a posterior can be read: convergence, chains, and which axes the data fix."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.stats import rankdata

from factorlab.errors import InputError
from factorlab.inference.convergence import ESS_GOAL, RHAT_GOAL
from factorlab.inference.identify import congruence
from factorlab.inference.solution import FactorSolution
from factorlab.plots.intervals import describe, horizontal_bars, interval, is_identified
from factorlab.plots.style import (
    INK,
    MARKERS,
    PALETTE,
    blank_rows,
    caption,
    name_rows,
    new_figure,
    short,
    styled,
)

RANK_BINS = 20


@styled
def convergence(solution: FactorSolution) -> Figure:
    """R-hat and effective sample sizes of all that was checked, by group of quantities.

    Grey: quantities of an axis that is not identified, which do not count.

    Parameters
    ----------
    solution : FactorSolution
        A posterior, with diagnostics.

    Raises
    ------
    InputError
        When it has none.
    """
    if solution.diagnostics is None or solution.diagnostics.table.empty:
        raise InputError(
            f"convergence needs a posterior, this solution is a {solution.kind} without diagnostics"
        )
    told = solution.diagnostics
    table = told.table
    groups = [str(g) for g in dict.fromkeys(table["group"])]
    figure = new_figure(10.5, 2.0 + 0.42 * len(groups), _verdict(told.problems, told.divergences))
    panels = figure.subplots(1, 3)
    goals = (
        ("rhat", "R-hat", RHAT_GOAL),
        ("ess_bulk", "bulk ESS (draws)", ESS_GOAL),
        ("ess_tail", "tail ESS (draws)", ESS_GOAL),
    )
    for axes, (column, word, goal) in zip(panels, goals, strict=True):
        name_rows(axes, groups) if axes is panels[0] else blank_rows(axes, len(groups))
        values = table[column].to_numpy(dtype=float)
        bad = values > goal if column == "rhat" else values < goal
        _strip(axes, table, groups, values, bad)
        axes.axvline(goal, color=PALETTE[0], linestyle="--", linewidth=1)
        if column != "rhat":
            _plain_log(axes)
        axes.set_xlabel(word)
        axes.set_title(
            f"goal {'≤' if column == 'rhat' else '≥'} {goal:g}", loc="right", fontsize=8, color=PALETTE[0]
        )
    handles = [_dot(PALETTE[1], "o", "in order"), _dot(PALETTE[0], "s", "falls short")]
    if not table["counted"].all():
        handles.append(_dot("#bdbdbd", "o", "axis not identified, not counted"))
    caption(
        figure, handles, f"{len(table)} quantities, {solution.n_draws} draws, {told.divergences} divergences."
    )
    return figure


@styled
def chain_ranks(solution: FactorSolution, quantities: Sequence[str] | None = None) -> Figure:
    """Traces of key quantities by chain, and how each chain's draws rank among all.

    Chains that agree give bars of equal height.

    Parameters
    ----------
    solution : FactorSolution
        Of several draws.
    quantities : sequence of str, optional
        Names such as "noise_sd[MMLU]" or "loading[MMLU, PC1]"; not given, the eigenvalues of the
        common part and the unique noise with the fewest effective draws, which no rotation changes.

    Raises
    ------
    InputError
        One draw only, or an unknown quantity.
    """
    if solution.draws.sizes["draw"] < 2:
        raise InputError("traces need draws, this solution has one; give a posterior")
    shown = (
        _default_quantities(solution)
        if quantities is None
        else {q: _quantity(solution, q) for q in quantities}
    )
    chains = int(solution.draws.sizes["chain"])
    figure = new_figure(9.4, 1.3 + 1.25 * len(shown), f"Chains: {describe(solution).split(',')[0]}")
    panels = figure.subplots(len(shown), 2, squeeze=False, width_ratios=[1.5, 1])
    for (trace, rank), (name, values) in zip(panels, shown.items(), strict=True):
        places = rankdata(values).reshape(values.shape)
        bins = np.linspace(0.5, values.size + 0.5, RANK_BINS + 1)
        for c in range(chains):
            colour = PALETTE[c % len(PALETTE)]
            trace.plot(values[c], color=colour, linewidth=0.5, alpha=0.7)
            height = np.histogram(places[c], bins)[0] / values.shape[1]
            rank.stairs(height, bins, color=colour, linewidth=1.1)
        rank.axhline(1 / RANK_BINS, color=INK, linewidth=0.8, linestyle="--")
        trace.set_title(short(name, 60), fontsize=9)
        trace.set_ylabel("value")
        rank.set_ylabel("share")
        rank.set_ylim(bottom=0)
    panels[-1][0].set_xlabel("draw")
    panels[-1][1].set_xlabel("rank among the draws of all chains")
    handles = [Line2D([], [], color=PALETTE[c % len(PALETTE)], label=f"chain {c + 1}") for c in range(chains)]
    caption(figure, handles, "Dashed: the share every chain has in every bin when they agree.")
    return figure


@styled
def axis_identification(solution: FactorSolution, *, level: float = 0.94) -> Figure:
    """Which axes the data fix: size of each axis in the draws, and how far it turns between draws.

    Left: eigenvalues of the common part; where neighbours overlap the axes between them are free to turn.
    Right: |cosine| of each draw's axis with the typical axis, and with PCA's; 1 is no turn.

    Parameters
    ----------
    solution : FactorSolution
    level : float

    Raises
    ------
    InputError
        With one draw nothing can turn.
    """
    if solution.n_draws < 2:
        raise InputError("one draw cannot show how far axes turn; give a resample or a posterior")
    eigenvalue, own, reference = _axes(solution)
    rows = np.arange(len(solution.factors), dtype=float)
    figure = new_figure(8.6, 2.0 + 0.5 * len(rows), f"Which axes the data fix: {describe(solution, level)}")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
    name_rows(left, solution.factors)
    blank_rows(right, len(rows))
    size = interval(eigenvalue, level)
    horizontal_bars(left, size, rows, PALETTE[1])
    left.set(xlabel="eigenvalue (variance, in benchmarks)", title="size of the axis")
    _plain_log(left)
    drawn = [(own, PALETTE[1], "typical axis of the draws", MARKERS[0])]
    if reference is not None:
        drawn.append((reference, PALETTE[4], "axis of PCA", MARKERS[1]))
    for s, (cosine, colour, _, marker) in enumerate(drawn):
        offset = 0.0 if len(drawn) == 1 else 0.3 * (s - 0.5)
        shown = interval(cosine, level)
        horizontal_bars(right, shown._replace(mean=np.median(cosine, axis=0)), rows + offset, colour, marker)
    right.set(
        xlabel="|cosine| of a draw's axis (median and interval)",
        title="does it stay put?",
        xlim=(-0.02, 1.04),
    )
    for k in np.flatnonzero([not is_identified(solution, k) for k in range(len(rows))]):
        for axes in (left, right):
            axes.axhspan(
                k - 0.5,
                k + 0.5,
                facecolor="#efefef",
                edgecolor="#cfcfcf",
                hatch="///",
                linewidth=0,
                zorder=-2,
            )
        right.text(
            0.01, k - 0.36, "not identified", fontsize=7.5, style="italic", color="#6a6a6a", va="center"
        )
    caption(figure, [_dot(colour, marker, word) for _, colour, word, marker in drawn])
    return figure


def _axes(solution: FactorSolution) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Eigenvalues, |cosine| with the typical axis and with PCA's: (draw, factor) each."""
    if "axis_cosine" in solution.draws:
        return tuple(solution.stacked(n) for n in ("axis_eigenvalue", "axis_cosine", "axis_cosine_pca"))  # type: ignore[return-value]
    loading = solution.stacked("loading")
    typical = np.broadcast_to(loading.mean(axis=0), loading.shape)
    return (loading**2).sum(axis=1), np.abs(congruence(loading, typical)), None


def _plain_log(axes: Axes) -> None:
    """A log scale with ticks such as 500, 1000, 2000."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _verdict(problems: Sequence[str], divergences: int) -> str:
    if not problems and not divergences:
        return "Convergence: the chains agree"
    return f"Convergence: {len(problems)} thing{'s' if len(problems) != 1 else ''} to mend"


def _strip(axes: Axes, table: pd.DataFrame, groups: list[str], values: np.ndarray, bad: np.ndarray) -> None:
    """Each quantity a dot in its group's row, spread evenly over the height of the row."""
    counted = table["counted"].to_numpy(dtype=bool)
    for row, group in enumerate(groups):
        member = np.flatnonzero((table["group"] == group).to_numpy())
        height = row + 0.7 * (
            ((np.arange(len(member)) * 0.618) % 1) - 0.5
        )  # golden steps: no pattern, no chance
        looks = (
            (counted & ~bad, PALETTE[1], "o"),
            (counted & bad, PALETTE[0], "s"),
            (~counted, "#bdbdbd", "o"),
        )
        for keep, colour, marker in looks:
            pick = keep[member]
            axes.plot(
                values[member][pick], height[pick], linestyle="none", marker=marker, markersize=3,
                color=colour, alpha=0.65, markeredgewidth=0,
            )  # fmt: skip


def _dot(colour: str, marker: str, word: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=colour, label=word)


def _default_quantities(solution: FactorSolution, most: int = 6) -> dict[str, np.ndarray]:
    """Quantities that no rotation changes, (chain, draw) each."""
    out: dict[str, np.ndarray] = {}
    loading = solution.draws["loading"].transpose("chain", "draw", "benchmark", "factor").values
    if "axis_eigenvalue" in solution.draws:
        values = solution.draws["axis_eigenvalue"].transpose("chain", "draw", "factor").values
        for k in range(min(3, values.shape[2])):
            out[f"eigenvalue {k + 1} of the common part"] = values[:, :, k]
    else:
        out["variance explained by all factors"] = (loading**2).sum(axis=(2, 3))
    noise = solution.draws["noise_sd"].transpose("chain", "draw", "benchmark").values
    order = np.argsort(-noise.std(axis=(0, 1)), kind="stable")
    if solution.diagnostics is not None:
        table = solution.diagnostics.table.set_index("quantity")["ess_bulk"]
        few = [table.get(f"noise_sd[{b}]", np.inf) for b in solution.benchmarks]
        order = np.argsort(np.nan_to_num(few, nan=np.inf), kind="stable")
    for j in order[: most - len(out)]:
        out[f"noise_sd[{solution.benchmarks[j]}]"] = noise[:, :, j]
    return out


def _quantity(solution: FactorSolution, name: str) -> np.ndarray:
    """Draws (chain, draw) of a quantity such as "noise_sd[MMLU]"."""
    found = re.fullmatch(r"(\w+)(?:\[(.*)\])?", name)
    variable = found.group(1) if found else name
    if variable not in solution.draws:
        have = ", ".join(str(v) for v in solution.draws.data_vars)
        raise InputError(f"no quantity '{name}' in this solution; it has {have}")
    array = solution.draws[variable].transpose("chain", "draw", ...)
    dims = [str(d) for d in array.dims[2:]]
    labels = found.group(2).split(", ") if found and found.group(2) else []
    if len(labels) != len(dims):
        raise InputError(
            f"quantity '{name}' needs {len(dims)} labels ({', '.join(dims)}), as in '{variable}[...]'"
        )
    for dim, label in zip(dims, labels, strict=True):
        known = [str(v) for v in solution.draws[dim].values]
        if label not in known:
            raise InputError(f"no {dim} '{label}' in this solution; it has {', '.join(known)}")
        array = array.isel({dim: known.index(label)})
    return array.values
