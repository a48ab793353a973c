"""Leave-one-out predictions against dense normals, calibration on simulated tables, planted outliers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, norm
from test_left_out import NODE, PARENT, example

from factorlab.errors import InputError
from factorlab.inference.floor import zero_probability
from factorlab.inference.left_out import kin
from factorlab.inference.left_out_cells import leave_cells_out, mixture_quantile, mixture_tail
from factorlab.inference.outliers import find_outliers, raw_draws
from factorlab.inference.pca import constants
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.scores import ScoreTable, table_from_frames

UNITS = ([0, 3], [1], [2], [4, 5])


def moments(cells, values, d):
    """Mean and covariance of all cells of the table given one draw, (model * benchmark)."""
    p = {name: array[0, d] for name, array in values.items()}
    n = len(cells.z)
    family, step = np.array([0, 0, 0, 1, 2, 2, 1]), np.zeros((n, 3))
    step[1, 0] = step[2, 0] = step[2, 1] = step[5, 2] = 1.0
    root = np.eye(3)[family]
    between = np.eye(n) + p["root_sd"] ** 2 * root @ root.T + p["step_sd"] ** 2 * step @ step.T
    covariance = np.kron(between, p["loading"] @ p["loading"].T)
    covariance += np.kron(np.eye(n), cells.member @ np.diag(p["pair_sd"] ** 2) @ cells.member.T)
    covariance += np.diag((p["noise_sd"] ** 2 + cells.variance).ravel())
    return (p["mean"] + p["ability_mean"] @ p["loading"].T).ravel(), covariance


def given(mean, covariance, z, out, rest):
    """Mean and covariance of the cells `out` given the cells `rest`."""
    gain = covariance[np.ix_(out, rest)] @ np.linalg.inv(covariance[np.ix_(rest, rest)])
    return mean[out] + gain @ (z[rest] - mean[rest]), covariance[np.ix_(out, out)] - gain @ covariance[
        np.ix_(rest, out)
    ]


@pytest.mark.parametrize("units", [UNITS, tuple([j] for j in range(6))], ids=["units", "cells"])
def test_predictions_are_those_of_the_dense_normal(units):
    cells, values = example(draws=3)
    flat = {name: array[0] for name, array in values.items()}
    found = leave_cells_out(cells, flat, kin(NODE, PARENT), units)
    z, seen = cells.z.ravel(), cells.observed.astype(bool).ravel()
    for d in range(3):
        mean, covariance = moments(cells, values, d)
        for i in range(len(cells.z)):
            for u, unit in enumerate(units):
                out = np.array([6 * i + j for j in unit if seen[6 * i + j]], dtype=int)
                if not len(out):
                    assert np.isnan(found.log_density[d, i, u])
                    continue
                rest = np.array([c for c in np.flatnonzero(seen) if c not in out])
                m, v = given(mean, covariance, z, out, rest)
                benchmarks = out - 6 * i
                assert np.allclose(found.mean[d, i, benchmarks], m)
                assert np.allclose(found.variance[d, i, benchmarks], np.diag(v))
                whole = -0.5 * (
                    len(out) * np.log(2 * np.pi)
                    + np.linalg.slogdet(v)[1]
                    + (z[out] - m) @ np.linalg.solve(v, z[out] - m)
                )
                assert found.log_density[d, i, u] == pytest.approx(whole)


def test_a_whole_model_is_predicted_from_its_kin():
    cells, values = example(draws=2)
    found = leave_cells_out(cells, {n: a[0] for n, a in values.items()}, kin(NODE, PARENT), UNITS)
    z, seen = cells.z.ravel(), cells.observed.astype(bool).ravel()
    mean, covariance = moments(cells, values, 1)
    for i in (0, 2, 5):
        own = np.arange(len(z)) // 6 == i
        out, rest = np.flatnonzero(seen & own), np.flatnonzero(seen & ~own)
        m, v = given(mean, covariance, z, out, rest)
        assert found.distance[1, i] == pytest.approx((z[out] - m) @ np.linalg.solve(v, z[out] - m))
        assert found.level[1, i] == pytest.approx((z[out] - m).mean())
        assert found.level_variance[1, i] == pytest.approx(v.sum() / len(out) ** 2)


def test_mixture_of_normals():
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(40), 3).T
    mean, sd = rng.normal(0, 2, (40, 3)), rng.uniform(0.1, 2, (40, 3))
    x = mixture_quantile(weights, mean, sd, 0.03)
    assert np.allclose(mixture_tail(weights, mean, sd, x)[0], 0.03, atol=1e-5)
    assert np.allclose(mixture_tail(weights, mean, sd, x).sum(axis=0), 1)


def test_probability_of_two_zeros_against_drawing_them():
    rng = np.random.default_rng(0)
    m, v = np.array([0.08, 0.05]), np.array([[0.006, 0.004], [0.004, 0.005]])
    n = np.array([60.0, 100.0])
    t = rng.multivariate_normal(m, v, 2_000_000)
    t = t[((t > 0) & (t < 1)).all(axis=1)]
    drawn = ((1 - t) ** n).prod(axis=1).mean()
    assert zero_probability(m[None], v[None], n)[0] == pytest.approx(drawn, rel=0.01)
    one = ((1 - t[:, 0]) ** 60).mean()
    alone = rng.normal(0.08, np.sqrt(0.006), 2_000_000)
    alone = alone[(alone > 0) & (alone < 1)]
    assert zero_probability(m[None, :1], v[None, :1, :1], n[:1])[0] == pytest.approx(
        ((1 - alone) ** 60).mean(), rel=0.01
    )
    assert drawn < one / 3


N_MODELS, N_BENCHMARKS = 60, 8


def known(
    seed: int, planted: dict[tuple[int, int], float] | None = None
) -> tuple[ScoreTable, FactorSolution]:
    """A table drawn from the model, with a pair, and a "posterior" whose every draw is the truth."""
    rng = np.random.default_rng(seed)
    loading = np.column_stack([np.full(N_BENCHMARKS, 0.8), np.tile([0.4, -0.4], N_BENCHMARKS // 2)])
    psi, delta = np.linspace(0.25, 0.5, N_BENCHMARKS), 0.5
    ability = rng.standard_normal((N_MODELS, 2))
    z = ability @ loading.T + psi * rng.standard_normal((N_MODELS, N_BENCHMARKS))
    z[:, :2] += delta * rng.standard_normal((N_MODELS, 1))
    for (i, j), shift in (planted or {}).items():
        z[i, j] += shift
    wide = pd.DataFrame(z, columns=[f"b{j}" for j in range(N_BENCHMARKS)])
    wide.insert(0, "model", [f"m{i}" for i in range(N_MODELS)])
    facts = pd.DataFrame({"benchmark": wide.columns[1:], "shared_items_group": ["g", "g", *[None] * 6]})
    table = table_from_frames(wide, benchmarks=facts, name="known")
    standard = table.standardised()
    draws = 500
    tile = lambda a: np.broadcast_to(a, (1, draws, *a.shape)).copy()  # noqa: E731
    out = label_draws(
        tile(loading / standard.scale[:, None]), tile(ability), tile(psi / standard.scale),
        tile(-standard.location / standard.scale), table.model_names, table.benchmark_names,
    )  # fmt: skip
    # delta acts on two scores of nearly one scale
    spread = delta / standard.scale[:2].mean()
    out = out.assign(
        turn=(("chain", "draw", "raw", "factor"), tile(np.eye(2))),
        center=(("chain", "draw", "raw"), tile(np.zeros(2))),
        pair_sd=(("chain", "draw", "pair"), np.full((1, draws, 1), spread)),
    )
    fixed = constants(table, standard.location, standard.scale)
    return table, FactorSolution(out, fixed, "bayes", "posterior")


@pytest.mark.parametrize("leave", ["group", "cell"])
def test_p_values_are_uniform_where_the_model_is_true(leave):
    cells, models, levels = [], [], []
    for seed in range(5):
        found = find_outliers(*known(seed), leave=leave)
        one_a_model = found.cells.sample(frac=1, random_state=seed).drop_duplicates("model")
        cells.append(one_a_model["p"])
        models.append(found.models["p"])
        levels.append(found.models["p_level"])
        inside = found.cells["observed"].between(found.cells["lower"], found.cells["upper"]).mean()
        assert 0.90 < inside < 0.98
    for values in (cells, models, levels):
        assert kstest(np.concatenate(values), "uniform").pvalue > 0.005


def test_planted_outliers_are_found_and_others_are_not():
    planted = {(3, 4): -3.0, (7, 0): 4.0, (7, 1): 4.0, (20, 6): 3.5}
    found = find_outliers(*known(11, planted))
    flagged = found.flagged
    cells = set(zip(flagged["model"], flagged["benchmark"], strict=True))
    assert cells >= {("m3", "b4"), ("m7", "b0"), ("m7", "b1"), ("m20", "b6")}
    first = set(zip(found.cells["model"][:5], found.cells["benchmark"][:5], strict=True))
    assert len(first & {("m3", "b4"), ("m7", "b0"), ("m7", "b1"), ("m20", "b6")}) == 4
    assert len(cells) <= 4 + 0.01 * len(
        found.cells
    )  # an outlier makes the model's other scores look odd, too
    direction = flagged.set_index(["model", "benchmark"])["direction"]
    assert direction["m3", "b4"] == "below"
    assert direction["m7", "b0"] == "above"
    assert set(found.models["model"][found.models["flagged"]]) >= {"m3", "m7", "m20"}


def test_one_of_a_pair_vouches_for_the_other_unless_both_are_left_out():
    table, truth = known(12, {(7, 0): -2.5, (7, 1): -2.5})
    p = {
        leave: find_outliers(table, truth, leave=leave).cells.set_index(["model", "benchmark"])["p"]["m7"]
        for leave in ("group", "cell")
    }
    assert (p["group"][["b0", "b1"]] < 0.05 * p["cell"][["b0", "b1"]]).all()


def test_figure_shows_every_model_and_names_what_is_flagged(tmp_path):
    import warnings

    from factorlab.plots import outlier_scores, save

    table, truth = known(11, {(3, 4): -3.0, (7, 0): 4.0})
    names = ["日本語モデル" if name == "m3" else name for name in table.model_names]
    table = replace(
        table, data=table.data.assign_coords(model=names), models=table.models.set_axis(names, axis=0)
    )
    truth = truth.with_(draws=truth.draws.assign_coords(model=names))
    figure = outlier_scores(find_outliers(table, truth), table)
    left, right = figure.axes
    assert len(left.get_yticklabels()) == N_MODELS
    assert right.get_yticklabels()[0].get_text().startswith(("日本語モデル, b4: p ", "m7, b0: p "))
    assert {"b4", "b0"} <= {text.get_text() for text in left.texts}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that no font has
        save(figure, tmp_path / "figure")


def test_draws_on_the_samplers_axes_give_the_same_scores(small_fit):
    keep = np.arange(0, small_fit.n_draws, 97)
    raw = raw_draws(small_fit, keep)
    ability, turn, center = (small_fit.stacked(n)[keep] for n in ("ability", "turn", "center"))
    theta = ability @ np.linalg.inv(turn) + center[:, None]
    one = theta @ np.swapaxes(raw["loading"], 1, 2) + raw["mean"][:, None]
    two = ability @ np.swapaxes(small_fit.stacked("loading")[keep], 1, 2)
    assert np.allclose(one, two + small_fit.stacked("mean")[keep][:, None])
    own = theta - raw["ability_mean"]
    family = small_fit.stacked("lineage")[keep] @ np.linalg.inv(turn)
    assert np.std(own - family) == pytest.approx(1.0, abs=0.25)  # u has unit variance on these axes


def test_a_fitted_table_without_outliers_has_few(small, small_fit):
    found = find_outliers(small.table, small_fit)
    assert len(found.flagged) <= 2
    assert 0.01 < (found.cells["p"] < 0.1).mean() < 0.2
    assert len(found.cells) == 24 * 8
    assert len(found.models) == 24
    assert found.to_dict()["cells"][0]["p"] == found.cells["p"].min()


def test_importance_weights_come_near_the_posterior_without_the_score():
    """Normal mean with known variance: the left-out predictive is known in closed form."""
    rng = np.random.default_rng(2)
    y = np.append(rng.normal(0, 1, 20), 1.5)
    n = len(y)
    draws = rng.normal(y.mean(), 1 / np.sqrt(n), 4000)
    from factorlab.inference.outlier_rows import weigh

    weights, khat = weigh(norm.logpdf(y[-1], draws, 1)[:, None])
    assert khat[0] < 0.5
    assert weights[:, 0] @ draws == pytest.approx(y[:-1].mean(), abs=0.02)


def test_zeros_of_the_real_table_come_first(swallow):
    """Six failed evaluations; the later evaluation of four of them lies in the predictive intervals."""
    rng = np.random.default_rng(0)
    solution = near_posterior(swallow, rng)
    found = find_outliers(swallow, solution)
    zero = found.cells[found.cells["observed"] == 0]
    assert len(zero) == 6
    assert zero["flagged"].all()
    assert (zero["reason"] == "zero").all()
    assert zero.index.max() < 15
    later = {
        ("Sarashina2-7B", "JHumanEval"): 0.121, ("Sarashina2-7B", "HumanEval"): 0.146,
        ("Sarashina2-13B", "JHumanEval"): 0.161, ("Sarashina2-13B", "HumanEval"): 0.198,
    }  # fmt: skip
    rows = zero.set_index(["model", "benchmark"])
    for key, score in later.items():
        assert rows.loc[key, "lower"] <= score <= rows.loc[key, "upper"]


def near_posterior(table: ScoreTable, rng: np.random.Generator) -> FactorSolution:
    """Draws around the mode of the measurement model: a stand-in for a fit, in a second."""
    from factorlab.inference.inputs import table_cells
    from factorlab.inference.mode import fit_mode
    from factorlab.inference.priors import Priors

    cells, _ = table_cells(table)
    mode = fit_mode(cells, 4, Priors(), 400)
    draws = 300
    jitter = lambda a, s: np.asarray(a) * np.exp(s * rng.standard_normal((1, draws, *np.shape(a))))  # noqa: E731
    shape = (1, draws, len(table.model_names), 4)
    out = label_draws(
        jitter(mode.loading, 0.0), np.zeros(shape), jitter(mode.noise_sd, 0.1),
        jitter(mode.mean, 0.0), table.model_names, table.benchmark_names,
    )  # fmt: skip
    eye = np.broadcast_to(np.eye(4), (1, draws, 4, 4)).copy()
    out = out.assign(
        turn=(("chain", "draw", "raw", "factor"), eye),
        center=(("chain", "draw", "raw"), np.zeros((1, draws, 4))),
        pair_sd=(("chain", "draw", "pair"), jitter(mode.pair_sd, 0.1)),
    )
    standard = table.standardised()
    return FactorSolution(out, constants(table, standard.location, standard.scale), "bayes", "posterior")


def test_what_it_cannot_judge_is_told(swallow, small, small_fit):
    import factorlab as fl

    with pytest.raises(InputError, match="outliers need a posterior, this solution is pca"):
        find_outliers(swallow, fl.fit_pca(swallow, 3))
    with pytest.raises(InputError, match="are not those of table"):
        find_outliers(swallow, small_fit)
    with pytest.raises(InputError, match="fdr is 2"):
        find_outliers(small.table, small_fit, fdr=2)
    with pytest.raises(InputError, match="leave is 'model'"):
        find_outliers(small.table, small_fit, leave="model")  # type: ignore[arg-type]
