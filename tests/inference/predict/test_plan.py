"""Plans against simulated tables whose truth is known, closed forms, and mistakes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from made_up_budgets import GOAL, QUICK, SLOPE, make_table, needed_tokens

import factorlab as fl
from factorlab.cli import main
from factorlab.errors import InputError
from factorlab.inference.predict import plan as plan_module
from factorlab.inference.predict.columns import scale_columns
from factorlab.inference.predict.further_tokens import (
    draw_coupled,
    predictor_draws,
    predictor_moves,
    scores_with_tokens,
)
from factorlab.inference.predict.kernel import BLOCKS
from factorlab.inference.predict.member_fit import CellDraws
from factorlab.inference.predict.mixture import fit_mixture
from factorlab.inference.predict.plan_notes import amount
from factorlab.inference.predict.plan_tables import ALL, MEAN, first_reached
from factorlab.inference.predict.planned_model import plan_model
from factorlab.inference.predict.predictive import draw_predictive
from factorlab.plots import plan_curves, plan_strategies

pytestmark = pytest.mark.slow  # tens of seconds of sampling: on the lowest Python only

FITTED: dict[tuple[str, ...], object] = {}


def fit_once(table, settings=None, **where):
    """Each planned table is fitted once."""
    key = (table.model_names[-1], str(table.models.iloc[-1].to_dict()))
    if key not in FITTED:
        FITTED[key] = fit_mixture(table, QUICK, workers=1)
    return FITTED[key]


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(plan_module, "fit_mixture", fit_once)


@pytest.fixture(scope="module")
def mixture(table):
    return fit_once(plan_model(table, base="base", params_b=None, language="ja").table)


@pytest.fixture(scope="module")
def planned(table):
    return plan_model(table, base="base", params_b=None, language="ja")


def logistic(v: float) -> float:
    return float(1 / (1 + np.exp(-v)))


def make_plan(table, targets, **options):
    options.setdefault("base", "base")
    if options["base"] is None:
        del options["base"]
    return fl.plan(table, targets, language="ja", settings=QUICK, **options)


def test_the_true_tokens_are_found(table):
    made = make_plan(table, {"ja0": GOAL})
    row = made.targets.iloc[0]
    truth = needed_tokens()
    assert row["tokens_low"] < truth < row["tokens_high"]
    assert row["tokens_median"] == pytest.approx(truth, rel=0.6)
    assert row["out_of_reach"] < 0.02
    assert not row["beyond_seen"]
    curve = made.curve
    at = np.interp(np.log(truth), np.log(curve["tokens_b"][1:]), curve["expected"][1:])
    assert at == pytest.approx(GOAL, abs=0.04)


def test_a_target_above_the_ceiling_is_out_of_reach(table):
    made = make_plan(table, {"capped": 0.9})
    assert made.targets["out_of_reach"].iloc[0] > 0.95
    assert np.isinf(made.targets["tokens_needed"].iloc[0])
    assert make_plan(table, {"capped": 0.6}).targets["out_of_reach"].iloc[0] < 0.1


def test_tokens_that_go_with_nothing_do_not_reach(table):
    base = table.scores[0, table.benchmark_names.index("en0")]
    assert make_plan(table, {"en0": base + 0.3}).targets["out_of_reach"].iloc[0] > 0.95


def test_strategies_find_the_language_that_each_benchmark_goes_with(table):
    rows = make_plan(table, {"ja0": GOAL}, spend=1000).strategies.set_index("benchmark")
    assert (rows.loc[["ja0", "ja1", "ja2", "ja3"], "low"] > 0).all()
    assert (rows.loc[["en0", "en1", "en2", "en3"], "high"] < 0).all()
    assert (rows["low"] < rows["difference"]).all()
    assert (rows["difference"] < rows["high"]).all()
    # 1000 billion more: English 1000 -> 2000, Japanese 10 -> 1010; an average model starts at logits 0 and -0.9.
    japanese = logistic(SLOPE * (np.log10(1010) - 2)) - logistic(-SLOPE)
    english = logistic(0.8 * np.log10(2)) - 0.5
    assert rows.loc["ja0", "difference"] == pytest.approx(japanese, abs=0.06)
    assert rows.loc["en0", "difference"] == pytest.approx(-english, abs=0.03)


def test_more_is_asked_by_more(table):
    tokens = [
        make_plan(table, {"ja0": GOAL}, probability=p).targets["tokens_needed"].iloc[0]
        for p in (0.5, 0.8, 0.95)
    ]
    assert tokens == sorted(tokens)
    assert tokens[0] < tokens[2]
    goals = [make_plan(table, {"ja0": g}).targets["tokens_needed"].iloc[0] for g in (0.5, 0.6, 0.7)]
    assert goals == sorted(goals)
    assert goals[0] < goals[2]
    both = make_plan(table, {"ja0": 0.6, "ja1": 0.6})
    joint = both.targets.set_index("benchmark")
    assert joint.loc[ALL, "tokens_needed"] >= joint.loc[["ja0", "ja1"], "tokens_needed"].max()
    chance = both.curve[both.curve["benchmark"] == "ja0"]["probability"]
    assert chance.is_monotonic_increasing
    assert (both.tokens >= 0).all()


def test_tokens_needed_are_where_the_curve_crosses(table):
    made = make_plan(table, {"ja0": GOAL}, probability=0.7)
    own = made.curve
    needed = made.targets["tokens_needed"].iloc[0]
    assert own.loc[own["tokens_b"] <= needed, "probability"].max() <= 0.7
    assert own.loc[own["tokens_b"] >= needed, "probability"].min() >= 0.7
    assert (made.tokens[:, 0] <= needed * (1 + 1e-9)).mean() == pytest.approx(0.7, abs=0.002)


def test_a_target_that_the_base_has_met_needs_nothing(table):
    base = table.scores[0, 0]
    made = make_plan(table, {"ja0": base - 0.01})
    row = made.targets.iloc[0]
    assert row["met_by_base"]
    assert row["tokens_needed"] == 0
    assert row["out_of_reach"] == 0
    assert any("0 further tokens, the target is met already" in note for note in made.notes)


def test_a_new_model(table):
    made = make_plan(table, {"ja0": GOAL}, base=None, params_b=8.0, tokens={"en": 1000.0, "ja": 10.0})
    row = made.targets.iloc[0]
    assert row["tokens_low"] < needed_tokens() < row["tokens_high"]
    assert np.isnan(row["base_score"])
    assert not len(made.children)
    assert len(made.strategies)
    bare = make_plan(table, {"ja0": GOAL}, base=None, params_b=8.0, tokens={"en": 1000.0})
    assert not len(bare.strategies)
    assert any("no scored model is without ja" in n for n in bare.notes)
    alone = bare.targets.iloc[0]
    assert alone["tokens_low"] < needed_tokens() + 10 < alone["tokens_high"]
    assert abs(np.log10(alone["tokens_median"] / (needed_tokens() + 10))) < 0.5  # of 1.6 decades of interval
    assert np.isfinite(bare.curve["median"]).all()


def test_children_and_contrasts(table):
    made = make_plan(table, {"ja0": GOAL})
    assert made.children["tokens_b"].tolist() == [40.0, 160.0]
    assert made.children["score"].to_numpy() == pytest.approx(table.scores[1:3, 0])
    pairs = made.contrasts.set_index("model")
    assert pairs.loc["child-1", "observed"] == pytest.approx(table.scores[2, 0] - table.scores[0, 0])
    assert pairs.loc[MEAN, "observed"] == pytest.approx(pairs.loc[["child-0", "child-1"], "observed"].mean())
    for child, tokens in (("child-0", 40.0), ("child-1", 160.0)):
        true = logistic(SLOPE * (np.log10(10 + tokens) - 2)) - logistic(-SLOPE)
        assert pairs.loc[child, "expected"] == pytest.approx(true, abs=0.06)


def test_first_reached_in_closed_form():
    grid = np.array([0.0, 1.0, 10.0, 100.0])
    y = np.array([[0.0, 0.1, 0.3, 0.5], [0.25, 0.1, 0.3, 0.5], [0.0, 0.4, 0.5, 0.6], [0.0, 0.1, 0.1, 0.1]])
    found = first_reached(y, 0.2, grid)
    assert found == pytest.approx([10**0.5, 0.0, 0.5, np.inf])


def test_nothing_more_moves_nothing_and_more_moves_as_a_row_would(mixture, planned):
    fit, row = mixture.fits[0], np.array([planned.row])
    x = mixture.inputs.predictors
    more = np.zeros((1, len(x.names)))
    assert not predictor_moves(mixture, fit, row, more).any()
    more[0, planned.predictor] = 160.0
    # The errors of counts at zero: the planned model stands where a row with so many tokens does.
    still = fit._replace(draws=np.zeros((1, 1, fit.draws.shape[-1])))
    moved = x.x[planned.row] + predictor_moves(mixture, still, row, more)[0, 0]
    assert moved == pytest.approx(x.x[2])
    # To first order in the error of the base's guessed count, it counts for its share: 10 of 170 billion.
    nudged = still.draws.copy()
    a = fit.layout.arrays
    own = np.flatnonzero((a.error_row == planned.row) & (a.error_predictor == planned.predictor))
    assert len(own) == 1
    step = 1e-5
    nudged[0, 0, a.offsets[BLOCKS.index("error")] + a.error_index[own[0]]] = step
    nudge = fit._replace(draws=nudged)
    there = predictor_draws(nudge, row)[0, 0] + predictor_moves(mixture, nudge, row, more)[0, 0]
    slope = (there - moved)[planned.predictor] / step
    assert slope == pytest.approx(a.error_weight[own[0]] * 10 / 170, rel=1e-3)


def test_a_known_start_takes_the_place_of_the_models_own(mixture, planned):
    fit, x = mixture.fits[0], mixture.inputs.predictors
    start = np.full(len(x.names), np.nan)
    start[planned.predictor] = 50.0
    more = np.zeros((1, len(x.names)))
    more[0, planned.predictor] = 50.0
    row = np.array([planned.row])
    there = predictor_draws(fit, row) + predictor_moves(mixture, fit, row, more, start)
    raw = x.center[planned.predictor] + x.scale[planned.predictor] * there[:, 0, planned.predictor]
    assert raw == pytest.approx(2.0)


def test_along_a_curve_a_sample_keeps_its_noise(mixture, planned):
    n = 5
    more = np.zeros((n, len(mixture.inputs.predictors.names)))
    more[:, planned.predictor] = np.linspace(0, 400, n)
    row, column = np.full(n, planned.row), np.zeros(n, dtype=int)
    drawn = scores_with_tokens(mixture, row, column, more)
    apart = drawn.samples - drawn.expected
    assert np.corrcoef(apart[:, 0], apart[:, -1])[0, 1] > 0.9
    independent = mixture.predict(row, column)
    apart = independent.samples - independent.expected
    assert abs(np.corrcoef(apart[:, 0], apart[:, -1])[0, 1]) < 0.2


@pytest.mark.parametrize("likelihood", ["binomial", "beta-binomial", "student"])
def test_coupled_noise_has_the_right_margins(likelihood, table):
    data = table.data.copy(deep=True)
    data["n_instances"][:] = 50.0
    counted = table.__class__(**{**table.__dict__, "data": data})
    columns = scale_columns(counted, likelihood=likelihood)
    rng = np.random.default_rng(2)
    mean = np.repeat(rng.uniform(0.3, 0.7, (200, 1)), 2, axis=1) + np.array([0.0, 0.1])
    part = CellDraws(mean, np.full((200, 2), 0.05), np.full(200, 6.0))
    row, column = np.zeros(2, dtype=int), np.zeros(2, dtype=int)
    args = ([part], np.ones(1), columns, row, column)
    coupled = draw_coupled(*args, seed=0, samples=20000).samples
    free = draw_predictive(*args, seed=0, samples=20000).samples
    assert coupled.mean(axis=0) == pytest.approx(free.mean(axis=0), abs=0.004)
    assert coupled.std(axis=0) == pytest.approx(free.std(axis=0), rel=0.04)
    assert (np.diff(coupled, axis=1) >= -1e-12).all()
    assert (np.diff(free, axis=1) < 0).mean() > 0.05


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ({"nothing": 0.5}, {}, "target 'nothing' is no benchmark"),
        ({}, {}, "no target was given"),
        ({"ja0": 1.5}, {}, "target ja0=1.5 is no score of 'ja0'; give a number from 0 to 1"),
        ({"ja0": float("nan")}, {}, "is no score"),
        ({"ja0": 0.6}, {"base": "nobody"}, "base 'nobody' is no model of table"),
        ({"ja0": 0.6}, {"params_b": 8.0}, "one of the two"),
        ({"ja0": 0.6}, {"base": None}, "one of the two"),
        ({"ja0": 0.6}, {"base": None, "params_b": -1.0, "tokens": {"en": 1.0}}, "--params -1"),
        ({"ja0": 0.6}, {"base": None, "params_b": 8.0}, "needs its tokens of 'en' too"),
        ({"ja0": 0.6}, {"probability": 1.0}, "probability 1 is none"),
        ({"ja0": 0.6}, {"probability": 0.0}, "probability 0 is none"),
        ({"ja0": 0.6}, {"most": 0.0}, "--most 0 is no budget"),
        ({"ja0": 0.6}, {"against": "zh"}, "--against 'zh' is no other language"),
        ({"ja0": 0.6}, {"against": "ja"}, "--against 'ja' is no other language"),
        ({"ja0": 0.6}, {"tokens": {"xx": 1.0}}, "'xx' is no language"),
        ({"ja0": 0.6}, {"tokens": {"en": -1.0}}, "--tokens en=-1 is no count"),
    ],
)
def test_mistakes_are_told_before_anything_is_fitted(targets, options, message, table, monkeypatch):
    monkeypatch.setattr(plan_module, "fit_mixture", None)
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        make_plan(table, targets, **options)
    with pytest.raises(InputError, match="'fr' is no language with a tokens_b column"):
        fl.plan(table, {"ja0": 0.6}, language="fr", base="base")


def test_lower_may_be_better(table):
    frame = table.benchmarks.copy()
    frame.loc["ja0", "higher_is_better"] = False
    data = table.data.copy(deep=True)
    data["score"].loc[{"benchmark": "ja0"}] = 1 - data["score"].loc[{"benchmark": "ja0"}]
    turned = table.__class__(**{**table.__dict__, "data": data, "benchmarks": frame})
    FITTED.clear()
    found = make_plan(turned, {"ja0": 1 - GOAL})
    FITTED.clear()
    row = found.targets.iloc[0]
    assert row["tokens_low"] < needed_tokens() < row["tokens_high"]
    curve = found.curve
    assert curve["median"].iloc[-1] < curve["median"].iloc[0]
    assert (curve["low"] <= curve["high"]).all()
    assert found.strategies.set_index("benchmark").loc["ja0", "probability"] > 0.9


def test_amounts_have_three_digits():
    assert [amount(v) for v in (0, 0.0421, 1.0, 13.49, 2426.07, 10500.0, 999.6)] == [
        "0", "0.0421", "1", "13.5", "2,430", "10,500", "1,000",
    ]  # fmt: skip


def call(*arguments: object, code: int = 0):
    out = CliRunner().invoke(main, ["plan", *map(str, arguments)])
    assert out.exit_code == code, out.output + repr(out.exception)
    return out


def test_the_verb_writes_a_folder_and_prints(table, tmp_path):
    table.write(tmp_path / "t")
    scores, out = tmp_path / "t" / "scores.parquet", tmp_path / "p"
    asked = (
        scores,
        "--target",
        f"ja0={GOAL}",
        "--target",
        "en0=0.9",
        "--base",
        "base",
        "--language",
        "ja",
        "--quiet",
    )
    text = call(*asked, "--out", out).stdout
    assert "out of reach" in text
    assert "goes with" not in text.split("!")[0]
    assert sorted(p.name for p in out.iterdir()) == [
        "curve.csv", "curve.png", "curve.svg", "plan.json", "strategies.csv", "strategies.png", "strategies.svg",
    ]  # fmt: skip
    told = json.loads((out / "plan.json").read_text())
    assert [row["benchmark"] for row in told["targets"]] == ["ja0", "en0", ALL]
    assert json.loads(call(*asked, "--json").stdout)["targets"] == told["targets"]
    again = call(*asked, "--out", out, code=1)
    assert "give --out another folder, or --force" in again.stderr
    call(*asked, "--out", out, "--force")
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("x")
    assert "is no folder of a plan" in call(*asked, "--out", other, "--force", code=1).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "p", "t"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "ja0", "--base", "base"], "--target"),
        (["--target", "ja0=x", "--base", "base"], "'x' is no number"),
        (["--target", "ja0=0.6", "--target", "ja0=0.7", "--base", "base"], "twice"),
        (["--target", "ja0=0.6"], "one of the two"),
        (["--target", "ja0=0.6", "--params", "8"], "--params 8 is no size of a model"),
        (["--target", "ja0=0.6", "--base", "base", "--level", "2"], "level 2"),
    ],
)
def test_mistakes_of_the_verb_are_one_line(arguments, message, table, tmp_path):
    table.write(tmp_path / "t")
    out = call(tmp_path / "t" / "scores.parquet", "--language", "ja", "--quiet", *arguments, code=1)
    assert message in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1
    assert out.stdout == ""


def test_a_run_folder_stands_for_its_table(table, tmp_path):
    table.write(tmp_path / "run" / "table")
    asked = ("--target", f"ja0={GOAL}", "--base", "base", "--language", "ja", "--quiet")
    assert "is not a run folder" in call(tmp_path / "run", *asked, code=1).stderr
    (tmp_path / "run" / "run.json").write_text("{}")
    assert "ja0 0.6" in call(tmp_path / "run", *asked).stdout


def test_figures_say_what_they_show(table):
    made = make_plan(table, {"ja0": GOAL, "en0": 0.9})
    figure = plan_curves(made)
    assert [axes.get_xlabel() for axes in figure.axes[2:]] == ["further Japanese tokens, billions"] * 2
    assert [axes.get_title("left") for axes in figure.axes[:2]] == ["ja0, target 0.6", "en0, target 0.9"]
    names = {text.get_text() for text in figure.axes[0].texts}
    assert {"child-0", "child-1"} <= names
    figure = plan_strategies(made)
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == made.strategies["benchmark"].tolist()
    with pytest.raises(InputError, match="compares no two languages"):
        plan_strategies(replace(made, strategies=made.strategies.iloc[:0]))


def test_a_seed_gives_the_same_plan_again(table):
    first, second = (make_plan(table, {"ja0": GOAL}) for _ in range(2))
    assert (first.tokens == second.tokens).all()
    assert first.to_dict()["notes"] == list(second.notes)
