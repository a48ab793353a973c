"""Components, resampling, missing cells, number of factors: known answers and simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

import factorlab as fl
from factorlab.errors import InputError
from factorlab.inference.identify import congruence
from factorlab.inference.pca import benchmark_correlations, declared_anchors, resample_pca
from factorlab.inference.scree import parallel_analysis
from factorlab.scores import table_from_frames

DATA = Path(__file__).parents[2] / "data"
MODELS, BENCHMARKS = pd.read_csv(DATA / "models.csv"), pd.read_csv(DATA / "benchmarks.csv")


@pytest.fixture(scope="module")
def table():
    return fl.read_scores(DATA / "scores.parquet")


def with_gaps(table, share, seed=0):
    """The same table with cells missing at random, at least four left in each row."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(table.scores, index=table.model_names, columns=table.benchmark_names)
    gone = rng.random(frame.shape) < share
    gone[:, :4] &= ~gone[:, :4].all(axis=1, keepdims=True)
    return table_from_frames(frame.mask(gone).rename_axis("model").reset_index(), MODELS, BENCHMARKS)


def low_rank(seed, n_models=300, noise=0.3):
    """A table with two components, and its true loadings on the correlation scale."""
    rng = np.random.default_rng(seed)
    loading = np.column_stack([np.full(10, 0.8), np.repeat([0.5, -0.5], 5)])
    z = rng.standard_normal((n_models, 2)) @ loading.T + noise * rng.standard_normal((n_models, 10))
    frame = pd.DataFrame(z, columns=[f"b{j}" for j in range(10)])
    frame.insert(0, "model", [f"m{i}" for i in range(n_models)])
    return frame, loading / np.sqrt((loading**2).sum(axis=1, keepdims=True) + noise**2)


def test_loadings_are_correlations_of_benchmark_and_component(table):
    solution = fl.fit_pca(table, 4)
    z, ability = solution.constants["z"].to_numpy(), solution.stacked("ability")[0]
    np.testing.assert_allclose(z.T @ ability / len(z), solution.stacked("loading")[0], atol=1e-10)
    np.testing.assert_allclose(ability.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(ability.std(axis=0), 1)
    np.testing.assert_allclose(ability.T @ ability / len(z), np.eye(4), atol=1e-10)


def test_all_components_give_the_scores_back(table):
    solution = fl.fit_pca(table, 19)
    fitted = solution.stacked("ability")[0] @ solution.stacked("loading")[0].T
    np.testing.assert_allclose(fitted, solution.constants["z"].to_numpy(), atol=1e-8)
    np.testing.assert_allclose(solution.stacked("noise_sd"), 0, atol=1e-6)


def test_eigenvalues_are_those_of_the_correlation_matrix(table):
    expected = np.linalg.eigvalsh(benchmark_correlations(table).to_numpy())[::-1]
    np.testing.assert_allclose(fl.fit_pca(table).extra["eigenvalues"], expected, atol=1e-10)


def test_components_are_those_of_scikit_learn(table):
    sklearn = pytest.importorskip("sklearn.decomposition")
    z = table.standardised().z
    theirs = sklearn.PCA(svd_solver="full").fit(z)
    ours = fl.fit_pca(table, 3)
    np.testing.assert_allclose(ours.extra["eigenvalues"], theirs.explained_variance_ * (len(z) - 1) / len(z))
    np.testing.assert_allclose(np.abs(ours.unit_loadings()[0].T), np.abs(theirs.components_[:3]), atol=1e-12)


def test_spearman_is_pca_of_ranks(table):
    solution = fl.fit_pca(table, 3, correlation="spearman")
    expected = np.linalg.eigvalsh(np.corrcoef(rankdata(table.scores, axis=0), rowvar=False))[::-1]
    np.testing.assert_allclose(solution.extra["eigenvalues"], expected, atol=1e-10)
    pearson = fl.fit_pca(table, 3)
    similar = congruence(solution.stacked("loading")[0], pearson.stacked("loading")[0])
    assert (similar[:2] > 0.98).all()  # footnote 7 of the paper: ranks give the same findings
    assert similar[2] > 0.85
    assert any("ranks" in note for note in solution.notes)
    assert benchmark_correlations(table, "spearman").loc["MMLU", "JMMLU"] == pytest.approx(
        np.corrcoef(*(rankdata(table.scores[:, table.benchmark_names.index(b)]) for b in ("MMLU", "JMMLU")))[
            0, 1
        ]
    )


def test_signs_follow_sum_anchor_and_largest_entry(table):
    assert declared_anchors(table) == {1: "NIILC", 2: "HumanEval"}
    loading = fl.fit_pca(table, 5).loading_mean()
    assert loading["PC1"].sum() > 0
    assert loading.loc["NIILC", "PC2"] > 0
    assert loading.loc["HumanEval", "PC3"] > 0
    for factor in ("PC4", "PC5"):
        assert loading[factor].iloc[loading[factor].abs().argmax()] > 0


def test_lower_is_better_is_turned(table):
    frame = pd.DataFrame(table.scores, index=table.model_names, columns=table.benchmark_names)
    frame["MMLU"] = 1 - frame["MMLU"]
    info = BENCHMARKS.assign(higher_is_better=BENCHMARKS["benchmark"] != "MMLU")
    turned = table_from_frames(frame.rename_axis("model").reset_index(), MODELS, info)
    expected, found = fl.fit_pca(table), fl.fit_pca(turned)
    np.testing.assert_allclose(found.stacked("loading"), expected.stacked("loading"), atol=1e-10)
    np.testing.assert_allclose(found.constants["z"], expected.constants["z"], atol=1e-10)
    np.testing.assert_allclose(benchmark_correlations(turned), benchmark_correlations(table))
    assert found.constants["location"].sel(benchmark="MMLU") == pytest.approx(frame["MMLU"].mean())


@pytest.mark.parametrize("missing", ["complete", "em"])
def test_without_gaps_both_ways_are_one(table, missing):
    np.testing.assert_allclose(
        fl.fit_pca(table, missing=missing).stacked("loading"), fl.fit_pca(table).stacked("loading"), atol=1e-8
    )


def test_em_of_a_full_table_is_the_correlation_matrix(table):
    """One observed row more, all but one cell of it missing, moves nothing much."""
    frame = pd.DataFrame(table.scores, index=table.model_names, columns=table.benchmark_names)
    frame.loc["half known"] = frame.mean().where(frame.columns == "MMLU")
    gaps = table_from_frames(frame.rename_axis("model").reset_index())
    full, found = fl.fit_pca(table), fl.fit_pca(gaps, missing="em")
    np.testing.assert_allclose(np.abs(found.stacked("loading")), np.abs(full.stacked("loading")), atol=0.02)


def test_em_is_nearer_to_the_truth_than_complete_cases():
    frame, truth = low_rank(seed=3)
    rng = np.random.default_rng(1)
    values = frame.set_index("model")
    gaps = table_from_frames(values.mask(rng.random(values.shape) < 0.15).reset_index())
    errors = {}
    for missing in ("complete", "em"):
        loading = fl.fit_pca(gaps, 2, missing=missing).stacked("loading")[0]
        errors[missing] = np.linalg.norm(loading @ loading.T - truth @ truth.T)
    assert errors["em"] < errors["complete"]
    everything = fl.fit_pca(table_from_frames(frame), 2).stacked("loading")[0]
    found = fl.fit_pca(gaps, 2, missing="em").stacked("loading")[0]
    np.testing.assert_allclose(found @ found.T, everything @ everything.T, atol=0.05)


def test_em_abilities_agree_with_the_full_table(table):
    solution = fl.fit_pca(with_gaps(table, 0.15), missing="em")
    full = fl.fit_pca(table)
    for k, least in enumerate((0.99, 0.97, 0.9)):
        pair = solution.stacked("ability")[0][:, k], full.stacked("ability")[0][:, k]
        assert abs(np.corrcoef(*pair)[0, 1]) > least
    assert np.isnan(solution.constants["z"]).to_numpy().sum() == np.isnan(with_gaps(table, 0.15).scores).sum()


def test_notes_say_what_was_left_out(table):
    frame = pd.DataFrame(table.scores, index=table.model_names, columns=table.benchmark_names)
    frame.loc[["Llama 2 7B", "Qwen2-7B"], ["MMLU", "BBH"]] = np.nan
    gaps = table_from_frames(frame.rename_axis("model").reset_index(), MODELS, BENCHMARKS)
    solution = fl.fit_pca(gaps)
    assert any(
        "Complete cases: 33 of 35 models have every benchmark (0.6 % of cells are missing). "
        "Left out: Llama 2 7B, Qwen2-7B." in note
        for note in solution.notes
    )
    ability = solution.ability_mean()
    assert ability.index[ability["PC1"].isna()].tolist() == ["Llama 2 7B", "Qwen2-7B"]
    assert any(
        "4 missing cells (0.6 %) were estimated by EM" in n for n in fl.fit_pca(gaps, missing="em").notes
    )


def by_hand(table, keep):
    """Unit loadings of some models, by numpy alone."""
    vectors = np.linalg.eigh(np.corrcoef(table.scores[keep], rowvar=False))[1]
    return vectors[:, ::-1][:, :4]


def test_leave_one_model_out(table):
    solution = resample_pca(table, scheme="leave-one-model-out")
    assert solution.extra["left_out"] == [[name] for name in table.model_names]
    unit = solution.unit_loadings()
    for i in (0, 7, 34):
        keep = np.arange(35) != i
        np.testing.assert_allclose(np.abs(unit[i][:, :3]), np.abs(by_hand(table, keep))[:, :3], atol=1e-8)
    assert np.isfinite(solution.stacked("ability")).all()
    full = fl.fit_pca(table).stacked("loading")[0]
    assert (congruence(solution.stacked("loading"), full)[:, :3] > 0.9).all()


def test_leave_one_lineage_out(table):
    solution = resample_pca(table, scheme="leave-one-lineage-out")
    families = solution.extra["left_out_lineage"]
    assert families == list(dict.fromkeys(MODELS["family"][:35]))
    out = dict(zip(families, solution.extra["left_out"], strict=True))
    assert len(out["Llama 2"]) == 11
    assert "Swallow-MX 8x7B v0.1" in out["Mistral"]
    draw = families.index("Qwen")
    keep = ~np.isin(table.model_names, out["Qwen"])
    np.testing.assert_allclose(
        np.abs(solution.unit_loadings()[draw][:, :2]), np.abs(by_hand(table, keep))[:, :2], atol=1e-8
    )


def test_bootstrap_is_fixed_by_its_seed_and_spread_like_theory():
    frame, _ = low_rank(seed=5, noise=0.6)
    table = table_from_frames(frame)
    first, again = (resample_pca(table, 2, scheme="bootstrap", draws=300, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.stacked("loading"), again.stacked("loading"))
    assert first.n_draws == 300
    assert first.provenance["seed"] == 4
    # sd of the first eigenvector over fresh tables of the same kind
    fresh = [
        fl.fit_pca(table_from_frames(low_rank(seed=s, noise=0.6)[0]), 2).unit_loadings()[0, :, 0]
        for s in range(100, 160)
    ]
    ratio = first.unit_loadings()[:, :, 0].std(axis=0).mean() / np.std(fresh, axis=0).mean()
    assert 0.7 < ratio < 1.4


def test_bootstrap_with_gaps_matches_a_fit_of_the_drawn_rows():
    frame, _ = low_rank(seed=8, n_models=40)
    values = frame.set_index("model")
    gaps = values.mask(np.random.default_rng(2).random(values.shape) < 0.1)
    solution = resample_pca(
        table_from_frames(gaps.reset_index()), 2, scheme="leave-one-model-out", missing="em"
    )
    alone = fl.fit_pca(table_from_frames(gaps.drop(index="m0").reset_index()), 2, missing="em")
    np.testing.assert_allclose(
        np.abs(solution.stacked("loading")[0]), np.abs(alone.stacked("loading")[0]), atol=2e-3
    )


def test_resamples_with_a_constant_benchmark_are_left_out_aloud():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((8, 3)), columns=["a", "b", "c"])
    frame["c"] = [1.0] + [0.0] * 7
    frame.insert(0, "model", [f"m{i}" for i in range(8)])
    solution = resample_pca(table_from_frames(frame), 2, scheme="leave-one-model-out")
    assert solution.extra["left_out"] == [[f"m{i}"] for i in range(1, 8)]
    assert any("1 of 8 resamples were left out" in note for note in solution.notes)


def test_parallel_analysis_finds_the_number_of_factors(table):
    frame, _ = low_rank(seed=2)
    result = parallel_analysis(table_from_frames(frame), draws=100, seed=1)
    assert result.n_factors == 2
    noise = pd.DataFrame(np.random.default_rng(3).normal(size=(200, 8)), columns=[f"b{j}" for j in range(8)])
    noise.insert(0, "model", [f"m{i}" for i in range(200)])
    assert parallel_analysis(table_from_frames(noise), draws=100).n_factors <= 1
    real = parallel_analysis(table)
    assert real.n_factors == 2
    scree = real.to_dataframe()
    assert scree["kept"].sum() == 2
    assert scree["explained_variance_ratio"].iloc[0] == pytest.approx(0.6515, abs=1e-4)
    assert scree["cumulative"].iloc[-1] == pytest.approx(1)


def test_saved_and_read_again(table, tmp_path):
    for solution in (fl.fit_pca(table), resample_pca(table, scheme="leave-one-lineage-out")):
        again = fl.load_solution(solution.save(tmp_path / "pca.nc"))
        np.testing.assert_array_equal(again.stacked("loading"), solution.stacked("loading"))
        assert again.extra == dict(solution.extra)
        assert again.notes == solution.notes
        assert again.provenance["digest"] == table.digest()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factors": 20}, "20 factors asked of 35 models and 19 benchmarks; give 1 to 19"),
        ({"factors": 0}, "0 factors asked of 35 models and 19 benchmarks; give 1 to 19"),
        ({"missing": "mean"}, "missing 'mean' is unknown; give 'complete' or 'em'"),
        ({"correlation": "kendall"}, "correlation 'kendall' is unknown; give 'pearson' or 'spearman'"),
    ],
)
def test_refuses_what_it_cannot_do(table, options, message):
    with pytest.raises(InputError, match=message):
        fl.fit_pca(table, **options)


def test_refuses_an_unknown_scheme_and_a_single_lineage(table):
    with pytest.raises(InputError, match="scheme 'jackknife' is unknown; give 'leave-one-model-out'"):
        resample_pca(table, scheme="jackknife")
    llama = table.select(where="family == 'Llama 2'")
    with pytest.raises(
        InputError, match=r"leave-one-lineage-out needs two lineages, table .* has one \('Llama 2'\)"
    ):
        resample_pca(llama, 2, scheme="leave-one-lineage-out")


def test_refuses_a_table_without_complete_models(table):
    with pytest.raises(
        InputError, match=r"has \d models with every benchmark scored; at least 3 .* missing='em'"
    ):
        fl.fit_pca(with_gaps(table, 0.4))


def test_more_benchmarks_than_models(table):
    solution = fl.fit_pca(table.select(models=table.model_names[:10]), 3)
    assert len(solution.extra["eigenvalues"]) == 10
    assert sum(solution.extra["explained_variance_ratio"]) == pytest.approx(1)
