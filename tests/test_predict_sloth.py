"""`benchmarks/predict_sloth.py`: the peer's model finds its own truth, and what is chosen is chosen rightly."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch):
    """A module of `benchmarks/` by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module


def family_tables(rng):
    """Eight families of four sizes with two skills; the larger three of the last family are hidden."""
    family = np.repeat(np.arange(8), 4)
    size, tokens = np.tile([-1.5, -0.5, 0.5, 1.5], 8), np.repeat(rng.standard_normal(8), 4)
    x = np.column_stack([size, tokens, size * tokens])
    skills = rng.standard_normal((8, 2))[family] + x @ (0.4 * rng.standard_normal((3, 2)) + [[0.7, 0.2]] * 3)
    chance = np.array([0.25, 0.0, 0.5, 0.25, 0.0, 0.1])
    y = chance + (1 - chance) * expit(skills @ rng.standard_normal((2, 6)))
    hidden = (family == 7) & (size > -1)
    return y, x, family, hidden, chance


def test_sloths_model_predicts_the_larger_models_of_a_table_of_its_own(script):
    y, x, family, hidden, chance = family_tables(np.random.default_rng(3))
    said = script("sloth_peers").sloth(y, x, family, ~hidden, chance, skills=2)
    assert np.abs(said - y)[hidden].mean() < 0.02
    carried = np.abs(y[family == 7][:1] - y[hidden]).mean()  # the smallest model's scores for all
    assert np.abs(said - y)[hidden].mean() < 0.2 * carried


def test_pca_on_flops_is_exact_where_scores_are_lines_in_log_flops(script):
    rng = np.random.default_rng(1)
    family, flops = np.repeat(np.arange(4), 3), np.tile([0.0, 1.0, 2.0], 4)
    skill = 0.1 * rng.standard_normal(4)[family] + 0.1 * flops
    y = 0.4 + np.outer(skill, [1.0, 0.5, -0.5])
    hidden = (family == 3) & (flops > 0)
    said = script("sloth_peers").pca_on_flops(y, flops, family, ~hidden, 1)
    assert said == pytest.approx(y, abs=1e-10)


def test_stacking_finds_the_mixture_that_scores_come_from(script):
    rng = np.random.default_rng(0)
    y = np.where(rng.random(4000) < 0.3, rng.normal(3, 1, 4000), rng.normal(0, 1, 4000))
    log_score = np.stack([-0.5 * (y - m) ** 2 for m in (0.0, 3.0, 20.0)])
    assert script("predict_sloth").stack(log_score) == pytest.approx([0.7, 0.3, 0.0], abs=0.03)


def test_widening_gives_intervals_the_level_they_lack(script):
    y = np.random.default_rng(0).normal(0, 2, 20_000)
    narrow = np.tile([[-1.645], [0.0], [1.645]], len(y))  # of a standard normal
    assert script("predict_sloth").widening(y, narrow) == pytest.approx(2.0, abs=0.05)
