"""Gallery: which figures an analysis has, by name, each with a title and how to read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from factorlab import plots
from factorlab.analysis import Analysis
from factorlab.errors import InputError
from factorlab.inference.budgets import BudgetRegression, published_budgets
from factorlab.inference.solution import FactorSolution

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
    parts = (_data, _baselines, _bayes, _budgets, _associations, _comparison, _predictive, _checks)
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


def save_figures(
    analysis: Analysis,
    folder: str | os.PathLike[str],
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, tuple[Path, Path]]:
    """Draw all figures and write each as ``<name>.png`` and ``<name>.svg``.

    Parameters
    ----------
    analysis : Analysis
    folder : path
        Made when absent.
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    dict of str to (Path, Path)
        PNG and SVG of each figure.
    """
    drawings = figures(analysis)
    written = {}
    for done, (name, drawing) in enumerate(drawings.items()):
        if progress is not None:
            progress("figures", done, len(drawings))
        written[name] = plots.save(drawing(), Path(folder) / name)
    return written


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


def _data(analysis: Analysis, every: bool) -> Named:
    table = analysis.table
    yield (
        "scores_by_group",
        Drawing(
            "Scores by benchmark and group of models",
            "A bubble is a model, its area the number of parameters; the line through it is one standard "
            "error either way, the tick the median of the group.",
            lambda: plots.scores_by_group(table),
        ),
    )
    if len(table.benchmark_names) < 2:
        return
    yield (
        "correlations",
        Drawing(
            "Correlations between benchmarks (Pearson)",
            "Dark red: models that do well on one do well on the other; factors are what such blocks "
            "have in common.",
            lambda: plots.correlation_heatmap(table),
        ),
    )
    yield (
        "correlations_spearman",
        Drawing(
            "Correlations between benchmarks (Spearman, of ranks)",
            "The same from ranks only, so that no single extreme score can make a correlation.",
            lambda: plots.correlation_heatmap(table, method="spearman"),
        ),
    )


def _baselines(analysis: Analysis, every: bool) -> Named:
    table, parallel = analysis.table, analysis.parallel
    if parallel is not None:
        yield (
            "scree",
            Drawing(
                "Scree: eigenvalues beside those of noise",
                "A component is worth a look when its eigenvalue (its variance in units of one benchmark) is "
                "above the band that tables of pure noise give.",
                lambda: plots.scree(parallel),
            ),
        )
    words = {"leave-one-model-out": "leave_one_out", "leave-one-lineage-out": "leave_one_lineage_out"}
    for scheme, name in words.items():
        if scheme in analysis.resamples:
            what = "model" if name == "leave_one_out" else "lineage (a base model and all built on it)"
            yield (
                name,
                Drawing(
                    f"PCA loadings with each {what.split(' (')[0]} left out in turn",
                    f"A dot is the loading with one {what} left out; a wide row hangs on few of them, and "
                    "the one that moves it most is named.",
                    lambda scheme=scheme: plots.leave_one_out_loadings(analysis.resamples[scheme], table),
                ),
            )


def _bayes(analysis: Analysis, every: bool) -> Named:
    """Loadings and abilities of the main solution, whatever method it is of."""
    table, level = analysis.table, analysis.options.level
    solution = main_solution(analysis)
    if solution is None:
        return
    called = {"pca": "PCA", "ml": "maximum likelihood", "bayes": "Bayes"}[solution.method]
    yield (
        "loadings_heatmap",
        Drawing(
            f"Loadings ({called})",
            "A cell is the correlation of a benchmark with an ability; a dot marks those whose interval "
            "leaves out 0, hatching a factor that the data do not fix.",
            lambda: plots.loadings_heatmap(solution, table, level=level),
        ),
    )
    fits, labels = _forest(analysis)
    yield (
        "loadings_forest",
        Drawing(
            "Loadings of the methods side by side",
            "Each row a benchmark, each bar an interval; where the bars of the methods lie over one another "
            "the loading does not hang on the method.",
            lambda: plots.loadings_forest(fits, table, labels=labels, level=level),
        ),
    )
    yield (
        "abilities",
        Drawing(
            f"Ability of each model ({called})",
            "0 is the average of the models at hand, 1 their standard deviation; bars that overlap much mean "
            "that the order of the two models is open.",
            lambda: plots.ability_intervals(solution, table, level=level),
        ),
    )
    for factor in _shown(solution.factors, every):
        yield (
            f"{factor}_scores",
            Drawing(
                f"{factor} against raw scores",
                f"What {factor} is made of: the six benchmarks that load on it most, in their own units.",
                lambda factor=factor: plots.ability_against_scores(solution, table, factor, level=level),
            ),
        )
    if solution.n_draws < 2:
        return
    for factor in _shown(solution.factors, every):
        yield (
            f"ranks_{factor}",
            Drawing(
                f"Rank of each model on {factor}",
                "The bar holds the ranks that the draws give a model; 1 is the ablest.",
                lambda factor=factor: plots.rank_intervals(solution, factor, table, level=level),
            ),
        )
        if every or len(solution.models) <= MOST_COMPARED:
            yield (
                f"differences_{factor}",
                Drawing(
                    f"Which models differ on {factor}",
                    "Left the difference to the next model in order, right the probability that the model "
                    "of the row is above that of the column.",
                    lambda factor=factor: plots.paired_differences(solution, factor, level=level),
                ),
            )
    yield (
        "axes",
        Drawing(
            "Which axes the data fix",
            "Right: an axis whose draws all lie near 1 points the same way in every draw; one that spreads "
            "towards 0 is not identified, and its loadings mean nothing.",
            lambda: plots.axis_identification(solution, level=level),
        ),
    )


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
    solution, table = main_solution(analysis), analysis.table
    if solution is None:
        return
    names = budgets_with_data(analysis)
    for budget in names if every else [b for b in names if b != "total"]:
        for factor in _shown(solution.factors, every):
            yield (
                f"{factor}_{budget}",
                Drawing(
                    f"{factor} against the training budget: {_budget_words(budget)}",
                    "Horizontal: parameters times tokens, so ten times the budget is one step to the right; "
                    "bars both ways are intervals, the band that of the regression line.",
                    lambda factor=factor, budget=budget: plots.ability_against_budget(
                        solution,
                        table,
                        factor,
                        budget,
                        regression=main_budgets(analysis),
                        level=analysis.options.level,
                    ),
                ),
            )


def _budget_words(budget: str) -> str:
    from factorlab.plots.style import language_name

    return "all tokens" if budget == "total" else f"{language_name(budget)} tokens"


def _associations(analysis: Analysis, every: bool) -> Named:
    regression = analysis.bayes_budgets
    if regression is None or regression.draws is None or "rho" not in regression.draws:
        return
    rho = regression.draws["rho"]
    factors = [str(f) for f in rho["factor"].values]
    pairs = list(combinations([str(b) for b in rho["budget"].values if b != "total"], 2))
    main = factors[min(1, len(factors) - 1)]

    def difference(factor: str, first: str, second: str) -> Figure:
        draws = [
            rho.sel(factor=factor, budget=b).transpose("chain", "draw").values.ravel()
            for b in (second, first)
        ]
        names = (f"rho({factor}, {second})", f"rho({factor}, {first})")
        return plots.rho_difference(*draws, names=names, level=analysis.options.level)

    for factor in factors:
        for first, second in pairs:
            default = factor == main and (first, second) == pairs[0]
            if default or every:
                name = "rho_difference" if default else f"rho_difference_{factor}_{second}_{first}"
                yield (
                    name,
                    Drawing(
                        f"Does {factor} go more closely with the {second} or the {first} budget?",
                        "Right of 0 lies the share of draws in which the first correlation is the higher.",
                        lambda factor=factor, a=first, b=second: difference(factor, a, b),
                    ),
                )
    if regression.contrasts is None or regression.contrasts.empty:
        return
    for factor in factors if every else [main]:
        yield (
            "lineage_contrasts" if factor == main else f"lineage_contrasts_{factor}",
            Drawing(
                f"{factor} of continually pre-trained models less that of their base",
                "Within a lineage architecture and first data are shared, so what differs is mostly the "
                "continued training; still no experiment.",
                lambda factor=factor: plots.lineage_contrasts(regression, factor),
            ),
        )


def _comparison(analysis: Analysis, every: bool) -> Named:
    pca, bayes = analysis.pca, analysis.bayes
    if pca is None or bayes is None:
        return
    yield (
        "pca_vs_bayes",
        Drawing(
            "Abilities: PCA against Bayes",
            "Points on the diagonal: both methods say the same of a model; those farthest from it are named.",
            lambda: plots.ability_agreement(pca, bayes, analysis.table, level=analysis.options.level),
        ),
    )


def _predictive(analysis: Analysis, every: bool) -> Named:
    bayes, table = analysis.bayes, analysis.table
    if bayes is None:
        return
    level, seed = analysis.options.level, analysis.options.seed
    if len(bayes.benchmarks) > 1:
        yield (
            "predictive_correlations",
            Drawing(
                "Posterior predictive check: correlations",
                "A point is a pair of benchmarks; bars that miss the diagonal are correlations that the "
                "model cannot make.",
                lambda: plots.predictive_correlations(bayes, table, level=level, seed=seed),
            ),
        )
    if table.benchmarks["higher_is_better"].astype(bool).any():
        yield (
            "predictive_floor",
            Drawing(
                "Posterior predictive check: scores at the floor",
                "How many models score at the floor or at chance, beside how many the model "
                "would have there.",
                lambda: plots.predictive_floor(bayes, table, level=level, seed=seed),
            ),
        )
    yield (
        "predictive_outliers",
        Drawing(
            "Posterior predictive check: models and cells that do not fit",
            "Left models, right single scores, in standard deviations of what the model would predict; a "
            "ring marks a score of exactly 0.",
            lambda: plots.predictive_outliers(bayes, table, level=level, seed=seed),
        ),
    )


def _checks(analysis: Analysis, every: bool) -> Named:
    bayes = analysis.bayes
    sensitivity = analysis.sensitivity
    if sensitivity is not None:
        shown = sensitivity[sensitivity["mean"].notna()]
        if not every:
            shown = shown[_headline(shown["quantity"].astype(str).tolist(), analysis)]
        if len(shown):
            yield (
                "prior_sensitivity",
                Drawing(
                    "Prior sensitivity",
                    "A row is the result under another prior, the shaded band as fitted; rows inside the band "
                    "say that the data, not the prior, decide.",
                    lambda: plots.prior_sensitivity(shown),
                ),
            )
    if bayes is None:
        return
    if bayes.diagnostics is not None:
        yield (
            "convergence",
            Drawing(
                "Convergence",
                "Every quantity should lie left of the R-hat line (chains agree) and right of the effective "
                "sample size line (enough draws).",
                lambda: plots.convergence(bayes),
            ),
        )
    yield (
        "chain_ranks",
        Drawing(
            "Chains of the least mixed quantities",
            "Chains that agree cover the same ground (left) and give bars of equal height (right).",
            lambda: plots.chain_ranks(bayes),
        ),
    )


def _headline(quantities: list[str], analysis: Analysis) -> list[bool]:
    """Which rows are correlations at hand of the factors that are shown unasked."""
    assert analysis.bayes is not None
    heads = tuple(f"rho({factor}, " for factor in analysis.bayes.factors[:SHOWN_FACTORS])
    return [q.startswith(heads) and q.endswith("at hand") and "total" not in q for q in quantities]
