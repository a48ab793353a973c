"""Modes with known truth: which chains, which benchmarks, in which words; and the real ones at K = 2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from factorlab.errors import InputError
from factorlab.inference.bridge import Mass, masses
from factorlab.inference.density import compile_density, constrainer
from factorlab.inference.inputs import model_inputs
from factorlab.inference.left_out import kin, left_out_density
from factorlab.inference.model import build_model
from factorlab.inference.modes import ability_covariance, find_modes
from factorlab.inference.priors import Priors
from factorlab.inference.sampling import sample
from factorlab.inference.stacking import Stacking, stack_chains
from factorlab.inference.watch import Length

NAMES = ["MMLU", "NIILC", "JSQuAD", "GSM8K", "MGSM", "BBH"]
GENERAL = np.array([0.8, 0.5, 0.6, 0.7, 0.7, 0.9])
SECOND = np.array([0.1, 0.8, 0.7, -0.3, -0.3, 0.0])
NOISE = np.array([0.3, 0.3, 0.4, 0.5, 0.5, 0.3])


def chains(seconds, noises, draws=300, seed=0):
    """Draws around known loadings, each draw on axes of its own: arguments of `find_modes`."""
    rng = np.random.default_rng(seed)
    loading = np.stack([np.column_stack([GENERAL, second]) for second in seconds])[:, None]
    loading = loading + 0.03 * rng.normal(size=(len(seconds), draws, 6, 2))
    turn = np.linalg.qr(rng.normal(size=(len(seconds), draws, 2, 2)))[0]
    noise = np.stack(noises)[:, None] * np.exp(0.08 * rng.normal(size=(len(seconds), draws, 6)))
    scale = np.diag([2.0, 0.5])  # abilities need not have variance 1
    covariance = np.swapaxes(turn, -1, -2) @ scale @ turn
    return loading @ np.diag(1 / np.sqrt(np.diag(scale))) @ turn, covariance, noise, NAMES


def test_chains_of_one_solution_have_nothing_to_tell():
    found = find_modes(*chains([SECOND] * 4, [NOISE] * 4))
    assert not found.several
    assert found.words == ""
    assert found.disputed == []
    assert found.to_dict()["verdict"] == "one"
    truth = np.column_stack([GENERAL, SECOND])
    share = np.diag(truth @ truth.T) / (np.diag(truth @ truth.T) + NOISE**2)
    np.testing.assert_allclose(found.common.mean[0], share, atol=0.02)
    np.testing.assert_allclose(found.noise_sd.mean[0], NOISE, rtol=0.02)


OTHER_SECOND = np.array([0.1, 0.0, 0.0, -0.3, -0.3, 0.0])
OTHER_NOISE = np.array([0.3, 0.86, 0.7, 0.5, 0.5, 0.3])


def two_solutions():
    return find_modes(
        *chains([SECOND, OTHER_SECOND, SECOND, SECOND], [NOISE, OTHER_NOISE, NOISE, NOISE], seed=1)
    )


def test_two_solutions_name_their_chains_and_benchmarks():
    found = two_solutions()
    assert found.groups == ((0, 2, 3), (1,))
    assert {NAMES[j] for j in found.disputed} == {"NIILC", "JSQuAD"}
    np.testing.assert_allclose(found.noise_sd.mean[:, 1], [0.30, 0.86], rtol=0.03)
    assert found.noise_sd.upper[0, 1] < found.noise_sd.lower[1, 1]
    i, j = found.disputed_pairs()[0]
    assert {NAMES[i], NAMES[j]} & {"NIILC", "JSQuAD"}
    total = np.sqrt(GENERAL**2 + np.stack([SECOND, OTHER_SECOND]) ** 2 + np.stack([NOISE, OTHER_NOISE]) ** 2)
    implied = (GENERAL[1] * GENERAL[2] + np.array([SECOND[1] * SECOND[2], 0.0])) / (total[:, 1] * total[:, 2])
    np.testing.assert_allclose(found.correlation[:, 1, 2], implied, atol=0.02)


def test_draws_are_thinned_evenly():
    whole = chains([SECOND, OTHER_SECOND], [NOISE, OTHER_NOISE], draws=201)
    loading, covariance, noise, names = whole
    few = find_modes(loading[:, ::4], covariance[:, ::4], noise[:, ::4], names)
    np.testing.assert_array_equal(find_modes(*whole, most=51).gap, few.gap)
    assert few.groups == ((0,), (1,))


def test_the_words():
    words = two_solutions().words
    assert words.startswith(
        "The 4 chains found 2 different solutions (first: chains 1, 3 and 4; second: chain 2)."
    )
    assert "They disagree about NIILC and JSQuAD: unique noise of NIILC is 0.30 in the first and 0.8" in words
    assert "of JSQuAD 0.40 and 0.7" in words
    assert words.endswith(
        "Averages over all chains mix these solutions: try another number of factors (--factors 3 or auto), "
        "or weight the chains by how well they predict (--chain-weights stacking)."
    )


def test_the_words_with_predictive_weights():
    loo = np.array([[-1.0, -2.0, -3.0], [-2.0, -2.5, -3.5]])
    weights = Stacking(np.array([0.25, 0.25, 0.25, 0.25]), np.array([0.75, 0.25]), loo, np.full((2, 3), 0.8))
    found = two_solutions().with_(weights)
    assert (
        "The log predictive densities of left-out models are -6.0 and -8.0 (2.0 ± 0.5 below the best), "
        "the weights by stacking 0.75 and 0.25 (rough: k-hat is above 0.7 for 3 of 3 models)." in found.words
    )
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["groups"] == [[1, 3, 4], [2]]
    assert told["group_rhat"][1] is None
    assert told["stacking"]["group_weights"] == [0.75, 0.25]
    assert told["words"] == found.words
    assert np.shape(told["noise_sd"]["lower"]) == (2, 6)


def test_the_words_with_posterior_mass():
    found = two_solutions()
    known = found.with_(mass=Mass(np.array([-10.0, -20.0]), np.array([0.1, 0.2])))
    assert (
        "Of the posterior that was found they hold 1.000 and less than 0.001, however many chains"
        in known.words
    )
    assert known.words.endswith("(--chain-weights stacking) or by their mass (--chain-weights posterior).")
    small = np.exp(-10) / (1 + np.exp(-10))
    big = (1 - small) / 3
    np.testing.assert_allclose(known.chain_weights("posterior"), [big, small, big, big])
    done = known.with_(weighting="posterior").words
    assert "picked from the chains with weights 0.33, 0.00, 0.33 and 0.33, by their mass; R-hat" in done
    assert "--chain-weights" not in done
    told = json.loads(json.dumps(known.to_dict(), allow_nan=False))
    assert told["mass"]["log_mass"] == [-10.0, -20.0]
    rough = found.with_(mass=Mass(np.array([-10.0, -11.0]), np.array([0.1, 0.9])))
    assert "they hold 0.731 and 0.269 (rough: log masses are uncertain by 0.9)" in rough.words
    unknown = found.with_(mass=Mass(np.array([-10.0, np.nan]), np.array([0.1, np.nan])))
    assert unknown.words == found.words
    with pytest.raises(
        InputError, match="weights by 'posterior' are not known for these chains; give more draws"
    ):
        unknown.chain_weights("posterior")
    with pytest.raises(InputError, match="weights by 'stacking' are not known for these chains; compute"):
        found.chain_weights("stacking")


def test_solutions_that_differ_in_a_sign_are_told_by_correlations():
    """Equal shares and noise; the second factor joins two benchmarks in one group, parts them in another."""
    turned = SECOND * np.array([1, -1, 1, 1, 1, 1])
    found = find_modes(*chains([SECOND, SECOND, turned, turned], [NOISE] * 4, seed=2))
    assert found.groups == ((0, 1), (2, 3))
    assert found.gap.max() < 1
    assert NAMES[found.disputed[0]] in ("NIILC", "JSQuAD")
    assert "the correlation of NIILC with JSQuAD is 0.8" in found.words
    assert "-0.2" in found.words


def test_slow_chains_are_told_to_go_on():
    loading, covariance, noise, names = chains([SECOND] * 4, [NOISE] * 4)
    noise[2, :, 3] *= np.linspace(1.0, 2.0, noise.shape[1])
    words = find_modes(loading, covariance, noise, names).words
    assert words.startswith("The chains differ (R-hat up to 1.")
    assert "not as separate solutions: chain 3 had not come to rest. Use a longer warm-up" in words


def test_covariance_of_abilities():
    ability = np.random.default_rng(0).normal(size=(2, 3, 20, 4))
    expected = np.cov(ability[1, 2].T, ddof=0)
    np.testing.assert_allclose(ability_covariance(ability)[1, 2], expected)


RECORDED = Path(__file__).parents[1] / "reference" / "two_factor_chains.npz"


def test_recorded_chains_of_the_real_table():
    """Eight chains at K = 2, drawn by the sampler (tests/reference/README.md): five and three agree."""
    with np.load(RECORDED) as file:
        drawn = {name: file[name] for name in ("loading", "covariance", "noise_sd", "benchmarks")}
    found = find_modes(**drawn)
    assert found.groups == ((2, 3, 4, 5, 7), (0, 1, 6))
    assert found.chains.unsettled == ()
    assert {"NIILC", "WMT20-en-ja", "TriviaQA"} <= {found.benchmarks[j] for j in found.disputed}
    assert found.chains.rhat > 1.5
    assert max(found.chains.group_rhat) < 1.05
    # The second factor is Japanese knowledge in one group; the other leaves NIILC to its own noise.
    np.testing.assert_allclose(
        found.noise_sd.mean[:, found.benchmarks.index("NIILC")], [0.18, 0.94], atol=0.03
    )
    pair = (found.benchmarks.index("NIILC"), found.benchmarks.index("WMT20-en-ja"))
    assert tuple(sorted(pair)) in [tuple(sorted(p)) for p in found.disputed_pairs()]
    np.testing.assert_allclose(found.correlation[:, pair[0], pair[1]], [0.93, 0.02], atol=0.05)
    assert "The 8 chains found 2 different solutions (first: chains 3, 4, 5, 6 and 8;" in found.words
    assert "unique noise of NIILC is 0.18 in the first and 0.93 in the second" in found.words
    alone = find_modes(**{n: v[[2, 3, 4, 5]] if n != "benchmarks" else v for n, v in drawn.items()})
    assert alone.chains.verdict == "one"


def short_chains(table, factors, chains, draws, *, pairs=True):
    """Inputs, density, points, draws and modes of short chains without budgets."""
    inputs = model_inputs(table, factors, Priors(), budget="none", pairs=pairs)
    density = compile_density(build_model(inputs, Priors()))
    with threadpool_limits(limits=1, user_api="blas"):  # as a fit does
        points = sample(density, Length(draws, draws, None, 200), chains=chains, seed=0).points
    names = ["loading", "mean", "noise_sd", "root_sd", "step_sd", *(["pair_sd"] if pairs else [])]
    flat = constrainer(density, names)(points.reshape(-1, density.n_dim))
    drawn = {name: v.reshape(chains, draws, *v.shape[1:]) for name, v in flat.items()}
    # In place of drawn abilities: any covariance that is the same for all chains shows the loadings.
    unit = np.broadcast_to(np.eye(factors), (chains, draws, factors, factors))
    found = find_modes(drawn["loading"], unit, drawn["noise_sd"], table.benchmark_names)
    return inputs, density, points, drawn, found


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("pairs", "likely"), [(True, 0.18), (False, 0.94)])
def test_two_factors_of_the_real_table_have_two_solutions(swallow, pairs, likely):
    """At K = 2 the second factor is Japanese knowledge or another; about 1 chain of 8 finds the latter.

    With a factor for each pair of benchmarks that share items nearly all posterior mass is in the
    former, without them in the latter, whatever the chains found.
    """
    inputs, density, points, drawn, found = short_chains(swallow, 2, 32, 400, pairs=pairs)
    assert found.chains.verdict == "several"
    assert len(found.groups) == 2
    assert sum(map(len, found.groups)) >= 29
    assert {"NIILC", "WMT20-en-ja", "TriviaQA"} <= {found.benchmarks[j] for j in found.disputed}
    assert np.nanmax(found.chains.group_rhat) < 1.1
    niilc = found.noise_sd.mean[:, found.benchmarks.index("NIILC")]
    np.testing.assert_allclose(np.sort(niilc), [0.18, 0.94], atol=0.05)
    evaluate = density.evaluator()
    mass = masses(points, found.groups, lambda x: evaluate(x)[0])
    assert niilc[int(np.argmax(mass.share))] == pytest.approx(likely, abs=0.05)
    assert mass.share.max() > 0.99
    families = kin(inputs.design.node, inputs.design.parent)
    weights = stack_chains(left_out_density(inputs.cells, drawn, families), found.groups)
    assert weights.group_weights.min() > 0.2  # each predicts some models better: three factors hold both
    assert "--factors 3" in found.with_(weights, mass).words


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("factors", [3, 4])
def test_more_factors_of_the_real_table_have_one_solution(swallow, factors):
    found = short_chains(swallow, factors, 12, 150)[-1]
    assert found.chains.verdict == "one"
    assert found.words == ""
    assert found.chains.separation.max() < 1
