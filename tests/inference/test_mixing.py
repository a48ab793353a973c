"""R-hat and effective sample sizes: the numbers of the installed ArviZ, many quantities at once."""

from __future__ import annotations

import logging
import tracemalloc

import arviz as az
import numpy as np
import pytest

from factorlab.inference import mixing
from factorlab.inference.mixing import Convergence, convergence


@pytest.fixture(autouse=True)
def quiet(caplog):
    """ArviZ warns of few draws and single chains, as meant here."""
    caplog.set_level(logging.CRITICAL, logger="arviz")


def tail(x):
    """Tail ESS of (chain, draw) by ArviZ from the indicators, whose old quantiles round (`convergence`)."""
    return min(az.ess((x <= np.quantile(x, p)).astype(float), method="mean") for p in (0.05, 0.95))


def by_arviz(values, tail=tail):
    out = np.full((3, values.shape[2]), np.nan)
    for i in range(values.shape[2]):
        x = np.ascontiguousarray(values[:, :, i])
        with np.errstate(divide="ignore", invalid="ignore"):
            out[:, i] = az.rhat(x) if len(x) > 1 else np.nan, az.ess(x, method="bulk"), tail(x)
    return Convergence(*out)


def agree(found, expected):
    for name in Convergence._fields:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-8, err_msg=name)


def autoregression(rng, shape, phi):
    x = rng.standard_normal(shape)
    x[:, 0] /= np.sqrt(1 - phi**2)
    for t in range(1, shape[1]):
        x[:, t] += phi * x[:, t - 1]
    return x


DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "slow": lambda rng, shape: autoregression(rng, shape, 0.9),
    "antithetic": lambda rng, shape: autoregression(rng, shape, -0.5),
    "counts": lambda rng, shape: rng.poisson(2, shape).astype(float),
    "rounded": lambda rng, shape: rng.standard_normal(shape).round(1),
    "cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "shifted": lambda rng, shape: rng.standard_normal(shape) + np.arange(shape[0])[:, None, None],
    "wider": lambda rng, shape: rng.standard_normal(shape) * (1 + np.arange(shape[0])[:, None, None]),
}


@pytest.mark.parametrize("chains", [1, 2, 4])
@pytest.mark.parametrize("draws", [200, 333])
@pytest.mark.parametrize("kind", DRAWS)
def test_equals_arviz(kind, draws, chains):
    values = DRAWS[kind](np.random.default_rng(0), (chains, draws, 6))
    found = convergence(values)
    agree(found, by_arviz(values))
    assert np.isfinite(found.ess_bulk).all()
    assert np.isfinite(found.ess_tail).all()
    assert np.isfinite(found.rhat).all() == (chains > 1)


@pytest.mark.parametrize("kind", ["normal", "slow", "cauchy", "shifted"])
def test_equals_the_tail_measure_of_arviz_itself(kind):
    values = DRAWS[kind](np.random.default_rng(1), (4, 250, 6))
    agree(convergence(values), by_arviz(values, lambda x: float(az.ess(x, method="tail", prob=(0.05, 0.95)))))


@pytest.mark.parametrize("chains", [1, 2, 4])
@pytest.mark.parametrize("draws", range(4, 12))
def test_few_draws_equal_arviz(draws, chains):
    values = np.random.default_rng(2).standard_normal((chains, draws, 30))
    agree(convergence(values), by_arviz(values))


def test_too_few_draws_are_nan():
    values = np.random.default_rng(3).standard_normal((4, 3, 2))
    assert np.isnan(convergence(values)).all()
    assert np.isnan(az.rhat(values[:, :, 0]))
    assert np.isnan(az.ess(values[:, :, 0]))


def test_constant_or_non_finite_quantities_are_nan_and_harm_no_other():
    values = np.random.default_rng(4).standard_normal((4, 50, 5))
    good = convergence(values[:, :, [0, 4]])
    values[:, :, 1] = 3.0
    values[2, 7, 2] = np.inf
    values[0, 0, 3] = np.nan
    found = np.array(convergence(values))
    assert np.isnan(found[:, 1:4]).all()
    np.testing.assert_array_equal(found[:, [0, 4]], np.array(good))


def test_a_quantity_that_varies_only_in_the_draw_left_out():
    values = np.zeros((2, 21, 1))
    values[0, 10] = 1.0
    found = convergence(values)
    agree(found, by_arviz(values))
    assert np.isnan(found.rhat)
    assert found.ess_bulk == 40


def test_two_values_around_their_median_take_the_bulk_rhat():
    values = np.random.default_rng(5).permuted(np.tile([-1.0, 1.0], (4, 50)), axis=1)[:, :, None]
    found = convergence(values)
    agree(found, by_arviz(values))
    assert 0.9 < found.rhat < 1.1


@pytest.mark.parametrize("phi", [0.0, 0.7])
def test_bulk_ess_is_that_of_the_autoregression(phi):
    """A mean of n draws of AR(1) has the variance of n (1 - phi) / (1 + phi) independent ones."""
    values = autoregression(np.random.default_rng(6), (4, 2000, 40), phi)
    found = convergence(values)
    assert found.ess_bulk.mean() == pytest.approx(8000 * (1 - phi) / (1 + phi), rel=0.05)
    assert found.rhat.max() < 1.02


def test_rhat_of_shifted_chains():
    """Normal chains at +-d have R-hat near sqrt(1 + 4 / 3 d^2) for small d (4 half chains, means ddof 1)."""
    shift = np.array([-0.1, 0.1])[:, None, None]
    values = np.random.default_rng(7).standard_normal((2, 4000, 40)) + shift
    assert convergence(values).rhat.mean() == pytest.approx(np.sqrt(1 + 4 / 3 * 0.01), abs=5e-4)


def test_a_draw_at_the_quantile_is_in_the_tail():
    """21 draws: the quantiles are the second and the twentieth draw."""
    x = np.random.default_rng(8).permutation(21.0 + np.arange(21))
    low, high = (x <= 22).astype(float), (x <= 40).astype(float)
    expected = min(az.ess(low[None], method="mean"), az.ess(high[None], method="mean"))
    assert convergence(x[None, :, None]).ess_tail[0] == pytest.approx(expected, rel=1e-8)


def test_chunks_change_nothing_and_bound_memory(monkeypatch):
    values = np.random.default_rng(9).standard_normal((4, 100, 2000)).round(2)
    whole = convergence(values)
    monkeypatch.setattr(mixing, "WORK_BYTES", 2**20)
    convergence(values[:, :, :2])
    tracemalloc.start()
    try:
        chunked = convergence(values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    agree(chunked, whole)
    assert 2**18 < peak < 1.5 * 2**20 < values.nbytes


@pytest.mark.parametrize("change", [np.exp, lambda x: 3 * x - 7, lambda x: x**3])
def test_bulk_and_tail_see_only_ranks(change):
    values = DRAWS["slow"](np.random.default_rng(10), (4, 200, 5)) / 3
    before, after = convergence(values), convergence(change(values))
    np.testing.assert_allclose(after.ess_bulk, before.ess_bulk, rtol=1e-8)
    np.testing.assert_allclose(after.ess_tail, before.ess_tail, rtol=1e-8)


def test_no_quantity():
    assert all(part.shape == (0,) for part in convergence(np.empty((4, 100, 0))))
