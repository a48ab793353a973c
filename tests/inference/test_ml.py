"""Maximum-likelihood factor analysis against R's factanal and psych::fa, and in simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import factorlab as fl
from factorlab.errors import InputError
from factorlab.inference.identify import match, take_factors
from factorlab.inference.ml import fit_ml_correlation
from factorlab.scores import table_from_frames

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "reference"
SHARED = ROOT.parent / "shared" / "data"
# R's varimax stops at a relative gain of 1e-5, ours goes on to the maximum.
LOADING_TOLERANCE = 0.005


def classic(stem):
    """Correlation matrix, its variables, number of observations."""
    frame = pd.read_csv(REFERENCE / f"{stem}_matrix.csv", index_col="variable")
    matrix = frame.drop(columns="n_obs").to_numpy()
    sd = np.sqrt(np.diagonal(matrix))
    return matrix / np.outer(sd, sd), list(frame.index), int(frame["n_obs"].iloc[0])


def distance(loading, expected):
    """Largest difference after matching order and signs; cells that were not printed must be small."""
    matched = take_factors(loading, *match(loading, np.nan_to_num(expected)))
    assert np.abs(matched[np.isnan(expected)]).max(initial=0) < 0.1 + LOADING_TOLERANCE
    return np.nanmax(np.abs(matched - expected))


@pytest.mark.parametrize("row", list(pd.read_csv(REFERENCE / "harman74_chi2.csv").itertuples(index=False)))
def test_harman74_chi_square(row):
    correlation, _, n_obs = classic("harman74")
    fit = fit_ml_correlation(correlation, n_obs, int(row.factors))
    assert fit.chi2 == pytest.approx(row.chi2, abs=0.01)
    assert fit.df == row.df
    assert fit.heywood == ()


@pytest.mark.parametrize(
    ("factors", "rotation"), [(2, "varimax"), (3, "varimax"), (4, "varimax"), (5, "varimax"), (5, "promax")]
)
def test_harman74_loadings(factors, rotation):
    correlation, variables, n_obs = classic("harman74")
    printed = pd.read_csv(REFERENCE / "harman74_loadings.csv")
    printed = printed[(printed["factors"] == factors) & (printed["rotation"] == rotation)]
    expected = printed.pivot(index="variable", columns="factor", values="loading_printed").loc[variables]
    fit = fit_ml_correlation(correlation, n_obs, factors, rotation=rotation, convention="stats")
    assert distance(fit.loading, expected.to_numpy()) < LOADING_TOLERANCE


def test_ability_varimax():
    correlation, variables, n_obs = classic("ability")
    expected = pd.read_csv(REFERENCE / "ability_varimax.csv", index_col="variable").loc[variables].to_numpy()
    fit = fit_ml_correlation(correlation, n_obs, 2, rotation="varimax")
    assert distance(fit.loading, expected) < LOADING_TOLERANCE


def test_factanal_demonstration_is_a_heywood_case():
    data = pd.read_csv(REFERENCE / "factanal_m1.csv")
    printed = pd.read_csv(REFERENCE / "factanal_m1_varimax.csv")
    fit = fit_ml_correlation(data.corr().to_numpy(), len(data), 3, rotation="varimax")
    np.testing.assert_allclose(fit.uniqueness, printed["uniqueness"], atol=0.0015)
    assert distance(fit.loading, printed[["F1", "F2", "F3"]].to_numpy()) < 0.0015
    assert [data.columns[j] for j in fit.heywood] == ["v1", "v3", "v6"]
    assert fit.criterion == pytest.approx(0.4755, abs=5e-5)
    assert fit.df == 0
    assert np.isnan(fit.p)


@pytest.mark.parametrize("rotation", ["none", "varimax", "promax"])
@pytest.mark.parametrize("factors", [2, 3])
@pytest.mark.parametrize("table", ["test02", "test03", "test04"])
def test_factor_analyzer_tables(table, factors, rotation):
    matrix = pd.read_csv(REFERENCE / f"factor_analyzer_{table}_matrix.csv", index_col="variable")
    answers = pd.read_csv(REFERENCE / "factor_analyzer_loadings.csv")
    answers = answers[
        (answers["table"] == table) & (answers["factors"] == factors) & (answers["rotation"] == rotation)
    ]
    expected = answers.pivot(index="variable", columns="factor", values="loading").loc[matrix.index]
    fit = fit_ml_correlation(matrix.to_numpy(), 500, factors, rotation=rotation, convention="psych")
    assert distance(fit.loading, expected.to_numpy()) < (1e-4 if rotation == "none" else LOADING_TOLERANCE)


@pytest.mark.shared
@pytest.mark.parametrize("rotation", ["none", "varimax", "promax"])
@pytest.mark.parametrize("factors", [2, 3])
@pytest.mark.parametrize("table", ["test01", "test02", "test03", "test04"])
def test_factor_analyzer_full_tables(table, factors, rotation):
    folder = SHARED / "factor_analyzer_expected"
    if not folder.is_dir():
        # Third parties' material lies outside the project, whose tests must pass without it.
        pytest.skip("the shared data folder is not beside this checkout")
    scores = pd.read_csv(folder / "data" / f"{table}.csv")
    path = folder / "expected" / table / f"loading_ml_{rotation}_{factors}_{table}.csv"
    expected = pd.read_csv(path, index_col=0).to_numpy()
    fit = fit_ml_correlation(
        scores.corr().to_numpy(), len(scores), factors, rotation=rotation, convention="psych"
    )
    assert distance(fit.loading, expected) < (1e-4 if rotation == "none" else LOADING_TOLERANCE)


def simulated(seed, n_models=4000):
    """Loadings, unique sds, and a table drawn from them, two factors."""
    rng = np.random.default_rng(seed)
    loading = np.zeros((9, 2))
    loading[:5, 0], loading[4:, 1] = rng.uniform(0.5, 0.9, 5), rng.uniform(0.4, 0.6, 5)
    noise_sd = np.sqrt(1 - (loading**2).sum(axis=1))
    ability = rng.standard_normal((n_models, 2))
    z = ability @ loading.T + noise_sd * rng.standard_normal((n_models, 9))
    frame = pd.DataFrame(50 + 10 * z, columns=[f"b{j}" for j in range(9)])
    frame.insert(0, "model", [f"m{i}" for i in range(n_models)])
    return loading, noise_sd, ability, table_from_frames(frame)


def test_recovers_loadings_noise_and_abilities():
    loading, noise_sd, ability, table = simulated(1)
    solution = fl.fit_ml(table, 2, rotation="varimax")
    found = solution.stacked("loading")[0]
    order, sign = match(found, loading)
    np.testing.assert_allclose(take_factors(found, order, sign), loading, atol=0.06)
    np.testing.assert_allclose(solution.stacked("noise_sd")[0], noise_sd, atol=0.05)
    scores = take_factors(solution.stacked("ability")[0], order, sign)
    for k, least in enumerate((0.9, 0.8)):
        assert np.corrcoef(scores[:, k], ability[:, k])[0, 1] > least
    assert solution.extra["p"] > 0.001


def test_rotations_leave_the_fitted_matrix_alone():
    correlation, _, n_obs = classic("harman74")
    fits = [fit_ml_correlation(correlation, n_obs, 4, rotation=r) for r in ("none", "varimax", "promax")]
    for fit in fits:
        fitted = fit.loading @ fit.factor_correlation @ fit.loading.T + np.diag(fit.uniqueness)
        np.testing.assert_allclose(np.diagonal(fitted), 1, atol=1e-5)
        np.testing.assert_allclose(
            fitted, fits[0].loading @ fits[0].loading.T + np.diag(fits[0].uniqueness), atol=1e-8
        )
        np.testing.assert_allclose(fit.unrotated @ fit.rotation, fit.loading, atol=1e-10)


def test_the_criterion_is_the_likelihood_discrepancy():
    """log det Sigma - log det R + tr(R Sigma^-1) - J, from the dense matrices."""
    correlation, _, n_obs = classic("harman74")
    fit = fit_ml_correlation(correlation, n_obs, 3)
    sigma = fit.loading @ fit.loading.T + np.diag(fit.uniqueness)
    dense = np.linalg.slogdet(sigma)[1] - np.linalg.slogdet(correlation)[1]
    dense += np.trace(np.linalg.solve(sigma, correlation)) - len(correlation)
    assert fit.criterion == pytest.approx(dense, abs=1e-8)


def test_the_solution_says_which_promax_and_how_models_scored():
    table = fl.read_scores(ROOT / "data" / "scores.parquet")
    solution = fl.fit_ml(table, 3, rotation="promax", convention="stats")
    assert any("Promax in the 'stats' convention (R's stats::promax)" in note for note in solution.notes)
    assert solution.orientation == "promax"
    ability = solution.stacked("ability")[0]
    np.testing.assert_allclose(ability.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(ability.std(axis=0), 1)
    np.testing.assert_allclose(np.diagonal(solution.extra["factor_correlation"]), 1)


def test_refuses_too_many_factors_and_unknown_rotation():
    correlation, _, n_obs = classic("ability")
    with pytest.raises(
        InputError, match="4 factors are not possible for 6 benchmarks by maximum likelihood; give 1 to 3"
    ):
        fit_ml_correlation(correlation, n_obs, 4)
    with pytest.raises(InputError, match="rotation 'oblimin' is unknown; give 'none', 'varimax' or 'promax'"):
        fit_ml_correlation(correlation, n_obs, 2, rotation="oblimin")
    with pytest.raises(InputError, match="at least 3 benchmarks are needed"):
        fit_ml_correlation(np.eye(2), 10, 1)


def test_refuses_fewer_models_than_benchmarks():
    table = fl.read_scores(ROOT / "data" / "scores.parquet")
    few = table.select(models=table.model_names[:12])
    with pytest.raises(
        InputError, match="19 benchmarks over 12 models is singular; maximum likelihood needs more"
    ):
        fl.fit_ml(few, 2)
