"""Priors: every prior of the Bayesian model by name, read from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from factorlab.errors import InputError


@dataclass(frozen=True)
class Priors:
    """Priors of `factorlab.inference.model.build_model`; all scores are standardised.

    All priors are the same for every factor (isotropic), so that turning the axes after sampling
    changes nothing but names.

    Attributes
    ----------
    loading_sd : float
        Scale of the half-normal prior of the one standard deviation that all loadings share.
    small_loading : float
        Root mean square loading below which a factor counts as small: Jeffreys' prior of the
        residual covariance of abilities holds above it.
    mean_sd : float
        Standard deviation of the normal prior of each benchmark's mean mu_j.
    noise_sd_median, noise_sd_log_sd : float
        Log-normal prior of the unique noise psi_j; its thin lower tail keeps psi off zero
        (Heywood cases).
    pair_sd : float
        Scale of the half-normal prior of delta_g, the sd of what benchmarks that share items have
        in common beyond the factors.
    slope_sd : float
        Scale of the half-normal prior of the one standard deviation that all slopes share; slopes
        are per standard deviation of a log budget.
    root_sd : float
        Scale of the half-normal prior of the standard deviation of family effects.
    step_sd : float
        Scale of the half-normal prior of the standard deviation of what a model passes on to its
        continually pre-trained children.
    official_log_sd, derived_log_sd, guessed_log_sd : float
        Standard deviation of the natural log of a token count by its status.
    token_floor_b, token_floor_log_sd : float
        Log-normal prior of d0, in billions of tokens: a language with zero declared tokens enters
        as log(0 + d0).
    tokens_log10_sd : float
        Scale of the half-normal prior of the spread of log10 token counts between families.
    """

    loading_sd: float = 1.0
    small_loading: float = 0.1
    mean_sd: float = 1.0
    noise_sd_median: float = 0.35
    noise_sd_log_sd: float = 0.5
    pair_sd: float = 0.5
    slope_sd: float = 2.0
    root_sd: float = 1.0
    step_sd: float = 1.0
    official_log_sd: float = 0.05
    derived_log_sd: float = 0.3
    guessed_log_sd: float = 0.7
    token_floor_b: float = 1.0
    token_floor_log_sd: float = 1.0
    tokens_log10_sd: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
                raise InputError(f"prior '{name}' is {value!r}; give a positive number")

    def token_log_sd(self, status: str) -> float:
        """Standard deviation of the natural log of a count with this status."""
        return {
            "official": self.official_log_sd,
            "derived": self.derived_log_sd,
            "guessed": self.guessed_log_sd,
        }[status]


def read_priors(path: str | Path) -> Priors:
    """Priors from a TOML file whose keys are the fields of `Priors`.

    Raises
    ------
    InputError
        When the file is absent, is not TOML, or names a prior that does not exist.
    """
    source = Path(path)
    try:
        values = tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such priors file: '{source}'") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"priors file '{source}' is not TOML: {error}") from None
    known = [field.name for field in fields(Priors)]
    for name in values:
        if name not in known:
            raise InputError(f"priors file '{source}' names '{name}'; known priors: {', '.join(known)}")
    return Priors(**values)
