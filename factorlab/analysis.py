"""Analysis: one score table, and all that was inferred from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.health import HealthReport, check
from factorlab.inference.budgets import BudgetRegression, two_step
from factorlab.inference.compare import Comparison, compare
from factorlab.inference.joint_budgets import fit_budgets
from factorlab.inference.ml import fit_ml
from factorlab.inference.outliers import Outliers, find_outliers
from factorlab.inference.pca import Scheme, declared_anchors, fit_pca, resample_pca
from factorlab.inference.scree import ParallelAnalysis, parallel_analysis
from factorlab.inference.sensitivity import prior_sensitivity
from factorlab.inference.solution import FactorSolution
from factorlab.inference.watch import Progress, silent
from factorlab.options import FitOptions
from factorlab.scores import ScoreTable

if TYPE_CHECKING:
    from factorlab.questions.answer import Answer

SCHEMES: tuple[Scheme, ...] = ("leave-one-model-out", "leave-one-lineage-out", "bootstrap")

MIN_MODELS = 5
"""Fewer models than this cannot be left out one by one and still give components."""


MOST_LEFT_OUT = 500
"""More models than this are not left out one by one: it tells little and takes long."""


OUTLIER_DRAWS = 400
"""Draws that outliers are judged by in a fit; `factorlab outliers` takes more."""


MOST_JUDGED = 20_000
"""Scores of larger tables are judged on request only: weights for each take time."""


@dataclass(frozen=True)
class Analysis:
    """A table and all results; what was not asked for, or could not be done, is None and noted.

    Attributes
    ----------
    table : ScoreTable
    options : FitOptions
    health : HealthReport
    pca, ml, bayes : FactorSolution or None
    resamples : dict of str to FactorSolution
        PCA under each scheme of `SCHEMES` that the table allows.
    parallel : ParallelAnalysis or None
    pca_budgets, bayes_budgets : BudgetRegression or None
        In two steps from PCA; from the joint posterior (in two steps where it did not regress).
    comparison : Comparison or None
        PCA with Bayes.
    sensitivity : pandas.DataFrame or None
        Of headline quantities to the priors.
    outliers : Outliers or None
        Scores and models that do not fit the posterior, from `OUTLIER_DRAWS` of its draws.
    notes : tuple of str
        What could not be done, in sentences.
    seconds : dict of str to float
        Time of each stage.
    """

    table: ScoreTable
    options: FitOptions
    health: HealthReport
    pca: FactorSolution | None = None
    ml: FactorSolution | None = None
    bayes: FactorSolution | None = None
    resamples: Mapping[str, FactorSolution] = field(default_factory=dict)
    parallel: ParallelAnalysis | None = None
    pca_budgets: BudgetRegression | None = None
    bayes_budgets: BudgetRegression | None = None
    comparison: Comparison | None = None
    sensitivity: pd.DataFrame | None = None
    outliers: Outliers | None = None
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def problems(self) -> tuple[str, ...]:
        """What did not converge, in sentences."""
        if self.bayes is None or self.bayes.diagnostics is None:
            return ()
        return self.bayes.diagnostics.problems

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """What the results say to the open questions of such a study; see `factorlab.questions`."""
        from factorlab.questions.ask import answer_questions

        return answer_questions(self)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems and notes of all parts, without repeats."""
        parts = [*self.problems, *self.notes, *self.health.gaps, *self.table.notes]
        for solution in (self.pca, self.ml, self.bayes):
            parts += solution.notes if solution is not None else ()
        for budgets in (self.pca_budgets, self.bayes_budgets):
            parts += budgets.notes if budgets is not None else ()
        return tuple(dict.fromkeys(parts))


def analyse(
    table: ScoreTable,
    options: FitOptions | None = None,
    progress: Progress | None = None,
    early: Callable[[Analysis], None] | None = None,
) -> Analysis:
    """Fit what the options ask for, and derive everything else from it.

    Parameters
    ----------
    table : ScoreTable
    options : FitOptions, optional
    progress : callable, optional
        Called with (stage, done, total); see `factorlab.inference.watch.Progress`.
    early : callable, optional
        Called before and after the Bayesian fit with what there is then, so that it can be drawn meanwhile.

    Raises
    ------
    InputError
        When the one method asked for cannot be fitted to this table.
    """
    chosen = options or FitOptions()
    _check_size(table, chosen)
    tell = progress or silent
    clock = _Clock()
    fitted = Analysis(table, chosen, check(table))
    fitted = _with_counts(fitted, tell)
    clock.lap("check")
    fitted = _fit_baselines(fitted, tell)
    clock.lap("baselines")
    if chosen.wants("bayes"):
        if early is not None:
            early(fitted)
        fitted = _fit_bayes(fitted, tell)
        if early is not None and fitted.bayes is not None:
            early(fitted)
    clock.lap("bayes")
    if fitted.pca is None and fitted.ml is None and fitted.bayes is None:
        raise InputError(f"nothing could be fitted: {'; '.join(fitted.notes)}")
    fitted = derive(fitted, tell)
    clock.lap("derived")
    return replace(fitted, seconds=clock.seconds)


def derive(fitted: Analysis, progress: Progress | None = None) -> Analysis:
    """Everything that follows from the solutions without fitting: regressions, comparison, sensitivity.

    Parameters
    ----------
    fitted : Analysis
        With its solutions in place, e.g. as read from a run folder.
    """
    tell = progress or silent
    tell("regressions and comparison", 0, 0)
    table, level = fitted.table, fitted.options.level
    notes = list(fitted.notes)
    baseline = fitted.pca if fitted.pca is not None else fitted.ml
    pca_budgets = bayes_budgets = None
    if table.languages or "tokens_b_total" in table.models:
        try:
            pca_budgets = two_step(table, baseline, level=level) if baseline is not None else None
            bayes_budgets = (
                fit_budgets(table, fitted.bayes, level=level) if fitted.bayes is not None else None
            )
        except InputError as error:
            notes.append(str(error))
    comparison = sensitivity = None
    if fitted.bayes is not None and fitted.pca is not None:
        comparison = compare(
            fitted.pca,
            fitted.bayes,
            level=level,
            budgets=(pca_budgets, bayes_budgets),
            names=("PCA", "Bayes"),
        )
    if fitted.bayes is not None and bayes_budgets is not None and bayes_budgets.method == "joint":
        sensitivity = prior_sensitivity(fitted.bayes, bayes_budgets, level=level)
    return replace(
        fitted,
        pca_budgets=pca_budgets,
        bayes_budgets=bayes_budgets,
        comparison=comparison,
        sensitivity=sensitivity,
        outliers=_outliers(fitted, notes),
        notes=tuple(dict.fromkeys(notes)),
    )


def _outliers(fitted: Analysis, notes: list[str]) -> Outliers | None:
    """What does not fit the posterior; of a very large table on request only."""
    if fitted.bayes is None or fitted.table.scores.size > MOST_JUDGED:
        return None
    try:
        return find_outliers(fitted.table, fitted.bayes, level=fitted.options.level, draws=OUTLIER_DRAWS)
    except InputError as error:
        notes.append(f"no outliers: {error}")
        return None


def _check_size(table: ScoreTable, options: FitOptions) -> None:
    """Refuse what no method can fit before anything is computed."""
    table.standardised()
    n_models, n_benchmarks = len(table.model_names), len(table.benchmark_names)
    if n_models < 3 or n_benchmarks < 2:
        raise InputError(
            f"table '{table.name}' has {n_models} models x {n_benchmarks} benchmarks; "
            "factors need at least 3 x 2"
        )
    most = min(n_benchmarks, n_models - 1)
    if options.factors != "auto" and options.factors > most:
        raise InputError(
            f"{options.factors} factors asked of {n_models} models x {n_benchmarks} benchmarks; "
            f"give --factors between 1 and {most}"
        )


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


def _with_counts(fitted: Analysis, tell: Progress) -> Analysis:
    """Parallel analysis, and the number of factors where it is left open."""
    tell("number of factors", 0, 0)
    table, options = fitted.table, fitted.options
    notes = list(fitted.notes)
    parallel = None
    try:
        parallel = parallel_analysis(table, seed=options.seed, missing=options.missing)
    except InputError as error:
        notes.append(f"no parallel analysis: {error}")
    return replace(fitted, parallel=parallel, notes=tuple(notes))


def _baseline_factors(fitted: Analysis) -> int:
    if fitted.options.factors != "auto":
        return int(fitted.options.factors)
    return max(1, fitted.parallel.n_factors) if fitted.parallel is not None else 1


def _fit_baselines(fitted: Analysis, tell: Progress) -> Analysis:
    """PCA, its resamples and ML; what cannot be fitted is an error only when it was asked for alone."""
    table, options = fitted.table, fitted.options
    factors = _baseline_factors(fitted)
    notes = list(fitted.notes)
    pca = ml = None
    resamples: dict[str, FactorSolution] = {}
    if options.wants("pca"):
        tell("PCA and its resamples", 0, 0)
        try:
            pca = fit_pca(table, factors, missing=options.missing)
        except InputError as error:
            _refuse_alone("pca", error, options, notes)
        for scheme in _schemes(table, notes) if pca is not None else ():
            try:
                resamples[scheme] = resample_pca(
                    table,
                    factors,
                    scheme=scheme,
                    draws=options.resamples,
                    seed=options.seed,
                    missing=options.missing,
                )
            except InputError as error:
                notes.append(f"no {scheme} PCA: {error}")
    if options.wants("ml"):
        tell("maximum-likelihood factor analysis", 0, 0)
        try:
            ml = fit_ml(
                table,
                factors,
                rotation=options.rotation,
                convention=options.convention,
                missing=options.missing,
            )
        except InputError as error:
            _refuse_alone("ml", error, options, notes)
    return replace(fitted, pca=pca, ml=ml, resamples=resamples, notes=tuple(notes))


def _schemes(table: ScoreTable, notes: list[str]) -> list[Scheme]:
    """The ways of resampling that this many models allow."""
    n_models = len(table.model_names)
    if n_models < MIN_MODELS:
        notes.append(f"{n_models} models are too few to leave any out: no resampling of PCA")
        return []
    if n_models > MOST_LEFT_OUT:
        notes.append(
            f"{n_models} models are too many to leave out one by one (limit {MOST_LEFT_OUT}): bootstrap only"
        )
        return ["bootstrap"]
    return list(SCHEMES)


def _refuse_alone(method: str, error: InputError, options: FitOptions, notes: list[str]) -> None:
    if options.method == method:
        raise error
    notes.append(f"no {method.upper()}: {error}")


def _fit_bayes(fitted: Analysis, tell: Progress) -> Analysis:
    from factorlab.inference.bayes import fit_bayes

    table, options = fitted.table, fitted.options
    notes = list(fitted.notes)
    factors = options.factors
    if factors == "auto":
        from factorlab.inference.choose import choose_factors

        count = choose_factors(
            table,
            method="bayes",
            seed=options.seed,
            pairs=options.pairs,
            priors=options.priors,
            workers=options.workers,
            cluster=options.cluster,
            progress=tell,
        )
        factors = count.chosen
        notes.append(
            f"number of factors: {_baseline_factors(fitted)} by parallel analysis (PCA, ML), "
            f"{factors} by held-out cells (Bayes)"
        )
    try:
        bayes = fit_bayes(
            table,
            int(factors),
            budget=options.budget,
            pairs=options.pairs,
            orientation=options.orientation,
            priors=options.priors,
            draws=options.draws,
            tune=options.tune,
            chains=options.chains,
            max_draws=options.max_draws,
            max_seconds=options.max_seconds,
            sampler=options.sampler,
            chain_weights=options.chain_weights,
            cores=options.cores,
            seed=options.seed,
            progress=tell,
        )
    except InputError as error:
        _refuse_alone("bayes", error, options, notes)
        return replace(fitted, notes=tuple(notes))
    return replace(fitted, bayes=bayes, notes=tuple(notes))


def with_anchors(
    table: ScoreTable, anchors: Mapping[int, str], factors: int | Literal["auto"] = "auto"
) -> ScoreTable:
    """The table with other anchor benchmarks: the sign of factor k is such that its anchor is positive.

    Parameters
    ----------
    anchors : mapping
        Factor, counted from 1, to benchmark; the table's own anchors of other factors stay.
    factors : int or "auto"
        Number of factors that will be fitted, where it is known.

    Raises
    ------
    InputError
        When a benchmark is not in the table, or a factor is beyond the last.
    """
    benchmarks = table.benchmarks.copy()
    column = benchmarks["anchor_factor"].astype(float)
    for factor, name in anchors.items():
        if factors != "auto" and factor > factors:
            raise InputError(
                f"anchor of PC{factor}, but {factors} factors are fitted; give PC1 to PC{factors}"
            )
        if name not in benchmarks.index:
            raise InputError(
                f"anchor benchmark '{name}' is not in the table; it has {', '.join(benchmarks.index)}"
            )
        column[column == factor] = np.nan
        column[name] = factor
    benchmarks["anchor_factor"] = column
    out = replace(table, benchmarks=benchmarks)
    declared_anchors(out)
    return out
