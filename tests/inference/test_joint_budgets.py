"""Correlations with budgets from the joint posterior."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from factorlab.errors import InputError
from factorlab.inference.budgets import published_budgets
from factorlab.inference.joint_budgets import (
    contrasts,
    correlate,
    fit_budgets,
    joint,
    population_rho,
    ranks,
    within_families,
)
from factorlab.inference.pca import fit_pca
from factorlab.simulation import simulate


def test_correlate_is_numpy_draw_by_draw():
    rng = np.random.default_rng(0)
    ability, x = rng.normal(size=(5, 12, 2)), rng.normal(size=(5, 12))
    out = correlate(ability, x)
    for d in range(5):
        for k in range(2):
            assert out[d, k] == pytest.approx(np.corrcoef(ability[d, :, k], x[d])[0, 1])


@pytest.mark.parametrize("shape", [(50, 7), (50, 7, 3)])
def test_ranks_are_scipys_with_and_without_ties(shape):
    values = np.random.default_rng(0).normal(size=shape)
    for x in (values, np.round(values, 1)):
        assert np.array_equal(ranks(x), rankdata(x, axis=1))


def test_partial_correlation_is_that_of_residuals():
    """Frisch-Waugh: within families given log N equals the correlation of least-squares residuals."""
    rng = np.random.default_rng(1)
    family = np.repeat(["a", "b", "c"], 5)
    size = rng.normal(size=15)
    d = rng.normal(size=15)
    ability = (0.7 * d + rng.normal(size=15))[None, :, None]
    given = np.column_stack([(family == f).astype(float) for f in "abc"] + [size])
    left = [v - given @ np.linalg.lstsq(given, v, rcond=None)[0] for v in (ability[0, :, 0], size + d)]
    out = within_families(ability, (size + d)[None], size[None], family)
    assert out[0, 0] == pytest.approx(np.corrcoef(*left)[0, 1])


def test_partial_correlation_needs_something_left():
    family = np.array(["a", "b", "c", "d"])
    assert within_families(np.zeros((1, 4, 1)), np.zeros((1, 4)), np.ones((1, 4)), family) is None


def test_rho_of_the_draws_covers_the_truth(small, small_fit):
    out = joint(small.table, small_fit)
    row = out.table.set_index(["factor", "budget", "form"]).loc["PC1", "en", "at_hand"]
    exact = np.corrcoef(small.truth.stacked("ability")[0][:, 0], small.budget["en"])[0, 1]
    assert row["lower"] - 0.1 < exact < row["upper"] + 0.1  # 0.1: the axes are not quite the true ones
    assert row["n"] == 24
    assert row["prob_positive"] > 0.99


def test_every_form_is_there_with_its_n(small, small_fit):
    table = joint(small.table, small_fit).table
    assert set(table["form"]) == {"at_hand", "spearman", "all_models", "population", "partial", "difference"}
    assert set(table[table["form"] == "difference"]["budget"]) == {"ja - en"}
    assert table[["mean", "lower", "upper", "rhat", "ess_bulk"]].notna().all().all()
    assert (table["lower"] <= table["median"]).all()
    assert (table["median"] <= table["upper"]).all()


def test_difference_is_the_difference_draw_by_draw(small, small_fit):
    out = joint(small.table, small_fit)
    rho = out.draws["rho"]
    expected = (rho.sel(budget="ja") - rho.sel(budget="en")).transpose("chain", "draw", "factor")
    got = out.draws["rho_difference"].sel(budget_difference="ja - en").transpose("chain", "draw", "factor")
    np.testing.assert_allclose(got.values, expected.values)


def test_population_rho_by_simulation(small, small_fit):
    """The closed form against simulated models of new families at one draw's parameters."""
    draws = small_fit.draws.isel(chain=[0], draw=[5])
    one = small_fit.with_(draws=draws)
    known = np.ones(24, dtype=bool)
    got = population_rho(one, "ja", known)[0]
    rng = np.random.default_rng(0)
    x = one.stacked("predictor_log10")[0]
    pick = rng.integers(0, 24, 400_000)
    sd = np.sqrt(1 + one.stacked("root_sd")[0] ** 2) if "root_sd" in draws else 1.0
    u = sd * rng.standard_normal((len(pick), 2)) @ one.stacked("turn")[0]
    ability = x[pick] @ one.stacked("slope")[0] + u
    budget = x[pick, 0] + x[pick, 2]
    for k in range(2):
        assert got[k] == pytest.approx(np.corrcoef(ability[:, k], budget)[0, 1], abs=0.006)


def test_posterior_without_budgets_and_points_go_the_two_step_way(small):
    assert fit_budgets(small.table, fit_pca(small.table, 2)).method == "two-step"


def test_joint_of_a_point_is_an_error(small):
    with pytest.raises(InputError, match="has no slopes; fit it with budgets"):
        joint(small.table, fit_pca(small.table, 2))


def test_other_table_is_an_error(small, small_fit):
    other = simulate(models=23, benchmarks=8, factors=2, seed=1).table
    with pytest.raises(InputError, match="models are not those of table"):
        joint(other, small_fit)


def test_contrasts_are_child_less_nearest_scored_base(small, small_fit):
    models = small.table.models.copy()
    names = small.table.model_names
    models["base_model"] = None
    models.loc[names[1], "base_model"] = names[0]
    from dataclasses import replace

    out = contrasts(replace(small.table, models=models), small_fit, 0.94)
    row = out[out["factor"] == "PC1"].iloc[0]
    ability = small_fit.stacked("ability")
    assert row["model"] == names[1]
    assert row["base_model"] == names[0]
    assert row["mean"] == pytest.approx((ability[:, 1, 0] - ability[:, 0, 0]).mean())


def test_published_budgets_of_the_real_matrix(swallow):
    budgets = published_budgets(swallow)
    assert budgets.notna().sum().to_dict() == {"en": 27, "ja": 25, "total": 27}
