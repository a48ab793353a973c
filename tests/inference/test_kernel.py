"""The compiled kernel against the dense normal of a whole table, its gradient, and its exact draws."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from factorlab.inference.kernel import LANES, block_cells, draw_latents, evaluate
from factorlab.inference.marginal import Cells, log_likelihood

PARENT = np.array([-1, -1, 0, 2, 0, 1])  # two families, then four steps
NAMES = ["loading", "mean", "ability_mean", "noise_sd", "pair_sd", "root_sd", "step_sd"]


def example(seed: int = 0, factors: int = 3, n_models: int = 12, groups: bool = True, tree: bool = True):
    rng = np.random.default_rng(seed)
    n_benchmarks = 7
    observed = (rng.random((n_models, n_benchmarks)) > 0.3).astype(float)
    observed[3] = 0.0
    member = np.zeros((n_benchmarks, 2 if groups else 0))
    if groups:
        member[[0, 1], 0] = 1.0
        member[[3, 4, 5], 1] = 1.0
    cells = Cells(
        z=rng.normal(size=observed.shape) * observed,
        variance=rng.uniform(0, 0.2, observed.shape) * (rng.random(observed.shape) > 0.2),
        observed=observed,
        member=member,
        shared=rng.uniform(-0.005, 0.15, (n_models, member.shape[1])),
    )
    parameters = [
        rng.normal(size=(n_benchmarks, factors)), rng.normal(size=n_benchmarks),
        rng.normal(size=(n_models, factors)), rng.uniform(0.2, 0.8, n_benchmarks),
        rng.uniform(0.1, 0.9, member.shape[1]), 0.7, 0.4,
    ]  # fmt: skip
    node = np.where(rng.random(n_models) < 0.15, -1, rng.integers(0, len(PARENT), n_models))
    return cells, (node, PARENT) if tree else (None, None), parameters


def ability_covariance(node, root_sd, step_sd) -> np.ndarray:
    """Covariance between models of one factor's ability, budgets apart: shared ancestors, plus their own."""
    lines = []
    for n in node:
        line = []
        while n >= 0:
            line.append(int(n))
            n = PARENT[n]
        lines.append(line)
    sd = np.where(PARENT < 0, root_sd, step_sd)
    shared = [[sum(sd[n] ** 2 for n in set(a) & set(b)) for b in lines] for a in lines]
    return np.array(shared) + np.eye(len(node))


def moments(cells: Cells, node, loading, mean, ability_mean, noise_sd, pair_sd, root_sd, step_sd):
    """Mean and covariance of all cells at once, model by model."""
    within = ability_covariance(node, root_sd, step_sd)
    covariance = np.kron(within, loading @ loading.T)
    n = cells.z.shape[1]
    known = np.broadcast_to(cells.shared, (len(cells.z), cells.member.shape[1]))
    for i in range(len(cells.z)):
        block = slice(i * n, (i + 1) * n)
        shared = cells.member @ np.diag(pair_sd**2 + known[i]) @ cells.member.T
        covariance[block, block] += np.diag(noise_sd**2 + cells.variance[i]) + shared
    return (mean + ability_mean @ loading.T).ravel(), covariance


def dense(cells: Cells, node, *parameters) -> float:
    mean, covariance = moments(cells, node, *parameters)
    seen = cells.observed.astype(bool).ravel()
    normal = multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])
    return float(normal.logpdf(cells.z.ravel()[seen]))


@pytest.mark.parametrize("factors", [1, 2, 3, 5])
@pytest.mark.parametrize("groups", [True, False])
def test_equals_the_dense_normal_of_the_whole_table(factors, groups):
    cells, (node, parent), parameters = example(factors, factors, groups=groups)
    value = evaluate(block_cells(cells, node, parent), *parameters).value
    assert value == pytest.approx(dense(cells, node, *parameters), abs=1e-9)


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize("tree", [True, False])
def test_gradient_equals_finite_differences(groups, tree):
    cells, effects, parameters = example(5, groups=groups, tree=tree)
    blocks = block_cells(cells, *effects)
    found = evaluate(blocks, *parameters)
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        if np.size(parameters[i]) == 0:
            continue
        along = rng.normal(size=np.shape(parameters[i]))
        above, below = list(parameters), list(parameters)
        above[i], below[i] = parameters[i] + 1e-6 * along, parameters[i] - 1e-6 * along
        slope = (evaluate(blocks, *above).value - evaluate(blocks, *below).value) / 2e-6
        assert np.sum(getattr(found, name) * along) == pytest.approx(slope, rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize("n_models", [1, LANES, LANES + 1, 150])
def test_any_number_of_models_fits_into_lanes(n_models):
    rng = np.random.default_rng(n_models)
    observed = (rng.random((n_models, 5)) > 0.4).astype(float)
    cells = Cells(rng.normal(size=observed.shape), 0.1 * observed, observed, np.zeros((5, 0)))
    parameters = [rng.normal(size=(5, 2)), rng.normal(size=5), rng.normal(size=(n_models, 2)),
                  rng.uniform(0.3, 1, 5), np.zeros(0)]  # fmt: skip
    expected = log_likelihood(cells, *parameters)
    found = evaluate(block_cells(cells), *parameters)
    assert found.value == pytest.approx(expected.sum(), abs=1e-9)
    assert found.ability_mean.shape == (n_models, 2)


def test_no_effects_are_effects_of_size_zero():
    cells, (node, parent), parameters = example(2)
    parameters[-2:] = [0.0, 0.0]
    with_tree = evaluate(block_cells(cells, node, parent), *parameters)
    without = evaluate(block_cells(cells), *parameters)
    assert with_tree.value == pytest.approx(without.value, abs=1e-10)
    np.testing.assert_allclose(with_tree.loading, without.loading, atol=1e-9)


def test_extremes_give_minus_infinity_or_a_number_never_a_wrong_finite_gradient():
    cells, (node, parent), parameters = example(3)
    parameters[3] = np.full(7, 1e-60)
    out = evaluate(block_cells(cells, node, parent), *parameters)
    assert not np.isfinite(out.value) or np.isfinite(out.loading).all()


def test_draws_of_abilities_and_effects_have_the_conditional_moments():
    cells, (node, parent), parameters = example(7, factors=2)
    loading, _, ability_mean, _, _, root_sd, step_sd = parameters
    n_draws, n_models, k = 40_000, len(cells.z), 2
    rng = np.random.default_rng(1)
    blocks = block_cells(cells, node, parent)
    ability, effect, given = draw_latents(
        *blocks,
        *[np.repeat(np.asarray(p, dtype=float)[None], n_draws, axis=0) for p in parameters],
        rng.standard_normal((n_draws, len(parent), k)),
        rng.standard_normal((n_draws, n_models, k)),
    )
    # Conditional normal: cov(theta, z) = within (x) Lambda'.
    within = ability_covariance(node, root_sd, step_sd)
    centre, covariance = moments(cells, node, *parameters)
    seen = cells.observed.astype(bool).ravel()
    cross = np.kron(within, loading.T)[:, seen]
    gain = cross @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    expected = ability_mean.ravel() + gain @ (cells.z.ravel() - centre)[seen]
    spread = np.kron(within, np.eye(k)) - gain @ cross.T
    found = ability.reshape(n_draws, -1)
    error = np.sqrt(np.diag(spread) / n_draws)
    assert np.abs((found.mean(axis=0) - expected) / error).max() < 5
    assert np.abs(np.cov(found.T) - spread).max() < 5 * spread.max() * np.sqrt(2 / n_draws)
    assert (
        np.abs(given.reshape(n_draws, -1) - expected).max() < 1e-9
    )  # the parameters are the same in all draws
    apart = node < 0
    assert (effect[:, apart] == 0).all()
    same = np.flatnonzero(node == node[~apart][0])
    assert (effect[:, same] == effect[:, same[:1]]).all()


def test_a_second_process_loads_the_kernel_from_the_cache():
    code = (
        "import numpy as np\n"
        "from factorlab.inference import kernel\n"
        "from factorlab.inference.marginal import Cells\n"
        "cells = Cells(np.zeros((3, 2)), np.zeros((3, 2)), np.ones((3, 2)), np.zeros((2, 0)))\n"
        "kernel.evaluate(kernel.block_cells(cells), np.ones((2, 1)), np.zeros(2), np.zeros((3, 1)),"
        " np.ones(2), np.zeros(0))\n"
        "stats = kernel.integrated.stats\n"
        "print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]
