"""What the scale and gradient benchmarks count and judge, without running them."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from factorlab.inference.marginal import Cells

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scale():
    return runpy.run_path(str(ROOT / "benchmarks" / "fit_scale.py"))


@pytest.fixture(scope="module")
def gradient():
    return runpy.run_path(str(ROOT / "benchmarks" / "gradient.py"))


def row(models: int, seconds: float, **more) -> dict:
    return {
        "models": models, "cells": 36 * models, "process_seconds": seconds + 5, "seconds_sampling": seconds,
        "stopped": "converged", "khat": None, "peak_gib": 1.0, **more,
    }  # fmt: skip


def test_slope_and_size_are_judged(scale):
    goals = {g["name"]: g for g in scale["_goals"]([row(250, 10.0), row(1000, 40.0), row(5000, 200.0)])}
    assert goals["slope of log time on log cells, exact sampling, sampling"]["value"] == pytest.approx(1.0)
    assert all(goal["holds"] for goal in goals.values())
    slow = scale["_goals"]([row(250, 10.0), row(5000, 700.0, stopped="draws", peak_gib=5.0)])
    assert not any(goal["holds"] for goal in slow if goal["name"].startswith("5000"))
    assert not slow[0]["holds"]
    mixed = [row(250, 10.0), row(1000, 60.0), row(5000, 20.0, stopped="approximated", khat=0.5)]
    assert scale["_goals"](mixed)[0]["value"] == pytest.approx(np.log(6) / np.log(4))


def test_an_approximation_counts_as_converged_only_with_its_khat(scale):
    for khat, holds in ((0.5, True), (0.9, False)):
        goals = scale["_goals"]([row(5000, 60.0, stopped="approximated", khat=khat)])
        assert goals[0]["holds"] is holds


def test_error_of_an_approximation_is_in_exact_standard_deviations(scale):
    exact = {f"{name}_{kind}": value for name in ("common", "noise_sd", "slope") for kind, value in (
        ("sd", [2.0, 2.0]), ("quantiles", [[-4.0, -4.0], [0.0, 0.0], [4.0, 4.0]]))}  # fmt: skip
    fast = {**exact, "slope_quantiles": [[-4.0, -4.0], [1.0, 1.0], [4.0, 6.0]], "slope_sd": [1.0, 1.0]}
    found = {r["quantity"]: r for r in scale["error_of_approximation"](exact, fast)}
    assert found["common"]["median_off_max"] == 0
    assert found["slope"]["median_off"] == pytest.approx(0.5)
    assert found["slope"]["end_off_max"] == pytest.approx(1.0)
    assert found["slope"]["sd_ratio"] == pytest.approx(0.5)


def test_multiply_adds_grow_with_observed_cells_and_the_square_of_factors(gradient):
    count = gradient["multiply_adds"]

    def cells(models: int, share: float) -> Cells:
        observed = np.zeros((models, 10))
        observed[:, : int(10 * share)] = 1.0
        return Cells(observed, observed, observed, np.zeros((10, 0)))

    full, half = count(cells(1000, 1.0), 4), count(cells(1000, 0.5), 4)
    per_model = 4**3 / 2 + 2 * 16
    assert full - 1000 * per_model == pytest.approx(2 * (half - 1000 * per_model))
    assert full == pytest.approx(1000 * (10 * (16 + 5 + 30) + per_model))
    assert count(cells(2000, 1.0), 4) == pytest.approx(2 * full)
    assert 3 < count(cells(1000, 1.0), 8) / full < 4


def test_multiply_adds_of_the_tree_are_those_of_its_models_families_and_steps(gradient):
    count = gradient["tree_multiply_adds"]
    none = np.zeros(0, dtype=int)
    family = count(none, np.array([-1]), 4)
    step = count(none, np.array([-1, 0]), 4) - 2 * family
    assert family == pytest.approx(4 * 64 / 6 + 16 + 30 + 12)
    assert step == pytest.approx(4 * 40 + 20 + 16 + 12)
    found = count(np.array([0, 1, 1, -1]), np.array([-1, 0, 0]), 4)
    assert found == pytest.approx(3 * (10 + 4 + 16 + 80) + 3 * family + 2 * step)
    assert (
        5
        < count(np.zeros(9, dtype=int), np.array([-1]), 8) / count(np.zeros(9, dtype=int), np.array([-1]), 4)
        < 8
    )
