"""What the loadings' prior has beyond normal densities: against determinants and eigenvalues, and its slopes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from factorlab.inference.loading_prior import log_loading_prior

SMALL = 0.1


def frame(k: int, n: int = 9) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(k).normal(size=(n, k)))[0]


def on_slice(k: int) -> np.ndarray:
    """Loadings with F' Lambda near diag(1, 2, ...)."""
    f, rng = frame(k), np.random.default_rng(3)
    return f @ np.diag(np.arange(1.0, k + 1)) + 0.1 * (np.eye(9) - f @ f.T) @ rng.normal(size=(9, k))


def written_out(loading: np.ndarray, sd: float, f: np.ndarray, held: bool) -> float:
    n, k = loading.shape
    gram = loading.T @ loading
    size = gram / n + SMALL**2 * np.eye(k)
    value = -0.5 * (n - k) * np.linalg.slogdet(gram / sd**2)[1] - 0.5 * k * np.linalg.slogdet(size)[1]
    s = np.linalg.eigvalsh((f.T @ loading + loading.T @ f) / 2)
    return value + held * sum(np.log((a + b) / sd) for a, b in combinations(s, 2))


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_value_is_of_determinants_and_sums_of_eigenvalues(k, held):
    loading = on_slice(k)
    value = float(log_loading_prior(loading, 0.7, frame(k), small=SMALL, held=held).eval())
    assert value == pytest.approx(written_out(loading, 0.7, frame(k), held), abs=1e-10)


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("k", [1, 4])
def test_slopes_are_finite_differences(k, held, mode):
    loading, sd, f = pt.dmatrix("loading"), pt.dscalar("sd"), frame(k)
    slopes = pytensor.grad(log_loading_prior(loading, sd, f, small=SMALL, held=held), [loading, sd])
    slope, sd_slope = pytensor.function([loading, sd], slopes, mode=mode)(on_slice(k), 0.7)
    rng = np.random.default_rng(0)
    for _ in range(5):
        along, step = rng.normal(size=(9, k)), 1e-6
        ends = [written_out(on_slice(k) + sign * step * along, 0.7, f, held) for sign in (1, -1)]
        assert np.sum(slope * along) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)
    ends = [written_out(on_slice(k), 0.7 + sign * 1e-6, f, held) for sign in (1, -1)]
    assert float(sd_slope) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-9)


def test_beyond_the_edge_the_density_is_zero():
    assert float(log_loading_prior(-on_slice(3), 1.0, frame(3), small=SMALL).eval()) == -np.inf


def test_a_second_derivative_is_refused():
    loading = pt.dmatrix("loading")
    slope = pytensor.grad(log_loading_prior(loading, 1.0, frame(2), small=SMALL), loading)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        pytensor.grad(slope.sum(), loading)
