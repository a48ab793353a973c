"""Comparison: identities, known differences, recovery of a simulated truth, changed conclusions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import factorlab as fl
from factorlab.errors import InputError
from factorlab.inference.budgets import BudgetRegression
from factorlab.inference.compare import compare
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.simulation import simulate

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def table():
    return fl.read_scores(DATA / "scores.parquet")


def solution(loading, ability, kind="point", method="pca", extra=None, models=None, benchmarks=None):
    """Draws first: loading (draw, benchmark, factor), ability (draw, model, factor); one chain."""
    n_draws, n_benchmarks, _ = loading.shape
    models = models or [f"m{i}" for i in range(ability.shape[1])]
    benchmarks = benchmarks or [f"b{j}" for j in range(n_benchmarks)]
    ability = (ability - ability.mean(axis=1, keepdims=True)) / ability.std(axis=1, keepdims=True)
    ones = np.ones((1, n_draws, n_benchmarks))
    draws = label_draws(loading[None], ability[None], ones, ones, models, benchmarks)
    constants = xr.Dataset({"scale": ("benchmark", np.ones(n_benchmarks))}, coords={"benchmark": benchmarks})
    return FactorSolution(draws, constants, method, kind, extra=extra or {})


def drawn(n_draws, sd=0.1, seed=0, factors=2, **more):
    """A posterior whose loadings lie around one matrix with the given standard deviation."""
    base, ability = (
        np.random.default_rng(7).normal(size=(12, factors)),
        np.random.default_rng(8).normal(size=(20, factors)),
    )
    rng = np.random.default_rng(seed)
    loading = base + sd * rng.standard_normal((n_draws, *base.shape))
    return solution(
        loading, np.broadcast_to(ability, (n_draws, *ability.shape)), "posterior", "bayes", **more
    )


def point(factors=2, **more):
    base, ability = (
        np.random.default_rng(7).normal(size=(12, factors)),
        np.random.default_rng(8).normal(size=(20, factors)),
    )
    return solution(base[None], ability[None], **more)


def test_a_solution_agrees_with_itself(table):
    pca = fl.fit_pca(table, 4)
    result = compare(pca, pca)
    np.testing.assert_allclose(result.factors["congruence_median"], 1)
    np.testing.assert_allclose(result.factors["rmse_loading_median"], 0, atol=1e-12)
    np.testing.assert_allclose(result.factors["rmse_score_median"], 0, atol=1e-12)
    np.testing.assert_allclose(result.factors["score_correlation_median"], 1)
    np.testing.assert_allclose(result.angles["median"], 1)
    assert result.conclusions.empty
    assert not result.loadings["changes"].any()
    assert "Both are points: there are no intervals." in result.notes


def test_order_and_signs_are_undone():
    one = point(3)
    turned = solution(
        one.stacked("loading")[:, :, [2, 0, 1]] * [1, -1, 1],
        one.stacked("ability")[:, :, [2, 0, 1]] * [1, -1, 1],
    )
    result = compare(one, turned)
    assert list(result.factors["second_factor"]) == ["PC2", "PC3", "PC1"]
    assert list(result.factors["sign"]) == [-1, 1, 1]
    np.testing.assert_allclose(result.factors["rmse_loading_median"], 0, atol=1e-12)
    np.testing.assert_allclose(result.factors["rmse_score_median"], 0, atol=1e-12)


def test_rotation_is_undone_by_procrustes_only():
    one = point(2)
    a = one.stacked("ability")
    a = np.linalg.qr(a[0])[0][None] * np.sqrt(a.shape[1])  # uncorrelated, so that turning keeps unit variance
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    a = a - a.mean(axis=1, keepdims=True)
    one = solution(one.stacked("loading"), a)
    other = one.with_(
        draws=one.draws.assign(loading=one.draws["loading"].copy(data=one.draws["loading"].values @ turn),
                               ability=one.draws["ability"].copy(data=one.draws["ability"].values @ turn))
    )  # fmt: skip
    kept, turned = compare(one, other), compare(one, other, align="procrustes")
    assert (kept.factors["congruence_median"] < 0.95).all()
    assert (turned.factors["congruence_median"] > 1 - 1e-9).all()
    np.testing.assert_allclose(kept.angles["median"], 1)


@pytest.mark.parametrize("counts", [(3, 2), (2, 3)])
def test_different_numbers_of_factors(table, counts):
    first, second = (fl.fit_pca(table, k) for k in counts)
    result = compare(first, second)
    assert list(result.factors["factor"]) == ["PC1", "PC2"]
    np.testing.assert_allclose(result.factors["congruence_median"], 1)
    alone = result.conclusions[result.conclusions["kind"] == "no counterpart"]
    assert list(alone["factor"]) == ["PC3"]
    assert "has no counterpart in" in alone["sentence"].iloc[0]
    assert any("the 2 that go together are compared" in note for note in result.notes)


@pytest.mark.parametrize("sizes", [(1, 4000), (4000, 1)])
def test_the_interval_of_a_point_beside_a_posterior_is_the_posterior_s(sizes):
    first, second = (point() if n == 1 else drawn(n) for n in sizes)
    result = compare(first, second, level=0.9)
    width = result.loadings["upper"] - result.loadings["lower"]
    # The loading's sd is 0.1; its quantiles at 4000 draws are good to about 3 %.
    np.testing.assert_allclose(width, 2 * 1.645 * 0.1, rtol=0.12)
    np.testing.assert_allclose(result.loadings["difference"], 0, atol=0.01)


def test_two_posteriors_are_independent_even_where_they_are_one():
    result = compare(drawn(4000), drawn(4000), level=0.9)
    width = result.loadings["upper"] - result.loadings["lower"]
    np.testing.assert_allclose(width, 2 * 1.645 * 0.1 * np.sqrt(2), rtol=0.12)


def test_all_draws_of_both_enter():
    long, short = drawn(700, seed=1), drawn(300, seed=2)
    result = compare(long, short)
    assert result.n_pairs == 700
    first = result.loadings["first"].to_numpy().reshape(12, 2)
    np.testing.assert_allclose(first, long.loading_mean().to_numpy())
    # 700 pairs go through the 300 draws twice and a third of them once more.
    second = result.loadings["second"].to_numpy().reshape(12, 2)
    np.testing.assert_allclose(second, short.loading_mean().to_numpy(), atol=0.01)


def test_recovery_of_a_simulated_truth():
    sim = simulate(models=500, benchmarks=20, factors=2, seed=3)
    fit = fl.fit_ml(sim.table, 2)
    plain, turned = compare(sim.truth, fit), compare(sim.truth, fit, align="procrustes")
    assert (turned.factors["congruence_median"] > 0.98).all()
    assert (
        turned.factors["rmse_loading_median"] < 0.04
    ).all()  # 500 models: a loading is good to 1 / sqrt(500)
    assert (turned.factors["score_correlation_median"] > 0.9).all()
    assert (plain.angles["median"] > 0.98).all()
    assert set(plain.names) == {"truth", "ml"}


def test_loadings_are_brought_to_one_unit_of_scores():
    one = point()
    double = one.with_(
        constants=one.constants.assign(scale=2 * one.constants["scale"]),
        draws=one.draws.assign(loading=one.draws["loading"] / 2),
    )
    result = compare(one, double)
    np.testing.assert_allclose(result.factors["rmse_loading_median"], 0, atol=1e-12)
    assert any("differ by up to 100.0 %" in note for note in result.notes)


def test_common_models_and_benchmarks_only():
    one = point()
    part = solution(
        one.stacked("loading")[:, 2:],
        one.stacked("ability")[:, :15],
        models=one.models[:15],
        benchmarks=one.benchmarks[2:],
    )
    result = compare(one, part)
    assert (result.n_benchmarks, result.n_models) == (10, 15)
    np.testing.assert_allclose(result.factors["score_correlation_median"], 1)
    assert "Not compared, benchmarks of the first (pca) only: b0, b1." in result.notes
    assert any("m15, m16, m17, m18, m19." in note for note in result.notes)


def test_models_without_ability_are_left_out(table):
    pca = fl.fit_pca(table, 2)
    ability = pca.draws["ability"].copy()
    ability[dict(model=0)] = np.nan
    result = compare(pca, pca.with_(draws=pca.draws.assign(ability=ability)))
    assert result.n_models == 34
    np.testing.assert_allclose(result.factors["score_correlation_median"], 1)


def test_salient_loadings_and_signs():
    base = np.array([[0.9, 0.1], [0.8, -0.3], [0.7, 0.6], [0.6, -0.6], [0.45, 0.5], [0.8, 0.0]])
    other = base.copy()
    other[1, 1] = 0.1
    ability = np.random.default_rng(0).normal(size=(1, 30, 2))
    draws = other + 0.05 * np.random.default_rng(1).standard_normal((2000, 6, 2))
    result = compare(
        solution(base[None], ability),
        solution(draws, np.repeat(ability, 2000, axis=0), "posterior", "bayes"),
    )
    rows = result.conclusions.set_index(["kind", "benchmark", "factor"])
    assert ("salient loading", "b4", "PC1") in rows.index  # 0.45 with sd 0.05 is not credibly above 0.4
    assert ("salient loading", "b0", "PC1") not in rows.index
    assert rows.loc[("sign of loading", "b1", "PC2"), "first"] == pytest.approx(-0.3)
    sentence = rows.loc[("salient loading", "b4", "PC1"), "sentence"]
    assert (
        "counts as salient on PC1 (|loading| >= 0.4) in pca, 0.45, and not credibly in bayes, 0.45 ["
        in sentence
    )
    changed = result.loadings.set_index(["benchmark", "factor"])["changes"]
    assert changed["b1", "PC2"]
    assert changed.sum() == 1


def test_factors_that_are_not_identified_or_not_the_same():
    one = point(2)
    loading = one.stacked("loading").copy()
    loading[:, :, 1] = np.random.default_rng(99).normal(size=(1, 12))
    other = solution(loading, one.stacked("ability"), method="bayes", extra={"identified": [True, False]})
    result = compare(one, other)
    assert {"not identified", "another factor"} <= set(result.conclusions["kind"])
    assert "PC2 is not identified in bayes: do not read its loadings or correlations." in list(
        result.conclusions["sentence"]
    )
    # Nothing more is said of a factor that cannot be read.
    assert not result.conclusions["kind"].isin(["salient loading", "sign of loading"]).any()


def regression(method, rows):
    columns = ["factor", "budget", "form", "median", "lower", "upper"]
    return BudgetRegression(method, pd.DataFrame(rows, columns=columns), pd.DataFrame(), pd.DataFrame())


def test_budget_verdicts():
    one = point(2)
    flipped = solution(one.stacked("loading") * [1, -1], one.stacked("ability") * [1, -1], method="ml")
    first = regression(
        "two-step", [("PC1", "en", "at_hand", 0.9, 0.8, 0.95), ("PC2", "ja", "at_hand", 0.3, 0.1, 0.5)]
    )
    second = regression(
        "two-step", [("PC1", "en", "at_hand", 0.2, -0.1, 0.4), ("PC2", "ja", "at_hand", -0.3, -0.5, -0.1)]
    )
    result = compare(one, flipped, budgets=(first, second))
    # PC2 of the second is turned round, and so is its correlation: the verdicts agree.
    assert list(result.conclusions["sentence"]) == [
        "rho(PC1, en) is positive in pca, 0.90 [0.80, 0.95] (at hand), and open (its interval holds 0) in "
        "ml, 0.20 [-0.10, 0.40] (at hand)."
    ]


def test_two_step_is_also_held_against_the_population():
    first = regression("two-step", [("PC1", "en", "at_hand", 0.2, -0.1, 0.5)])
    second = regression(
        "joint", [("PC1", "en", "at_hand", 0.2, 0.1, 0.3), ("PC1", "en", "population", 0.2, -0.1, 0.4)]
    )
    sentences = list(compare(point(), point(method="bayes"), budgets=(first, second)).conclusions["sentence"])
    assert len(sentences) == 1
    assert sentences[0].endswith("positive in bayes, 0.20 [0.10, 0.30] (at hand).")


def test_output_is_plain(table):
    result = compare(fl.fit_pca(table, 3), fl.fit_ml(table, 3))
    text = json.dumps(result.to_dict(), allow_nan=False)
    back = json.loads(text)
    assert set(back["congruence"]["PC1"]) == {"median", "lower", "upper"}
    assert back["congruence"]["PC1"]["lower"] is None
    frame = result.to_dataframe()
    assert len(frame) == 4 * 3 + 3 + 19 * 3
    assert set(frame.columns) == {"quantity", "factor", "benchmark", "value", "lower", "upper", "level"}
    assert "effect" not in text


def test_errors(table):
    pca = fl.fit_pca(table, 2)
    with pytest.raises(InputError, match="align 'rotate' is unknown; give 'match' or 'procrustes'"):
        compare(pca, pca, align="rotate")
    with pytest.raises(InputError, match="level 94 is not a probability"):
        compare(pca, pca, level=94)
    with pytest.raises(InputError, match="have 0 benchmarks in common, of 19 and 12; at least 2 are needed"):
        compare(pca, point())
