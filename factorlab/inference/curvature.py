"""Modes of a log density, and its curvature there: what a normal approximation or a metric is made of.

Parameters fall in two parts: *shared* ones (loadings, means, unique noise, slopes, standard deviations),
whose block of the negative Hessian H is dense, and *own* ones (the errors of single token counts), thousands
where there are thousands of models, which touch each other mostly through shared ones, so that their block is
taken as diagonal:

    H = [[G, C'], [C, D]],   S = G - C' D^-1 C.

With S = L L' the map

    x_G = x*_G + L^-T z_G,        x_D = x*_D + D^-1/2 z_D - D^-1 C (x_G - x*_G)

gives standard normal z that covariance. G and C are central differences of the gradient, two evaluations for
each shared parameter; D is found with random signs (Bekas, Kokiopoulou & Saad 2007, Applied Numerical
Mathematics 57). So the cost is that of some thousand gradients, each linear in the observed cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

from factorlab.errors import InputError
from factorlab.inference.density import Density
from factorlab.inference.sampling import start_point
from factorlab.inference.watch import Progress

OWN = ("token_error_", "token_latent_")
"""Beginnings of the names of parameters that belong to single models or families."""

FEWEST_OWN = 200
"""Fewer own parameters than this are treated as shared, with a dense block."""

STEP = 1e-4
PROBES = 8
BLOCK = 20
"""Columns of the curvature between two tellings of progress."""


class Curvature(NamedTuple):
    """The normal distribution around a point that has a log density's curvature there.

    Attributes
    ----------
    center : ndarray, (dim,)
        x*: a mode, or another point in the midst of a density's mass.
    shared, own : ndarray of int, (shared,), (own,)
        Which parameters are which.
    root : ndarray, (shared, shared)
        L^-T, upper triangular.
    own_sd : ndarray, (own,)
        D^-1/2.
    pull : ndarray, (own, shared)
        D^-1 C.
    """

    center: np.ndarray
    shared: np.ndarray
    own: np.ndarray
    root: np.ndarray
    own_sd: np.ndarray
    pull: np.ndarray

    def points(self, z: np.ndarray) -> np.ndarray:
        """Points (draw, dim) of standard normal z, whose first columns are those of shared parameters."""
        n_shared = len(self.shared)
        away = z[:, :n_shared] @ self.root.T
        out = np.tile(self.center, (len(z), 1))
        out[:, self.shared] += away
        out[:, self.own] += z[:, n_shared:] * self.own_sd - away @ self.pull.T
        return out


class Counted:
    """A density that may be evaluated from several threads at once, and how often it was.

    Parameters
    ----------
    density : Density
    cores : int, optional
        Threads at once; as many as there are cores when not given.
    """

    def __init__(self, density: Density, cores: int | None = None) -> None:
        self._density, self._cores = density, cores
        self._halted = False
        self.calls = 0

    def evaluator(self) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """A function x -> (log density, gradient) for one thread."""
        inner = self._density.evaluator()

        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            if self._halted:
                raise InterruptedError
            self.calls += 1
            return inner(x)

        return evaluate

    def on_all_cores(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """What ``work`` makes of each item, in order; an interrupt does not wait for the rest."""
        from joblib import cpu_count  # knows the share of a container

        with ThreadPoolExecutor(self._cores or int(cpu_count())) as pool:
            try:
                yield from pool.map(work, items)
            except BaseException:
                self._halted = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def find_modes(
    counted: Counted, density: Density, starts: int, rng: np.random.Generator, tell: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Modes from random starts, some at once where there are several cores.

    Parameters
    ----------
    counted : Counted
    density : Density
    starts : int
    rng : numpy.random.Generator
    tell : callable

    Returns
    -------
    points : ndarray, (start, dim)
        The best first.
    values : ndarray, (start,)
        Log density; -inf where a search did not end at a mode.

    Raises
    ------
    InputError
        When no search ended at a mode.
    """

    def search(own: np.random.Generator) -> tuple[float, np.ndarray]:
        evaluate = counted.evaluator()

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = evaluate(x)
            return (-value, -gradient) if np.isfinite(value) else (1e300, np.zeros_like(x))

        start = start_point(evaluate, density.start, own)
        found = minimize(
            objective, start, jac=True, method="L-BFGS-B",
            options={"maxiter": 3000, "maxfun": 6000, "maxcor": 30, "ftol": 1e-12, "gtol": 1e-4},
        )  # fmt: skip
        still = np.linalg.norm(found.jac) < max(1.0, 1e-4 * abs(found.fun))
        return (-float(found.fun) if still else -np.inf), found.x

    found = []
    for i, mode in enumerate(counted.on_all_cores(search, rng.spawn(starts))):
        tell("searching the mode", i + 1, starts)
        found.append(mode)
    found.sort(key=lambda mode: -mode[0])
    if not np.isfinite(found[0][0]):
        raise InputError("no mode of the posterior was found; use --sampler nuts")
    return np.stack([point for _, point in found]), np.array([value for value, _ in found])


def find_curvature(
    counted: Counted, density: Density, center: np.ndarray, rng: np.random.Generator, tell: Progress
) -> Curvature:
    """The curvature at a point.

    Parameters
    ----------
    counted : Counted
    density : Density
    center : ndarray, (dim,)
        A mode, or another point in the midst of a density's mass.
    rng : numpy.random.Generator
    tell : callable

    Raises
    ------
    InputError
        When the density is not curved downwards there.
    """
    own = np.zeros(density.n_dim, dtype=bool)
    for name, part in zip(density.names, density.slices, strict=True):
        own[part] = name.startswith(OWN)
    if own.sum() < FEWEST_OWN:
        own[:] = False
    shared = np.flatnonzero(~own)
    columns = np.empty((density.n_dim, len(shared)))

    def fill(some: Iterable[int]) -> None:
        evaluate = counted.evaluator()
        for c in some:
            columns[:, c] = _along(evaluate, center, np.eye(1, density.n_dim, int(shared[c]))[0])

    blocks = [range(i, min(i + BLOCK, len(shared))) for i in range(0, len(shared), BLOCK)]
    for i, _ in enumerate(counted.on_all_cores(fill, blocks)):
        tell("curvature", blocks[i].stop, len(shared))
    g, cross = columns[shared], columns[own]
    diagonal = _diagonal(counted.evaluator(), center, own, rng)
    pull = cross / diagonal[:, None]
    schur = (g + g.T) / 2 - cross.T @ pull
    try:
        factor = cholesky((schur + schur.T) / 2, lower=True)
    except np.linalg.LinAlgError:
        raise InputError(
            "the log density is not curved downwards where most of it seems to be; use --sampler nuts"
        ) from None
    root = solve_triangular(factor, np.eye(len(shared)), lower=True).T
    return Curvature(center, shared, np.flatnonzero(own), root, 1 / np.sqrt(diagonal), pull)


def _along(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]], center: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    """H times a direction, by central differences of the gradient."""
    above = evaluate(center + STEP * direction)[1]
    below = evaluate(center - STEP * direction)[1]
    return (below - above) / (2 * STEP)


def _diagonal(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]], center: np.ndarray, own: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Diagonal of H for own parameters: E[s * H s] with random signs s."""
    if not own.any():
        return np.zeros(0)
    total = np.zeros(int(own.sum()))
    for _ in range(PROBES):
        signs = rng.choice([-1.0, 1.0], len(total))
        direction = np.zeros(len(center))
        direction[own] = signs
        total += signs * _along(evaluate, center, direction)[own]
    return np.maximum(total / PROBES, 0.1)
