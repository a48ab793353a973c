"""Simulation-based calibration of a member: the bands, and a few replications."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

SCRIPT = str(Path(__file__).resolve().parents[3] / "benchmarks" / "sbc.py")


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(SCRIPT)


def test_bands_hold_as_often_as_they_say(script):
    """Ranks that are uniform leave the 90 % band in a tenth of all samples."""
    rng = np.random.default_rng(5)
    p = np.array([script["p_value"](rng.integers(0, 51, 40), simulations=400, seed=9) for _ in range(150)])
    assert np.mean(p < 0.1) == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 150))


@pytest.mark.parametrize(
    "shape", [(0.5, 0.5), (2.0, 2.0), (1.5, 1.0)], ids=["too sure", "too wide", "shifted"]
)
def test_bands_are_left_by_ranks_that_are_not_uniform(script, shape):
    ranks = np.floor(51 * np.random.default_rng(0).beta(*shape, 300)).astype(int)
    assert script["p_value"](ranks) < 0.01


def test_truths_come_from_the_prior(script):
    """Moments of a few parameters over many draws are those of their priors."""
    rng = np.random.default_rng(0)
    arrays = script["lay_out"](script["make_inputs"](rng), script["MEMBER"]).arrays
    q = np.array([script["draw_truth"](arrays, rng) for _ in range(3000)])
    independent = np.isfinite(arrays.prior_sd)
    z = (q[:, independent] - arrays.prior_mean[independent]) / arrays.prior_sd[independent]
    assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(3000)
    first = arrays.offsets[script["BLOCKS"].index("general")]
    assert q[:, first].mean() == pytest.approx(-0.2, abs=0.06)  # its centre's mean


@pytest.mark.slow
def test_ranks_of_a_few_replications_are_uniform(tmp_path):
    out = tmp_path / "sbc.json"
    main = runpy.run_path(SCRIPT)["main"]
    done = CliRunner().invoke(
        main, ["--out", str(out), "--replications", "30", "--first-seed", "5000", "--workers", "1"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert len(found["rows"]) == 30
    assert np.median([row["rhat"] for row in found["rows"]]) < 1.05
    # Thirteen quantities, 30 ranks each: a p this small happens once in some 80 runs.
    assert min(row["p"] for row in found["table"]) > 0.001
    again = CliRunner().invoke(main, ["--out", str(out), "--replications", "1", "--first-seed", "5000"])
    assert again.exit_code == 0  # it is there already
