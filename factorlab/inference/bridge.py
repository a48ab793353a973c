"""Posterior mass of separate solutions by bridge sampling.

How many chains found a solution says where they started, not how probable it is. What says it is the
integral of the unnormalised posterior over the surroundings of each solution, Z_g. With draws x of the
solution, draws y of a normal q fitted to other draws of it, and p the unnormalised posterior, Z is the fixed
point of

    Z = mean_y [ p(y) / (n1 p(y) + n2 Z q(y)) ] / mean_x [ q(x) / (n1 p(x) + n2 Z q(x)) ],

which has the least error of all such ratios when the draws are independent (Meng & Wong 1996).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

ENOUGH = 2
"""Draws needed to fit the normal, in multiples of the dimension."""

_STEPS = 1000


class Mass(NamedTuple):
    """Log of the posterior mass of each solution, up to one constant.

    Attributes
    ----------
    log_mass : ndarray, (group,)
        NaN where there were too few draws for the dimension.
    error : ndarray, (group,)
        Half the difference between the two halves of the draws, each of which fits the normal for the other.
    """

    log_mass: np.ndarray
    error: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Of the mass of all solutions that were found, (group,); NaN when one is not known."""
        return np.exp(self.log_mass - logsumexp(self.log_mass))


def masses(
    points: np.ndarray,
    groups: Sequence[Sequence[int]],
    log_density: Callable[[np.ndarray], float],
    *,
    proposals: int = 5000,
    most: int = 4000,
    seed: int = 0,
) -> Mass:
    """Posterior mass of the solution of each group of chains.

    Parameters
    ----------
    points : ndarray, (chain, draw, dim)
        Draws in an unconstrained space.
    groups : sequence of sequences of int
        Chains of each solution.
    log_density : callable
        (dim,) -> log of the unnormalised posterior density in that space.
    proposals : int
        Draws of the normal.
    most : int
        Draws of a half at which the density is evaluated, evenly spaced.
    seed : int

    Returns
    -------
    Mass

    References
    ----------
    Meng & Wong 1996, Statistica Sinica 6. Gronau et al. 2017, Journal of Mathematical Psychology 81 (a normal
    fitted to one half of the draws, the other half bridged).
    """
    rng = np.random.default_rng(seed)
    middle = points.shape[1] // 2
    out = np.full((len(groups), 2), np.nan)
    for g, chains in enumerate(groups):
        own = points[list(chains)]
        halves = [half.reshape(-1, points.shape[2]) for half in (own[:, :middle], own[:, middle:])]
        for turn, (fitted, bridged) in enumerate((halves, halves[::-1])):
            if len(fitted) >= ENOUGH * points.shape[2]:
                step = max(1, len(bridged) // most)
                out[g, turn] = _bridge(fitted, bridged[::step], log_density, proposals, rng)
    return Mass(out.mean(axis=1), np.abs(out[:, 0] - out[:, 1]) / 2)


def _bridge(
    fitted: np.ndarray,
    bridged: np.ndarray,
    log_density: Callable[[np.ndarray], float],
    proposals: int,
    rng: np.random.Generator,
) -> float:
    """log Z from draws the normal was not fitted to."""
    center, dim = fitted.mean(axis=0), fitted.shape[1]
    covariance = np.atleast_2d(np.cov(fitted, rowvar=False))
    root = np.linalg.cholesky(covariance + 1e-10 * np.trace(covariance) / dim * np.eye(dim))
    proposed = center + rng.standard_normal((proposals, dim)) @ root.T

    def log_ratio(x: np.ndarray) -> np.ndarray:
        """log p - log q."""
        y = solve_triangular(root, (x - center).T, lower=True)
        log_q = -0.5 * (y**2).sum(axis=0) - np.log(np.diag(root)).sum() - 0.5 * dim * np.log(2 * np.pi)
        log_p = np.array([log_density(row) for row in x])
        return np.where(np.isfinite(log_p), log_p, -np.inf) - log_q

    of_draws, of_proposed = log_ratio(bridged), log_ratio(proposed)
    n1, n2 = np.log(len(bridged)), np.log(proposals)
    log_z = float(np.median(of_draws))
    for _ in range(_STEPS):
        above = logsumexp(of_proposed - np.logaddexp(n1 + of_proposed, n2 + log_z)) - n2
        below = logsumexp(-np.logaddexp(n1 + of_draws, n2 + log_z)) - n1
        last, log_z = log_z, float(above - below)
        if abs(log_z - last) < 1e-8:
            break
    return log_z
