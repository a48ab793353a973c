"""The only caller of a sampler, and the convergence measures of its draws.

This module owns what differs between the generations of PyMC, nutpie and ArviZ (PyMC 5 with
ArviZ 0.x on Python 3.11, PyMC 6 with ArviZ 1.x on 3.12 and newer): draws are taken from the
sampler's Arrow batches, and R-hat and effective sample sizes are asked for plain arrays, which both
generations of ArviZ answer alike. Files are written by xarray and open in both.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import pymc as pm

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total 0 means that the length of the stage is not known."""


TARGET_ACCEPT = 0.9
"""Above nutpie's 0.8: the scales of small factors and of lineage steps have narrow necks, where 0.8
was seen to leave a divergent transition on the 35 x 19 table."""


class Sample(NamedTuple):
    """Draws after warm-up.

    Attributes
    ----------
    values : dict of str to ndarray, (chain, draw, ...)
    divergences : int
    leapfrog_steps : float
        Mean number of gradient evaluations a draw.
    """

    values: dict[str, np.ndarray]
    divergences: int
    leapfrog_steps: float


def sample(
    model: pm.Model,
    *,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    cores: int | None = None,
    progress: Progress | None = None,
) -> Sample:
    """Draw from a PyMC model by NUTS (nutpie) with a low-rank mass matrix.

    Parameters
    ----------
    model : pymc.Model
    draws, tune, chains : int
        Kept draws and warm-up draws of each chain; number of chains.
    seed : int
    cores : int, optional
        Chains that run at once; as many as the machine has cores when not given.
    progress : callable, optional
        Called with (stage, done, total) about twice a second while sampling.

    Raises
    ------
    KeyboardInterrupt
        When interrupted; the sampler is stopped first.
    """
    import nutpie

    tell = progress or (lambda stage, done, total: None)
    tell("compiling the model", 0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = nutpie.compile_pymc_model(model)
    known = inspect.signature(nutpie.sample).parameters
    metric: dict[str, Any] = (
        {"adaptation": "low_rank"} if "adaptation" in known else {"low_rank_modified_mass_matrix": True}
    )
    with warnings.catch_warnings():
        # nutpie warns on every call that the low-rank metric is experimental: it is checked here
        # by R-hat and effective sample size on every run.
        warnings.simplefilter("ignore")
        sampler = nutpie.sample(
            compiled,
            draws=draws,
            tune=tune,
            chains=chains,
            cores=cores,
            seed=seed,
            progress_bar=False,
            blocking=False,
            return_raw_trace=True,
            target_accept=TARGET_ACCEPT,
            **metric,
        )
    total = chains * (draws + tune)
    try:
        while True:
            try:
                trace = sampler.wait(timeout=0.5)
                break
            except TimeoutError:
                tell("sampling", _rows(sampler.inspect()), total)
    except KeyboardInterrupt:
        sampler.abort()
        raise
    tell("sampling", total, total)
    return _collect(trace, compiled.shapes or {}, tune)


def _rows(trace: Any) -> int:
    return sum(batch.num_rows for batch in trace.get_arrow_trace()[0])


def _collect(trace: Any, shapes: dict[str, tuple[int, ...]], tune: int) -> Sample:
    draw_batches, stat_batches = trace.get_arrow_trace()
    tables = [pa.record_batch(batch) for batch in draw_batches]
    stats = [pa.record_batch(batch) for batch in stat_batches]
    values = {}
    for name, shape in shapes.items():
        if name not in tables[0].schema.names:
            continue
        chains = []
        for table in tables:
            column = table.column(name)
            flat = column.flatten() if pa.types.is_nested(column.type) else column
            array = flat.to_numpy(zero_copy_only=False).reshape(table.num_rows, *shape)
            chains.append(array[tune:])
        values[name] = np.stack(chains)
    diverging = [np.asarray(s.column("diverging").to_pylist(), dtype=bool)[tune:] for s in stats]
    steps = [s.column("n_steps").to_numpy(zero_copy_only=False)[tune:] for s in stats]
    return Sample(values, int(np.sum(diverging)), float(np.mean(steps)))


class Convergence(NamedTuple):
    """R-hat and effective sample sizes, one a quantity, (quantity,)."""

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def convergence(values: np.ndarray) -> Convergence:
    """Rank-normalised split R-hat, bulk and tail effective sample size.

    Parameters
    ----------
    values : ndarray, (chain, draw, quantity)

    Returns
    -------
    Convergence
        NaN for a quantity that does not vary, and for R-hat of a single chain.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, Bayesian Analysis 16 (R-hat, bulk and tail ESS).
    """
    import arviz as az

    n = values.shape[2]
    out = np.full((3, n), np.nan)
    log = logging.getLogger("arviz")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        for i in range(n):
            x = np.ascontiguousarray(values[:, :, i])
            if np.ptp(x) == 0 or not np.isfinite(x).all():
                continue
            if values.shape[0] > 1:
                out[0, i] = az.rhat(x)
            out[1, i] = az.ess(x, method="bulk")
            out[2, i] = az.ess(x, method="tail", prob=(0.05, 0.95))
    finally:
        log.setLevel(level)
    return Convergence(*out)


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
