"""Bridge sampling against integrals that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_normal

from factorlab.inference.bridge import masses


def test_a_normal_has_its_own_constant():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(8, 8))
    covariance = root @ root.T + 0.1 * np.eye(8)
    center = rng.normal(size=8)
    points = rng.multivariate_normal(center, covariance, size=(2, 500))
    inverse = np.linalg.inv(covariance)

    def unnormalised(x):
        return 3.0 - 0.5 * (x - center) @ inverse @ (x - center)

    expected = 3.0 + 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    found = masses(points, [(0, 1)], unnormalised)
    assert found.log_mass[0] == pytest.approx(expected, abs=0.03)
    assert found.error[0] < 0.05
    assert found.share.tolist() == [1.0]


def test_a_skewed_density_far_from_normal():
    """Logs of gamma variables: each has the constant Gamma(a)."""
    rng = np.random.default_rng(1)
    shape = np.repeat([1.5, 4.0], 10)
    points = np.log(rng.gamma(shape, size=(4, 600, 20)))
    found = masses(points, [(0, 1, 2, 3)], lambda x: float((shape * x - np.exp(x)).sum()))
    assert found.log_mass[0] == pytest.approx(gammaln(shape).sum(), abs=0.15)


def test_masses_of_two_modes_whatever_the_chains():
    """Three chains sit in a mode of mass 0.02, one in that of mass 0.98."""
    rng = np.random.default_rng(2)
    centers, weights = np.array([np.full(5, -10.0), np.full(5, 10.0)]), np.array([0.02, 0.98])
    parts = [multivariate_normal(center, np.eye(5) * (1 + k)) for k, center in enumerate(centers)]
    points = np.stack([parts[k].rvs(400, random_state=rng) for k in (0, 0, 1, 0)])
    found = masses(
        points, [(0, 1, 3), (2,)], lambda x: float(logsumexp([p.logpdf(x) for p in parts], b=weights))
    )
    np.testing.assert_allclose(found.share, weights, atol=0.002)


def test_too_few_draws_for_the_dimension_say_nothing():
    found = masses(np.random.default_rng(0).normal(size=(2, 30, 10)), [(0,), (1,)], lambda x: 0.0)
    assert np.isnan(found.log_mass).all()
    assert np.isnan(found.share).all()
