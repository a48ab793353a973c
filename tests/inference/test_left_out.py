"""Density of a left-out model against the dense normal of all models together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from factorlab.inference.left_out import kin, left_out_density
from factorlab.inference.marginal import Cells, log_likelihood

# Nodes 0 to 2 are families, 3 to 5 steps: 3 in family 0, 4 below it, 5 in family 2.
PARENT = np.array([-1, -1, -1, 0, 3, 2])
NODE = np.array([0, 3, 4, 1, 2, 5, 1])
FAMILY = np.array([0, 0, 0, 1, 2, 2, 1])
STEPS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=float)


def example(factors=2, draws=60, seed=0):
    """Random cells, some missing, model 1 without any, and random draws of two chains."""
    rng = np.random.default_rng(seed)
    n_models, n_benchmarks = len(FAMILY), 6
    observed = (rng.random((n_models, n_benchmarks)) > 0.25).astype(float)
    observed[1] = 0.0
    member = np.zeros((n_benchmarks, 1))
    member[[0, 3], 0] = 1.0
    cells = Cells(
        rng.normal(size=observed.shape) * observed, rng.uniform(0, 0.3, observed.shape), observed, member
    )
    shape = (2, draws)
    values = {
        "loading": rng.normal(size=(*shape, n_benchmarks, factors)),
        "mean": rng.normal(size=(*shape, n_benchmarks)),
        "noise_sd": rng.uniform(0.2, 0.9, (*shape, n_benchmarks)),
        "pair_sd": rng.uniform(0.1, 0.9, (*shape, 1)),
        "ability_mean": rng.normal(size=(*shape, n_models, factors)),
        "root_sd": rng.uniform(0.3, 1.5, shape),
        "step_sd": rng.uniform(0.3, 1.5, shape),
    }
    return cells, values


def dense(cells, values, at):
    """log p(z_i | z_-i) from the covariance of all observed cells at once."""
    p = {name: array[at] for name, array in values.items()}
    n_models, n_benchmarks = cells.z.shape
    root = np.eye(3)[FAMILY]
    between = np.eye(n_models) + p["root_sd"] ** 2 * root @ root.T + p["step_sd"] ** 2 * STEPS @ STEPS.T
    covariance = np.kron(between, p["loading"] @ p["loading"].T)
    own = cells.member @ np.diag(p["pair_sd"] ** 2) @ cells.member.T
    covariance += np.kron(np.eye(n_models), own)
    covariance += np.diag((p["noise_sd"] ** 2 + cells.variance).ravel())
    mean = (p["mean"] + p["ability_mean"] @ p["loading"].T).ravel()
    seen = cells.observed.astype(bool).ravel()
    model = np.repeat(np.arange(n_models), n_benchmarks)

    def log_density(keep):
        return multivariate_normal(mean[keep], covariance[np.ix_(keep, keep)]).logpdf(cells.z.ravel()[keep])

    whole = log_density(seen)
    return np.array(
        [whole - log_density(seen & (model != i)) if seen[model == i].any() else 0.0 for i in range(n_models)]
    )


@pytest.mark.parametrize("factors", [1, 3])
def test_equals_the_dense_normal_with_families_and_steps(factors):
    cells, values = example(factors)
    found = left_out_density(cells, values, kin(NODE, PARENT))
    assert found.shape == (2, 60, 7)
    for at in ((0, 0), (1, 31), (1, 59)):  # in the first and in the second block of draws
        np.testing.assert_allclose(found[at], dense(cells, values, at), rtol=0, atol=1e-9)
    assert np.ptp(found[0, :, 0]) > 1


def test_without_families_it_is_the_marginal_likelihood():
    cells, values = example()
    found = left_out_density(cells, values)
    names = ("loading", "mean", "ability_mean", "noise_sd", "pair_sd")
    expected = log_likelihood(cells, **{name: values[name][1, 7] for name in names})
    np.testing.assert_allclose(found[1, 7], expected, rtol=0, atol=1e-10)
    still = values | {"root_sd": np.zeros((2, 60)), "step_sd": np.zeros((2, 60))}
    np.testing.assert_allclose(left_out_density(cells, still, kin(NODE, PARENT)), found, atol=1e-9)


def test_without_budgets_abilities_have_mean_zero():
    cells, values = example()
    zero = values | {"ability_mean": 0 * values["ability_mean"]}
    del values["ability_mean"]
    families = kin(NODE, PARENT)
    np.testing.assert_array_equal(
        left_out_density(cells, values, families), left_out_density(cells, zero, families)
    )


def test_draws_are_thinned_evenly():
    cells, values = example(draws=21)
    families = kin(NODE, PARENT)
    whole = left_out_density(cells, values, families)
    np.testing.assert_allclose(left_out_density(cells, values, families, most=5), whole[:, ::5])


def test_steps_in_common_are_counted():
    families = kin(NODE, PARENT)
    assert [f.members.tolist() for f in families] == [[[3, 6], [4, 5]], [[0, 1, 2]]]
    np.testing.assert_array_equal(families[1].shared[0], [[0, 0, 0], [0, 1, 1], [0, 1, 2]])
