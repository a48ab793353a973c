"""Predictions of tables made by the model's own formulas: what is hidden is found again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up import make
from scipy.stats import binom

from factorlab.errors import InputError
from factorlab.inference.predict.calibration import CELL, MODEL
from factorlab.inference.predict.member_fit import Effort
from factorlab.inference.predict.mixture import PredictionSettings, fit_mixture
from factorlab.inference.predict.new_models import add_models
from factorlab.inference.predict.prediction import Prediction, predict, predict_cells
from factorlab.inference.predict.rivals import means
from factorlab.inference.predict.schemes import masked
from factorlab.inference.predict.specification import Member

SHORT = Effort(100, 150, 1, 6)

SETTINGS = PredictionSettings(members=(Member(2),), splits=2, effort=SHORT, whole_models=True, seed=1)


@pytest.fixture(scope="module")
def made():
    return make()


@pytest.fixture(scope="module")
def prediction(made) -> Prediction:
    return predict(made.table, SETTINGS, observed=made.observed, workers=1)


def truth(made, prediction: Prediction) -> np.ndarray:
    scores = made.table.to_dataframe().set_index(["model", "benchmark"])["score"].astype(float)
    return scores.loc[
        list(zip(prediction.cells["model"], prediction.cells["benchmark"], strict=True))
    ].to_numpy()


def test_intervals_cover_what_was_hidden(made, prediction):
    y = truth(made, prediction)
    cells = prediction.cells
    n = len(y)
    assert n == (~made.observed).sum()
    inside = ((y >= cells["low"]) & (y <= cells["high"])).sum()
    # Twice the variance of independent cells: those of one model or benchmark share their errors.
    spread = np.sqrt(2 * 0.9 * 0.1 / n)
    assert abs(inside / n - 0.9) < 3 * spread
    assert (cells["low"] <= cells["median"]).all()
    assert (cells["median"] <= cells["high"]).all()
    half = prediction.samples
    np.testing.assert_allclose(np.quantile(half, 0.5, axis=0), cells["median"], atol=1e-9)


def test_errors_are_below_those_of_plain_means(made, prediction):
    y = truth(made, prediction)
    row = [made.table.model_names.index(m) for m in prediction.cells["model"]]
    column = [made.table.benchmark_names.index(b) for b in prediction.cells["benchmark"]]
    plain = means(masked(made.table, ~made.observed)).mean[row, column]
    ours = np.median(np.abs(prediction.cells["median"] - y))
    assert ours < 0.85 * np.median(np.abs(plain - y))
    assert ours < 0.05  # noise has sd 0.04 at one half


def test_what_is_hidden_is_not_looked_at(made):
    """The same prediction whether hidden cells hold their scores, or nothing, or nonsense."""
    settings = replace(SETTINGS, effort=Effort(20, 30, 1, 4))
    first = predict(made.table, settings, observed=made.observed, workers=1)
    nothing = predict(masked(made.table, ~made.observed), settings, workers=1)
    data = made.table.data.copy(deep=True)
    data["score"].values[~made.observed] = 0.123
    nonsense = predict(replace(made.table, data=data), settings, observed=made.observed, workers=1)
    for other in (nothing, nonsense):
        np.testing.assert_array_equal(first.samples, other.samples)
        np.testing.assert_array_equal(first.cells["low"], other.cells["low"])
        assert other.mixture.calibration == first.mixture.calibration


def test_a_model_with_a_few_scores_is_known_better_than_one_without(made):
    scores = {
        ("new", "a-bench"): 0.8,
        ("new", "b-bench"): 0.75,
        ("new", "c-bench"): 0.8,
        ("new", "d-bench"): 0.8,
    }
    blank = add_models(made.table, [{"model": "new", "params_b": 20.0}])
    known = add_models(made.table, [{"model": "new", "params_b": 20.0}], scores)
    settings = replace(SETTINGS, splits=0)
    benchmarks = made.table.benchmark_names[4:]
    width, basis = [], []
    for table in (blank, known):
        cells = predict(table, settings, models=["new"], benchmarks=benchmarks, workers=1).cells
        width.append((cells["high"] - cells["low"]).median())
        basis.append(set(cells["basis"]))
    assert width[1] < 0.8 * width[0]
    assert basis == [{MODEL}, {CELL}]


def test_a_larger_new_model_is_better_and_beyond_the_largest_it_is_marked(made):
    table = add_models(
        made.table,
        [{"model": "small", "params_b": 3.0}, {"model": "huge", "params_b": 5000.0}, {"model": "blank"}],
    )
    found = predict(table, replace(SETTINGS, splits=0), models=["small", "huge", "blank"], workers=1)
    cells = found.cells.set_index("model")
    assert cells.loc["huge", "median"].mean() > cells.loc["small", "median"].mean() + 0.1
    assert set(cells.loc["huge", "extrapolates"]) == {"log10 N above every scored model's"}
    assert set(cells.loc["small", "extrapolates"]) == {""}
    assert set(cells.loc["blank", "extrapolates"]) == {""}
    # An unknown size is an average one, with all its uncertainty.
    spread = cells["high"] - cells["low"]
    assert spread.loc["blank"].median() > spread.loc["small"].median()
    assert any("raw" in note for note in found.notes)


def test_beats(made, prediction):
    """Against a known score: the share of samples above it; two models against each other: one less the other."""
    cells = prediction.cells
    rival = "m00"
    table = prediction.beats(rival)
    i = made.table.model_names.index(rival)
    for k in range(len(cells)):
        j = made.table.benchmark_names.index(cells["benchmark"][k])
        if made.observed[i, j]:
            assert table["rival_score"][k] == made.table.scores[i, j]
            assert table["probability"][k] == pytest.approx(
                np.mean(prediction.samples[:, k] > made.table.scores[i, j])
            )
        else:
            assert np.isnan(table["rival_score"][k])
    mixture, benchmark = prediction.mixture, "a-bench"
    hidden = np.flatnonzero(~made.observed[:, 0])[:2]
    names = [made.table.model_names[h] for h in hidden]
    first, second = (predict_cells(mixture, np.array([h]), np.array([0])) for h in hidden)
    one = first.beats(names[1])["probability"][0]
    other = second.beats(names[0])["probability"][0]
    assert first.cells["benchmark"][0] == benchmark
    assert one + other == pytest.approx(1, abs=0.04)
    itself = first.beats(names[0])["probability"][0]
    assert itself == pytest.approx(0.5, abs=0.04)
    with pytest.raises(InputError, match="'nobody' is no model of the table"):
        prediction.beats("nobody")


def test_calibration_and_members_are_told(prediction):
    found = prediction.to_dict()
    assert found["members"][0]["name"] == "K=2"
    assert found["members"][0]["weight"] == pytest.approx(1)
    assert found["calibration"]["n"]["cell"] > 50
    low, high = binom.interval(0.999, found["calibration"]["n"]["cell"], 0.9)
    assert low <= found["calibration"]["coverage"]["cell"] * found["calibration"]["n"]["cell"] <= high
    assert any("Held-out cells of models that have other scores" in note for note in prediction.notes)


def test_worse_members_weigh_less():
    """One factor where there are two, and no ceiling where there is one, against the truth."""
    made = make(models=40, benchmarks=12, hidden=0.1, seed=3)
    settings = PredictionSettings(members=(Member(1), Member(2)), splits=2, effort=SHORT)
    mixture = fit_mixture(made.table, settings, observed=made.observed, workers=1)
    assert mixture.weights.sum() == pytest.approx(1)
    assert mixture.weights[1] > mixture.weights[0]
    assert mixture.member_scores[1] > mixture.member_scores[0]


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: PredictionSettings(likelihood="poisson"), "likelihood 'poisson' is unknown"),
        (lambda: PredictionSettings(level=1.0), "level 1.0 is no probability"),
        (lambda: PredictionSettings(splits=1), "1 splits asked; give 2 or more, or 0"),
        (lambda: PredictionSettings(members=()), "no member was given"),
        (lambda: Member(7), "7 factors asked for a prediction; give 1 to 6"),
    ],
)
def test_bad_settings(make_it, message):
    with pytest.raises(InputError, match=message):
        make_it()


def test_bad_input(made):
    with pytest.raises(InputError, match="nothing to predict"):
        predict(made.table, SETTINGS)
    with pytest.raises(InputError, match="'nobody' is no model of table"):
        predict(made.table, SETTINGS, models=["nobody"], observed=made.observed)
    few = made.observed & (np.arange(30) < 3)[:, None]
    with pytest.raises(InputError, match="at least 4 models and 2 benchmarks"):
        predict(made.table, SETTINGS, observed=few)
    with pytest.raises(InputError, match=r"model 'm00' is in table .* already"):
        add_models(made.table, [{"model": "m00"}])
    with pytest.raises(InputError, match="new models must differ in name"):
        add_models(made.table, [{"model": "x"}, {"model": "x"}])
    with pytest.raises(InputError, match="has 'params', which is no column of the models table"):
        add_models(made.table, [{"model": "x", "params": 3}])
    with pytest.raises(InputError, match="'z' is no benchmark of the table"):
        add_models(made.table, [{"model": "x"}], {("x", "z"): 0.5})
    with pytest.raises(InputError, match="score 50 of 'x' on 'a-bench' is outside its range 0 to 1"):
        add_models(made.table, [{"model": "x"}], {("x", "a-bench"): 50.0})
    with pytest.raises(InputError, match="which is no new model"):
        add_models(made.table, [{"model": "x"}], {("m00", "a-bench"): 0.5})
