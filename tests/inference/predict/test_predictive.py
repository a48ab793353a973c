"""Samples and densities of cells from weighted draws, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from factorlab.inference.predict.columns import Columns
from factorlab.inference.predict.kernel import BETA_BINOMIAL, BINOMIAL, LINEAR, LINK
from factorlab.inference.predict.member_fit import CellDraws
from factorlab.inference.predict.predictive import draw_predictive, log_predictive, measurement

N = 20_000


def columns_of(kind: list[int], se: float = np.nan, trials: float = np.nan) -> Columns:
    n = len(kind)
    one, zero = np.ones(n), np.zeros(n)
    cells = np.full((1, n), np.nan)
    return Columns(
        cells,
        np.full((1, n), se),
        np.full((1, n), trials),
        np.array(kind),
        zero,
        one,
        one,
        zero,
        one,
        cells[0],
        (),
    )


def draws(mean: float, sd: float, nu: float, n: int = 50) -> CellDraws:
    return CellDraws(np.full((n, 1), mean), np.full((n, 1), sd), np.full(n, nu))


ROW, COLUMN = np.zeros(1, dtype=int), np.zeros(1, dtype=int)


def test_weights_are_the_shares_of_the_samples():
    parts = [draws(-1.0, 0.1, 1e6), draws(2.0, 0.1, 1e6)]
    found = draw_predictive(parts, np.array([0.3, 0.7]), columns_of([LINEAR]), ROW, COLUMN, seed=0, samples=N)
    assert np.mean(found.samples < 0.5) == 0.3
    assert np.mean(found.expected == -1.0) == 0.3
    assert found.samples.mean() == pytest.approx(0.3 * -1 + 0.7 * 2, abs=0.01)


def test_a_single_draw_is_a_student_t_with_both_errors():
    found = draw_predictive(
        [draws(0.2, 0.3, 5.0)], np.ones(1), columns_of([LINEAR], se=0.4), ROW, COLUMN, seed=1, samples=N
    )
    truth = stats.t(5.0, 0.2, 0.5)  # 0.3-0.4-0.5
    assert stats.kstest(found.samples[:, 0], truth.cdf).pvalue > 1e-3
    log = log_predictive([draws(0.2, 0.3, 5.0)], columns_of([LINEAR], se=0.4), ROW, COLUMN, np.array([0.9]))
    assert log[0, 0] == pytest.approx(truth.logpdf(0.9))


def test_the_density_of_draws_is_their_mean_density():
    part = CellDraws(np.array([[0.2], [0.6]]), np.array([[0.1], [0.2]]), np.array([4.0, 9.0]))
    log = log_predictive([part], columns_of([LINK], se=1e-9), ROW, COLUMN, np.array([0.4]))
    truth = 0.5 * (stats.t.pdf(0.4, 4, 0.2, 0.1) + stats.t.pdf(0.4, 9, 0.6, 0.2))
    assert np.exp(log[0, 0]) == pytest.approx(truth)


def test_scores_stay_in_their_range_and_ratings_have_none():
    for kind, low in ((LINK, 0.0), (LINEAR, -np.inf)):
        found = draw_predictive([draws(0.02, 0.3, 3.0)], np.ones(1), columns_of([kind]), ROW, COLUMN, seed=2)
        assert found.samples.min() >= low
        assert (found.samples.min() < 0) == (kind == LINEAR)


@pytest.mark.parametrize("kind", [BINOMIAL, BETA_BINOMIAL])
def test_counts(kind):
    trials, p, sigma = 30, 0.7, 0.15
    columns = columns_of([kind], trials=trials)
    phi = 0.25 / sigma**2
    truth = stats.binom(trials, p) if kind == BINOMIAL else stats.betabinom(trials, p * phi, (1 - p) * phi)
    part = draws(p, sigma, 4.0)
    y = np.arange(trials + 1) / trials
    logs = [log_predictive([part], columns, ROW, COLUMN, np.array([v]))[0, 0] for v in y]
    np.testing.assert_allclose(logs, truth.logpmf(np.arange(trials + 1)), atol=1e-9)
    found = draw_predictive([part], np.ones(1), columns, ROW, COLUMN, seed=3, samples=N)
    hits = np.round(found.samples[:, 0] * trials).astype(int)
    share = np.bincount(hits, minlength=trials + 1) / N
    spread = np.sqrt(truth.pmf(np.arange(trials + 1)) / N)
    assert (np.abs(share - truth.pmf(np.arange(trials + 1))) <= 5 * spread + 1e-4).all()


def test_an_unknown_error_is_the_median_of_its_benchmark():
    columns = columns_of([LINK, LINK])
    se = np.array([[0.01, np.nan], [0.03, np.nan], [0.02, np.nan], [np.nan, np.nan]])
    columns = columns._replace(se=se, trials=np.full((4, 2), np.nan))
    got, trials = measurement(columns, np.array([0, 3, 3]), np.array([0, 0, 1]))
    np.testing.assert_allclose(got, [0.01, 0.02, 0.003])
    assert trials.tolist() == [1000.0] * 3
