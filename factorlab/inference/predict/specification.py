"""Member: one prediction model of the mixture, and the priors that all of them share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

from factorlab.errors import InputError

Likelihood = Literal["student", "beta-binomial", "binomial"]

LIKELIHOODS: tuple[Likelihood, ...] = ("student", "beta-binomial", "binomial")

MOST_FACTORS = 6


@dataclass(frozen=True)
class Member:
    """One prediction model.

    Attributes
    ----------
    factors : int
        K, 1 to 6.
    kin : bool
        Effects of families and of base models.
    groups : bool
        What benchmarks of one name share beyond the factors.
    floor : bool
        Learn each benchmark's floor, between 0 and its lowest score; else it is the declared chance, or 0.
    ceiling : bool
        Learn each benchmark's ceiling, between its highest score and 1; else it is 1.
    residual : bool
        Learn the spread of abilities that predictors and kin leave; else it is 1.
    predictors : bool
        Regress abilities on the models' predictors.
    """

    factors: int = 4
    kin: bool = True
    groups: bool = True
    floor: bool = False
    ceiling: bool = True
    residual: bool = False
    predictors: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.factors <= MOST_FACTORS:
            raise InputError(
                f"{self.factors} factors asked for a prediction; give 1 to {MOST_FACTORS}, or auto"
            )

    @property
    def name(self) -> str:
        """A short name, such as "K=4, floor"."""
        plain = asdict(Member(factors=self.factors))
        told = [
            key if value else f"no {key}"
            for key, value in asdict(self).items()
            if key != "factors" and value != plain[key]
        ]
        return ", ".join([f"K={self.factors}", *told])


DEFAULT_MEMBERS = (Member(2, floor=True, residual=True), Member(4), Member(6, floor=True, residual=True))
"""Members of the default mixture; their weights come from held-out training cells."""


def limited(members: tuple[Member, ...], n_models: int, n_benchmarks: int) -> tuple[Member, ...]:
    """Members that a table can bear: no more factors than half the smaller side, doubles removed."""
    most = max(1, min(n_models, n_benchmarks) // 2)
    kept = [replace(m, factors=min(m.factors, most)) for m in members]
    return tuple(dict.fromkeys(kept))


@dataclass(frozen=True)
class PredictionPriors:
    """Normal priors, (mean, sd), of what is not standard normal; scores are on the unit interval.

    Attributes
    ----------
    mean_center, mean_spread : tuple of float
        Centre of the benchmarks' intercepts mu_j, log of their sd.
    general_center, general_spread : tuple of float
        Centre of log loadings on the general factor, log of their sd: they are positive and pooled.
    loading_scale : tuple of float
        Log of the sd of loadings on the second factor.
    loading_step : float
        By how much that is less for each further factor: loadings shrink.
    noise_center, noise_spread : tuple of float
        Centre of log sigma_j, log of their sd.
    model_noise_spread, shape_spread : tuple of float
        Log of the sd of log tau_i; of log kappa_j.
    tail : tuple of float
        log(nu - 1.5).
    slope_of_noise : tuple of float
        Logit of gamma: 0 is noise that does not depend on the score, 1 noise in proportion to the link's slope.
    ceiling, floor : tuple of float
        Logit of where a ceiling lies between the highest score and 1; a floor between 0 and the lowest.
    residual : tuple of float
        Log of the sd of what predictors and kin leave of an ability, where it is learned.
    slope : tuple of float
        Slopes of abilities on standardised predictors.
    family, base_model : tuple of float
        Log of the sd of effects of families; of base models.
    specific_center : tuple of float
        Log of delta, the sd of what a group of benchmarks shares.
    """

    mean_center: tuple[float, float] = (0.5, 1.0)
    mean_spread: tuple[float, float] = (0.2, 0.5)
    general_center: tuple[float, float] = (-0.2, 0.5)
    general_spread: tuple[float, float] = (-1.0, 0.5)
    loading_scale: tuple[float, float] = (-1.2, 0.5)
    loading_step: float = 0.3
    noise_center: tuple[float, float] = (-2.8, 0.7)
    noise_spread: tuple[float, float] = (-0.8, 0.5)
    model_noise_spread: tuple[float, float] = (-1.5, 0.5)
    shape_spread: tuple[float, float] = (-1.2, 0.4)
    tail: tuple[float, float] = (1.2, 0.7)
    slope_of_noise: tuple[float, float] = (0.0, 1.0)
    ceiling: tuple[float, float] = (0.0, 1.5)
    floor: tuple[float, float] = (-1.0, 1.5)
    residual: tuple[float, float] = (-0.5, 0.5)
    slope: tuple[float, float] = (0.0, 0.7)
    family: tuple[float, float] = (-1.0, 0.5)
    base_model: tuple[float, float] = (-0.7, 0.5)
    specific_center: tuple[float, float] = (-1.0, 0.5)
