"""Statistics of draws that the benchmarks share: effective sample sizes, agreement of two samplers.

All draws are arrays (chain, draw, quantity).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2, norm

LEVEL = 0.94
"""Probability of the intervals whose ends are compared."""

FALSE_ALARM = 0.001
"""Probability that one test of agreement fails although both samplers are right."""


def bulk_ess(values: np.ndarray) -> np.ndarray:
    """ArviZ's bulk effective sample size, (quantity,)."""
    import arviz as az

    return np.array(
        [az.ess(np.ascontiguousarray(values[:, :, i]), method="bulk") for i in range(values.shape[2])]
    )


def rhat(values: np.ndarray) -> np.ndarray:
    """ArviZ's rank-normalised split R-hat, (quantity,)."""
    import arviz as az

    return np.array([az.rhat(np.ascontiguousarray(values[:, :, i])) for i in range(values.shape[2])])


def shortest_prefix(values: np.ndarray, goal: float, coarse: int = 40) -> int | None:
    """Number of draws a chain after which every quantity has bulk ESS ``goal``; None where it never has.

    The first of ``coarse`` equal steps that reaches it, then halved towards the step before.
    """
    n = values.shape[1]
    order = np.argsort(bulk_ess(values))  # the slowest first: most prefixes fail at once

    def reaches(length: int) -> bool:
        part = values[:, :length]
        return all(float(bulk_ess(part[:, :, [i]])[0]) >= goal for i in order)

    low = 3  # ArviZ needs four draws
    for high in np.unique(np.linspace(4, n, coarse).astype(int)):
        if reaches(int(high)):
            while high - low > 1:
                middle = (int(high) + low) // 2
                low, high = (low, middle) if reaches(middle) else (middle, high)
            return int(high)
        low = int(high)
    return None


class Agreement(NamedTuple):
    """How far one statistic of all quantities differs between two samplers, in standard errors.

    Attributes
    ----------
    statistic : str
        "mean", "lower" or "upper" (ends of the central interval).
    z : ndarray, (quantity,)
        Difference over the combined Monte Carlo standard error.
    effective : float
        Number of independent quantities that spread like these: m^2 / sum of squared correlations of
        the errors, so that the mean of z^2 is about chi-square(effective) / effective.
    """

    statistic: str
    z: np.ndarray
    effective: float

    @property
    def mean_square(self) -> float:
        return float(np.mean(self.z**2))

    @property
    def mean_square_limit(self) -> float:
        """Exceeded with probability `FALSE_ALARM` when both samplers are right (Satterthwaite 1946)."""
        return float(chi2.ppf(1 - FALSE_ALARM, self.effective) / self.effective)

    @property
    def largest(self) -> float:
        return float(np.abs(self.z).max())

    @property
    def largest_limit(self) -> float:
        """The same for the largest |z|, whatever the correlations (Bonferroni)."""
        return float(norm.isf(FALSE_ALARM / (2 * len(self.z))))

    def share_above(self, limit: float) -> float:
        return float(np.mean(np.abs(self.z) > limit))


def agreement(ours: np.ndarray, theirs: np.ndarray) -> list[Agreement]:
    """Means and interval ends of two samplers compared.

    Parameters
    ----------
    ours, theirs : ndarray, (chain, draw, quantity)

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, Bayesian Analysis 16 (standard errors of
    means and quantiles).
    """
    tail = (1 - LEVEL) / 2
    out = []
    for statistic, q in (("mean", None), ("lower", tail), ("upper", 1 - tail)):
        value, error, scatter = zip(*(_estimate(x, q) for x in (ours, theirs)), strict=True)
        z = (value[0] - value[1]) / np.hypot(*error)
        out.append(Agreement(statistic, z, _effective(scatter[0], scatter[1])))
    return out


def _estimate(x: np.ndarray, q: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistic, its Monte Carlo standard error, and its scatter over batches (batch, quantity).

    A quantile's error is that of the share of draws below it over the density there, so the scatter
    of these shares has the quantile's correlations.
    """
    import arviz as az

    columns = [np.ascontiguousarray(x[:, :, i]) for i in range(x.shape[2])]
    if q is None:
        value = x.mean(axis=(0, 1))
        # ArviZ 0.x answers with an array of one number, 1.x with the number.
        error = np.array([np.ravel(az.mcse(c, method="mean"))[0] for c in columns])
        return value, error, _batch_means(x)
    value = np.quantile(x, q, axis=(0, 1))
    error = np.array([float(az.mcse(c, method="quantile", prob=q)) for c in columns])
    return value, error, _batch_means((x <= value).astype(float))


def _batch_means(x: np.ndarray, batches: int = 20) -> np.ndarray:
    """Means of equal stretches of each chain, long against its memory, (batch, quantity)."""
    parts = [stretch.mean(axis=1) for stretch in np.array_split(x, min(batches, x.shape[1]), axis=1)]
    return np.concatenate(parts)


def _effective(a: np.ndarray, b: np.ndarray) -> float:
    """m^2 / sum rho^2 of the error of a difference, sampling noise of rho^2 taken off."""
    covariance = np.cov(a.T) / len(a) + np.cov(b.T) / len(b)
    sd = np.sqrt(np.diag(covariance))
    rho2 = (covariance / np.outer(sd, sd)) ** 2
    n, m = len(a) + len(b) - 2, len(sd)
    off = rho2 - (1 - rho2) / (n - 1)
    np.fill_diagonal(off, 0.0)
    return float(m**2 / (m + max(off.sum(), 0.0)))
