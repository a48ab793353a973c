"""The prediction benchmarks: nothing of a test cell is seen, scores are counted right, peers' methods work."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from factorlab.inference.predict.member_fit import Effort
from factorlab.inference.predict.mixture import PredictionSettings
from factorlab.inference.predict.specification import Member
from factorlab.scores import table_from_frames

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import prediction_protocols as protocols


def table(scores: np.ndarray):
    names = [f"m{i}" for i in range(len(scores))]
    wide = pd.DataFrame(scores, columns=[f"b{j}" for j in range(scores.shape[1])])
    return table_from_frames(wide.assign(model=names), name="made")


@pytest.fixture(scope="module")
def rank_one() -> np.ndarray:
    rng = np.random.default_rng(5)
    ability, difficulty, slope = np.linspace(-2, 2, 15), np.linspace(-1, 1, 6), np.linspace(0.7, 1.3, 6)
    eta = slope * (ability[:, None] - difficulty)
    return 1 / (1 + np.exp(-eta)) + 0.005 * rng.standard_normal((15, 6)).clip(-1, 1)


def test_the_true_value_of_a_test_cell_changes_nothing(rank_one):
    hidden = np.zeros(rank_one.shape, dtype=bool)
    hidden[[2, 7, 11], [1, 4, 0]] = True
    quick = PredictionSettings(members=(Member(1),), splits=0, effort=Effort(30, 60, 1, 5))
    honest, _ = protocols.predict_hidden(table(rank_one), hidden, quick, 1)
    other = np.where(hidden, 1 - rank_one, rank_one)
    scrambled, _ = protocols.predict_hidden(table(other), hidden, quick, 1)
    assert (honest.median == scrambled.median).all()
    assert (honest.low == scrambled.low).all()
    assert not (honest.y == scrambled.y).any()
    assert np.abs(honest.median - honest.y).max() < 0.05


def test_scores_of_predictions_are_those_counted_by_hand():
    y = np.array([10.0, 20.0, 30.0, 40.0])
    median = np.array([11.0, 20.0, 26.0, 48.0])
    found = protocols.measures(
        protocols.Truth(y, median, low=median - 4, high=median + 4, raw_low=median - 1, raw_high=median + 1)
    )
    assert found["median_absolute_error"] == 2.5
    assert found["mean_absolute_error"] == 3.25
    assert found["mse"] == pytest.approx((1 + 0 + 16 + 64) / 4)
    assert found["r2"] == pytest.approx(1 - 81 / 500)
    assert (found["within_3"], found["within_5"]) == (0.5, 0.75)
    assert (found["coverage"], found["raw_coverage"]) == (0.75, 0.5)
    assert (found["width"], found["raw_width"]) == (8, 2)


@pytest.mark.parametrize("method", ["als", "sigmoid"])
def test_the_peers_methods_complete_a_matrix_of_their_own_kind(rank_one, method):
    hidden = np.zeros(rank_one.shape, dtype=bool)
    hidden[np.arange(0, 15, 2), np.arange(8) % 6] = True
    seen = np.where(hidden, np.nan, rank_one)
    if method == "als":
        filled = protocols.logit_als(100 * seen, starts=2, ridge=0.01) / 100
    else:
        filled = protocols.one_sigmoid(seen, ridge=0.001)
    assert np.abs(filled - rank_one)[hidden].max() < 0.05
