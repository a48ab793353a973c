"""Figures of a plan: scores and chances along further tokens, and two ways to spend the same tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from factorlab.errors import InputError
from factorlab.inference.predict.plan import Plan
from factorlab.inference.predict.plan_notes import amount
from factorlab.inference.predict.plan_tables import ALL, published_start
from factorlab.plots.labels import name_points
from factorlab.plots.style import (
    FAINT,
    INK,
    PALETTE,
    benchmark_names,
    caption,
    crowding,
    language_name,
    name_rows,
    new_figure,
    short,
    styled,
)

MOST_TARGETS = 4

ASSUMED = "What holds between the models of the table is taken to hold for the next one."

SHOWN_DECADES = 1e4
"""The axis of tokens spans this factor: below it the curves are flat."""

BAND, RAW, CHILD, GOAL = PALETTE[1], PALETTE[5], PALETTE[0], PALETTE[2]


@styled
def plan_curves(plan: Plan) -> Figure:
    """Predicted score and probability of the target against further tokens, a column a target.

    Parameters
    ----------
    plan : Plan

    Raises
    ------
    InputError
        When the plan has no target.
    """
    names = [str(b) for b in plan.targets["benchmark"] if b != ALL][:MOST_TARGETS]
    if not names:
        raise InputError("the plan has no target to draw")
    figure = new_figure(max(7.4, 1.6 + 3.9 * len(names)), 6.0, _title(plan))
    panels = figure.subplots(
        2, len(names), squeeze=False, sharex=True, gridspec_kw={"height_ratios": [1.6, 1]}
    )
    dots = []
    for k, name in enumerate(names):
        curve = plan.curve[(plan.curve["benchmark"] == name) & (plan.curve["tokens_b"] > 0)]
        row = plan.targets[plan.targets["benchmark"] == name].iloc[0]
        _score(panels[0, k], plan, curve, row)
        _chance(panels[1, k], plan, curve, row)
        track = curve[["tokens_b", "median"]].to_numpy(dtype=float)
        dots.append((panels[0, k], plan.children[plan.children["benchmark"] == name], track))
    panels[0, 0].set_ylabel("score")
    panels[1, 0].set_ylabel("probability within\nso many tokens")
    caption(figure, _keys(plan), _remark(plan, len(names)))
    for axes, children, track in dots:
        name_points(
            axes, children["tokens_b"].to_numpy(dtype=float), children["score"].to_numpy(dtype=float),
            [short(m, 24) for m in children["model"]], [INK] * len(children),
            lines=np.column_stack([track[:-1], track[1:]]),
        )  # fmt: skip
    return figure


def _title(plan: Plan) -> str:
    whom = (
        plan.model.base
        if plan.model.base is not None
        else f"a new model of {plan.model.params_b:g} billion parameters"
    )
    return f"Further {language_name(plan.model.language)} tokens for {short(str(whom), 40)}"


def _frame(axes: Axes, plan: Plan) -> None:
    axes.set_xscale("log")
    axes.set_xlim(plan.most / SHOWN_DECADES, plan.most)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: amount(v)))
    axes.grid(True)
    edge = plan.model.seen - published_start(plan.model)
    if edge < plan.most:
        axes.axvspan(
            max(edge, plan.most / SHOWN_DECADES),
            plan.most,
            facecolor="#efefef",
            edgecolor="#d4d4d4",
            hatch="///",
            linewidth=0,
            zorder=-3,
        )


def _score(axes: Axes, plan: Plan, curve: pd.DataFrame, row: pd.Series) -> None:
    _frame(axes, plan)
    x = curve["tokens_b"]
    axes.fill_between(x, curve["low"], curve["high"], color=BAND, alpha=0.22, linewidth=0)
    for side in ("raw_low", "raw_high"):
        axes.plot(x, curve[side], color=BAND, linewidth=0.8, linestyle=":")
    axes.plot(x, curve["median"], color=BAND, linewidth=1.8)
    axes.axhline(row["target"], color=GOAL, linewidth=1.3)
    if np.isfinite(row["base_score"]):
        axes.axhline(row["base_score"], color=FAINT, linewidth=1.0, linestyle="--")
    own = plan.children[plan.children["benchmark"] == row["benchmark"]]
    axes.plot(
        own["tokens_b"], own["score"], linestyle="none", marker="o", color=CHILD, markersize=5.5,
        markeredgecolor="white", markeredgewidth=0.6,
    )  # fmt: skip
    axes.set_title(f"{row['benchmark']}, target {row['target']:g}")


def _chance(axes: Axes, plan: Plan, curve: pd.DataFrame, row: pd.Series) -> None:
    _frame(axes, plan)
    x = curve["tokens_b"]
    axes.plot(x, curve["probability_recalibrated"], color=BAND, linewidth=1.8)
    axes.plot(x, curve["probability"], color=BAND, linewidth=1.0, linestyle=":")
    both = plan.curve[(plan.curve["benchmark"] == ALL) & (plan.curve["tokens_b"] > 0)]
    if len(both):
        axes.plot(
            both["tokens_b"], both["probability_recalibrated"], color=INK, linewidth=1.2, linestyle="-."
        )
    axes.axhline(plan.probability, color=GOAL, linewidth=1.0)
    needed = float(row["tokens_needed_recalibrated"])
    if np.isfinite(needed) and needed > 0:
        axes.plot([needed] * 2, [0, plan.probability], color=GOAL, linewidth=1.0)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(f"further {language_name(plan.model.language)} tokens, billions")


def _keys(plan: Plan) -> list[Line2D | Patch]:
    level = f"{100 * plan.mixture.settings.level:g} %"
    keys: list[Line2D | Patch] = [
        Line2D([], [], color=BAND, linewidth=1.8, label="median, probability"),
        Patch(facecolor=BAND, alpha=0.22, label=f"{level} band"),
        Line2D(
            [], [], color=BAND, linewidth=1.0, linestyle=":", label="raw posterior (others: recalibrated)"
        ),
        Line2D([], [], color=GOAL, linewidth=1.3, label="target; wanted probability"),
    ]
    if plan.targets["base_score"].notna().any():
        keys.append(
            Line2D(
                [],
                [],
                color=FAINT,
                linewidth=1.0,
                linestyle="--",
                label=f"{short(str(plan.model.base), 24)}, observed",
            )
        )
    if len(plan.children):
        keys.append(
            Line2D([], [], linestyle="none", marker="o", color=CHILD, label="trained on from it, observed")
        )
    if (plan.targets["benchmark"] == ALL).any():
        keys.append(Line2D([], [], color=INK, linewidth=1.2, linestyle="-.", label="all targets at once"))
    if plan.curve["beyond_seen"].any():
        keys.append(
            Patch(
                facecolor="#efefef", edgecolor="#d4d4d4", hatch="///", label="more than any scored model has"
            )
        )
    return keys


def _remark(plan: Plan, shown: int) -> str:
    hidden = int((plan.targets["benchmark"] != ALL).sum()) - shown
    more = f" {hidden} more targets are in the tables." if hidden else ""
    return ASSUMED + more


@styled
def plan_strategies(plan: Plan) -> Figure:
    """Score with the same tokens in one language rather than the other, a row a benchmark.

    Parameters
    ----------
    plan : Plan

    Raises
    ------
    InputError
        When the plan compares no two languages.
    """
    rows = plan.strategies
    if not len(rows):
        raise InputError("the plan compares no two languages: there is nothing to draw")
    names = benchmark_names([str(b) for b in rows["benchmark"]], plan.mixture.table)
    first, second = language_name(str(plan.against)), language_name(plan.model.language)
    figure = new_figure(7.4, 1.9 + 0.26 * crowding(len(rows)) * len(rows), _title_of_spending(plan))
    axes = figure.subplots()
    name_rows(axes, names.labels, names.colours)
    place = np.arange(len(rows))
    axes.hlines(place, rows["low"], rows["high"], colors=names.colours, linewidth=1.6, alpha=0.75)
    axes.scatter(
        rows["difference"], place, c=names.colours, s=22, edgecolors="white", linewidths=0.4, zorder=3
    )
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_xlabel(f"score with the tokens in {second} minus score with them in {first}")
    for k, p in enumerate(rows["probability"]):
        axes.text(
            1.01, k, _percent(p), transform=axes.get_yaxis_transform(), va="center", fontsize=7.5 * crowding(len(rows)),
            color=INK,
        )  # fmt: skip
    axes.text(
        1.01, -0.75, f"P({second} higher)", transform=axes.get_yaxis_transform(), fontsize=7.5, va="bottom"
    )
    note = f"Medians and {100 * plan.mixture.settings.level:g} % intervals of the posterior. {ASSUMED}"
    caption(figure, names.legend, note)
    return figure


def _title_of_spending(plan: Plan) -> str:
    whom = plan.model.base if plan.model.base is not None else "the new model"
    return f"{amount(plan.spend)} billion tokens more for {short(str(whom), 30)}: in which language?"


def _percent(p: float) -> str:
    return "> 99 %" if p > 0.995 else "< 1 %" if p < 0.005 else f"{100 * p:.0f} %"
