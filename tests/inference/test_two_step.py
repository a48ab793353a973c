"""Two-step regression on budgets: known formulas, scipy and a hand-made sandwich, who is left out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr
from scipy.stats import t as student

import factorlab as fl
from factorlab.errors import InputError
from factorlab.inference.budgets import clustered_slopes, correlation_interval, published_budgets, two_step
from factorlab.inference.pca import resample_pca
from factorlab.scores import table_from_frames

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def table():
    return fl.read_scores(DATA / "scores.parquet")


@pytest.fixture(scope="module")
def solution(table):
    return fl.fit_pca(table)


def test_pearson_interval_is_scipys():
    rng = np.random.default_rng(0)
    a = rng.normal(size=30)
    b = a + rng.normal(size=30)
    expected = pearsonr(a, b)
    low, high = expected.confidence_interval(0.9)
    assert correlation_interval(a, b, 0.9) == pytest.approx((expected.statistic, low, high), abs=1e-6)


def test_spearman_interval_is_wider():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 25))
    r, lower, upper = correlation_interval(a, b, 0.94, spearman=True)
    assert r == pytest.approx(spearmanr(a, b).statistic)
    half = 1.8807936 * np.sqrt((1 + r**2 / 2) / 22)
    assert (np.arctanh(lower), np.arctanh(upper)) == pytest.approx(
        (np.arctanh(r) - half, np.arctanh(r) + half)
    )


@pytest.mark.parametrize("spearman", [False, True])
def test_intervals_of_independent_models_cover(spearman):
    """Nominal 90 %; 600 samples of 25 pairs give a Monte Carlo sd of 0.012."""
    rng = np.random.default_rng(2)
    truth = 6 / np.pi * np.arcsin(0.3) if spearman else 0.6
    inside = 0
    for _ in range(600):
        a = rng.normal(size=25)
        b = 0.6 * a + 0.8 * rng.normal(size=25)
        _, lower, upper = correlation_interval(a, b, 0.9, spearman)
        inside += lower < truth < upper
    assert inside / 600 == pytest.approx(0.9, abs=0.04)


def test_too_few_models_have_no_interval():
    assert np.isnan(correlation_interval(np.arange(2.0), np.arange(2.0))).all()
    r, lower, upper = correlation_interval(np.array([1.0, 2, 4]), np.array([1.0, 3, 2]))
    assert np.isfinite(r)
    assert np.isnan([lower, upper]).all()
    assert np.isnan(correlation_interval(np.ones(5), np.arange(5.0))).all()


def test_clustered_errors_are_the_sandwich():
    """(X'X)^-1 (sum_g X_g' e_g e_g' X_g) (X'X)^-1 with G/(G-1) (n-1)/(n-p), and G - 1 degrees of freedom."""
    rng = np.random.default_rng(3)
    lineage = np.repeat(list("abcdef"), 5)
    x = rng.normal(size=(30, 2))
    y = x @ [1.0, -0.5] + np.repeat(rng.normal(size=6), 5) + 0.3 * rng.normal(size=30)
    design = np.column_stack([np.ones(30), x])
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    score = design * (y - design @ beta)[:, None]
    sums = np.array([score[lineage == g].sum(axis=0) for g in "abcdef"])
    se = np.sqrt(np.diagonal(inverse @ (sums.T @ sums) @ inverse) * (6 / 5) * (29 / 27))
    for k, fit in enumerate(clustered_slopes(y, x, lineage, 0.9), start=1):
        half = student.ppf(0.95, 5) * se[k]
        assert (fit.estimate, fit.se) == pytest.approx((beta[k], se[k]))
        assert (fit.lower, fit.upper) == pytest.approx((beta[k] - half, beta[k] + half))
        assert fit.p == pytest.approx(2 * student.sf(abs(beta[k] / se[k]), 5))


def test_one_lineage_has_a_slope_but_no_error():
    x = np.arange(6.0)[:, None]
    (fit,) = clustered_slopes(2 * x[:, 0] + 1, x, ["a"] * 6)
    assert fit.estimate == pytest.approx(2)
    assert np.isnan(fit[1:]).all()


def test_collinear_or_too_few_rows_have_no_slope():
    x = np.arange(6.0)
    for fits in (
        clustered_slopes(x, np.column_stack([x, 2 * x]), list("abcabc")),
        clustered_slopes(x[:2], x[:2, None], list("ab")),
        clustered_slopes(x, np.ones((6, 1)), list("abcabc")),
    ):
        assert all(np.isnan(fit.estimate) for fit in fits)


def test_clustered_interval_covers_where_the_independent_one_does_not():
    """Budgets and residuals shared by lineage: 20 lineages of 5, nominal 90 %, Monte Carlo sd 0.015."""
    rng = np.random.default_rng(4)
    lineage = np.repeat(np.arange(20), 5)
    clustered, independent = 0, 0
    for _ in range(400):
        x = np.repeat(rng.normal(size=20), 5) + 0.3 * rng.normal(size=100)
        y = 0.7 * x + np.repeat(rng.normal(size=20), 5) + 0.3 * rng.normal(size=100)
        for groups, name in ((lineage, "clustered"), (np.arange(100), "independent")):
            (fit,) = clustered_slopes(y, x[:, None], groups.astype(str), 0.9)
            hit = fit.lower < 0.7 < fit.upper
            clustered += hit and name == "clustered"
            independent += hit and name == "independent"
    assert clustered / 400 > 0.83
    assert independent / 400 < 0.7


def test_table_has_every_factor_budget_and_form(table, solution):
    result = two_step(table, solution, level=0.9)
    assert result.method == "two-step"
    assert len(result.table) == 4 * 3 * 2
    assert set(result.table["budget"]) == {"en", "ja", "total"}
    assert (result.table["level"] == 0.9).all()
    row = result.table.query("factor == 'PC2' and budget == 'ja' and form == 'at_hand'").iloc[0]
    budget = published_budgets(table)["ja"]
    known = budget.notna().to_numpy()
    expected = pearsonr(solution.ability_mean()["PC2"][known], budget[known])
    assert row["mean"] == row["median"] == pytest.approx(expected.statistic)
    assert (row["lower"], row["upper"]) == pytest.approx(tuple(expected.confidence_interval(0.9)), abs=1e-6)
    assert result.to_dataframe()["method"].eq("two-step").all()


def test_slopes_are_per_factor_of_ten(table, solution):
    slopes = two_step(table, solution).slopes.set_index(["factor", "predictor"])
    row = slopes.loc[("PC1", "log10_budget_en")]
    budget = published_budgets(table)["en"].dropna()
    line = np.polyfit(budget, solution.ability_mean()["PC1"][budget.index], 1)
    assert row["estimate"] == pytest.approx(line[0])
    assert row["lower"] < row["estimate"] < row["upper"]
    assert (row["n"], row["n_lineages"]) == (27, 8)
    assert slopes.loc[("PC2", "log10_budget_ja"), "n_lineages"] == 7
    assert set(slopes["unit"]) == {"sd of ability per factor of ten"}


def test_separate_predictors_are_fitted_together(table, solution):
    result = two_step(table, solution, x="separate")
    slopes = result.slopes.query("factor == 'PC2'").set_index("predictor")
    assert slopes.index.tolist() == ["log10_params", "log10_tokens_en", "log10_tokens_ja"]
    assert (slopes["n"] == 21).all()
    assert slopes.loc["log10_tokens_ja", "lower"] > 0
    assert slopes.loc["log10_tokens_en", "lower"] < 0 < slopes.loc["log10_tokens_en", "upper"]
    pd.testing.assert_frame_equal(result.table, two_step(table, solution).table)


def test_left_out_models_and_why(table, solution):
    left = two_step(table, solution).left_out
    assert left.groupby("budget").size().to_dict() == {"en": 8, "ja": 10, "total": 8}
    reason = left.set_index(["budget", "model"])["reason"]
    assert reason[("ja", "Mistral-7B-v0.1")] == "no training tokens in 'ja': the logarithm of zero"
    assert reason[("ja", "Qwen2-72B")] == "training tokens in 'ja' not published"
    assert reason[("total", "C4AI Command-R v0.1")] == "training tokens not published"


def test_models_without_ability_are_left_out(table):
    frame = pd.DataFrame(table.scores, index=table.model_names, columns=table.benchmark_names)
    frame.loc["Llama 2 7B", "MMLU"] = np.nan
    gaps = table_from_frames(
        frame.rename_axis("model").reset_index(),
        pd.read_csv(DATA / "models.csv"),
        pd.read_csv(DATA / "benchmarks.csv"),
    )
    result = two_step(gaps, fl.fit_pca(gaps))
    assert result.table.query("budget == 'en'")["n"].eq(26).all()
    left = result.left_out.set_index(["budget", "model"])["reason"]
    assert left[("en", "Llama 2 7B")] == "no ability: not every benchmark was scored"


def test_notes_say_what_is_not_covered(table, solution):
    notes = two_step(table, solution).notes
    assert notes[0] == "Correlation intervals treat models as independent; slopes are clustered by lineage."
    assert "27 models of 8 lineages for en" in notes[1]
    draws = two_step(table, resample_pca(table)).notes
    assert "Abilities are the mean of 35 draws, taken as known." in draws


def test_refuses_what_it_cannot_do(table, solution):
    with pytest.raises(InputError, match="x 'sum' is unknown; give 'product' or 'separate'"):
        two_step(table, solution, x="sum")
    with pytest.raises(InputError, match="level 94 is not a probability"):
        two_step(table, solution, level=94)
    with pytest.raises(InputError, match=r"model 'Yi-1\.5 6B' of table 'scores' is not in the solution"):
        two_step(table, fl.fit_pca(table.select(models=table.model_names[1:])))
    frame = pd.DataFrame(table.scores, columns=table.benchmark_names)
    frame.insert(0, "model", table.model_names)
    bare = table_from_frames(frame)
    with pytest.raises(
        InputError, match=r"has no training budgets; give columns params_b and tokens_b_<language>"
    ):
        two_step(bare, fl.fit_pca(bare))
