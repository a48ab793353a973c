"""The coverage study, on a handful of data sets."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_a_handful_of_data_sets_and_going_on_after_a_stop(tmp_path):
    script = runpy.run_path(str(ROOT / "benchmarks" / "coverage_rho.py"))
    out = tmp_path / "coverage.json"

    def run(datasets: int) -> dict:
        arguments = [
            "--out",
            out,
            "--datasets",
            datasets,
            "--first-seed",
            0,
            "--errors",
            "0.7",
            "--draws",
            150,
            "--tune",
            250,
        ]
        done = CliRunner().invoke(
            script["main"], [str(a) for a in [*arguments, "--data", ROOT / "data" / "scores.parquet"]]
        )
        assert done.exit_code == 0, done.output
        return json.loads(out.read_text(encoding="utf-8"))

    first = run(1)["rows"]
    study = run(3)
    assert study["rows"][0] == first[0]  # kept, not run again
    assert [row["seed"] for row in study["rows"]] == [0, 1, 2]
    inside = [row["joint_population"][0] <= 0.85 <= row["joint_population"][2] for row in study["rows"]]
    assert sum(inside) >= 1  # nominal 0.90: fewer has probability 0.001
    medians = np.array([row["joint_population"][1] for row in study["rows"]])
    assert np.abs(medians - 0.85).max() < 0.25
    assert {"name", "value", "goal", "holds"} == set(study["goals"][0])


def test_coverage_is_counted_and_judged_by_the_binomial_band():
    summarise = runpy.run_path(str(ROOT / "benchmarks" / "coverage_rho.py"))["summarise"]
    row = {"token_log_sd": 0.0, "true_population": 0.85, "true_at_hand": 0.8}
    hit, miss = [0.7, 0.8, 0.9], [0.86, 0.88, 0.9]

    def study(n_hit: int) -> tuple[list, list]:
        rows = [
            {
                **row,
                **dict.fromkeys(
                    ("joint_population", "joint_at_hand", "two_step"), hit if i < n_hit else miss
                ),
            }
            for i in range(200)
        ]
        return summarise(rows, [0.0])

    table, goals = study(180)
    assert table[0]["joint_population_coverage"] == pytest.approx(0.9)
    assert table[0]["two_step_width"] == pytest.approx(0.9 * 0.2 + 0.1 * 0.04)
    assert goals[0]["holds"]
    assert not study(160)[1][0]["holds"]
    assert not study(200)[1][0]["holds"]
