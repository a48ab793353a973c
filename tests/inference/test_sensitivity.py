"""Prior sensitivity: weights against densities, weighted answers against integrals and a second fit."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.integrate import quad
from scipy.stats import halfnorm, lognorm, norm

import factorlab as fl
from factorlab.errors import InputError
from factorlab.inference.budgets import BudgetRegression
from factorlab.inference.orientation import orient
from factorlab.inference.priors import Priors
from factorlab.inference.sampling import smooth_weights
from factorlab.inference.sensitivity import CHANGES, _raw_mean, log_weight, prior_sensitivity
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.simulation import simulate

DATA = Path(__file__).parents[2] / "data"
PRIORS = asdict(
    Priors(
        slope_sd=1.0, root_sd=0.5, pair_sd=0.5, guessed_log_sd=0.7, noise_sd_median=0.35, small_loading=0.1
    )
)


def prior_draws(n=4000, seed=0, root=None):
    """A "posterior" that is the prior, and a regression whose rho is a known function of slope_sd."""
    rng = np.random.default_rng(seed)
    shape = (4, n // 4)
    ones = np.ones((*shape, 3, 1))
    draws = label_draws(
        ones, ones, np.exp(rng.normal(np.log(0.35), 0.5, (*shape, 3))), ones[..., 0], list("abc"), list("xyz")
    )
    both = ("chain", "draw")
    draws = draws.assign(
        slope_sd=(both, np.abs(rng.normal(size=shape))),
        root_sd=(
            both,
            np.abs(rng.normal(0, 0.5, shape)) if root is None else root + 0.05 * rng.normal(size=shape),
        ),
        pair_sd=((*both, "pair"), np.abs(rng.normal(0, 0.5, (*shape, 2)))),
        token_floor_b_ja=(both, np.exp(rng.normal(size=shape))),
        log10_tokens_sd_ja=(both, np.abs(rng.normal(size=shape))),
        token_error_ja=((*both, "source_ja"), rng.normal(size=(*shape, 3))),
    )
    draws = draws.assign_coords(
        status_ja=("source_ja", ["guessed", "derived", "guessed"]), predictor=["log10 D_ja"]
    )
    draws = draws.assign(
        slope=((*both, "predictor", "factor"), draws["token_error_ja"].values[:, :, :1, None])
    )
    solution = FactorSolution(
        draws,
        xr.Dataset(),
        "bayes",
        "posterior",
        provenance={"settings": {"priors": PRIORS}},
        extra={"identified": [True]},
    )
    rho = np.tanh(draws["slope_sd"].values)[:, :, None, None]
    labelled = xr.Dataset(
        {"rho": ((*both, "factor", "budget"), rho)}, coords={"factor": ["PC1"], "budget": ["ja"]}
    )
    empty = pd.DataFrame()
    return solution, BudgetRegression("joint", empty, empty, empty, labelled)


@pytest.mark.parametrize(
    ("name", "variable", "density"),
    [
        ("slope_sd", "slope_sd", lambda x, s: halfnorm.logpdf(x, scale=s)),
        ("root_sd", "root_sd", lambda x, s: halfnorm.logpdf(x, scale=s)),
        ("pair_sd", "pair_sd", lambda x, s: halfnorm.logpdf(x, scale=s)),
        ("tokens_log10_sd", "log10_tokens_sd_ja", lambda x, s: halfnorm.logpdf(x, scale=s)),
        ("noise_sd_median", "noise_sd", lambda x, s: lognorm.logpdf(x, 0.5, scale=s)),
        ("token_floor_b", "token_floor_b_ja", lambda x, s: lognorm.logpdf(x, 1.0, scale=s)),
    ],
)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_weights_are_ratios_of_prior_densities(name, variable, density, factor):
    solution, _ = prior_draws(400)
    x = solution.stacked(variable).reshape(400, -1)
    expected = (density(x, PRIORS[name] * factor) - density(x, PRIORS[name])).sum(axis=1)
    np.testing.assert_allclose(log_weight(solution, PRIORS, name, factor), expected, atol=1e-9)


def test_token_errors_of_the_status_only():
    solution, _ = prior_draws(400)
    e = solution.stacked("token_error_ja")
    sd = PRIORS["derived_log_sd"]
    # The error of a count is sd * e: its prior is Normal(0, sd), changed to Normal(0, 1.5 sd).
    shift = sd * e[:, 1]
    expected = norm.logpdf(shift, 0, 1.5 * sd) - norm.logpdf(shift, 0, sd)
    np.testing.assert_allclose(log_weight(solution, PRIORS, "derived_log_sd", 1.5), expected, atol=1e-9)


def test_orientation_is_undone_for_the_means():
    rng = np.random.default_rng(2)
    loading, ability, mean = (
        rng.normal(size=(50, 6, 2)),
        rng.normal(1, 1, (50, 9, 2)),
        rng.normal(size=(50, 6)),
    )
    out = orient(loading, ability, mean, rng.normal(size=(6, 2)), "procrustes")
    draws = label_draws(
        out.loading[None],
        out.ability[None],
        np.ones((1, 50, 6)),
        out.mean[None],
        list("abcdefghi"),
        list("uvwxyz"),
    )
    draws = draws.assign(
        turn=(("chain", "draw", "raw", "factor"), out.turn[None]),
        center=(("chain", "draw", "raw"), out.center[None]),
    )
    np.testing.assert_allclose(
        _raw_mean(FactorSolution(draws, xr.Dataset(), "bayes", "posterior")), mean, atol=1e-9
    )


def test_small_loadings_as_sampled():
    """The density of the loadings as they were sampled, from the turned ones."""
    rng = np.random.default_rng(3)
    loading, ability = 0.2 * rng.normal(size=(40, 6, 2)), rng.normal(1, 1, (40, 9, 2))
    out = orient(loading, ability, np.zeros((40, 6)), rng.normal(size=(6, 2)), "procrustes")
    draws = label_draws(
        out.loading[None],
        out.ability[None],
        np.ones((1, 40, 6)),
        out.mean[None],
        list("abcdefghi"),
        list("uvwxyz"),
    )
    draws = draws.assign(turn=(("chain", "draw", "raw", "factor"), out.turn[None]))
    found = log_weight(
        FactorSolution(draws, xr.Dataset(), "bayes", "posterior"), PRIORS, "small_loading", 2.0
    )
    expected = [
        np.log(
            np.linalg.det(l.T @ l / 6 + 0.1**2 * np.eye(2)) / np.linalg.det(l.T @ l / 6 + 0.2**2 * np.eye(2))
        )
        for l in loading
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)  # the power is K / 2 = 1


def test_reweighted_prior_gives_the_other_prior():
    solution, regression = prior_draws()
    changes = {"slope_sd": (0.5, 1.25), "pair_sd": (0.5,), "guessed_log_sd": (0.5,)}
    frame = prior_sensitivity(solution, regression, level=0.9, changes=changes)
    assert (frame.loc[: frame["quantity"].nunique() - 1, "setting"] == "as fitted").all()
    rho = frame[frame["quantity"] == "rho(PC1, ja) at hand"].set_index("setting")
    for value in (0.5, 1.25):
        row = rho.loc[f"slope_sd = {value:.3g} (fitted with 1)"]
        mean = quad(lambda x, s=value: np.tanh(x) * halfnorm.pdf(x, scale=s), 0, 20)[0]
        # 4000 draws, effective about 2000: Monte Carlo error below 0.01.
        assert row["mean"] == pytest.approx(mean, abs=0.03)
        assert row["median"] == pytest.approx(np.tanh(halfnorm.median(scale=value)), abs=0.04)
        assert row["upper"] == pytest.approx(np.tanh(halfnorm.ppf(0.95, scale=value)), abs=0.03)
    assert rho.loc["slope_sd = 0.5 (fitted with 1)", "verdict"] == "moves"
    held = rho.loc["pair_sd = 0.25 (fitted with 0.5)"]
    assert held["verdict"] == "holds"
    assert held["mean"] == pytest.approx(rho.loc["as fitted", "mean"], abs=0.02)
    # slope(PC1, log10 D_ja) is the guessed error itself: half the sd, half the interval.
    slope = frame[frame["quantity"] == "slope(PC1, log10 D_ja)"].set_index("setting")
    width = slope["upper"] - slope["lower"]
    assert width["guessed_log_sd = 0.35 (fitted with 0.7)"] == pytest.approx(width["as fitted"] / 2, rel=0.08)


def test_uneven_weights_need_a_refit_and_a_milder_change_follows():
    solution, regression = prior_draws(root=2.0)
    frame = prior_sensitivity(solution, regression, changes={"root_sd": (0.1,)})
    settings = list(dict.fromkeys(frame["setting"]))
    assert settings[1:] == ["root_sd = 0.05 (fitted with 0.5)", "root_sd = 0.158 (fitted with 0.5)"]
    far = frame[frame["setting"] == settings[1]]
    assert (far["verdict"] == "needs a refit").all()
    assert ((far["khat"] > 0.7) | (far["ess"] < 100)).all()


def test_what_the_draws_do_not_hold_is_said():
    solution, regression = prior_draws(400)
    old = solution.with_(draws=solution.draws.drop_vars(["token_error_ja", "status_ja"]))
    frame = prior_sensitivity(old, regression, changes={"guessed_log_sd": (0.5,), "step_sd": (2.0,)})
    rows = frame[frame["setting"] != "as fitted"]
    # There are no steps in this model at all: no row. Errors exist, but were not kept.
    assert set(rows["prior"]) == {"guessed_log_sd"}
    assert (rows["verdict"] == "not in the draws: needs a refit").all()
    assert rows["mean"].isna().all()


def test_chosen_quantities_and_errors():
    solution, regression = prior_draws(400)
    frame = prior_sensitivity(solution, regression, quantities=["rho(PC1, ja) at hand"])
    assert set(frame["quantity"]) == {"rho(PC1, ja) at hand"}
    with pytest.raises(InputError, match=r"no quantity 'rho'; there are rho\(PC1, ja\) at hand"):
        prior_sensitivity(solution, regression, quantities=["rho"])
    with pytest.raises(
        InputError, match="no prior 'sigma' can be changed by weights; give some of loading_sd"
    ):
        prior_sensitivity(solution, regression, changes={"sigma": (2.0,)})
    with pytest.raises(InputError, match="needs a posterior and its joint regression; this is a point"):
        prior_sensitivity(solution.with_(kind="point"), regression)
    with pytest.raises(InputError, match="no record of its priors"):
        prior_sensitivity(solution.with_(provenance={}), regression)


def test_every_change_is_of_a_prior():
    assert set(CHANGES) <= set(PRIORS)


def test_smoothed_weights():
    x = np.random.default_rng(0).standard_normal(4000)
    weights, khat = smooth_weights(0.15 * x**2)
    # From Normal(0, 1) to Normal(0, 1 / 0.7): the tail of exp(a x^2) has shape 2 a.
    assert weights.sum() == pytest.approx(1)
    assert weights @ x**2 == pytest.approx(1 / 0.7, abs=0.1)
    assert khat == pytest.approx(0.3, abs=0.15)
    even, none = smooth_weights(np.zeros(10))
    np.testing.assert_allclose(even, 0.1)
    assert np.isnan(none)


@pytest.mark.slow
def test_weights_agree_with_a_second_fit():
    sim = simulate(models=24, benchmarks=8, factors=1, n_instances=500, seed=2)
    fits = [
        fl.fit_bayes(sim.table, 1, draws=1000, tune=500, chains=2, seed=s, priors=Priors(slope_sd=sd))
        for s, sd in ((1, 1.0), (2, 0.5))
    ]
    first, second = (fl.fit_budgets(sim.table, fit) for fit in fits)
    weighted = prior_sensitivity(fits[0], first, changes={"slope_sd": (0.5,)})
    weighted = weighted[weighted["prior"] == "slope_sd"].set_index("quantity")
    refit = prior_sensitivity(fits[1], second, changes={}).set_index("quantity")
    spread = (refit["upper"] - refit["lower"]) / 3.76
    assert (weighted["verdict"] != "needs a refit").all()
    assert ((weighted["mean"] - refit["mean"]).abs() < 0.2 * spread).all()
