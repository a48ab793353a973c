"""Gallery: which figures an analysis has, by name, each with a title and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import pandas as pd

from factorlab import plots
from factorlab.analysis import Analysis
from factorlab.errors import InputError
from factorlab.inference.budgets import BudgetRegression, published_budgets
from factorlab.inference.sensitivity import NOT_IN_DRAWS, REFIT
from factorlab.inference.solution import FactorSolution
from factorlab.plots.captions import CAPTIONS
from factorlab.plots.modes import has_modes
from factorlab.plots.style import language_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_BUDGETS = 3
"""Fewer models with a published budget show no relation."""

MOST_COMPARED = 60
"""More models than this make a figure of paired differences that nobody can read; on request only."""

SHOWN_FACTORS = 2
"""Factors whose pairs with budgets, ranks and differences are drawn unasked."""


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn; calling it draws.

    Attributes
    ----------
    title : str
        What it shows.
    caption : str
        How to read it, one sentence.
    draw : callable
        () -> matplotlib.figure.Figure.
    """

    title: str
    caption: str
    draw: Callable[[], Figure]

    def __call__(self) -> Figure:
        return self.draw()


Named = Iterator[tuple[str, Drawing]]


def figures(analysis: Analysis, *, every: bool = False) -> dict[str, Drawing]:
    """The figures of an analysis, in the order of the page.

    Parameters
    ----------
    analysis : Analysis
    every : bool
        Also those that are drawn on request only: all factors with all budgets, ranks, differences.

    Returns
    -------
    dict of str to Drawing
        Calling a value draws the figure; only what the analysis allows is there.
    """
    parts = (_data, _baselines, _fits, _budgets, _associations, _comparison, _predictive, _checks)
    return {name: drawing for part in parts for name, drawing in part(analysis, every)}


def figure(analysis: Analysis, name: str) -> Figure:
    """Draw one figure by its name.

    Raises
    ------
    InputError
        When the analysis has no figure of that name; the message lists those it has.
    """
    known = figures(analysis, every=True)
    if name not in known:
        raise InputError(f"no figure '{name}' in this run; it has {', '.join(known)}")
    return known[name]()


def early_figures(analysis: Analysis) -> dict[str, Drawing]:
    """Those of `figures` that stay the same when what is derived from the solutions comes.

    Without a Bayesian solution, that may still come, they are those of the data and of PCA's resamples.
    """
    parts = [_data, _baselines]
    if analysis.bayes is not None:
        parts += [_fits, _comparison, _predictive, _checks]
    return {name: drawing for part in parts for name, drawing in part(analysis, False)}


def main_solution(analysis: Analysis) -> FactorSolution | None:
    """The solution the page speaks of: the posterior, else PCA, else maximum likelihood."""
    return next((s for s in (analysis.bayes, analysis.pca, analysis.ml) if s is not None), None)


def main_budgets(analysis: Analysis) -> BudgetRegression | None:
    """The regression that belongs to `main_solution`."""
    return analysis.bayes_budgets if analysis.bayes is not None else analysis.pca_budgets


def budgets_with_data(analysis: Analysis) -> list[str]:
    """Budgets (languages, "total") that at least `MIN_BUDGETS` scored models publish."""
    try:
        published = published_budgets(analysis.table)
    except InputError:
        return []
    return [str(b) for b in published if int(published[b].notna().sum()) >= MIN_BUDGETS]


def _shown(factors: list[str], every: bool) -> list[str]:
    return factors if every else factors[:SHOWN_FACTORS]


def _drawing(kind: str, draw: Callable[[], Figure], **words: str) -> Drawing:
    title, caption = CAPTIONS[kind]
    return Drawing(title.format(**words), caption.format(**words), draw)


def _data(analysis: Analysis, every: bool) -> Named:
    table = analysis.table
    yield "scores_by_group", _drawing("scores_by_group", partial(plots.scores_by_group, table))
    if len(table.benchmark_names) < 2:
        return
    for name, method in (("correlations", "pearson"), ("correlations_spearman", "spearman")):
        yield name, _drawing(name, partial(plots.correlation_heatmap, table, method=method))


def _baselines(analysis: Analysis, every: bool) -> Named:
    table = analysis.table
    if analysis.parallel is not None:
        yield "scree", _drawing("scree", partial(plots.scree, analysis.parallel))
    names = {"leave-one-model-out": "leave_one_out", "leave-one-lineage-out": "leave_one_lineage_out"}
    for scheme, name in names.items():
        if scheme in analysis.resamples:
            resample = analysis.resamples[scheme]
            yield name, _drawing(name, partial(plots.leave_one_out_loadings, resample, table))


def _fits(analysis: Analysis, every: bool) -> Named:
    """Loadings and abilities of the main solution, whatever method it is of."""
    table, level = analysis.table, analysis.options.level
    solution = main_solution(analysis)
    if solution is None:
        return
    called = {"pca": "PCA", "ml": "maximum likelihood", "bayes": "Bayes"}[solution.method]
    heatmap = partial(plots.loadings_heatmap, solution, table, level=level)
    yield "loadings_heatmap", _drawing("loadings_heatmap", heatmap, called=called)
    fits, labels = _forest(analysis)
    forest = partial(plots.loadings_forest, fits, table, labels=labels, level=level)
    yield "loadings_forest", _drawing("loadings_forest", forest)
    intervals = partial(plots.ability_intervals, solution, table, level=level)
    yield "abilities", _drawing("abilities", intervals, called=called)
    for factor in _shown(solution.factors, every):
        against = partial(plots.ability_against_scores, solution, table, factor, level=level)
        yield f"{factor}_scores", _drawing("scores", against, factor=factor)
    if solution.n_draws < 2:
        return
    for factor in _shown(solution.factors, every):
        ranks = partial(plots.rank_intervals, solution, factor, table, level=level)
        yield f"ranks_{factor}", _drawing("ranks", ranks, factor=factor)
        if every or len(solution.models) <= MOST_COMPARED:
            paired = partial(plots.paired_differences, solution, factor, level=level)
            yield f"differences_{factor}", _drawing("differences", paired, factor=factor)
    yield "axes", _drawing("axes", partial(plots.axis_identification, solution, level=level))


def _forest(analysis: Analysis) -> tuple[list[FactorSolution], list[str]]:
    """Solutions of the forest with their names; the bootstrap stands for PCA where there is one."""
    pca = analysis.resamples.get("bootstrap", analysis.pca)
    fits = [
        (pca, "PCA (bootstrap)" if pca is not analysis.pca else "PCA"),
        (analysis.bayes, "Bayes"),
        (analysis.ml if analysis.bayes is None else None, "maximum likelihood"),
    ]
    return [s for s, _ in fits if s is not None], [name for s, name in fits if s is not None]


def _budgets(analysis: Analysis, every: bool) -> Named:
    solution = main_solution(analysis)
    if solution is None:
        return
    regression, level = main_budgets(analysis), analysis.options.level
    names = budgets_with_data(analysis)
    for budget in names if every else [b for b in names if b != "total"]:
        tokens = "all tokens" if budget == "total" else f"{language_name(budget)} tokens"
        for factor in _shown(solution.factors, every):
            draw = partial(
                plots.ability_against_budget,
                solution, analysis.table, factor, budget, regression=regression, level=level,
            )  # fmt: skip
            yield f"{factor}_{budget}", _drawing("budget", draw, factor=factor, tokens=tokens)


def _associations(analysis: Analysis, every: bool) -> Named:
    regression = analysis.bayes_budgets
    if regression is None or regression.draws is None or "rho" not in regression.draws:
        return
    factors = [str(f) for f in regression.draws["factor"].values]
    budgets = [str(b) for b in regression.draws["budget"].values if b != "total"]
    pairs = list(combinations(budgets, 2))
    main = factors[min(1, len(factors) - 1)]
    for factor in factors:
        for first, second in pairs:
            default = factor == main and (first, second) == pairs[0]
            if default or every:
                name = "rho_difference" if default else f"rho_difference_{factor}_{second}_{first}"
                draw = partial(_difference, regression, factor, second, first, analysis.options.level)
                yield (
                    name,
                    _drawing(
                        "rho_difference", draw, factor=factor,
                        first=language_name(first), second=language_name(second),
                    ),
                )  # fmt: skip
    if regression.contrasts is None or regression.contrasts.empty:
        return
    for factor in factors if every else [main]:
        name = "lineage_contrasts" if factor == main else f"lineage_contrasts_{factor}"
        draw = partial(plots.lineage_contrasts, regression, factor)
        yield name, _drawing("lineage_contrasts", draw, factor=factor)


def _difference(regression: BudgetRegression, factor: str, a: str, b: str, level: float) -> Figure:
    assert regression.draws is not None
    rho = regression.draws["rho"].sel(factor=factor).transpose("chain", "draw", "budget")
    first, second = (rho.sel(budget=name).values.ravel() for name in (a, b))
    figure: Figure = plots.rho_difference(
        first, second, names=(f"rho({factor}, {a})", f"rho({factor}, {b})"), level=level
    )
    return figure


def _comparison(analysis: Analysis, every: bool) -> Named:
    pca, bayes = analysis.pca, analysis.bayes
    if pca is not None and bayes is not None:
        draw = partial(plots.ability_agreement, pca, bayes, analysis.table, level=analysis.options.level)
        yield "pca_vs_bayes", _drawing("pca_vs_bayes", draw)


def _predictive(analysis: Analysis, every: bool) -> Named:
    bayes, table = analysis.bayes, analysis.table
    if bayes is None:
        return
    checks = {
        "predictive_correlations": len(bayes.benchmarks) > 1,
        "predictive_floor": bool(table.benchmarks["higher_is_better"].astype(bool).any()),
        "predictive_outliers": True,
    }
    for name, possible in checks.items():
        if possible:
            draw = getattr(plots, name)
            options = {"level": analysis.options.level, "seed": analysis.options.seed}
            yield name, _drawing(name, partial(draw, bayes, table, **options))


def _checks(analysis: Analysis, every: bool) -> Named:
    bayes = analysis.bayes
    if bayes is None:
        return
    if analysis.outliers is not None:
        drawing = partial(plots.outlier_scores, analysis.outliers, analysis.table)
        yield "outliers", _drawing("outliers", drawing)
    shown = _readable(analysis, every)
    if shown is not None:
        yield "prior_sensitivity", _drawing("prior_sensitivity", partial(plots.prior_sensitivity, shown))
    if bayes.diagnostics is not None:
        yield "convergence", _drawing("convergence", partial(plots.convergence, bayes))
    if has_modes(bayes):
        yield "chain_modes", _drawing("chain_modes", partial(plots.chain_modes, bayes))
    yield "chain_ranks", _drawing("chain_ranks", partial(plots.chain_ranks, bayes))


def _readable(analysis: Analysis, every: bool) -> pd.DataFrame | None:
    """Rows of the prior sensitivity that can be read, with short settings; None when there are none."""
    frame = analysis.sensitivity
    if frame is None or analysis.bayes is None:
        return None
    keep = frame["mean"].notna() & ~frame["verdict"].isin([REFIT, NOT_IN_DRAWS])
    if not every:
        heads = tuple(f"rho({factor}, " for factor in analysis.bayes.factors[:SHOWN_FACTORS])
        names = frame["quantity"].astype(str)
        keep &= names.str.startswith(heads) & names.str.endswith("at hand") & ~names.str.contains("total")
    shown = frame[keep]
    short = shown["setting"].astype(str).str.replace(r" \(fitted with .*\)$", "", regex=True)
    return shown.assign(setting=short) if len(shown) else None
