"""Two fits of one table against each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from factorlab.inference.solution import FactorSolution
from factorlab.plots.abilities import crosses
from factorlab.plots.intervals import (
    Interval,
    choose_factors,
    describe,
    is_identified,
    same_labels,
    solution_interval,
)
from factorlab.plots.labels import name_points
from factorlab.plots.style import (
    FAINT,
    INK,
    caption,
    group_models,
    mark_not_identified,
    new_figure,
    short_names,
    styled,
)
from factorlab.scores import ScoreTable


@styled
def ability_agreement(
    first: FactorSolution,
    second: FactorSolution,
    table: ScoreTable | None = None,
    *,
    factors: Sequence[str] | None = None,
    by: str = "group",
    level: float = 0.94,
) -> Figure:
    """Abilities of one fit against those of another, e.g. PCA against Bayes, a panel a factor.

    The models farthest from the diagonal are named.

    Parameters
    ----------
    first, second : FactorSolution
        On the x and y axis.
    table : ScoreTable, optional
        For the groups.
    factors : sequence of str, optional
        Those both have when not given.
    by : str
        Column of the models table.
    level : float

    Raises
    ------
    InputError
        No factor or no model in common.
    """
    models = same_labels(first.models, second.models, "model")
    shared = same_labels(first.factors, second.factors, "factor") if factors is None else list(factors)
    where = [(choose_factors(first, [f])[0], choose_factors(second, [f])[0]) for f in shared]
    groups = group_models(models, table, by)
    across = min(len(shared), 2 if len(shared) in (2, 4) else 3)
    down = int(np.ceil(len(shared) / across))
    kinds = [describe(s, level).split(",")[0] for s in (first, second)]
    figure = new_figure(
        max(5.5, 4.0 * across), 1.3 + 3.7 * down, f"Abilities by {kinds[0]} and by {kinds[1]}"
    )
    panels = figure.subplots(down, across, squeeze=False).ravel()
    ability = [_ability(s, models, level) for s in (first, second)]
    pairs = [(_of_factor(ability[0], a), _of_factor(ability[1], b)) for a, b in where]
    for axes, factor, (a, b), (x, y) in zip(panels, shared, where, pairs, strict=False):
        crosses(axes, x, y, groups)
        axes.axline((0, 0), slope=1, color=FAINT, linewidth=0.8, zorder=0)
        axes.set_title(f"{factor}   r = {_correlation(x.mean, y.mean)}")
        axes.set(xlabel=f"{factor} by {kinds[0]} (sd over models)")
        axes.set_ylabel(f"{factor} by {kinds[1]} (sd over models)")
        axes.grid()
        if not (is_identified(first, a) and is_identified(second, b)):
            mark_not_identified(axes)
    for axes in panels[len(shared) :]:
        axes.remove()
    words = dict.fromkeys(describe(s, level) for s in (first, second) if s.n_draws > 1)
    bars = f" Bars: {'; '.join(words)}." if words else ""
    note = f"Grey line: the same ability by both. Named: the largest differences.{bars}"
    caption(figure, groups.legend(), note)
    for axes, (x, y) in zip(panels, pairs, strict=False):
        _name_farthest(axes, x, y, models)
    return figure


def _ability(solution: FactorSolution, models: Sequence[str], level: float) -> Interval:
    """Of the models in their order, (model, factor)."""
    rows = [solution.models.index(m) for m in models]
    return Interval(*(part[rows] for part in solution_interval(solution, "ability", level)))


def _of_factor(shown: Interval, k: int) -> Interval:
    return Interval(*(part[:, k] for part in shown))


def _correlation(x: np.ndarray, y: np.ndarray) -> str:
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 3:
        return "unknown"
    return f"{np.corrcoef(x[both], y[both])[0, 1]:.3f}".replace("-", "−")


def _name_farthest(axes: Axes, x: Interval, y: Interval, models: Sequence[str], most: int = 5) -> None:
    order = np.argsort(-np.nan_to_num(np.abs(x.mean - y.mean), nan=-1.0), kind="stable")[:most]
    bars = [
        np.column_stack([x.lower, y.mean, x.upper, y.mean]),
        np.column_stack([x.mean, y.lower, x.mean, y.upper]),
    ]
    labels = short_names(models, 26)
    name_points(axes, x.mean, y.mean, labels, [INK] * len(models), order=order, lines=np.concatenate(bars))
