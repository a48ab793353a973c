"""Whitening: a density in the coordinates in which its curvature is one.

A sampler needs fewer leapfrog steps the rounder a posterior is. The warm-up of NUTS learns scales, and a few
directions that go together, from hundreds of draws; the posterior of a large table is nearly normal, and all of
its covariance is had from some hundred gradients (`factorlab.inference.curvature`). Not from those at
the mode: the joint mode of a hierarchy has its spreads too near 0 (here that of families, four posterior standard
deviations away, which makes loadings a quarter too certain). So a short run with the mode's metric comes first,
and the curvature is taken again at the mean of its second half, where it is within a tenth of the posterior's.

Draws stay exact: this is a linear change of variables. What single token counts have to do with shared parameters
is kept along the few directions in which it matters,

    D^1/2 (D^-1 C) L^-T  ~  P Q'        singular values above `COUPLED`,
    x_G = x*_G + L^-T z_G,   x_D = x*_D + D^-1/2 (z_D - P Q' z_G),

as the whole matrix would cost more than the gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import carray, cfunc, njit, types
from scipy.linalg import solve_triangular

from factorlab.inference.copies import Copies
from factorlab.inference.curvature import Counted, Curvature, find_curvature, find_modes
from factorlab.inference.density import Density
from factorlab.inference.pointer import as_pointer, call_density
from factorlab.inference.quarter_turn import sample_turns
from factorlab.inference.sampling import Sample
from factorlab.inference.watch import Length, Progress, Standing, silent

WARM_UP = 50
"""Draws of each chain with the metric of the mode, and at most as many to find the length of steps after it."""

ACCEPT = 0.8
"""Acceptance to which steps are tuned: as round as the density is, long steps are not at risk."""

COUPLED = 0.1
"""Smallest singular value of the coupling that is kept: below it leapfrog steps hardly feel it."""


def sample_whitened(
    density: Density,
    frame: np.ndarray,
    length: Length,
    *,
    chains: int,
    seed: int,
    cores: int | None = None,
    standing: Callable[[np.ndarray], Standing] | None = None,
    progress: Progress | None = None,
) -> Sample:
    """Exact draws, in whitened coordinates; what is judged and kept are points of the density itself.

    Every chain begins at a draw of the normal distribution around a mode of its own, found from a random point,
    so that chains can still find different modes and tell.

    Parameters
    ----------
    density : Density
        Of a model whose loadings are held to the frame.
    frame : ndarray, (benchmark, factor)
    length : Length
        Its warm-up is cut to `WARM_UP`.
    chains, seed, cores, standing, progress
        As in `factorlab.inference.sampling.sample`.

    Raises
    ------
    InputError
        When there is no mode, or no downward curvature at it.
    """
    began = time.monotonic()
    tell = progress or silent
    rng = np.random.default_rng([seed, 3])
    counted = Counted(density, cores)
    modes, values = find_modes(counted, density, chains, rng, tell)
    modes[~np.isfinite(values)] = modes[0]
    modes = Copies(density, frame).positive(modes)  # one metric serves one copy
    at_mode = find_whitening(find_curvature(counted, density, modes[0], rng, tell))
    spread = at_mode.points(rng.standard_normal(modes.shape)) - modes[0]
    half = WARM_UP // 2
    tell("warming up", 0, 0)
    warm = sample_turns(
        whiten_density(density, at_mode, modes + spread),
        Length(half, half, None, WARM_UP - half, accept=ACCEPT),
        chains=chains,
        seed=seed,
        cores=cores,
        keep=at_mode.points,
    )
    # A mean over chains around different modes would be the middle of nothing.
    same = np.linalg.norm(at_mode.whitened(modes), axis=1) < 1
    middle = warm.points[same].mean(axis=(0, 1))
    whitening = find_whitening(find_curvature(counted, density, middle, rng, tell))
    if length.max_seconds is not None:
        length = length._replace(max_seconds=max(1.0, length.max_seconds - (time.monotonic() - began)))
    drawn = sample_turns(
        whiten_density(density, whitening, warm.points[:, -1]),
        length._replace(tune=min(length.tune, WARM_UP), accept=ACCEPT),
        chains=chains,
        seed=seed + 1,
        cores=cores,
        standing=standing,
        progress=progress,
        keep=whitening.points,
    )
    return drawn._replace(
        gradients=drawn.gradients + warm.gradients + counted.calls,
        seconds=time.monotonic() - began,
    )


class Whitening(NamedTuple):
    """The change of variables.

    Attributes
    ----------
    curvature : Curvature
    own_part : ndarray, (own, rank)
        P; as many directions of the coupling as are kept.
    shared_part : ndarray, (rank, shared)
        Q'.
    """

    curvature: Curvature
    own_part: np.ndarray
    shared_part: np.ndarray

    def points(self, z: np.ndarray) -> np.ndarray:
        """Points (draw, dim) of the density from whitened ones (draw, dim)."""
        c = self.curvature
        n = len(c.shared)
        out = np.empty_like(z)
        out[:, c.shared] = c.center[c.shared] + z[:, :n] @ c.root.T
        coupled = (z[:, :n] @ self.shared_part.T) @ self.own_part.T
        out[:, c.own] = c.center[c.own] + c.own_sd * (z[:, n:] - coupled)
        return out

    def whitened(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `points`."""
        c = self.curvature
        n = len(c.shared)
        out = np.empty_like(points)
        away = points[:, c.shared] - c.center[c.shared]
        out[:, :n] = solve_triangular(c.root, away.T).T
        coupled = (out[:, :n] @ self.shared_part.T) @ self.own_part.T
        out[:, n:] = (points[:, c.own] - c.center[c.own]) / c.own_sd + coupled
        return out


def find_whitening(curvature: Curvature) -> Whitening:
    """Keep of the coupling what matters.

    Parameters
    ----------
    curvature : Curvature
    """
    coupling = curvature.pull @ curvature.root / curvature.own_sd[:, None]
    value, vector = np.linalg.eigh(coupling.T @ coupling)
    kept = vector[:, value > COUPLED**2]
    return Whitening(curvature, np.ascontiguousarray(coupling @ kept), np.ascontiguousarray(kept.T))


def whiten_density(density: Density, whitening: Whitening, starts: np.ndarray) -> Density:
    """The density of whitened points.

    Parameters
    ----------
    density : Density
    whitening : Whitening
    starts : ndarray, (chain, dim)
        Where chains begin, in the coordinates of ``density``.

    Returns
    -------
    Density
        The same model, whose names and slices are those of ``density``, not of whitened points.
    """
    c = whitening.curvature
    data = tuple(
        np.ascontiguousarray(array)
        for array in (
            c.center, c.shared.astype(np.int64), c.own.astype(np.int64), c.root, c.own_sd,
            whitening.own_part, whitening.shared_part,
        )
    )  # fmt: skip
    inner = density.function.address
    numbers = [inner, density.table.ctypes.data, len(c.shared), len(c.own), len(whitening.shared_part)]
    table = np.array([*numbers, *[array.ctypes.data for array in data]], dtype=np.int64)
    return density._replace(
        start=np.zeros(density.n_dim),
        function=_whitened,
        table=table,
        data=(*data, density.table, *density.data),
        starts=whitening.whitened(starts),
    )


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _to_points(
    z: Any, mode: Any, shared: Any, own: Any, root: Any, own_sd: Any, own_part: Any, shared_part: Any,
    x: Any, coupled: Any,
) -> None:  # fmt: skip
    """x of z; ``coupled`` (rank,) is scratch."""
    n = shared.shape[0]
    for i in range(n):
        row = root[i]
        total = 0.0
        for k in range(i, n):
            total += row[k] * z[k]
        x[shared[i]] = mode[shared[i]] + total
    for r in range(coupled.shape[0]):
        row = shared_part[r]
        total = 0.0
        for k in range(n):
            total += row[k] * z[k]
        coupled[r] = total
    for i in range(own.shape[0]):
        row = own_part[i]
        total = 0.0
        for r in range(coupled.shape[0]):
            total += row[r] * coupled[r]
        x[own[i]] = mode[own[i]] + own_sd[i] * (z[n + i] - total)


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _to_slopes(
    g: Any, shared: Any, own: Any, root: Any, own_sd: Any, own_part: Any, shared_part: Any,
    out: Any, coupled: Any,
) -> None:  # fmt: skip
    """Gradient with respect to z from that with respect to x."""
    n = shared.shape[0]
    coupled[:] = 0.0
    for k in range(n):
        out[k] = 0.0
    for i in range(own.shape[0]):
        slope = own_sd[i] * g[own[i]]
        out[n + i] = slope
        row = own_part[i]
        for r in range(coupled.shape[0]):
            coupled[r] -= row[r] * slope
    for r in range(coupled.shape[0]):
        row = shared_part[r]
        for k in range(n):
            out[k] += row[k] * coupled[r]
    for i in range(n):
        slope = g[shared[i]]
        row = root[i]
        for k in range(i, n):
            out[k] += row[k] * slope


_double = types.CPointer(types.double)


@cfunc(types.int64(types.uint64, _double, _double, _double, types.CPointer(types.int64)), cache=True)
def _whitened(dim: Any, z_: Any, gradient_: Any, value_: Any, table_: Any) -> Any:
    """The C function of a whitened density; see `factorlab.inference.density.Density`."""
    table = carray(table_, (12,), np.int64)
    n_shared, n_own, rank = table[2], table[3], table[4]
    mode = carray(as_pointer(table[5]), (dim,), np.float64)
    shared = carray(as_pointer(table[6]), (n_shared,), np.int64)
    own = carray(as_pointer(table[7]), (n_own,), np.int64)
    root = carray(as_pointer(table[8]), (n_shared, n_shared), np.float64)
    own_sd = carray(as_pointer(table[9]), (n_own,), np.float64)
    own_part = carray(as_pointer(table[10]), (n_own, rank), np.float64)
    shared_part = carray(as_pointer(table[11]), (rank, n_shared), np.float64)
    z = carray(z_, (dim,), np.float64)
    gradient = carray(gradient_, (dim,), np.float64)
    value = carray(value_, (1,), np.float64)
    x = np.empty(dim)
    slope = np.empty(dim)
    coupled = np.empty(rank)
    _to_points(z, mode, shared, own, root, own_sd, own_part, shared_part, x, coupled)
    status = call_density(table[0], dim, x.ctypes.data, slope.ctypes.data, value.ctypes.data, table[1])
    if status != 0:
        return status
    _to_slopes(slope, shared, own, root, own_sd, own_part, shared_part, gradient, coupled)
    return status
