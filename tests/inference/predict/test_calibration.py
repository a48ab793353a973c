"""Splits and conformal factors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factorlab.inference.predict.calibration import (
    CELL,
    MODEL,
    HeldOut,
    calibrate,
    conformal_factor,
    draw_splits,
    nonconformity,
)


def held(y, low, median, high, split=None, whole=None) -> HeldOut:
    n = len(y)
    return HeldOut(
        np.zeros(n, dtype=int) if split is None else np.asarray(split),
        np.zeros(n, dtype=bool) if whole is None else np.asarray(whole),
        *(np.broadcast_to(np.asarray(v, dtype=float), n) for v in (y, low, median, high)),
    )


def test_each_side_has_its_own_half():
    """Interval [-1, 3] around 0: 1.5 above is half way out, 1.5 below half as far again as the interval goes."""
    r = nonconformity(held([1.5, -1.5, 0.0, 3.0, -1.0], -1, 0, 3))
    np.testing.assert_allclose(r, [0.5, 1.5, 0.0, 1.0, 1.0])


def test_factor_by_hand():
    r = np.array([0.9, 0.1, 0.5, 0.3, 0.7, 1.1, 1.3, 1.5, 1.7])
    # ceil(10 * 0.8) = 8th smallest of nine; ceil(10 * 0.9) = 9th; 0.95 would need a tenth.
    assert conformal_factor(r, 0.8) == 1.5
    assert conformal_factor(r, 0.9) == 1.7
    assert np.isnan(conformal_factor(r, 0.95))
    assert conformal_factor(r, 0.5) == 0.9


@settings(max_examples=20, deadline=None)
@given(n=st.integers(10, 60), level=st.sampled_from([0.5, 0.8, 0.9]), seed=st.integers(0, 10_000))
def test_a_new_residual_is_covered_at_least_as_often_as_asked(n, level, seed):
    """Whatever their distribution: P = ceil((n + 1) level) / (n + 1) of exchangeable residuals without ties."""
    rng = np.random.default_rng(seed)
    r = np.abs(rng.standard_t(2, (4000, n + 1)))
    factor = np.array([conformal_factor(row[:-1], level) for row in r])
    exact = np.ceil((n + 1) * level) / (n + 1)
    if exact >= 1:
        assert np.isnan(factor).all()
        return
    assert exact >= level
    covered = np.mean(r[:, -1] <= factor)
    assert covered == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 4000))


def test_calibration_widens_what_is_too_narrow_and_counts_on_other_splits():
    rng = np.random.default_rng(0)
    y = rng.normal(size=3000)
    narrow = 0.5 * 1.645
    found = calibrate(held(y, -narrow, 0.0, narrow, split=np.arange(3000) % 3), 0.9)
    assert found.factor[CELL] == pytest.approx(2.0, rel=0.06)
    assert found.raw_coverage[CELL] == pytest.approx(np.mean(np.abs(y) <= narrow))
    assert found.coverage[CELL] == pytest.approx(0.9, abs=0.02)
    assert found.n == {CELL: 3000, MODEL: 0}
    assert np.isnan(found.factor[MODEL])


def test_models_hidden_whole_have_a_factor_of_their_own():
    y = np.linspace(-1, 1, 100)
    whole = np.arange(100) % 2 == 0
    found = calibrate(
        held(np.where(whole, 4 * y, y), -1, 0, 1, split=np.arange(100) % 4 // 2, whole=whole), 0.9
    )
    assert found.factor[MODEL] == pytest.approx(4 * found.factor[CELL], rel=0.05)
    assert found.n == {CELL: 50, MODEL: 50}


@settings(max_examples=60, deadline=None)
@given(
    models=st.integers(4, 20),
    benchmarks=st.integers(2, 8),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0, 10_000),
)
def test_splits_leave_every_model_and_benchmark_a_cell(models, benchmarks, share, seed):
    rng = np.random.default_rng(seed)
    observed = rng.random((models, benchmarks)) < 0.7
    for split in draw_splits(observed, 3, seed=seed, share=share):
        assert not (split.hidden & ~observed).any()
        kept = observed & ~split.hidden
        assert (kept.any(axis=1) == observed.any(axis=1)).all()
        assert (kept.any(axis=0) == observed.any(axis=0)).all()


def test_whole_models_are_hidden_whole_and_splits_repeat_with_their_seed():
    observed = np.random.default_rng(0).random((20, 6)) < 0.8
    first, again, other = (draw_splits(observed, 2, seed=s, models=True) for s in (1, 1, 2))
    for split in first:
        assert split.whole.sum() == round(0.15 * 20)
        assert (split.hidden[split.whole] == observed[split.whole]).all()
    np.testing.assert_array_equal(first[0].hidden, again[0].hidden)
    assert (first[0].hidden != other[0].hidden).any()


def test_lineages_are_hidden_whole_where_asked():
    lineage = np.array(list("aaaabbbccddefghh"))
    observed = np.ones((16, 4), dtype=bool)
    names = set()
    for split in draw_splits(observed, 30, seed=0, models=True, lineage=lineage):
        chosen = set(lineage[split.whole])
        np.testing.assert_array_equal(split.whole, np.isin(lineage, list(chosen)))
        assert 2 <= split.whole.sum() <= 5  # 15 % of 16 models, and no lineage cut
        names |= chosen
    assert names == set("abcdefgh")
