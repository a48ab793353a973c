"""Laplace approximation: a normal distribution at the posterior's mode, checked by importance sampling.

For tables whose exact sampling would take too long. With H the negative Hessian of the log density at its
mode x*, draws are Normal(x*, H^-1) in the unconstrained space. Parameters fall in two parts: *shared* ones
(loadings, means, unique noise, slopes, standard deviations), whose block of H is dense, and *own* ones
(the errors of single token counts), thousands where there are thousands of models, which touch each other
mostly through shared ones, so that their block is taken as diagonal:

    H = [[G, C'], [C, D]],   S = G - C' D^-1 C,   x_G ~ Normal(x*_G, S^-1),
    x_D | x_G ~ Normal(x*_D - D^-1 C (x_G - x*_G), D^-1).

G and C are central differences of the gradient, two evaluations for each shared parameter; D is found with
random signs (Bekas, Kokiopoulou & Saad 2007, Applied Numerical Mathematics 57). So the cost is that of
some thousand gradients, each linear in the observed cells. How far the normal is from the posterior is
told by the Pareto k-hat of the importance ratios (Yao, Vehtari, Simpson & Gelman 2018, ICML): above 0.7
it is unverified.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

from factorlab.errors import InputError
from factorlab.inference.density import Density
from factorlab.inference.sampling import Progress, silent, smooth_weights, start_point

OWN = ("token_error_", "token_latent_")
"""Beginnings of the names of parameters that belong to single models or families."""

FEWEST_OWN = 200
"""Fewer own parameters than this are treated as shared, with a dense block."""

KHAT_GOAL = 0.7

STARTS = 3
STEP = 1e-4
PROBES = 8
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
    counted = _Counted(density)
    mode = _mode(counted, density, rng, tell)
    own = np.zeros(density.n_dim, dtype=bool)
    for name, part in zip(density.names, density.slices, strict=True):
        own[part] = name.startswith(OWN)
    if own.sum() < FEWEST_OWN:
        own[:] = False
    shared = np.flatnonzero(~own)
    columns = np.empty((density.n_dim, len(shared)))
    for c, at in enumerate(shared):
        if c % 20 == 0:
            tell("curvature at the mode", c, len(shared))
        columns[:, c] = _along(counted, mode, np.eye(1, density.n_dim, int(at))[0])
    g, cross = columns[shared], columns[own]
    diagonal = _diagonal(counted, mode, own, rng)
    schur = (g + g.T) / 2 - cross.T @ (cross / diagonal[:, None])
    try:
        factor = cholesky((schur + schur.T) / 2, lower=True)
    except np.linalg.LinAlgError:
        raise InputError(
            "no Laplace approximation: the log density is not curved downwards at the mode that was found; "
            "use --sampler nuts"
        ) from None
    n = draws * chains
    e = rng.standard_normal((n, len(shared)))
    f = rng.standard_normal((n, len(diagonal)))
    away = solve_triangular(factor, e.T, lower=True, trans="T").T
    points = np.tile(mode, (n, 1))
    points[:, shared] += away
    points[:, own] += f / np.sqrt(diagonal) - away @ (cross / diagonal[:, None]).T
    checked = min(n, CHECKED)
    ratio = np.empty(checked)
    for i in range(checked):
        if i % 50 == 0:
            tell("checking the approximation", i, checked)
        ratio[i] = counted(points[i])[0] + 0.5 * ((e[i] ** 2).sum() + (f[i] ** 2).sum())
    finite = np.where(np.isfinite(ratio), ratio, -1e300)
    khat = smooth_weights(finite)[1] if np.isfinite(ratio).sum() > checked // 2 else np.inf
    return Approximation(
        points.reshape(chains, draws, -1), float(khat), counted.calls, time.monotonic() - began
    )


class _Counted:
    """The density, and how often it was evaluated."""

    def __init__(self, density: Density) -> None:
        self._evaluate = density.evaluator()
        self.calls = 0

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.calls += 1
        return self._evaluate(x)


def _mode(evaluate: _Counted, density: Density, rng: np.random.Generator, tell: Progress) -> np.ndarray:
    """The best of some optimisations from random starts."""

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = evaluate(x)
        return (-value, -gradient) if np.isfinite(value) else (1e300, np.zeros_like(x))

    best, lowest = density.start, np.inf
    for i in range(STARTS):
        tell("searching the mode", i, STARTS)
        start = start_point(evaluate, density.start, rng)
        found = minimize(
            objective, start, jac=True, method="L-BFGS-B",
            options={"maxiter": 3000, "maxfun": 6000, "maxcor": 30, "ftol": 1e-12, "gtol": 1e-4},
        )  # fmt: skip
        if found.fun < lowest and np.linalg.norm(found.jac) < max(1.0, 1e-4 * abs(found.fun)):
            best, lowest = found.x, found.fun
    if not np.isfinite(lowest):
        raise InputError("no Laplace approximation: no mode was found; use --sampler nuts")
    return best


def _along(evaluate: _Counted, mode: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """H times a direction, by central differences of the gradient."""
    above = evaluate(mode + STEP * direction)[1]
    below = evaluate(mode - STEP * direction)[1]
    return (below - above) / (2 * STEP)


def _diagonal(evaluate: _Counted, mode: np.ndarray, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Diagonal of H for own parameters: E[s * H s] with random signs s."""
    if not own.any():
        return np.zeros(0)
    total = np.zeros(int(own.sum()))
    for _ in range(PROBES):
        signs = rng.choice([-1.0, 1.0], len(total))
        direction = np.zeros(len(mode))
        direction[own] = signs
        total += signs * _along(evaluate, mode, direction)[own]
    return np.maximum(total / PROBES, 0.1)
