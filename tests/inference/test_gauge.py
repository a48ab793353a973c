"""Axes held while sampling: the slice, the orbit's size, and that nothing else changes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from factorlab.inference.gauge import GRADE, constraints, grade, slice_basis, turn_to


def frame(seed: int, n: int = 9, k: int = 3) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, k)))[0]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_slice_is_where_frame_times_loadings_is_symmetric(k):
    f = frame(k, k=k)
    basis = slice_basis(f)
    assert basis.shape == (9 * k, 9 * k - k * (k - 1) // 2)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    loading = (basis @ np.random.default_rng(0).normal(size=basis.shape[1])).reshape(9, k)
    s = f.T @ loading
    np.testing.assert_allclose(s, s.T, atol=1e-12)
    np.testing.assert_allclose(constraints(f).T @ loading.ravel(), 0, atol=1e-12)


def test_turning_puts_any_loadings_on_the_slice():
    rng = np.random.default_rng(4)
    f, loading = frame(1), rng.normal(size=(9, 3))
    turn = turn_to(loading, f)
    s = f.T @ loading @ turn
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(s, s.T, atol=1e-12)
    assert np.linalg.eigvalsh(s).min() > 0


def test_invariants_have_the_distribution_of_free_loadings():
    """Standard normal loadings: E tr L'L and E tr (L'L)^2 are known (Wishart); on the slice, weighted by
    the orbit's size, they must be the same."""
    n, k, draws = 6, 3, 400_000
    f = frame(5, n, k)
    rng = np.random.default_rng(6)
    basis = slice_basis(f)
    loading = (rng.standard_normal((draws, basis.shape[1])) @ basis.T).reshape(draws, n, k)
    s = np.linalg.eigvalsh(np.einsum("nk,dnl->dkl", f, loading))
    weight = np.prod([np.maximum(s[:, a] + s[:, b], 0) for a, b in combinations(range(k), 2)], axis=0)
    gram = np.einsum("dnk,dnl->dkl", loading, loading)
    first = np.einsum("dkk->d", gram)
    second = np.einsum("dkl,dkl->d", gram, gram)
    for values, expected in ((first, n * k), (second, n * k * (n + k + 1))):
        mean = np.average(values, weights=weight)
        error = np.sqrt(np.sum(weight**2 * (values - mean) ** 2)) / weight.sum()
        assert abs(mean - expected) < 4 * error
        assert error < 0.01 * expected


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_graded_frame_keeps_the_mirror_image_from_the_edge(k):
    """Of loadings equal in size, the smallest eigenvalue is far below the next in either copy."""
    loading = frame(k, k=k)
    mirror = loading @ np.diag([*np.ones(k - 1), -1.0])
    for f, ratio in ((loading, 1.0), (grade(loading), GRADE)):
        s = np.linalg.eigvalsh(f.T @ mirror)
        assert -s[0] / s[1] == pytest.approx(ratio)
