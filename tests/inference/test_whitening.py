"""Large tables: the metric of the mode, quarter turns, and draws that are worked out piece by piece."""

from __future__ import annotations

import numpy as np
import pytest

from factorlab.errors import InputError
from factorlab.inference import bayes, posterior
from factorlab.inference.copies import Copies
from factorlab.inference.curvature import Counted, find_curvature, find_modes
from factorlab.inference.density import compile_density, constrainer
from factorlab.inference.inputs import model_inputs
from factorlab.inference.model import build_model
from factorlab.inference.pca import fit_pca
from factorlab.inference.priors import Priors
from factorlab.inference.quarter_turn import StepSize, sample_turns
from factorlab.inference.sampling import sample
from factorlab.inference.watch import Length, silent
from factorlab.inference.whitening import find_whitening, sample_whitened, whiten_density
from factorlab.inference.worked_draws import WorkedDraws
from factorlab.simulation import simulate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made():
    return simulate(models=120, benchmarks=12, factors=2, missing=0.2, family_share=0.3, seed=3)


@pytest.fixture(scope="module")
def large(made):
    """A table with more own parameters than are taken for shared ones, and its density."""
    inputs = model_inputs(made.table, 2, Priors())
    return inputs, compile_density(build_model(inputs, Priors()))


@pytest.fixture(scope="module")
def whitening(large):
    inputs, density = large
    rng = np.random.default_rng(0)
    counted = Counted(density)
    modes, values = find_modes(counted, density, 2, rng, silent)
    assert values[0] >= values[1]
    assert counted.calls > 100
    mode = Copies(density, inputs.frame).positive(modes)[0]
    return find_whitening(find_curvature(counted, density, mode, rng, silent))


def test_the_whitened_density_is_the_density_elsewhere(large, whitening):
    _, density = large
    assert len(whitening.curvature.own) >= 200
    rng = np.random.default_rng(1)
    x = whitening.points(rng.standard_normal((3, density.n_dim)))
    white = whiten_density(density, whitening, x)
    np.testing.assert_allclose(whitening.points(white.starts), x, atol=1e-10)
    outer, inner = white.evaluator(), density.evaluator()
    z = white.starts[0]
    value, gradient = outer(z)
    assert value == pytest.approx(inner(x[0])[0], rel=1e-12)
    for direction in rng.standard_normal((5, density.n_dim)):
        h = 1e-5 * direction / np.linalg.norm(direction)
        change = (outer(z + h)[0] - outer(z - h)[0]) / 2
        assert change == pytest.approx(gradient @ h, rel=1e-5, abs=1e-9)


def test_whitened_curvature_is_one_at_the_mode(large, whitening):
    _, density = large
    c = whitening.curvature
    evaluate = whiten_density(density, whitening, c.center[None]).evaluator()
    n = len(c.shared)
    rng = np.random.default_rng(2)
    for _ in range(5):
        direction = np.zeros(density.n_dim)
        direction[:n] = rng.standard_normal(n)
        bent = (evaluate(-1e-4 * direction)[1] - evaluate(1e-4 * direction)[1]) / 2e-4
        assert np.linalg.norm(bent[:n] - direction[:n]) < 0.15 * np.linalg.norm(direction)
        direction = np.zeros(density.n_dim)
        direction[n:] = rng.standard_normal(len(c.own))
        bent = (evaluate(-1e-4 * direction)[1] - evaluate(1e-4 * direction)[1]) / 2e-4
        assert np.linalg.norm(bent[n:] - direction[n:]) < 0.35 * np.linalg.norm(direction)


def test_quarter_turns_and_nuts_find_the_same_posterior(large):
    inputs, density = large
    turns = sample_whitened(
        density, inputs.frame, Length(1000, 1000, None, 300), chains=4, seed=1, standing=None
    )
    nuts = sample(density, Length(500, 500, None, 300), chains=4, seed=2)
    copies = Copies(density, inputs.frame)
    names = constrainer(density, ["loading", "noise_sd", "slope", "root_sd", "loading_sd"])
    found = []
    for drawn in (turns, nuts):
        v = names(copies.positive(drawn.points).reshape(-1, density.n_dim))
        common = v["loading"] @ np.swapaxes(v["loading"], 1, 2)
        explained = np.swapaxes(v["slope"] @ np.swapaxes(v["loading"], 1, 2), 1, 2)
        flat = [common.reshape(len(common), -1), v["noise_sd"], explained.reshape(len(common), -1)]
        found.append(np.hstack([*flat, v["root_sd"][:, None], v["loading_sd"][:, None]]))
    turned, doubled = found
    sd = doubled.std(axis=0)
    # Some 400 effective draws on the worse side: a mean is off by 0.07 sd, a median of hundreds by less.
    assert np.abs((turned.mean(axis=0) - doubled.mean(axis=0)) / sd).max() < 0.3
    assert np.abs(np.log(turned.std(axis=0) / sd)).max() < 0.25
    assert turns.divergences <= 5
    assert turns.leapfrog_steps < 0.7 * nuts.leapfrog_steps


def test_steps_are_tuned_to_an_acceptance():
    rng = np.random.default_rng(0)
    steps = StepSize(0.8)
    for _ in range(300):
        # An acceptance that falls with the step as in many dimensions, and is noisy.
        steps.learn(float(np.clip(np.exp(-2 * steps.trial**2) + 0.05 * rng.normal(), 0, 1)))
    assert np.exp(-2 * steps.tuned**2) == pytest.approx(0.8, abs=0.05)


class Interrupting:
    """A progress display during which the user presses Ctrl-C."""

    def __init__(self, after):
        self.after, self.rows = after, 0

    def __call__(self, stage, done, total, detail=""):
        self.rows = done
        if done >= self.after:
            self.after = np.inf
            raise KeyboardInterrupt


def test_interrupted_turns_keep_what_was_drawn(large, whitening):
    _, density = large
    white = whiten_density(density, whitening, whitening.curvature.center[None])
    length = Length(5000, 5000, None, 20)
    drawn = sample_turns(
        white, length, chains=2, seed=1, progress=Interrupting(2 * 120), keep=whitening.points
    )
    assert drawn.stopped == "interrupted"
    assert 100 <= drawn.points.shape[1] < 400
    assert drawn.points.shape[0] == 2
    with pytest.raises(KeyboardInterrupt):
        sample_turns(white, length, chains=2, seed=1, progress=Interrupting(2 * 30))


def test_an_interrupt_does_not_wait_for_the_rest_of_a_search(large):
    _, density = large
    counted = Counted(density)
    started = []

    def work(item):
        started.append(item)
        evaluate = counted.evaluator()
        while True:
            evaluate(density.start)

    def slow(item):
        return item if item == 0 else work(item)

    running = counted.on_all_cores(slow, range(100))
    assert next(running) == 0
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)
    assert len(started) < 100


def test_turns_stop_when_time_is_up(large, whitening):
    _, density = large
    white = whiten_density(density, whitening, whitening.curvature.center[None])
    drawn = sample_turns(white, Length(10**6, 10**6, 0.5, 10), chains=2, seed=1)
    assert drawn.stopped == "seconds"


@pytest.fixture(scope="module")
def points(large, whitening):
    z = np.random.default_rng(5).standard_normal((120, large[1].n_dim))
    return whitening.points(z).reshape(2, 60, -1)


@pytest.fixture
def work(made, large):
    inputs, density = large
    reference = fit_pca(made.table, 2, missing="em").loading_mean().to_numpy()
    return WorkedDraws(inputs, density, reference, "procrustes", 0)


def test_pieces_are_worked_out_once_and_only_while_they_are_the_same(work, points):
    first = work.all(points[:, :30], 1)
    longer = work.all(points, 1)
    assert longer.small["turn"].shape[:2] == (2, 60)
    # Abilities are random, so equal ones were not drawn again.
    np.testing.assert_array_equal(longer.large["oriented_ability"][:, :30], first.large["oriented_ability"])
    other = points.copy()
    other[0, 3] += 1e-3
    changed = work.all(other, 1)
    assert not np.array_equal(changed.small["loading"][0, 3], longer.small["loading"][0, 3])
    np.testing.assert_array_equal(changed.small["loading"][1], longer.small["loading"][1])


def test_thinned_arrays_are_those_of_the_draws_they_say(work, points, large):
    work.all(points[:, :23], 1)
    work.all(points[:, :41], 2)
    thinned = work.all(points, 4)
    assert thinned.small["loading"].shape[1] == 60
    assert thinned.large["ability_mean"].shape[1] == 15
    names = constrainer(large[1], ["ability_mean", "loading"])
    for c in range(2):
        truth = names(points[c])
        np.testing.assert_allclose(thinned.large["ability_mean"][c], truth["ability_mean"][::4])
        np.testing.assert_allclose(thinned.small["loading"][c], truth["loading"])
    kept = thinned.kept()
    assert kept.small["turn"].shape[1] == 15
    np.testing.assert_allclose(kept.large["oriented_ability"].mean(axis=2), 0, atol=1e-9)


def test_a_fit_that_keeps_every_nth_draw_is_judged_on_all(made, monkeypatch):
    monkeypatch.setattr(posterior, "MOST_ABILITIES", 120 * 2 * 300)
    monkeypatch.setattr(bayes, "WHITENED_CELLS", 500)
    fit = bayes.fit_bayes(made.table, 2, draws=250, max_draws=250, seed=1)
    assert fit.extra["draws"] == 250
    assert fit.draws.sizes["draw"] == 63
    assert fit.draws["ability"].shape == (4, 63, 120, 2)
    assert any("63 of 250 draws a chain are kept" in note for note in fit.notes)
    table = fit.diagnostics.table
    # More than the 252 draws that are kept could ever have.
    assert table.loc[table["group"] == "loading", "ess_bulk"].median() > 400
    assert fit.extra["leapfrog_steps"] < 20
    assert fit.extra["sampler"] == "turns"
    assert any("exactly in quarter turns" in note for note in fit.notes)


def test_without_a_mode_the_metric_is_learned(made, monkeypatch):
    def refuse(*_, **__):
        raise InputError("no mode of the posterior was found; use --sampler nuts")

    monkeypatch.setattr(bayes, "WHITENED_CELLS", 500)
    monkeypatch.setattr(bayes, "sample_whitened", refuse)
    fit = bayes.fit_bayes(made.table, 2, draws=60, max_draws=60, tune=100, chains=2, seed=1)
    assert fit.draws.sizes["draw"] == 60
    assert fit.extra["sampler"] == "nuts"
