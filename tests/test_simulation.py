"""Simulated tables have the properties they were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from factorlab.errors import InputError
from factorlab.simulation import simulate


def test_population_correlations_are_the_ones_asked_for():
    out = simulate(models=4000, benchmarks=6, factors=2, rho={(0, "en"): 0.9, (1, "ja"): -0.5}, seed=0)
    ability = out.truth.stacked("ability")[0]
    assert np.corrcoef(ability[:, 0], out.budget["en"])[0, 1] == pytest.approx(0.9, abs=0.01)
    assert np.corrcoef(ability[:, 1], out.budget["ja"])[0, 1] == pytest.approx(-0.5, abs=0.03)


def test_scores_have_the_covariance_of_the_model():
    """Correlations of the scores are Lambda Lambda' off the diagonal, less binomial noise.

    Abilities are made independent (no budgets enter), instances so many that noise is small.
    """
    lam = np.array([[0.8, 0.3], [0.7, -0.4], [0.6, 0.5], [0.9, 0.1]])
    out = simulate(models=6000, loading=lam, benchmarks=4, factors=2, rho={}, n_instances=100_000, seed=1)
    z = out.table.standardised().z
    expected = lam @ lam.T
    got = z.T @ z / len(z)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(got[off], expected[off], atol=0.05)


def test_token_error_has_the_size_asked_for():
    out = simulate(models=3000, benchmarks=3, factors=1, token_log_sd=0.7, seed=2)
    models = out.table.scored_models
    published = np.log10(models["params_b"] * models["tokens_b_ja"]) + 18
    assert np.std((published - out.budget["ja"]) * np.log(10)) == pytest.approx(0.7, abs=0.03)
    assert set(models["tokens_b_ja_status"]) == {"guessed"}


def test_missing_share_and_seed():
    out = simulate(models=200, benchmarks=20, missing=0.3, seed=3)
    assert np.isnan(out.table.scores).mean() == pytest.approx(0.3, abs=0.03)
    again = simulate(models=200, benchmarks=20, missing=0.3, seed=3)
    np.testing.assert_array_equal(out.table.scores, again.table.scores)
    assert not np.array_equal(
        out.table.scores,
        simulate(models=200, benchmarks=20, missing=0.3, seed=4).table.scores,
        equal_nan=True,
    )


def test_like_the_real_matrix(swallow):
    out = simulate(like=swallow, loading=np.full((19, 1), 0.8), seed=0)
    assert out.table.model_names == swallow.model_names
    assert out.table.benchmark_names == swallow.benchmark_names
    known = swallow.scored_models["tokens_b_ja"].to_numpy(dtype=float) > 0
    np.testing.assert_allclose(
        out.table.scored_models["tokens_b_ja"].to_numpy(dtype=float)[known],
        swallow.scored_models["tokens_b_ja"].to_numpy(dtype=float)[known],
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": 1.0}, "missing is 1.0; give a share between 0 and 0.95"),
        ({"token_log_sd": -1.0}, "token_log_sd is -1.0; give 0 or more"),
        ({"rho": {(0, "fr"): 0.5}}, "rho names language 'fr'; the languages are en, ja"),
        ({"rho": {(0, "en"): 1.0}}, "rho of PC1 and 'en' is 1.0; give a number between -1 and 1"),
        ({"rho": {(5, "en"): 0.5}}, "rho names factor 6 of 3"),
        ({"loading": np.ones((3, 1))}, "loading has 3 rows for 19 benchmarks"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(InputError, match=message):
        simulate(**options)


def test_several_rhos_of_one_ability_are_met_together():
    """Budgets correlate, so each correlation is both the language's own part and the others'."""
    goal = {(1, "ja"): 0.7, (1, "en"): 0.1}
    out = simulate(models=4000, benchmarks=6, factors=2, rho=goal, seed=0)
    ability = out.truth.stacked("ability")[0, :, 1]
    assert np.corrcoef(out.budget["ja"], out.budget["en"])[0, 1] > 0.3
    for (_, language), value in goal.items():
        assert np.corrcoef(ability, out.budget[language])[0, 1] == pytest.approx(value, abs=0.03)
    assert ability.std() == pytest.approx(1, abs=0.04)
    with pytest.raises(InputError, match=r"rho of PC2 \(ja 0.9, en -0.9\) cannot be had together"):
        simulate(models=400, benchmarks=6, factors=2, rho={(1, "ja"): 0.9, (1, "en"): -0.9}, seed=0)
