"""Laplace approximation: a normal distribution at the posterior's mode, checked by importance sampling.

For tables whose exact sampling would take too long. Draws are those of the normal distribution that has the
mode and curvature of the log density (`factorlab.inference.curvature`), in the unconstrained space. How
far it is from the posterior is told by the Pareto k-hat of the importance ratios (Yao, Vehtari, Simpson &
Gelman 2018, ICML): above 0.7 it is unverified.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from factorlab.inference.curvature import Counted, find_curvature, find_modes
from factorlab.inference.density import Density
from factorlab.inference.sampling import smooth_weights
from factorlab.inference.watch import Progress, silent

KHAT_GOAL = 0.7

STARTS = 3
CHECKED = 1000
"""Draws whose density is evaluated for k-hat."""


class Approximation(NamedTuple):
    """Independent draws of the normal approximation.

    Attributes
    ----------
    points : ndarray, (chain, draw, dim)
        Chains are a label only.
    khat : float
        Shape of the tail of the importance ratios; above 0.7 the approximation is unverified.
    gradients : int
    seconds : float
    """

    points: np.ndarray
    khat: float
    gradients: int
    seconds: float


def approximate(
    density: Density, *, draws: int, chains: int, seed: int, progress: Progress | None = None
) -> Approximation:
    """Find the mode, the curvature there, and draw.

    Parameters
    ----------
    density : Density
    draws, chains : int
        Draws in all are their product.
    seed : int
    progress : callable, optional

    Raises
    ------
    InputError
        When no mode with positive curvature is found.
    """
    tell = progress or silent
    began = time.monotonic()
    rng = np.random.default_rng([seed, 2])
    counted = Counted(density)
    modes, _ = find_modes(counted, density, STARTS, rng, tell)
    curvature = find_curvature(counted, density, modes[0], rng, tell)
    z = rng.standard_normal((draws * chains, density.n_dim))
    points = curvature.points(z)
    checked = min(len(z), CHECKED)
    evaluate = counted.evaluator()
    ratio = np.empty(checked)
    for i in range(checked):
        if i % 50 == 0:
            tell("checking the approximation", i, checked)
        ratio[i] = evaluate(points[i])[0] + 0.5 * (z[i] ** 2).sum()
    finite = np.where(np.isfinite(ratio), ratio, -1e300)
    khat = smooth_weights(finite)[1] if np.isfinite(ratio).sum() > checked // 2 else np.inf
    return Approximation(
        points.reshape(chains, draws, -1), float(khat), counted.calls, time.monotonic() - began
    )
