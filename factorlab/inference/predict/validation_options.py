"""ValidationOptions: what a validation is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from factorlab.inference.predict.member_fit import Effort
from factorlab.inference.predict.mixture import PredictionSettings
from factorlab.inference.predict.schemes import Scheme
from factorlab.inference.predict.specification import DEFAULT_MEMBERS, Likelihood, Member

FITS = Effort(draws=150, tune=150, chains=2, max_depth=6)
"""Sampling of each fit: shorter than for one prediction, as there are dozens."""


@dataclass(frozen=True)
class ValidationOptions:
    """What a validation is asked for.

    Attributes
    ----------
    schemes : tuple of str
        Of `factorlab.inference.predict.schemes.SCHEMES`; empty: all that the table allows, but "siblings".
    folds : int
        Of held-out cells.
    level : float
        Probability of the intervals.
    factors : tuple of int or "auto"
        Members of the mixture; "auto": the default ones.
    covariates : tuple of str
    likelihood : {"student", "beta-binomial", "binomial"}
    splits : int
        Splits of the training cells, in each fold anew, that weigh and recalibrate the mixture.
    counts : bool
        Also score 1 to 6 factors on the held-out cells.
    effort : Effort
        Of every fit of the mixture.
    seed : int
    workers, cluster
        Where the fits run, see `factorlab.batch.run_batch`.
    """

    schemes: tuple[Scheme, ...] = ()
    folds: int = 5
    level: float = 0.9
    factors: tuple[int, ...] | Literal["auto"] = "auto"
    covariates: tuple[str, ...] = ()
    likelihood: Likelihood = "student"
    splits: int = 3
    counts: bool = True
    effort: Effort = FITS
    seed: int = 0
    workers: int | None = None
    cluster: str | None = None

    def settings(self, whole_models: bool = False, whole_lineages: bool = False) -> PredictionSettings:
        """Those of the mixture in one fold."""
        members = DEFAULT_MEMBERS if self.factors == "auto" else tuple(Member(k) for k in self.factors)
        return PredictionSettings(
            likelihood=self.likelihood, members=members, covariates=self.covariates, splits=self.splits,
            whole_models=whole_models, whole_lineages=whole_lineages, level=self.level, effort=self.effort,
            seed=self.seed,
        )  # fmt: skip


def quick(options: ValidationOptions) -> ValidationOptions:
    """The same with little work, to try a table: 2 folds, one member, equal weights, no numbers of factors."""
    member = (2,) if options.factors == "auto" else options.factors[:1]
    short = Effort(draws=100, tune=100, chains=1, max_depth=5)
    return replace(options, folds=2, factors=member, splits=0, counts=False, effort=short)
