"""The solutions that chains in separate modes found, benchmark by benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from factorlab.errors import InputError
from factorlab.inference.solution import FactorSolution
from factorlab.plots.intervals import Interval, horizontal_bars
from factorlab.plots.style import (
    MARKERS,
    PALETTE,
    caption,
    crowding,
    name_rows,
    new_figure,
    short_names,
    styled,
)

MOST_ROWS = 24
"""Benchmarks that are shown: those the solutions disagree about most."""


def has_modes(solution: FactorSolution) -> bool:
    """The chains of this solution found more than one."""
    return len(dict(solution.extra.get("modes") or {}).get("groups", [])) > 1


@styled
def chain_modes(solution: FactorSolution) -> Figure:
    """Unique noise and share in common of each benchmark in each solution that the chains found.

    Mean and 94 % interval over the draws of each group of chains; benchmarks in the order of how far
    the groups lie apart.

    Parameters
    ----------
    solution : FactorSolution
        A posterior whose ``extra["modes"]`` is `factorlab.inference.modes.Modes.to_dict`.

    Raises
    ------
    InputError
        When its chains found one solution, or were never grouped.
    """
    if not has_modes(solution):
        raise InputError(
            f"this {solution.kind} has one solution, there is nothing to compare; "
            "chain_modes needs chains that found several"
        )
    told: dict[str, Any] = dict(solution.extra["modes"])
    gap = np.array([np.inf if value is None else value for value in told["gap"]], dtype=float)
    order = np.argsort(-gap, kind="stable")[:MOST_ROWS]
    names = short_names([told["benchmarks"][j] for j in order], 28)
    groups = told["groups"]
    figure = new_figure(
        8.6,
        1.7 + 0.3 * crowding(len(order)) * len(order),
        f"{len(groups)} solutions: what the chains disagree about",
    )
    left, right = figure.subplots(1, 2)
    name_rows(left, names)
    name_rows(right, [""] * len(names))
    step = 0.6 / max(len(groups), 2)
    for g in range(len(groups)):
        rows = np.arange(len(order)) + step * (g - (len(groups) - 1) / 2)
        for axes, measure in ((left, "noise_sd"), (right, "common")):
            shown = Interval(*(np.array(told[measure][k])[g, order] for k in ("mean", "lower", "upper")))
            horizontal_bars(axes, shown, rows, PALETTE[g % len(PALETTE)], MARKERS[g % len(MARKERS)])
    left.set(xlabel="unique noise (standardised score)", xlim=(0, None))
    right.set(xlabel="share of variance that the factors account for", xlim=(0, 1))
    shown_names = [told["benchmarks"][j] for j in order]
    note = "Mean and 94 % interval of each group of chains."
    n_disputed = len(told["disputed"])
    if n_disputed < len(order) and set(shown_names[:n_disputed]) == set(told["disputed"]):
        for axes in (left, right):
            axes.axhline(n_disputed - 0.5, color="#9a9a9a", linewidth=0.8, linestyle="--")
        note += " Above the dashed line: what they disagree about."
    hidden = len(gap) - len(order)
    if hidden:
        note += f" {hidden} benchmarks on which they agree more are left out."
    caption(figure, [_handle(g, groups[g], told) for g in range(len(groups))], note)
    return figure


def _handle(group: int, chains: list[int], told: dict[str, Any]) -> Line2D:
    label = f"chain{'s' if len(chains) > 1 else ''} {', '.join(map(str, chains))}"
    if told.get("stacking"):
        label += f" (weight by predictions {told['stacking']['group_weights'][group]:.2f})"
    return Line2D(
        [], [], color=PALETTE[group % len(PALETTE)], marker=MARKERS[group % len(MARKERS)], label=label
    )
