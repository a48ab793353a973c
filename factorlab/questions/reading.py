"""What answers are read from: the leading solution, its regression, the languages that have budgets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from factorlab.analysis import Analysis
from factorlab.errors import InputError
from factorlab.inference.budgets import BudgetRegression, published_budgets
from factorlab.inference.resamples import draw_resamples
from factorlab.inference.solution import FactorSolution
from factorlab.lineage import build_lineage
from factorlab.questions.quick_pca import (
    Components,
    Rows,
    budget_correlations,
    reweighted,
    standard_rows,
)
from factorlab.wording import language_name

MIN_BUDGETS = 3
"""Fewer models with a published budget show no relation."""


@dataclass(frozen=True)
class Reading:
    """An analysis as the answers see it.

    Attributes
    ----------
    analysis : Analysis
    """

    analysis: Analysis

    @property
    def level(self) -> float:
        return self.analysis.options.level

    @property
    def solution(self) -> FactorSolution | None:
        """The posterior, else PCA, else maximum likelihood."""
        parts = (self.analysis.bayes, self.analysis.pca, self.analysis.ml)
        return next((s for s in parts if s is not None), None)

    @property
    def regression(self) -> BudgetRegression | None:
        """The joint regression of a posterior; None where there is none."""
        found = self.analysis.bayes_budgets
        if self.analysis.bayes is None or found is None or found.method != "joint" or found.draws is None:
            return None
        return found

    @cached_property
    def budgets(self) -> pd.DataFrame:
        """log10(N D_l) of each language that enough scored models publish, (model, language)."""
        try:
            published = published_budgets(self.analysis.table)
        except InputError:
            return pd.DataFrame(index=self.analysis.table.model_names)
        known = published.drop(columns="total", errors="ignore")
        return known.loc[:, known.notna().sum() >= MIN_BUDGETS]

    @property
    def languages(self) -> list[str]:
        return [str(name) for name in self.budgets]

    @property
    def factors(self) -> list[str]:
        """Factors of the leading solution whose axis the data fix; a point does not say, all count."""
        solution = self.solution
        if solution is None:
            return []
        flags = dict(zip(solution.factors, solution.extra.get("identified", []), strict=False))
        return [f for f in solution.factors if flags.get(f, True)]

    @property
    def loose(self) -> list[str]:
        """Factors that are not identified."""
        return [] if self.solution is None else [f for f in self.solution.factors if f not in self.factors]

    @property
    def beyond_noise(self) -> list[str]:
        """Factors that parallel analysis does not keep; none where there is none."""
        parallel = self.analysis.parallel
        if parallel is None or self.solution is None or parallel.n_factors < 1:
            return []
        return self.solution.factors[parallel.n_factors :]

    @cached_property
    def family(self) -> np.ndarray:
        """Family of each scored model, (model,)."""
        return build_lineage(self.analysis.table.models).family_of(self.analysis.table.model_names)

    @cached_property
    def rows(self) -> Rows | None:
        """The table ready for quick PCA fits; None where the run has no PCA."""
        pca = self.analysis.pca
        if pca is None:
            return None
        return standard_rows(self.analysis.table, len(pca.factors), self.analysis.options.missing)

    @cached_property
    def bootstrap_weights(self) -> np.ndarray | None:
        """How often each model was drawn, (draw, model); None without PCA."""
        if self.rows is None:
            return None
        options, table = self.analysis.options, self.analysis.table
        counts = draw_resamples(
            table, self.rows.used, "bootstrap", min(options.resamples, 500), options.seed
        ).counts.astype(float)
        return counts[(counts > 0).sum(axis=1) >= 3]

    @cached_property
    def bootstrap(self) -> Components | None:
        """PCA of each bootstrap sample of models."""
        pca = self.analysis.pca
        if self.rows is None or self.bootstrap_weights is None or pca is None:
            return None
        return reweighted(self.rows, self.bootstrap_weights, pca.stacked("loading")[0])

    @cached_property
    def rho(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Point (factor, language) and draws (draw, factor, language) of rho of every factor.

        Of the joint posterior (the point is its median); else of PCA with a bootstrap of models.
        """
        joint = self.regression
        if not self.languages:
            return None
        if joint is not None and joint.draws is not None:
            array = joint.draws["rho"].transpose("chain", "draw", "factor", "budget")
            have = [str(b) for b in array["budget"].values]
            if not set(self.languages) <= set(have):
                return None
            values = array.values.reshape(-1, *array.shape[2:])[..., [have.index(l) for l in self.languages]]
            return np.median(values, axis=0), values
        pca, boot = self.analysis.pca, self.bootstrap
        if pca is None or boot is None or self.solution is not pca:
            return None
        columns = [self.budgets[l].to_numpy() for l in self.languages]
        point = np.stack([budget_correlations(pca.stacked("ability"), x)[0] for x in columns], axis=-1)
        draws = [budget_correlations(boot.ability, x, self.bootstrap_weights) for x in columns]
        return point, np.stack(draws, axis=-1)

    @property
    def how(self) -> str:
        """Where rho and its intervals come from, in a clause."""
        if self.regression is not None:
            return "joint posterior over the models with a published budget"
        return "PCA in two steps, intervals from a bootstrap of the models"

    @property
    def two_step(self) -> dict[str, np.ndarray]:
        """rho of PCA's abilities with the published budget of each language, (factor,)."""
        pca = self.analysis.pca
        if pca is None:
            return {}
        ability = pca.stacked("ability")
        return {l: budget_correlations(ability, self.budgets[l].to_numpy())[0] for l in self.languages}

    def loadings(self) -> pd.DataFrame:
        """Loadings of the leading solution, ``benchmark, factor, mean, lower, upper``.

        Bounds are those of the bootstrap for PCA, NaN where there are none.
        """
        solution = self.solution
        assert solution is not None
        rows = solution.summary("loading", self.level)[["benchmark", "factor", "mean", "lower", "upper"]]
        if solution.n_draws > 1:
            return rows
        rows[["lower", "upper"]] = np.nan
        boot = self.analysis.resamples.get("bootstrap")
        if solution.method == "pca" and boot is not None:
            keys = ["benchmark", "factor"]
            spread = boot.summary("loading", self.level)[[*keys, "lower", "upper"]]
            rows = rows.drop(columns=["lower", "upper"]).merge(spread, on=keys, how="left")
        return rows

    @cached_property
    def slopes(self) -> pd.DataFrame:
        """Slopes of benchmarks on tokens, see `factorlab.questions.benchmark_slopes`."""
        from factorlab.questions.benchmark_slopes import benchmark_slopes

        return benchmark_slopes(self)

    def no_budgets(self) -> str:
        """Why nothing can be said of budgets; empty where something can."""
        table = self.analysis.table
        if self.solution is None:
            return "No model could be fitted to this table."
        if "params_b" not in table.models or not table.languages:
            return (
                "The models table has no training budgets; columns params_b and tokens_b_<language> "
                "(one a language) would give them."
            )
        if not self.languages:
            return (
                f"Fewer than {MIN_BUDGETS} scored models have both params_b and a tokens_b_<language> above 0; "
                "more counts in those columns would answer this."
            )
        return ""

    def interval(self, draws: np.ndarray) -> np.ndarray:
        """Lower and upper bound along the first axis, (2, ...); NaN draws are left out."""
        tail = (1 - self.level) / 2
        if not np.isnan(draws).any():
            return np.quantile(draws, [tail, 1 - tail], axis=0)
        out = np.full((2, *draws.shape[1:]), np.nan)
        some = np.isfinite(draws).sum(axis=0) > 1
        out[:, some] = np.nanquantile(draws[:, some], [tail, 1 - tail], axis=0)
        return out


def named(language: str, what: str = "budget") -> str:
    """ "the Japanese budget"."""
    return f"the {language_name(language)} {what}"
