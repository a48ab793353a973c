"""Scores on the model's scale and back; of the scores only those that may be seen are looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from factorlab.inference.predict.columns import scale_columns
from factorlab.inference.predict.kernel import BETA_BINOMIAL, BINOMIAL, LINEAR, LINK
from factorlab.inference.predict.layout import read_inputs
from factorlab.score_table import ScoreTable
from factorlab.scores import table_from_frames

MODELS = [f"m{i}" for i in range(8)]


def table_of(columns: dict[str, np.ndarray], benchmarks: list[dict] | None = None, **more) -> ScoreTable:
    frame = pd.DataFrame({"model": MODELS, **columns})
    return table_from_frames(
        frame, benchmarks=None if benchmarks is None else pd.DataFrame(benchmarks), **more
    )


@pytest.fixture
def mixed() -> ScoreTable:
    """A fraction, a declared range of 1 to 10, a rate of errors, and ratings without a range."""
    rng = np.random.default_rng(1)
    return table_of(
        {
            "acc": rng.uniform(0.2, 0.9, 8),
            "judge": rng.uniform(2, 9, 8),
            "wer": rng.uniform(0.1, 0.6, 8),
            "elo": rng.normal(1200, 80, 8),
            "loss": rng.normal(3000, 50, 8),
        },
        [
            {"benchmark": "acc", "min": 0, "max": 1, "chance": 0.25, "n_instances": 500},
            {"benchmark": "judge", "min": 1, "max": 10, "chance": None},
            {"benchmark": "wer", "min": 0, "max": 1, "higher_is_better": False},
            {"benchmark": "elo"},
            {"benchmark": "loss", "higher_is_better": False},
        ],
    )


def test_there_and_back(mixed):
    columns = scale_columns(mixed)
    every = np.arange(5)
    y = columns.from_scores(mixed.scores, every)
    np.testing.assert_allclose(y, columns.y)
    np.testing.assert_allclose(columns.to_scores(y, every), mixed.scores)
    assert columns.kind.tolist() == [LINK, LINK, LINK, LINEAR, LINEAR]
    # A better model is higher on the model's scale, whichever way the score goes.
    assert np.corrcoef(y[:, 2], mixed.scores[:, 2])[0, 1] == pytest.approx(-1)
    assert np.corrcoef(y[:, 4], mixed.scores[:, 4])[0, 1] == pytest.approx(-1)


def test_declared_ranges_go_from_0_to_1_and_ratings_are_standardised(mixed):
    columns = scale_columns(mixed)
    np.testing.assert_allclose(columns.y[:, 1], (mixed.scores[:, 1] - 1) / 9)
    np.testing.assert_allclose(columns.y[:, 2], 1 - mixed.scores[:, 2])
    np.testing.assert_allclose(
        columns.y[:, 3], (mixed.scores[:, 3] - np.median(mixed.scores[:, 3])) / mixed.scores[:, 3].std()
    )
    np.testing.assert_allclose(columns.se[:, 0], mixed.se[:, 0])
    np.testing.assert_allclose(columns.chance[:1], 0.25)
    assert np.isnan(columns.chance[3:]).all()
    assert any("elo, loss" in note for note in columns.notes)


def test_undeclared_percent_and_fractions_are_told_apart():
    rng = np.random.default_rng(2)
    percent = scale_columns(table_of({name: rng.uniform(5, 95, 8) for name in "abc"}))
    assert percent.scale.tolist() == [100.0] * 3
    assert (percent.kind == LINK).all()
    fraction = scale_columns(table_of({name: rng.uniform(0.05, 0.95, 8) for name in "abc"}))
    assert fraction.scale.tolist() == [1.0] * 3
    # One low column among percent is percent, too; one of 180 is neither.
    odd = scale_columns(table_of({**{n: rng.uniform(5, 95, 8) for n in "abc"}, "low": rng.uniform(0, 1, 8)}))
    assert odd.scale.tolist() == [100.0] * 4
    large = scale_columns(
        table_of({**{n: rng.uniform(5, 95, 8) for n in "abc"}, "iq": rng.uniform(80, 180, 8)})
    )
    assert large.kind.tolist() == [LINK] * 3 + [LINEAR]


def test_counts_where_every_cell_has_its_number_of_instances():
    scores = np.arange(8) / 8
    rows = [
        {"benchmark": "with n", "min": 0, "max": 1, "n_instances": 8},
        {"benchmark": "without", "min": 0, "max": 1},
        {"benchmark": "turned", "min": 0, "max": 1, "n_instances": 8, "higher_is_better": False},
    ]
    table = table_of({"with n": scores, "without": scores, "turned": scores}, rows)
    for likelihood, kind in (("beta-binomial", BETA_BINOMIAL), ("binomial", BINOMIAL)):
        columns = scale_columns(table, likelihood=likelihood)
        assert columns.kind.tolist() == [kind, LINK, LINK]
        assert any("2 of 3 benchmarks" in note for note in columns.notes)


def test_limits_of_floor_and_ceiling_are_those_of_the_seen_scores(mixed):
    seen = np.ones(mixed.scores.shape, dtype=bool)
    best = mixed.scores[:, 0].argmax()
    seen[best, 0] = False
    columns = scale_columns(mixed, seen)
    assert columns.highest[0] == np.sort(mixed.scores[:, 0])[-2]
    assert np.isnan(columns.y[best, 0])


def test_a_column_without_a_seen_score_is_no_error(mixed):
    seen = np.ones(mixed.scores.shape, dtype=bool)
    seen[:, [0, 3]] = False
    columns = scale_columns(mixed, seen)
    assert np.isfinite(columns.location).all()
    assert (columns.scale > 0).all()


@pytest.mark.parametrize("value", [np.nan, 1e9, -5.0])
@pytest.mark.parametrize("likelihood", ["student", "beta-binomial"])
def test_hidden_scores_change_nothing(mixed, value, likelihood):
    """Neither scale nor limits nor errors nor predictors nor kin nor groups."""
    rng = np.random.default_rng(3)
    seen = rng.random(mixed.scores.shape) > 0.3
    data = mixed.data.copy(deep=True)
    for name in ("score", "se"):
        data[name].values[~seen] = value
    first = read_inputs(mixed, seen, likelihood=likelihood)
    second = read_inputs(replace(mixed, data=data), seen, likelihood=likelihood)
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]:
            np.testing.assert_array_equal(x, y)
