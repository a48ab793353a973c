"""What a benchmark tells: the closed form against conditioning a joint normal, and against simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from factorlab.errors import InputError
from factorlab.inference.information import next_benchmarks
from factorlab.inference.pca import fit_pca
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.scores import ScoreTable, table_from_frames

N_MODELS, N_BENCHMARKS = 12, 5
SIZES = [100, 200, 400, 800, 1600]


@pytest.fixture(scope="module")
def table() -> ScoreTable:
    """Five benchmarks of which the first two share items; model m3 lacks the third and the fifth."""
    rng = np.random.default_rng(0)
    score = rng.uniform(0.2, 0.8, (N_MODELS, N_BENCHMARKS))
    score[3, [2, 4]] = np.nan
    wide = pd.DataFrame(score, columns=[f"b{j}" for j in range(N_BENCHMARKS)])
    wide.insert(0, "model", [f"m{i}" for i in range(N_MODELS)])
    facts = pd.DataFrame(
        {
            "benchmark": wide.columns[1:],
            "min": 0.0,
            "max": 1.0,
            "n_instances": SIZES,
            "shared_items_group": ["g", "g", None, None, None],
        }
    )
    return table_from_frames(wide, benchmarks=facts, name="made up")


@pytest.fixture(scope="module")
def solution(table: ScoreTable) -> FactorSolution:
    """Three draws of two factors, one pair factor; abilities correlated, as oblique axes have them."""
    rng = np.random.default_rng(1)
    shape = (1, 3)
    mix = np.array([[1.0, 0.0], [0.4, 0.9]])
    draws = label_draws(
        rng.normal(0, 0.6, (*shape, N_BENCHMARKS, 2)),
        rng.normal(0, 1, (*shape, N_MODELS, 2)) @ mix.T,
        rng.uniform(0.2, 0.6, (*shape, N_BENCHMARKS)),
        np.zeros((*shape, N_BENCHMARKS)),
        table.model_names,
        table.benchmark_names,
    )
    draws = draws.assign(pair_sd=(("chain", "draw", "pair"), rng.uniform(0.3, 0.8, (*shape, 1))))
    return FactorSolution(draws.assign_coords(pair=["b0+b1"]), xr.Dataset(), "bayes", "posterior")


def tau2(table: ScoreTable) -> np.ndarray:
    standard = table.standardised()
    return np.nanmean(standard.z_se**2 * np.array(SIZES), axis=0)


def conditioned(solution: FactorSolution, table: ScoreTable, draw: int, seen: dict, factor: int) -> float:
    """Variance of an ability given measurements, by writing down the joint normal of everything.

    seen : {label: (benchmark, sampling variance)}; measurements of one benchmark share its unique part u_j.
    """
    loading, psi = (solution.stacked(name)[draw] for name in ("loading", "noise_sd"))
    theta = solution.stacked("ability")[draw]
    delta = solution.stacked("pair_sd")[draw, 0]
    member = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    common = np.zeros((2 + 1 + N_BENCHMARKS,) * 2)  # theta, omega, u
    common[:2, :2] = np.cov(theta, rowvar=False, ddof=0)
    common[2, 2] = 1
    common[3:, 3:] = np.diag(psi**2)
    rows = np.array([[*loading[j], delta * member[j], *np.eye(N_BENCHMARKS)[j]] for j, _ in seen.values()])
    if not len(rows):
        return common[factor, factor]
    total = rows @ common @ rows.T + np.diag([variance for _, variance in seen.values()])
    cross = common[factor] @ rows.T
    return float(common[factor, factor] - cross @ np.linalg.solve(total, cross))


@pytest.mark.parametrize("factor", [0, 1])
def test_a_new_model_is_the_joint_normal_conditioned(solution, table, factor):
    out = next_benchmarks(solution, table, f"PC{factor + 1}", instances={"*": 50, "b1": "all"})
    rows = out.candidates.set_index("benchmark")
    for j in range(N_BENCHMARKS):
        n = 200 if j == 1 else 50
        before = np.array([conditioned(solution, table, d, {}, factor) for d in range(3)])
        seen = {"new": (j, tau2(table)[j] / n)}
        after = np.array([conditioned(solution, table, d, seen, factor) for d in range(3)])
        assert rows.loc[f"b{j}", "gain"] == pytest.approx((before - after).mean(), rel=1e-9)
        assert rows.loc[f"b{j}", "information"] == pytest.approx(
            0.5 * np.log(before / after).mean(), rel=1e-9
        )
        assert rows.loc[f"b{j}", "sd"] == pytest.approx(np.sqrt(after).mean(), rel=1e-9)


def test_more_instances_share_the_unique_part(solution, table):
    """Of a benchmark that a model has, only the sampling error is averaged; of the others it is new."""
    standard = table.standardised()
    have = {j: (j, standard.z_se[3, j] ** 2) for j in (0, 1, 3)}
    out = next_benchmarks(solution, table, "PC2", model="m3", instances=70)
    rows = out.candidates.set_index("benchmark")
    before = np.array([conditioned(solution, table, d, have, 1) for d in range(3)])
    assert out.now["sd"] == pytest.approx(np.sqrt(before).mean(), rel=1e-9)
    for j in range(N_BENCHMARKS):
        seen = have | {"more": (j, tau2(table)[j] / 70)}
        after = np.array([conditioned(solution, table, d, seen, 1) for d in range(3)])
        assert rows.loc[f"b{j}", "gain"] == pytest.approx((before - after).mean(), rel=1e-8)
    assert dict(rows["kind"]) == {
        "b0": "more instances", "b1": "more instances", "b2": "new", "b3": "more instances", "b4": "new"
    }  # fmt: skip


def test_the_greedy_design_is_conditioned_on_all_before(solution, table):
    out = next_benchmarks(solution, table, "PC1", by="information", steps=9)
    assert len(out.sequence) == N_BENCHMARKS
    seen: dict = {}
    for _, row in out.sequence.iterrows():
        left = [j for j in range(N_BENCHMARKS) if j not in seen]
        sd = {}
        for j in left:
            then = seen | {j: (j, tau2(table)[j] / SIZES[j])}
            sd[j] = [np.sqrt(conditioned(solution, table, d, then, 0)) for d in range(3)]
        j = int(row["benchmark"].removeprefix("b"))
        assert j == min(left, key=lambda c: np.log(sd[c]).sum())
        assert row["sd"] == pytest.approx(np.mean(sd[j]), rel=1e-9)
        seen[j] = (j, tau2(table)[j] / SIZES[j])
    assert out.sequence["total_cost"].iloc[-1] == sum(SIZES)
    total = out.sequence["information"].cumsum()
    np.testing.assert_allclose(out.sequence["total_information"], total, rtol=1e-9)


def test_error_of_the_best_estimate_is_what_is_promised(solution, table):
    """Simulated abilities, scores by n instances, the regression of one on the other."""
    rng = np.random.default_rng(4)
    one = solution.with_(draws=solution.draws.isel(draw=[1]))
    rows = next_benchmarks(one, table, "PC2", instances=60).candidates.set_index("benchmark")
    theta = solution.stacked("ability")[1]
    state = rng.multivariate_normal([0, 0], np.cov(theta, rowvar=False, ddof=0), 200_000)
    for j in (0, 4):
        loading, psi = solution.stacked("loading")[1, j], solution.stacked("noise_sd")[1, j]
        shared = solution.stacked("pair_sd")[1, 0] * (j < 2)
        noise = rng.normal(0, 1, (3, len(state))) * [[shared], [psi], [np.sqrt(tau2(table)[j] / 60)]]
        z = state @ loading + noise.sum(axis=0)
        slope = (z @ state[:, 1]) / (z @ z)
        assert rows.loc[f"b{j}", "sd"] == pytest.approx(np.std(state[:, 1] - slope * z), rel=0.01)


def test_enough_is_where_sampling_equals_unique_variance(solution, table):
    rows = next_benchmarks(solution, table, "PC1").candidates.set_index("benchmark")
    for j in range(N_BENCHMARKS):
        n = tau2(table)[j] / solution.stacked("noise_sd")[:, j] ** 2
        assert rows.loc[f"b{j}", "enough"] == pytest.approx(np.median(n))
    asked = next_benchmarks(solution, table, "PC1", instances="enough").candidates.set_index("benchmark")
    np.testing.assert_array_equal(
        asked["n"], np.minimum(np.ceil(asked["enough"]), [SIZES[int(b[1:])] for b in asked.index])
    )


def test_the_ceiling_is_the_limit_of_many_instances(solution, table):
    few = next_benchmarks(solution, table, "PC1", instances=10).candidates.set_index("benchmark")
    many = next_benchmarks(solution, table, "PC1", instances=10**9).candidates.set_index("benchmark")
    np.testing.assert_allclose(many["information"], many["ceiling"], rtol=1e-5)
    assert (few["information"] < few["ceiling"]).all()
    np.testing.assert_allclose(few["ceiling"].sort_index(), many["ceiling"].sort_index())


def test_costs_rank_and_the_best_number_has_the_best_ratio(solution, table):
    free = next_benchmarks(solution, table, "PC1", instances=50)
    dear = next_benchmarks(solution, table, "PC1", instances=50, cost={free.candidates["benchmark"][0]: 1e6})
    assert dear.candidates["benchmark"].iloc[-1] == free.candidates["benchmark"].iloc[0]
    best = next_benchmarks(solution, table, "PC1", instances="best", fixed_cost=40.0)
    for _, row in best.candidates.iterrows():
        for n in (row["n"] * 0.7, row["n"] * 1.4):
            other = next_benchmarks(solution, table, "PC1", instances=max(1, round(n)), fixed_cost=40.0)
            there = other.candidates.set_index("benchmark").loc[row["benchmark"]]
            if there["n"] <= SIZES[int(row["benchmark"][1:])]:
                assert row["per_cost"] >= 0.995 * there["per_cost"]
    assert best.candidates["prob_best"].sum() == pytest.approx(1)


def test_without_numbers_of_instances_a_benchmark_is_one(table, solution):
    bare = table_from_frames(
        table.data["score"].to_pandas().rename_axis("model").reset_index(),
        benchmarks=pd.DataFrame({"benchmark": table.benchmark_names}),
        name="bare",
    )
    alone = solution.with_(draws=solution.draws.drop_vars("pair_sd"))
    out = next_benchmarks(alone, bare, "PC1")
    assert set(out.candidates["cost"]) == {1.0}
    assert out.cost_unit == "benchmark"
    assert np.isnan(out.candidates["enough"]).all()
    assert any("no numbers of instances" in note for note in out.notes)
    with pytest.raises(
        InputError, match="instances of 'b0' is 7, but the table does not say how many it has"
    ):
        next_benchmarks(alone, bare, "PC1", instances=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ability": "PC7"}, "'PC7' is no ability of the run; it has PC1, PC2"),
        ({"model": "nobody"}, "'nobody' is no model of the run"),
        ({"instances": 0}, "instances of 'b0' is 0; give 1 or more, or all, enough, best"),
        ({"instances": "some"}, "instances of 'b0' is 'some'; give a number, or all, enough, best"),
        ({"instances": {"b9": 5}}, "instances: 'b9' is no benchmark of the run"),
        ({"instances": "best"}, "needs a fixed cost"),
        ({"cost": {"b0": -1.0}}, "cost of 'b0' is -1.0; give 0 or more"),
        ({"cost": {"b0": 0.0}}, "'b0' costs nothing; give a cost above 0"),
        ({"cost": {"zz": 1.0}}, "cost: 'zz' is no benchmark of the run"),
        ({"level": 94.0}, "level 94.0 is not a probability"),
        ({"by": "price"}, "by 'price' is unknown; give 'cost' or 'information'"),
        ({"steps": -1}, "steps is -1; give 0 or more"),
    ],
)
def test_mistakes_are_told(solution, table, options, message):
    with pytest.raises(InputError, match=message):
        next_benchmarks(solution, table, **{"ability": "PC1", **options})


def test_components_are_refused(table, small):
    with pytest.raises(InputError, match="principal components have no noise model"):
        next_benchmarks(fit_pca(small.table, 2), small.table, "PC1")


def test_an_axis_that_is_not_identified_is_told(solution, table):
    out = next_benchmarks(solution.with_(extra={"identified": [True, False]}), table, "PC2")
    assert "PC2 is not identified" in out.notes[0]
