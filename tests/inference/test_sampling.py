"""Compiled densities, sampling that goes on until it will do, and the Laplace approximation."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from factorlab.inference.bayes import fit_bayes
from factorlab.inference.density import compile_density, constrainer
from factorlab.inference.inputs import model_inputs
from factorlab.inference.laplace import approximate
from factorlab.inference.mixing import convergence
from factorlab.inference.model import build_model
from factorlab.inference.priors import Priors
from factorlab.inference.sampling import sample, start_point
from factorlab.inference.watch import Length, Standing

COVARIANCE = np.array([[1.0, 0.9, 0.0], [0.9, 2.0, 0.5], [0.0, 0.5, 0.3]])
CENTRE = np.array([1.0, -2.0, 30.0])


@pytest.fixture(scope="module")
def normal():
    """A known normal distribution and a log-normal scale, as a PyMC model."""
    import pymc as pm

    with pm.Model() as model:
        centre = pm.Data("centre", CENTRE)
        x = pm.MvNormal("x", centre, COVARIANCE, shape=3)
        pm.LogNormal("scale", 0.3, 0.5)
        pm.Deterministic("twice", 2 * x)
    return compile_density(model)


def test_density_is_pymcs(small):
    model = build_model(model_inputs(small.table, 2, Priors()))
    density = compile_density(model)
    evaluate = density.evaluator()
    expected = model.compile_logp()
    for seed in range(3):
        point = density.start + 0.05 * np.random.default_rng(seed).standard_normal(density.n_dim)
        named = {
            name: point[part].reshape(shape)
            for name, part, shape in zip(density.names, density.slices, density.shapes, strict=True)
        }
        assert evaluate(point)[0] == pytest.approx(float(expected(named)), rel=1e-10)


def test_gradient_of_the_whole_density_equals_finite_differences(small):
    density = compile_density(build_model(model_inputs(small.table, 2, Priors())))
    evaluate = density.evaluator()
    rng = np.random.default_rng(1)
    point = density.start + 0.05 * rng.standard_normal(density.n_dim)
    gradient = evaluate(point)[1]
    for i in range(density.n_dim):
        step = np.eye(1, density.n_dim, i)[0] * 1e-6
        slope = (evaluate(point + step)[0] - evaluate(point - step)[0]) / 2e-6
        assert gradient[i] == pytest.approx(slope, rel=2e-5, abs=2e-4), i


def test_what_is_not_finite_is_minus_infinity(normal):
    value, gradient = normal.evaluator()(np.full(4, np.nan))
    assert value == -np.inf
    assert (gradient == 0).all()


def test_named_values_of_many_points(normal):
    points = np.random.default_rng(0).normal(size=(600, 4))  # more than one batch
    out = constrainer(normal, ["twice", "scale"])(points)
    at = normal.slices[normal.names.index("x")]
    np.testing.assert_allclose(out["twice"], 2 * points[:, at])
    np.testing.assert_allclose(out["scale"], np.exp(points[:, 3]))


def test_samples_a_known_normal(normal):
    found = sample(normal, Length(4000, 4000, None, 400), chains=2, seed=1)
    assert found.points.shape == (2, 4000, 4)
    assert found.stopped == "draws"
    flat = found.points.reshape(-1, 4)
    ess = convergence(found.points).ess_bulk
    spread = np.sqrt([*np.diag(COVARIANCE), 0.25])
    centre = [*CENTRE, 0.3]
    assert (np.abs(flat.mean(axis=0) - centre) < 4.5 * spread / np.sqrt(ess)).all()
    assert np.abs(np.cov(flat[:, :3].T) - COVARIANCE).max() < 0.25


def test_goes_on_until_the_draws_will_do(normal):
    seen = []

    def standing(points):
        seen.append(points.shape[1])
        return Standing(1.0, 400.0 if len(seen) > 1 else 250.0)

    details = set()
    found = sample(
        normal, Length(200, 50_000, None, 200), chains=2, seed=2, standing=standing,
        progress=lambda stage, done, total, detail="": details.add(detail),
    )  # fmt: skip
    assert found.stopped == "converged"
    assert seen[0] >= 200
    assert len(seen) >= 2
    assert seen[-1] >= 1.2 * seen[0]
    assert found.points.shape[1] < 50_000
    assert any(text.startswith("R-hat 1.000, ESS 250") for text in details)


def test_stops_at_the_limit_of_draws_and_of_seconds(normal):
    never = lambda points: Standing(2.0, 10.0)  # noqa: E731
    found = sample(normal, Length(100, 300, None, 200), chains=2, seed=3, standing=never)
    assert found.stopped == "draws"
    assert found.points.shape[1] == 300
    found = sample(normal, Length(100, 5_000_000, 1.0, 200), chains=2, seed=3, standing=never)
    assert found.stopped == "seconds"
    assert 100 <= found.points.shape[1] < 5_000_000


def test_stops_when_chains_stay_in_different_solutions(normal):
    seen = []

    def standing(points):
        seen.append(len(seen) != 1)  # at the second check the chains seem to mix
        return Standing(2.0, 10.0, separate=seen[-1])

    found = sample(normal, Length(100, 5_000_000, None, 200), chains=2, seed=6, standing=standing)
    assert found.stopped == "modes"
    assert seen == [True, False, True, True]


def test_an_interruption_keeps_what_was_drawn(normal):
    timer = threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    found = sample(
        normal, Length(100, 50_000_000, None, 200), chains=2, seed=4,
        standing=lambda points: Standing(2.0, 10.0),
    )  # fmt: skip
    timer.cancel()
    assert found.stopped == "interrupted"
    assert found.points.shape[1] >= 50
    assert np.abs(found.points[..., :3].mean(axis=(0, 1)) - CENTRE).max() < 1


def test_fewer_cores_than_chains_have_a_fixed_length(normal):
    found = sample(
        normal, Length(150, 900, None, 200), chains=3, seed=5, cores=1,
        standing=lambda points: Standing(2.0, 10.0),
    )  # fmt: skip
    assert found.points.shape == (3, 150, 4)


def test_pymcs_own_sampler_takes_the_model_with_the_kernel(small):
    """`pm.sample` runs on the Op, and finds what nutpie finds."""
    import pymc as pm

    inputs = model_inputs(small.table, 1, Priors(), budget="none")
    model = build_model(inputs)
    with model:
        trace = pm.sample(draws=300, tune=400, chains=2, cores=1, random_seed=1, progressbar=False,
                          compute_convergence_checks=False)  # fmt: skip
    theirs = np.asarray(trace.posterior["noise_sd"])
    density = compile_density(model)
    ours = sample(density, Length(1000, 1000, None, 400), chains=2, seed=1).points
    noise = constrainer(density, ["noise_sd"])(ours.reshape(-1, density.n_dim))["noise_sd"]
    noise = noise.reshape(2, -1, noise.shape[1])
    error = np.sqrt(
        theirs.var(axis=(0, 1)) / convergence(theirs).ess_bulk
        + noise.var(axis=(0, 1)) / convergence(noise).ess_bulk
    )
    assert (np.abs(theirs.mean(axis=(0, 1)) - noise.mean(axis=(0, 1))) < 4.5 * error).all()


def test_laplace_of_a_normal_is_exact(normal):
    found = approximate(normal, draws=2000, chains=2, seed=1)
    flat = found.points.reshape(-1, 4)
    assert found.khat < 0.3 or np.isnan(found.khat)
    np.testing.assert_allclose(flat.mean(axis=0), [*CENTRE, 0.3], atol=4.5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(np.cov(flat.T)[:3, :3], COVARIANCE, atol=0.2)


def test_laplace_fit_says_what_it_is(small):
    fit = fit_bayes(small.table, 2, draws=200, chains=2, sampler="laplace", seed=1)
    assert fit.extra["sampler"] == "laplace"
    assert any("Laplace approximation (asked for)" in note for note in fit.notes)
    if not fit.extra["khat"] <= 0.7:
        assert any("k-hat" in problem for problem in fit.diagnostics.problems)
    exact = fit_bayes(small.table, 2, draws=400, chains=2, seed=1)
    a, b = (f.stacked("noise_sd") for f in (fit, exact))
    assert np.abs(np.log(np.median(a, axis=0) / np.median(b, axis=0))).max() < 0.6


def test_standing_holds_only_when_both_goals_do():
    assert Standing(1.005, 401.0).holds
    assert not Standing(1.02, 4000.0).holds
    assert not Standing(1.0, 399.0).holds
    assert Standing(float("nan"), 500.0).holds  # one chain: no R-hat, said elsewhere


def test_large_tables_are_approximated():
    from factorlab.inference.bayes import MOST_CELLS, choose_sampler

    def table(cells):
        return SimpleNamespace(cells=SimpleNamespace(observed=np.ones(cells)))

    assert choose_sampler(table(MOST_CELLS)) == "nuts"
    assert choose_sampler(table(MOST_CELLS + 1)) == "laplace"


def funnel(x):
    """Ten Normal(0, exp(x_0)) and x_0 ~ Normal(0, 1): the density has no bound but by x_0's prior."""
    scale = np.exp(-np.clip(x[0], -50, 50))  # the optimiser tries far-off points
    u = x[1:] * scale
    value = -0.5 * u @ u - 10 * x[0] - 0.5 * x[0] ** 2
    return value, np.concatenate([[u @ u - 10 - x[0]], -u * scale])


def test_a_chain_can_begin_with_the_spreads_of_a_hierarchy_held():
    held = np.arange(11) == 0
    starts = np.array([start_point(funnel, np.zeros(11), np.random.default_rng(s), held) for s in range(20)])
    assert np.abs(starts[:, 0]).max() < 0.4  # the noise that is added at the end has sd 0.1
    free = np.array([start_point(funnel, np.zeros(11), np.random.default_rng(s)) for s in range(20)])
    assert free[:, 0].max() < -5  # the joint mode is at x_0 = -10, where exp(x_0) is 5e-5
