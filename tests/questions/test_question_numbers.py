"""The numbers behind answers, against the same computed one by one."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from factorlab.inference.budgets import published_budgets
from factorlab.inference.identify import match, take_factors
from factorlab.inference.pca import fit_pca
from factorlab.questions.family_split import split_by_family
from factorlab.questions.quick_pca import (
    budget_correlations,
    reweighted,
    standard_rows,
    with_noise,
    without_each_benchmark,
)
from factorlab.questions.token_units import shifted_budgets, token_units
from factorlab.scores import table_from_frames


def pearson(a, b):
    both = np.isfinite(a) & np.isfinite(b)
    return np.corrcoef(a[both], b[both])[0, 1]


def test_leaving_out_a_benchmark_is_pca_of_the_others(swallow):
    full = fit_pca(swallow, 3)
    reference = full.stacked("loading")[0]
    fits = without_each_benchmark(standard_rows(swallow, 3, "complete"), reference)
    budget = published_budgets(swallow)["ja"].to_numpy()
    rho = budget_correlations(fits.ability, budget)
    for gone in (0, 2, 11, 18):
        others = [b for b in swallow.benchmark_names if b != swallow.benchmark_names[gone]]
        alone = fit_pca(swallow.select(benchmarks=others), 3)
        kept = np.delete(np.arange(19), gone)
        order, sign = match(alone.stacked("loading"), reference[kept])
        loading = take_factors(alone.stacked("loading"), order, sign)[0]
        ability = take_factors(alone.stacked("ability"), order, sign)[0]
        assert fits.loading[gone, kept] == pytest.approx(loading, abs=1e-9)
        assert np.isnan(fits.loading[gone, gone]).all()
        assert rho[gone] == pytest.approx([pearson(ability[:, k], budget) for k in range(3)], abs=1e-9)


def test_weights_are_copies_of_models(swallow):
    reference = fit_pca(swallow, 2).stacked("loading")[0]
    rows = standard_rows(swallow, 2, "complete")
    counts = np.random.default_rng(4).integers(0, 3, (1, 35))
    found = reweighted(rows, counts.astype(float), reference)
    scores = np.repeat(swallow.scores, counts[0], axis=0)
    value, vector = np.linalg.eigh(np.corrcoef(scores, rowvar=False))
    loading = (vector * np.sqrt(value))[:, ::-1][:, :2]
    order, sign = match(loading[None], reference)
    assert found.loading[0] == pytest.approx(take_factors(loading[None], order, sign)[0], abs=1e-9)
    budget = published_budgets(swallow)["en"].to_numpy()
    copied = np.repeat(np.column_stack([found.ability[0], budget]), counts[0], axis=0)
    expected = [pearson(copied[:, k], copied[:, 2]) for k in range(2)]
    assert budget_correlations(found.ability, budget, counts)[0] == pytest.approx(expected, abs=1e-9)


def test_correlation_needs_three_models_and_spread():
    ability = np.arange(12.0).reshape(1, 6, 2)
    assert np.isnan(budget_correlations(ability, np.array([1.0, 2, np.nan, np.nan, np.nan, np.nan]))).all()
    assert np.isnan(budget_correlations(ability, np.full(6, 2.0))).all()
    assert budget_correlations(ability, -np.arange(6.0))[0] == pytest.approx([-1, -1])


def test_noise_is_as_large_as_the_standard_errors(swallow):
    rows = standard_rows(swallow, 2, "complete")
    reference = fit_pca(swallow, 2).stacked("loading")[0]
    still = with_noise(rows._replace(z_se=np.zeros_like(rows.z_se)), 1, reference, 0)
    assert still.loading[0] == pytest.approx(reference, abs=1e-9)
    assert rows.z_se == pytest.approx(swallow.se / swallow.scores.std(axis=0))
    moved = with_noise(rows, 100, reference, 0).loading.std(axis=0)
    size = np.sqrt((rows.z_se**2).mean(axis=0))
    assert np.argmax(moved[:, 0]) == np.argmax(size) == swallow.benchmark_names.index("JEMHopQA")
    assert spearmanr(moved[:, 0], size).statistic > 0.9


def lineage_table():
    """A guessed root with a child trained further, an official root, an unknown one."""
    models = pd.DataFrame(
        {
            "model": ["root", "child", "other", "third", "unknown"],
            "family": ["A", None, "B", "C", "D"],
            "base_model": [None, "root", None, None, None],
            "params_b": [10.0, 10.0, 5.0, 1.0, 2.0],
            "tokens_b_total": [40.0, np.nan, np.nan, np.nan, np.nan],
            "tokens_b_sw": [10.0, 30.0, 8.0, 2.0, np.nan],
            "tokens_b_sw_status": ["guessed", "official", "official", "derived", "unknown"],
            "cpt_tokens_b_sw": [np.nan, 20.0, np.nan, np.nan, np.nan],
            "cpt_tokens_b_sw_status": [None, "official", None, None, None],
        }
    )
    scores = pd.DataFrame({"model": models["model"], "x": np.arange(5.0), "y": [2.0, 1, 4, 3, 5]})
    return table_from_frames(scores, models)


def test_a_guess_moves_the_model_and_what_was_built_on_it():
    table = lineage_table()
    units = token_units(table, "sw")
    assert dict(zip(units.labels, units.status, strict=True)) == {
        "A": "guessed", "child": "official", "other": "official", "C": "derived",
    }  # fmt: skip
    assert units.most[units.labels.index("A")] == 4
    as_is = shifted_budgets(units, np.ones(4))
    assert as_is == pytest.approx(published_budgets(table)["sw"].to_numpy(), nan_ok=True)
    factor = np.ones((1, 4))
    factor[0, units.labels.index("A")] = 2
    expected = np.log10(np.array([10e9 * 20e9, 10e9 * 40e9, 5e9 * 8e9, 1e9 * 2e9, np.nan]))
    assert shifted_budgets(units, factor)[0] == pytest.approx(expected, nan_ok=True)


def test_correlation_between_and_within_families():
    rng = np.random.default_rng(2)
    family = np.array(["a", "a", "a", "b", "b", "c", "d"])
    x, y = rng.normal(size=(2, 7))
    frame = pd.DataFrame({"x": x, "y": y, "family": family})
    means = frame.groupby("family").mean()
    apart = (frame[["x", "y"]] - frame.groupby("family")[["x", "y"]].transform("mean"))[:5]
    found = split_by_family(y[None, :, None], x[None], family)
    assert found.between[0, 0] == pytest.approx(pearson(means["x"].to_numpy(), means["y"].to_numpy()))
    assert found.within[0, 0] == pytest.approx(pearson(apart["x"].to_numpy(), apart["y"].to_numpy()))
    assert (found.n_families, found.n_within, found.n_groups) == (4, 5, 2)
    alone = split_by_family(y[None, :, None], x[None], np.arange(7).astype(str))
    assert np.isnan(alone.within).all()
    same = split_by_family(y[None, :, None], np.repeat([1.0, 2, 3, 4], [3, 2, 1, 1])[None], family)
    assert np.isnan(same.within).all()


def test_two_opposite_relations_are_told_apart():
    """Between families rho is 1, within them -1: the split shows both."""
    family = np.repeat(["a", "b", "c", "d"], 3)
    centre = np.repeat([0.0, 10, 20, 30], 3)
    step = np.tile([-1.0, 0, 1], 4)
    found = split_by_family((centre - step)[None, :, None], (centre + step)[None], family)
    assert found.between[0, 0] == pytest.approx(1)
    assert found.within[0, 0] == pytest.approx(-1)
