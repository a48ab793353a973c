"""Hamiltonian Monte Carlo in quarter turns, for densities that are nearly standard normal.

In a standard normal density every coordinate swings with period 2 pi, so that after a quarter of it, pi / 2, a
point has forgotten where it was, in means as in squares. NUTS does not know that: it doubles its trajectories
until they turn back, at half a period, and there squares are what they were. With whitened coordinates
(`factorlab.inference.whitening`) the fixed length costs a third to a half of the gradients of NUTS, and its draws
are nearly independent. The algorithm is the textbook's (Neal 2011, Handbook of MCMC, chapter 5): fresh momenta,
leapfrog steps, Metropolis test; steps are tuned in warm-up by dual averaging (Hoffman & Gelman 2014, JMLR
15, section 3.2) and vary by a fifth from draw to draw, so that no direction can swing in step with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit

from factorlab.inference.density import Density
from factorlab.inference.pointer import call_density
from factorlab.inference.sampling import FEWEST_KEPT, Sample
from factorlab.inference.watch import Length, Progress, Standing, Stopped, Watch, silent

TURN = 0.55 * np.pi
"""Length of a trajectory: a little more than a quarter, as draws that are refused stay where they were."""

JITTER = 0.2
"""Steps vary by at most this share."""

FIRST_STEP = 0.3
"""Where tuning begins, in standard deviations."""

SHORTEST_STEP = 0.01
"""Tuning goes no lower, which bounds the steps of a draw: a density that asks for more is far from normal."""

ROUND = 10
"""Draws of each chain between two looks at them."""

DIVERGED = 1000.0
"""Error of the energy above which a transition counts as divergent, as in Stan and nutpie."""


def sample_turns(
    density: Density,
    length: Length,
    *,
    chains: int,
    seed: int,
    cores: int | None = None,
    standing: Callable[[np.ndarray], Standing] | None = None,
    progress: Progress | None = None,
    keep: Callable[[np.ndarray], np.ndarray] = np.array,
) -> Sample:
    """Draw until the draws will do, as `factorlab.inference.sampling.sample` does.

    Parameters
    ----------
    density : Density
        Nearly standard normal, with ``starts``.
    length : Length
        ``accept`` and the limits are read; trajectories and metric are fixed here.
    chains, seed, standing, progress
        As there.
    cores : int, optional
        Chains that move at once; all the cores there are when not given.
    keep : callable, optional
        What is kept of draws (draw, dim), and judged.

    Returns
    -------
    Sample

    Raises
    ------
    KeyboardInterrupt
        When interrupted before every chain has 50 draws; later what was drawn is returned.
    """
    from joblib import cpu_count

    assert density.starts is not None
    began = time.monotonic()
    streams = np.random.default_rng([seed, 4]).spawn(chains)
    moving = [
        Chain(density, density.starts[c % len(density.starts)], stream, length, keep)
        for c, stream in enumerate(streams)
    ]
    first = min(length.draws, length.max_draws)
    most = first if standing is None else length.max_draws
    watch = Watch(length, chains, first, most, standing, progress or silent, began)
    drawn = _Drawn(moving)
    stopped: Stopped = "draws"
    checking = 0.0
    with ThreadPoolExecutor(min(chains, cores or int(cpu_count()))) as pool:
        try:
            while drawn.shortest(chains) - length.tune < most:
                ahead = min(ROUND, length.tune + most - drawn.shortest(chains))
                list(pool.map(Chain.run, moving, [ahead] * chains))
                looked = time.monotonic()
                due = watch.due(drawn)
                verdict = watch.look(drawn, due)
                checking += time.monotonic() - looked if due else 0.0
                if verdict is not None:
                    stopped = verdict
                    break
        except KeyboardInterrupt:
            for chain in moving:
                chain.halted = True
            if drawn.shortest(chains) - length.tune < FEWEST_KEPT:
                raise
            stopped = "interrupted"
    n = drawn.shortest(chains) - length.tune
    return Sample(
        drawn.points(length.tune),
        sum(sum(chain.diverged[:n]) for chain in moving),
        float(np.mean([chain.steps[:n] for chain in moving])),
        sum(chain.gradients for chain in moving),
        time.monotonic() - began,
        stopped,
        checking,
        sampler="turns",
    )


class Chain:
    """One chain: where it is, how long its steps are, what it has drawn after warm-up.

    Parameters
    ----------
    density : Density
    start : ndarray, (dim,)
    rng : numpy.random.Generator
    length : Length
    keep : callable
    """

    def __init__(
        self, density: Density, start: np.ndarray, rng: np.random.Generator, length: Length,
        keep: Callable[[np.ndarray], np.ndarray],
    ) -> None:  # fmt: skip
        self._function, self._table = density.function.address, density.table.ctypes.data
        self._density = density  # what the addresses point to lives as long as this
        self._rng, self._keep, self._tune = rng, keep, length.tune
        self._step = StepSize(length.accept)
        self._point = np.array(start, dtype=float)
        value, self._slope = density.evaluator()(self._point)
        self._value = np.array([value])
        self.drawn = 0
        self.gradients = 1
        self.halted = False
        self.kept: list[np.ndarray] = []
        self.diverged: list[bool] = []
        self.steps: list[int] = []

    @property
    def ready(self) -> int:
        """Draws, warm-up included, without those of a round that has not ended."""
        return min(self.drawn, self._tune) + sum(len(part) for part in self.kept)

    def run(self, draws: int) -> None:
        """Draw some more, warm-up first; stops early when ``halted``."""
        new = []
        for _ in range(draws):
            if self.halted:
                return
            warm = self.drawn < self._tune
            middle = self._step.trial if warm else self._step.tuned
            steps = max(1, round(TURN / middle))
            step = TURN / steps * (1 + JITTER * self._rng.uniform(-1, 1))
            error = _turn(
                self._function, self._table, self._point, self._slope, self._value,
                self._rng.standard_normal(len(self._point)), step, steps, self._rng.uniform(),
            )  # fmt: skip
            self.gradients += steps
            self.drawn += 1
            if warm:
                self._step.learn(float(np.exp(-max(error, 0.0))))
            else:
                new.append(self._point.copy())
                self.diverged.append(not error < DIVERGED)
                self.steps.append(steps)
        if new:
            self.kept.append(self._keep(np.array(new)))


class StepSize:
    """Dual averaging of the log of the step (Hoffman & Gelman 2014, equation 6), around `FIRST_STEP`.

    Parameters
    ----------
    accept : float
        Mean acceptance that is aimed at.
    """

    def __init__(self, accept: float) -> None:
        self._accept = accept
        self._count, self._away, self._average = 0, 0.0, np.log(FIRST_STEP)
        self.trial = FIRST_STEP

    @property
    def tuned(self) -> float:
        """The average, to be used after warm-up."""
        return float(np.exp(self._average))

    def learn(self, accepted: float) -> None:
        """Take a transition's acceptance probability into account."""
        self._count += 1
        t = self._count
        self._away += (self._accept - accepted - self._away) / (t + 10)
        log_step = np.log(2 * FIRST_STEP) - np.sqrt(t) / 0.05 * self._away
        log_step = float(np.clip(log_step, np.log(SHORTEST_STEP), np.log(TURN)))
        weight = t**-0.75
        self._average = weight * log_step + (1 - weight) * self._average
        self.trial = float(np.exp(log_step))


class _Drawn:
    """What chains have drawn, as `Watch` looks at it."""

    def __init__(self, chains: list[Chain]) -> None:
        self._chains = chains

    @property
    def rows(self) -> int:
        return sum(chain.drawn for chain in self._chains)

    def shortest(self, chains: int) -> int:
        return min(chain.ready for chain in self._chains)

    def points(self, tune: int) -> np.ndarray:
        n = self.shortest(len(self._chains)) - tune
        return np.stack([np.concatenate(chain.kept)[:n] for chain in self._chains])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _turn(
    function: Any, table: Any, point: Any, slope: Any, value: Any, momentum: Any, step: float, steps: int,
    chance: float,
) -> float:  # fmt: skip
    """One transition; ``point``, ``slope`` and ``value`` move where it is accepted. Error of the energy."""
    dim = point.shape[0]
    x = point.copy()
    g = slope.copy()
    v = value.copy()
    energy = -v[0]
    for i in range(dim):
        energy += 0.5 * momentum[i] * momentum[i]
    for _ in range(steps):
        for i in range(dim):
            momentum[i] += 0.5 * step * g[i]
            x[i] += step * momentum[i]
        status = call_density(function, dim, x.ctypes.data, g.ctypes.data, v.ctypes.data, table)
        if status != 0:
            return np.inf
        for i in range(dim):
            momentum[i] += 0.5 * step * g[i]
    error = -v[0] - energy
    for i in range(dim):
        error += 0.5 * momentum[i] * momentum[i]
    if not error < 1e300:  # fastmath keeps infinities and NaN as they are: only reassociation is allowed
        return np.inf
    if chance < np.exp(-error):
        point[:] = x
        slope[:] = g
        value[:] = v
    return error
