"""FitOptions: what an analysis is asked for, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from factorlab.cluster import parse_address
from factorlab.errors import InputError
from factorlab.inference.orientation import Orientation
from factorlab.inference.priors import Priors

Method = Literal["pca", "ml", "bayes", "all"]


@dataclass(frozen=True)
class FitOptions:
    """What `analyse` is asked for.

    Attributes
    ----------
    factors : int or "auto"
        "auto": parallel analysis for PCA and ML, held-out cells for the Bayesian model.
    method : {"pca", "ml", "bayes", "all"}
    budget : {"separate", "product", "none"}
    orientation : {"procrustes", "principal", "varimax", "promax"}
        Of the Bayesian draws.
    rotation : {"none", "varimax", "promax"}
        Of the maximum-likelihood solution.
    convention : {"psych", "stats"}
        Which promax.
    missing : {"em", "complete"}
        What PCA and ML do with missing cells; the Bayesian model needs neither.
    pairs : bool
    level : float
    draws, tune, chains : int
        Draws of each chain before convergence is first checked, warm-up draws, chains.
    max_draws : int
        Draws of each chain after which sampling stops in any case.
    max_seconds : float or None
        Seconds of sampling after which it stops in any case.
    sampler : {"auto", "nuts", "laplace"}
        Exact sampling, or a normal approximation at the mode; "auto" chooses by the table's size.
    chain_weights : {"none", "stacking", "posterior"}
        How chains that found different solutions are weighted.
    cores : int or None
    workers : int or None
        Fits at once where there are many of them (held-out cells).
    cluster : str or None
        Where those run: ``dask://host:port`` or ``ray://host:port``.
    resamples : int
        Bootstrap draws of PCA.
    priors : Priors
    seed : int
    """

    factors: int | Literal["auto"] = 4
    method: Method = "all"
    budget: Literal["separate", "product", "none"] = "separate"
    orientation: Orientation = "procrustes"
    rotation: Literal["none", "varimax", "promax"] = "none"
    convention: Literal["psych", "stats"] = "psych"
    missing: Literal["em", "complete"] = "em"
    pairs: bool = True
    level: float = 0.94
    draws: int = 500
    tune: int = 300
    chains: int = 4
    max_draws: int = 10_000
    max_seconds: float | None = None
    sampler: Literal["auto", "nuts", "laplace"] = "auto"
    chain_weights: Literal["none", "stacking", "posterior"] = "none"
    cores: int | None = None
    workers: int | None = None
    cluster: str | None = None
    resamples: int = 500
    priors: Priors = field(default_factory=Priors)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise InputError(
                f"level {self.level} is not a probability; give a number between 0 and 1, such as 0.94"
            )
        if self.factors != "auto" and self.factors < 1:
            raise InputError(f"{self.factors} factors asked for; give 1 or more, or auto")
        for name in ("draws", "tune", "chains", "resamples", "max_draws"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("cores", "workers"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InputError(f"{name} is {number}; give 1 or more, or leave it out")
        if self.cluster is not None:
            parse_address(self.cluster)
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give 0 or more")

    def wants(self, method: str) -> bool:
        return self.method in ("all", method)
