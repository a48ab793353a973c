"""The Bayesian model: its density without sampling, recovery with it, and what is told of trouble."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from factorlab.errors import InputError
from factorlab.inference.bayes import fit_bayes
from factorlab.inference.compare import compare
from factorlab.inference.convergence import diagnose, drawn_afresh, problems
from factorlab.inference.inputs import model_inputs
from factorlab.inference.kernel import evaluate
from factorlab.inference.marginal import log_likelihood
from factorlab.inference.mixing import convergence
from factorlab.inference.model import build_model
from factorlab.inference.priors import Priors, read_priors
from factorlab.inference.solution import load_solution
from factorlab.scores import table_from_frames

PARAMETERS = ["loading", "mean", "ability_mean", "noise_sd", "pair_sd", "root_sd", "step_sd"]


def test_the_potential_is_the_likelihood_of_the_kernel(swallow):
    inputs = model_inputs(swallow, 3, Priors())
    model = build_model(inputs)
    free, point = a_point(model, 0)
    potential = next(p for p in model.potentials if p.name == "log_likelihood")
    values = _evaluate([potential, *[model[name] for name in PARAMETERS]], free, point)
    assert values[0] == pytest.approx(evaluate(inputs.blocks(), *values[1:]).value, rel=1e-12)


def test_the_graph_of_the_likelihood_is_what_numpy_computes(swallow):
    """Effects of families and steps as free variables, on the real matrix."""
    inputs = model_inputs(swallow, 3, Priors())
    model = build_model(inputs, likelihood="graph", gauge="free")
    free, point = a_point(model, 0)
    potential = next(p for p in model.potentials if p.name == "log_likelihood")
    values = _evaluate([potential, *[model[name] for name in PARAMETERS]], free, point)
    loading, mean, ability_mean, noise_sd, pair_sd, root_sd, step_sd = values[1:]
    design = inputs.design
    effect = np.vstack([root_sd * point["root_raw"], step_sd * point["step_raw"]])
    for n in range(len(design.families), len(design.parent)):
        effect[n] += effect[design.parent[n]]
    expected = log_likelihood(
        inputs.cells, loading, mean, ability_mean + effect[design.node], noise_sd, pair_sd
    )
    assert values[0] == pytest.approx(expected.sum(), rel=1e-9)


def a_point(model, seed):
    """Free variables by name, and positive random values for them near the start of the loadings."""
    rng = np.random.default_rng(seed)
    free = {rv.name: rv for rv in model.free_RVs}
    point = {name: np.abs(rng.normal(size=tuple(rv.shape.eval()))) + 0.2 for name, rv in free.items()}
    return free, point


def _evaluate(outputs, free, point):
    """Values of model nodes with the free variables fixed."""
    import pytensor

    replacements = {rv: pytensor.shared(np.asarray(point[name])) for name, rv in free.items()}
    graphs = pytensor.graph.replace.clone_replace(outputs, replacements)
    return [np.asarray(g) for g in pytensor.function([], graphs)()]


def test_turning_the_axes_changes_nothing_the_model_sees(swallow):
    """Priors are isotropic: log density is invariant when loadings, slopes and effects turn together."""
    inputs = model_inputs(swallow, 3, Priors())
    model = build_model(inputs, gauge="free")
    _, point = a_point(model, 1)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = dict(point)
    turned["loading_on_slice"] = (point["loading_on_slice"].reshape(-1, 3) @ turn).ravel()
    turned["slope_raw"] = point["slope_raw"] @ turn
    assert _log_density(model, point) == pytest.approx(_log_density(model, turned), rel=1e-10)


def _log_density(model, point):
    """Log density of the untransformed parameters."""
    import pymc as pm
    import pytensor

    free = {rv.name: rv for rv in model.free_RVs}
    values = {name: pytensor.shared(np.asarray(point[name])) for name in free}
    priors = sum(pm.logp(rv, values[name]).sum() for name, rv in free.items())
    total = priors + sum(model.potentials)
    graph = pytensor.graph.replace.clone_replace([total], {rv: values[name] for name, rv in free.items()})
    return float(pytensor.function([], graph[0])())


def test_recovers_loadings_abilities_and_budgets(small, small_fit):
    """The truth lies in the intervals about as often as they say, and the means are near it.

    Simulated abilities are correlated (sizes are in both budgets), so both sides are first made
    uncorrelated and turned to one another.
    """
    result = compare(small.truth, small_fit, level=0.94, align="procrustes")
    rows = result.factors.set_index("factor")
    assert (rows["congruence_median"] > 0.95).all()
    assert (rows["score_correlation_median"] > 0.85).all()
    inside = 1 - result.loadings["changes"].mean()
    assert inside > 0.8  # 16 loadings at 0.94: fewer than 13 inside has probability 0.003


def test_what_the_draws_hold(small, small_fit):
    draws = small_fit.draws
    assert draws["loading"].dims == ("chain", "draw", "benchmark", "factor")
    assert draws["slope"].sizes["predictor"] == 3
    ability = small_fit.stacked("ability")
    np.testing.assert_allclose(ability.mean(axis=1), 0, atol=1e-8)
    np.testing.assert_allclose(ability.std(axis=1), 1, atol=1e-8)
    tokens = small_fit.stacked("log10_tokens").mean(axis=0)
    published = np.log10(small.table.scored_models[["tokens_b_en", "tokens_b_ja"]].to_numpy(dtype=float))
    np.testing.assert_allclose(tokens, published, atol=0.03)


def test_posterior_opens_in_arviz_and_reads_back(small_fit, tmp_path):
    import arviz as az

    path = small_fit.save(tmp_path / "bayes.nc")
    opened = az.from_netcdf(path)
    np.testing.assert_allclose(opened["posterior"]["loading"].values, small_fit.draws["loading"].values)
    back = load_solution(path)
    xr.testing.assert_allclose(back.draws, small_fit.draws)
    assert back.provenance == small_fit.provenance
    assert back.diagnostics.table.equals(small_fit.diagnostics.table) or np.allclose(
        back.diagnostics.table["rhat"].astype(float),
        small_fit.diagnostics.table["rhat"].astype(float),
        equal_nan=True,
    )


def test_no_metadata_still_fits_and_says_so(small):
    wide = pd.DataFrame(small.table.scores, columns=small.table.benchmark_names)
    wide.insert(0, "model", small.table.model_names)
    fit = fit_bayes(table_from_frames(wide), 1, draws=60, max_draws=60, tune=150, chains=2, seed=0)
    assert "slope" not in fit.draws
    text = " ".join(fit.notes)
    assert "no regression on budgets" in text
    assert "no standard error" in text
    assert fit.diagnostics.problems  # 60 draws cannot reach an effective sample size of 400


def test_too_many_factors_is_one_line(small):
    with pytest.raises(InputError, match="9 factors asked of 24 models x 8 benchmarks"):
        fit_bayes(small.table, 9)


def test_missing_cells_enter_as_missing(small):
    table = small.table
    holes = table.data.copy(deep=True)
    holes["score"][2, 3] = np.nan
    inputs = model_inputs(replace(table, data=holes), 2, Priors())
    assert inputs.cells.observed[2, 3] == 0
    assert inputs.cells.z[2, 3] == 0


def test_convergence_against_the_textbook_cases():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(4, 1000, 1))
    apart = good + np.array([0, 0, 0, 3.0])[:, None, None]
    measured = convergence(np.concatenate([good, apart, np.ones((4, 1000, 1))], axis=2))
    assert measured.rhat[0] < 1.01
    assert measured.ess_bulk[0] > 3000
    assert measured.rhat[1] > 1.4
    assert measured.ess_bulk[1] < 20
    assert np.isnan(measured.rhat[2])


def test_what_is_drawn_afresh_is_judged_by_its_means_given_the_parameters():
    rng = np.random.default_rng(0)
    chains, draws, n = 4, 250, 5000
    mean = np.zeros((chains, draws, n))
    noise = rng.standard_normal(mean.shape)
    for t in range(draws):  # AR(1) with sd 0.3 and 0.6 correlation: a quarter of its draws count
        step = 0.3 * np.sqrt(1 - 0.6**2) * rng.standard_normal((chains, n))
        mean[:, t] = 0.6 * mean[:, t - 1] + step if t else 0.3 * rng.standard_normal((chains, n))
    values = mean + noise
    plain, ours = convergence(values), drawn_afresh(values, mean)
    # The variance of the mean of 1000 draws, over the 5000 quantities: what an effective sample size stands for.
    truth = 1.09 / values.mean(axis=(0, 1)).var()
    assert abs(np.median(ours.ess_bulk) / truth - 1) < 0.1
    assert ours.ess_bulk.min() > 440 > plain.ess_bulk.min()
    assert ours.rhat.max() < 1.01 < plain.rhat.max()


def test_what_is_drawn_afresh_does_not_hide_chains_that_disagree():
    rng = np.random.default_rng(0)
    mean = 0.3 * rng.standard_normal((4, 250, 2))
    mean[0, :, 1] += 1.0
    measured = drawn_afresh(mean + rng.standard_normal(mean.shape), mean)
    assert measured.rhat[0] < 1.01
    assert measured.rhat[1] > 1.05
    assert measured.ess_bulk[1] < 100


def test_chains_that_disagree_are_told_in_words(small_fit):
    moved = small_fit.draws.copy(deep=True)
    moved["noise_sd"][0] += 1.0
    out = diagnose(moved, 3, [True, True])
    text = " ".join(out.problems)
    assert "3 divergent transitions" in text
    assert "R-hat above 1.01" in text
    assert "noise_sd" in text
    assert out.rhat_max > 1.5


def test_factors_that_are_not_identified_are_listed_but_do_not_count(small_fit):
    out = diagnose(small_fit.draws, 0, [True, False])
    rows = out.table[
        out.table["quantity"].str.endswith(", PC2]") & out.table["group"].isin(["loading", "ability"])
    ]
    assert len(rows)
    assert not rows["counted"].any()


def test_one_chain_is_told():
    table = pd.DataFrame(
        {"quantity": ["a"], "group": ["g"], "rhat": [np.nan], "ess_bulk": [900.0], "ess_tail": [900.0]}
    )
    assert problems(table.assign(counted=True), 0) == [
        "one chain only: R-hat cannot be computed; use --chains 4"
    ]


def test_more_draws_are_not_advised_to_chains_in_different_solutions():
    table = pd.DataFrame(
        {"quantity": ["a"], "rhat": [1.6], "ess_bulk": [10.0], "ess_tail": [60.0], "counted": [True]}
    )
    assert sum("use more draws" in line for line in problems(table, 0)) == 3
    short = problems(table, 0, separate=True)
    assert len(short) == 3
    assert short[0].endswith("(worst 1.600, a)")
    assert not any("use more draws" in line for line in short)


def test_priors_from_toml(tmp_path):
    path = tmp_path / "priors.toml"
    path.write_text("noise_sd_median = 0.2\n", encoding="utf-8")
    assert read_priors(path) == Priors(noise_sd_median=0.2)
    path.write_text("noise = 0.2\n", encoding="utf-8")
    with pytest.raises(InputError, match="names 'noise'; known priors: loading_sd"):
        read_priors(path)
    path.write_text("noise_sd_median = -1\n", encoding="utf-8")
    with pytest.raises(InputError, match="'noise_sd_median' is -1; give a positive number"):
        read_priors(path)
    path.write_text("noise_sd_median = ", encoding="utf-8")
    with pytest.raises(InputError, match="is not TOML"):
        read_priors(path)
    with pytest.raises(InputError, match="no such priors file"):
        read_priors(tmp_path / "none.toml")
