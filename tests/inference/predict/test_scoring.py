"""Scores of predictions, against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from factorlab.inference.predict.scoring import (
    cross_fit_factors,
    crps_of_normal,
    crps_of_samples,
    pit_histogram,
    score_normal,
    score_samples,
    summarise,
)


@pytest.mark.parametrize(("mean", "sd", "y"), [(0.0, 1.0, 0.3), (2.0, 0.5, -1.0)])
def test_crps_of_a_normal_is_its_integral(mean, sd, y):
    truth = stats.norm(mean, sd)
    below, _ = integrate.quad(lambda x: truth.cdf(x) ** 2, -30, y)
    above, _ = integrate.quad(lambda x: truth.sf(x) ** 2, y, 30)
    found = crps_of_normal(np.array(mean), np.array(sd), np.array(y))
    assert found == pytest.approx(below + above, abs=1e-7)


def test_crps_of_samples_by_hand():
    # E|X - y| = (1 + 2 + 5) / 3; all pairs: |1-2|, |1-5|, |2-5| -> mean 8/3, half of it.
    assert crps_of_samples(np.array([[2.0], [1.0], [5.0]]), np.array([0.0])) == pytest.approx(8 / 3 - 4 / 3)


@pytest.mark.parametrize("n", [2, 5, 50])
def test_crps_of_samples_is_fair(n):
    """Its mean over samples is the closed form, however few there are."""
    rng = np.random.default_rng(n)
    many = 200_000 // n
    found = crps_of_samples(rng.normal(0.2, 0.7, (n, many)), np.full(many, 0.9))
    truth = crps_of_normal(np.array(0.2), np.array(0.7), np.array(0.9))
    assert found.mean() == pytest.approx(truth, abs=5 * found.std() / np.sqrt(many))


def test_samples_of_a_normal_score_as_the_normal_does():
    rng = np.random.default_rng(0)
    y = np.array([-1.0, 0.2, 2.5])
    exact = score_normal(np.zeros(3), np.ones(3), y, 0.9)
    found = score_samples(rng.normal(size=(100_000, 3)), exact.log_density, y, 0.9)
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, b, atol=0.02)
    np.testing.assert_allclose(exact.high, 1.6449, atol=1e-4)


def test_ties_count_half_in_the_pit():
    found = score_samples(np.array([[0.0], [0.5], [0.5], [1.0]]), np.zeros(1), np.array([0.5]), 0.9)
    assert found.pit == pytest.approx(0.5)


def test_factors_come_from_the_other_folds():
    y = np.array([1.0] * 20 + [3.0] * 20)
    fold = np.repeat(["a", "b"], 20)
    zero, half = np.zeros(40), np.ones(40)
    factor = cross_fit_factors(y, zero, -half, half, fold, 0.9)
    assert (factor[:20] == 3.0).all()
    assert (factor[20:] == 1.0).all()
    assert np.isnan(cross_fit_factors(y, zero, -half, half, np.full(40, "a"), 0.9)).all()


def test_summary_by_hand():
    cells = pd.DataFrame(
        {
            "model": ["a", "a", "b", "b"],
            "score": [10.0, 20.0, 30.0, 40.0],
            "median": [12.0, 20.0, 26.0, 40.0],
            "raw_low": [11.0, 19.0, 25.0, 39.0],
            "raw_high": [13.0, 21.0, 27.0, 41.0],
            "low": [8.0, 16.0, 22.0, np.nan],
            "high": [16.0, 24.0, 30.0, np.nan],
            "training_mean": 25.0,
            "unit": 100.0,
            "log_density": [1.0, 2.0, 3.0, 6.0],
            "crps": [0.1, 0.2, 0.3, 0.4],
        }
    )
    found = summarise(cells)
    assert found["median_error"] == pytest.approx(0.01)
    assert found["mean_error"] == pytest.approx(0.015)
    assert found["rmse"] == pytest.approx(np.sqrt((4 + 16) / 4) / 100)
    assert found["r2"] == pytest.approx(1 - 20 / (225 + 25 + 25 + 225))
    assert (found["raw_coverage"], found["coverage"]) == (0.5, 1.0)
    assert (found["raw_width"], found["width"]) == pytest.approx((0.02, 0.08))
    assert found["elpd"] == 3.0
    # Sums by model are 3 and 9, around 2 cells x 3.0: -3 and 3; sd sqrt(18), times sqrt(2) / 4.
    assert found["elpd_se"] == pytest.approx(np.sqrt(2) * np.sqrt(18) / 4)


def test_pit_of_calibrated_predictions_is_even():
    found = pit_histogram(np.random.default_rng(1).random(2000))
    inside = [
        low <= c <= high for low, c, high in zip(found["low"], found["count"], found["high"], strict=True)
    ]
    assert sum(inside) >= 8
    assert sum(found["count"]) == 2000
    skewed = pit_histogram(np.random.default_rng(1).random(2000) ** 3)
    assert skewed["count"][0] > skewed["high"][0]
