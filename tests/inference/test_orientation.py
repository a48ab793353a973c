"""Axes after sampling: nothing that the data see may change."""

from __future__ import annotations

import numpy as np
import pytest

from factorlab.inference.orientation import axes, orient, whiten


def example(draws: int = 6, factors: int = 3):
    rng = np.random.default_rng(5)
    base = rng.normal(size=(10, factors)) * np.array([2.0, 1.0, 0.5])[:factors]
    theta = rng.normal(size=(25, factors))
    turns = np.linalg.qr(rng.normal(size=(draws, factors, factors)))[0]
    loading = (base + 0.02 * rng.normal(size=(draws, 10, factors))) @ turns
    ability = (theta + 0.02 * rng.normal(size=(draws, 25, factors))) @ turns + 0.3
    return loading, ability, rng.normal(size=(draws, 10)), base


@pytest.mark.parametrize("how", ["procrustes", "principal", "varimax", "promax"])
def test_fitted_values_do_not_change(how):
    loading, ability, mean, reference = example()
    out = orient(loading, ability, mean, reference, how)
    before = mean[:, None] + np.einsum("djk,dmk->dmj", loading, ability)
    after = out.mean[:, None] + np.einsum("djk,dmk->dmj", out.loading, out.ability)
    np.testing.assert_allclose(after, before, atol=1e-10)
    np.testing.assert_allclose((ability - out.center[:, None]) @ out.turn, out.ability, atol=1e-10)


@pytest.mark.parametrize("how", ["procrustes", "principal", "varimax", "promax"])
def test_abilities_have_mean_zero_and_sd_one_over_the_models(how):
    loading, ability, mean, reference = example()
    out = orient(loading, ability, mean, reference, how)
    np.testing.assert_allclose(out.ability.mean(axis=1), 0, atol=1e-10)
    np.testing.assert_allclose(out.ability.std(axis=1), 1, atol=1e-10)


@pytest.mark.parametrize("how", ["procrustes", "principal", "varimax", "promax"])
def test_draws_that_differ_by_rotation_come_out_alike(how):
    loading, ability, mean, reference = example()
    out = orient(loading, ability, mean, reference, how)
    assert out.loading.std(axis=0).max() < 0.1


def test_axes_find_the_same_direction_and_its_absence():
    loading, ability, mean, _ = example(draws=200)
    white = whiten(loading, ability, mean)[0]
    target = np.linalg.svd(white[0], full_matrices=False)
    same = axes(white, target[0] * target[1])
    assert np.median(same.cosine_self, axis=0).min() > 0.99
    assert np.median(same.cosine_reference, axis=0).min() > 0.99
    # Two factors of one size: any rotation in their plane is as good, so no axis is fixed.
    rng = np.random.default_rng(0)
    flat = np.linalg.qr(rng.normal(size=(10, 2)))[0] + 0.1 * rng.normal(size=(500, 10, 2))
    loose = axes(flat, np.eye(10)[:, :2])
    assert np.median(loose.cosine_self, axis=0).max() < 0.9
