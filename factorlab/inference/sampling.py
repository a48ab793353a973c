"""The only caller of a sampler.

This module owns what differs between the generations of PyMC, nutpie and ArviZ (PyMC 5 with
ArviZ 0.x on Python 3.11, PyMC 6 with ArviZ 1.x on 3.12 and newer): the compiled density goes to nutpie
as a C function, draws are taken from its Arrow batches, and both generations answer alike. Files are
written by xarray and open in both.

Sampling is adaptive: chains run on until ``standing`` says that the draws will do, or until a limit
(`factorlab.inference.watch`).
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.optimize import minimize

from factorlab.inference.density import Density
from factorlab.inference.pointer import copy_point
from factorlab.inference.watch import Length, Progress, Standing, Stopped, Watch, silent

START_STEPS = 150
"""Steps of the optimiser from each chain's random start: near the posterior, but not at one common mode."""

LOOKS = (0.1, 0.5)
"""Seconds between looks at growing chains: least, where a check comes near, and most."""

FEWEST_KEPT = 50
"""Interrupted with fewer draws a chain than this, nothing is kept."""


class Sample(NamedTuple):
    """Draws after warm-up.

    Attributes
    ----------
    points : ndarray, (chain, draw, dim)
        In the unconstrained space; `factorlab.inference.density.constrainer` names them.
    divergences : int
    leapfrog_steps : float
        Mean number of gradient evaluations a draw.
    gradients : int
        Gradient evaluations in all, warm-up included.
    seconds : float
    stopped : {"converged", "draws", "seconds", "modes", "interrupted", "approximated"}
        Why sampling ended; "modes" when chains are in different solutions, which more draws do not mend.
    seconds_checking : float
        Part of ``seconds`` in which chains stood still while their draws were judged.
    khat : float or None
        Of an approximation, the Pareto k-hat of its importance ratios.
    sampler : {"nuts", "turns", "laplace"}
        How they were drawn (`factorlab.inference.quarter_turn`, `factorlab.inference.laplace`).
    """

    points: np.ndarray
    divergences: int
    leapfrog_steps: float
    gradients: int
    seconds: float
    stopped: Stopped
    seconds_checking: float = 0.0
    khat: float | None = None
    sampler: Literal["nuts", "turns", "laplace"] = "nuts"


def sample(
    density: Density,
    length: Length,
    *,
    chains: int,
    seed: int,
    cores: int | None = None,
    standing: Callable[[np.ndarray], Standing] | None = None,
    progress: Progress | None = None,
) -> Sample:
    """Draw from a density by NUTS (nutpie) with a low-rank mass matrix until the draws will do.

    Parameters
    ----------
    density : Density
    length : Length
    chains : int
    seed : int
    cores : int, optional
        Chains that run at once. All of them when not given, sharing the cores there are; with fewer
        than ``chains`` the length is fixed at ``length.draws``, as chains that have not begun cannot
        be checked.
    standing : callable, optional
        Judges draws (chain, draw, dim); the length is fixed at ``length.draws`` when not given.
    progress : callable, optional
        Told (stage, draws done, draws expected, "R-hat ..., ESS ...") about twice a second.

    Raises
    ------
    KeyboardInterrupt
        When interrupted before every chain has 50 draws; later what was drawn is returned.
    """
    tell = progress or silent
    adaptive = standing is not None and (cores is None or cores >= chains)
    first = min(length.draws, length.max_draws)
    most = length.max_draws if adaptive else first
    began = time.monotonic()
    sampler = _start(density, most, length, chains, chains if adaptive else cores, seed)
    watch = Watch(length, chains, first, most, standing if adaptive else None, tell, began)
    stopped: Stopped = "draws"
    pause, checking = LOOKS[0], 0.0
    try:
        while True:
            try:
                batches = _Batches(sampler.wait(timeout=pause))
                break
            except TimeoutError:
                looked = time.monotonic()
                batches = _Batches(sampler.inspect())
                cost = time.monotonic() - looked  # a look copies all that was drawn
                pause = max(min(watch.wait(batches), LOOKS[1]), LOOKS[0], 4 * cost)
                due = watch.due(batches)
                if due:
                    sampler.pause()  # else chains run on while two cores are busy with the check
                paused = time.monotonic()
                verdict = watch.look(batches, due)
                checking += time.monotonic() - paused if due else 0.0
                if due and verdict is None:
                    sampler.resume()
                if verdict is not None:
                    stopped = verdict
                    batches = _Batches(sampler.abort())
                    break
    except KeyboardInterrupt:
        batches = _Batches(sampler.abort())
        if batches.shortest(chains) - length.tune < FEWEST_KEPT:
            raise
        stopped = "interrupted"
    sampled = _collect(batches, length.tune, time.monotonic() - began, stopped)
    if (
        stopped == "converged"
    ):  # the few draws made since are left, so that what was judged is what is handed on
        sampled = sampled._replace(points=sampled.points[:, : watch.judged])
    return sampled._replace(seconds_checking=checking)


def _start(density: Density, draws: int, length: Length, chains: int, cores: int | None, seed: int) -> Any:
    """A running nutpie sampler."""
    import nutpie
    from nutpie.compile_pymc import CompiledPyMCModel

    evaluate = density.evaluator()
    starts = None if density.starts is None else itertools.cycle(density.starts)

    def start(at: Any = None) -> np.ndarray:
        if starts is not None:
            return next(starts)
        return start_point(evaluate, density.start, np.random.default_rng(at), density.held)

    fields = {
        "dims": {}, "_n_dim": density.n_dim, "_coords": {}, "_shapes": {"point": (density.n_dim,)},
        "compiled_logp_func": density.function, "compiled_expand_func": copy_point,
        "initial_point_func": start, "shared_data": {}, "shared_var_keys": {}, "user_data": density.table,
        "n_expanded": density.n_dim, "logp_func": None, "expand_func": None,
        "shape_info": (["point"], [slice(0, density.n_dim)], [(density.n_dim,)]),
    }  # fmt: skip
    known = {field.name for field in dataclasses.fields(CompiledPyMCModel)}
    model = CompiledPyMCModel(**{name: value for name, value in fields.items() if name in known})
    low_rank = length.metric == "low_rank"
    metric: dict[str, Any] = (
        {"adaptation": "low_rank" if low_rank else "diag"}
        if "adaptation" in inspect.signature(nutpie.sample).parameters
        else {"low_rank_modified_mass_matrix": low_rank}
    )
    with warnings.catch_warnings():
        # nutpie warns on every call that the low-rank metric is experimental: it is checked here
        # by R-hat and effective sample size on every run.
        warnings.simplefilter("ignore")
        return nutpie.sample(
            model, draws=draws, tune=length.tune, chains=chains, cores=cores, seed=seed, progress_bar=False,
            blocking=False, return_raw_trace=True, target_accept=length.accept, maxdepth=length.max_depth,
            **metric,
        )  # fmt: skip


def start_point(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]], center: np.ndarray, rng: np.random.Generator,
    held: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Where a chain begins: some steps of an optimiser from a random point, then a little noise.

    Random points, so that chains can find different modes and tell; a few steps, so that warm-up does
    not begin far out.

    Parameters
    ----------
    evaluate : callable
        x -> (log density, gradient).
    center : ndarray, (dim,)
        Random points are within 1 of it in each direction.
    held : ndarray of bool, (dim,), optional
        Directions in which the optimiser does not move and the random point is at the center.
    """
    free = np.ones(len(center), dtype=bool) if held is None else ~held

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = evaluate(x)
        return (-value, -gradient * free) if np.isfinite(value) else (1e300, np.zeros_like(x))

    for scale in (1.0, 0.5, 0.1):
        begin = center + free * scale * rng.uniform(-1, 1, len(center))
        if not np.isfinite(evaluate(begin)[0]):
            continue
        found = minimize(objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": START_STEPS})
        point = found.x + 0.1 * rng.standard_normal(len(center))
        if np.isfinite(evaluate(point)[0]):
            return point
    return center


class _Batches:
    """What a sampler has drawn so far, a batch a chain; nutpie hands it out once."""

    def __init__(self, trace: Any) -> None:
        draws, stats = trace.get_arrow_trace()
        self._tables = [pa.record_batch(batch) for batch in draws]
        self._stats = [pa.record_batch(batch) for batch in stats]

    @property
    def rows(self) -> int:
        """Draws of all chains, warm-up included."""
        return sum(table.num_rows for table in self._tables)

    def shortest(self, chains: int) -> int:
        """Draws of the shortest chain, warm-up included; 0 while a chain has not begun."""
        if len(self._tables) < chains:
            return 0
        return min(batch.num_rows for batch in (*self._tables, *self._stats))

    def points(self, tune: int) -> np.ndarray:
        """Draws after warm-up, (chain, draw, dim), chains cut to the shortest."""
        return self.arrays(tune)[0]

    def arrays(self, tune: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(points (chain, draw, dim), leapfrog steps (chain, draw + tune), diverging (chain, draw)).

        Chains are cut to the shortest.
        """
        n = self.shortest(len(self._tables))
        points = []
        for table in self._tables:
            flat = table.column("point").flatten().to_numpy(zero_copy_only=False)
            points.append(flat.reshape(table.num_rows, -1)[tune:n])
        steps = [s.column("n_steps").to_numpy(zero_copy_only=False)[:n] for s in self._stats]
        diverging = [np.asarray(s.column("diverging").to_pylist(), dtype=bool)[tune:n] for s in self._stats]
        return np.stack(points), np.stack(steps), np.stack(diverging)


def _collect(batches: _Batches, tune: int, seconds: float, stopped: Any) -> Sample:
    points, steps, diverging = batches.arrays(tune)
    return Sample(
        points, int(diverging.sum()), float(steps[:, tune:].mean()), int(steps.sum()), seconds, stopped
    )


def smooth_weights(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed importance weights.

    Parameters
    ----------
    log_weights : ndarray, (draw,)
        Log of target over proposal density, up to a constant.

    Returns
    -------
    weights : ndarray, (draw,)
        Sum 1.
    khat : float
        Shape of the weights' tail; above 0.7 they are not to be trusted. NaN where all are equal.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry 2024, Journal of Machine Learning Research 25(72) (PSIS).
    """
    import arviz as az

    if np.ptp(log_weights) < 1e-12:
        return np.full(len(log_weights), 1 / len(log_weights)), np.nan
    if hasattr(az, "psislw"):
        smoothed, khat = az.psislw(log_weights)
    else:
        from arviz_stats.base import array_stats

        # This generation takes log likelihoods and turns their sign itself.
        smoothed, khat = array_stats.psislw(-log_weights)
    smoothed = np.asarray(smoothed, dtype=float)
    weights = np.exp(smoothed - smoothed.max())
    return weights / weights.sum(), float(khat)
