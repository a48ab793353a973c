"""Stacking weights against closed forms, and resamples by them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from factorlab.errors import InputError
from factorlab.inference.stacking import DIRICHLET, pick_draws, stack_chains, stacking_weights, take_draws


def two_experts(first, n=40, high=0.9, low=0.2):
    """log densities (2, n): group 0 is right about ``first`` points, group 1 about the rest."""
    density = np.full((2, n), low)
    density[0, :first] = density[1, first:] = high
    return np.log(density)


@pytest.mark.parametrize("first", [8, 20, 26])
def test_weights_equal_the_closed_form(first):
    """n1 log(w a + (1 - w) b) + n2 log(w b + (1 - w) a) is highest at w = (p (a + b) - b) / (a - b)."""
    a, b, p = 0.9, 0.2, first / 40
    expected = np.clip((p * (a + b) - b) / (a - b), 0, 1)
    weights = stacking_weights(two_experts(first), dirichlet=1.0)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights[0] == pytest.approx(expected, abs=1e-5)


def test_a_group_that_is_never_better_gets_nothing():
    log_density = np.log(np.array([[0.5, 0.6, 0.7], [0.4, 0.3, 0.6]]))
    assert stacking_weights(log_density)[0] > 0.999


def test_no_weights_on_the_simplex_score_better():
    rng = np.random.default_rng(0)
    log_density = rng.normal(0, 2, size=(5, 30))
    best = stacking_weights(log_density)

    def score(w):
        return logsumexp(log_density, b=w[:, None], axis=0).sum() + (DIRICHLET - 1) * np.log(w).sum()

    others = rng.dirichlet(np.ones(5), size=3000)
    near = best * np.exp(rng.normal(0, 0.05, size=(3000, 5)))
    for w in [*others, *(near / near.sum(axis=1, keepdims=True))]:
        assert score(w) <= score(best) + 1e-6


def test_equal_predictions_share_the_weight():
    np.testing.assert_allclose(stacking_weights(np.tile(np.linspace(-3, -1, 12), (3, 1))), 1 / 3, atol=1e-6)


def test_chains_and_groups():
    """Draws that all predict alike need no importance weights: the closed form again, by chain and group."""
    log_lik = np.repeat(two_experts(26)[[0, 1, 0]][:, None], 50, axis=1)
    log_lik += 1e-14 * np.random.default_rng(0).normal(size=log_lik.shape)
    expected = (0.65 * 1.1 - 0.2) / 0.7
    by_group = stack_chains(log_lik, [(0, 2), (1,)])
    np.testing.assert_allclose(by_group.group_weights, [expected, 1 - expected], atol=1e-4)
    np.testing.assert_allclose(by_group.weights, [expected / 2, 1 - expected, expected / 2], atol=1e-4)
    by_chain = stack_chains(log_lik)
    np.testing.assert_allclose(by_chain.weights, by_group.weights, atol=1e-4)
    left = stack_chains(log_lik, [(0,), (1,)])
    assert left.weights[2] == 0
    assert by_group.elpd[0] == pytest.approx(two_experts(26)[0].sum())
    assert by_group.difference[0] == 0
    assert by_group.difference_se[1] > 0


def test_one_chain_has_weight_one():
    out = stack_chains(np.random.default_rng(0).normal(size=(1, 60, 4)))
    assert out.weights.tolist() == [1.0]
    assert out.group_weights.tolist() == [1.0]


def test_left_out_density_is_that_of_the_other_points():
    """A normal mean with known variance and a flat prior: p(y_i | rest) in closed form."""
    rng = np.random.default_rng(1)
    y = rng.normal(size=30)
    draws = rng.normal(y.mean(), 1 / np.sqrt(len(y)), size=(2, 4000, 1))
    out = stack_chains(norm.logpdf(y, draws, 1), [(0, 1)])
    rest = (y.sum() - y) / (len(y) - 1)
    expected = norm.logpdf(y, rest, np.sqrt(1 + 1 / (len(y) - 1)))
    np.testing.assert_allclose(out.loo[0], expected, atol=0.02)
    assert np.nanmax(out.khat) < 0.7
    assert out.unreliable == 0


def test_what_is_not_finite_is_one_line():
    with pytest.raises(InputError, match=r"shape \(2, 3, 4\) with 1 values that are not finite"):
        stack_chains(np.where(np.arange(24).reshape(2, 3, 4) == 5, np.nan, 0.0))
    with pytest.raises(InputError, match=r"concentration 0\.5; give 1 or more"):
        stack_chains(np.zeros((2, 3, 4)), dirichlet=0.5)


def test_resample_gives_every_chain_its_weight_evenly_along_it():
    weights, draws = np.array([0.5, 0.0, 0.3, 0.2]), 250
    picked = pick_draws(weights, draws, seed=3)
    assert picked.chain.shape == picked.draw.shape == (4, draws)
    counts = np.bincount(picked.chain.ravel(), minlength=4)
    assert np.abs(counts - weights * 1000).max() <= 1
    thinned = np.sort(picked.draw[picked.chain == 3])  # 200 of 250 draws: none twice, no gap above two
    assert np.diff(thinned).min() >= 1
    assert np.diff(thinned).max() <= 2
    twice = np.bincount(picked.draw[picked.chain == 0], minlength=draws)  # 500 of 250: each twice
    assert twice.min() >= 1
    assert twice.max() <= 3
    # Every "chain" of the result is a sample of the mixture.
    share = np.stack([(picked.chain == c).mean(axis=1) for c in range(4)])
    assert np.abs(share - weights[:, None]).max() < 0.12


def test_equal_weights_keep_every_draw_once():
    picked = pick_draws(np.full(3, 1 / 3), 40)
    assert sorted(zip(picked.chain.ravel(), picked.draw.ravel(), strict=True)) == [
        (c, d) for c in range(3) for d in range(40)
    ]


def test_all_variables_are_picked_alike():
    values = {"a": np.arange(24.0).reshape(2, 4, 3), "b": np.arange(8.0).reshape(2, 4)}
    picked = pick_draws(np.array([0.75, 0.25]), 4, seed=1)
    out = take_draws(values, picked)
    np.testing.assert_array_equal(out["a"][..., 0], 3 * out["b"])
    assert (out["b"] < 4).sum() == 6
