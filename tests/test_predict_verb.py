"""``factorlab predict``: what it prints and writes, and one line for every mistake."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from command_line import call, mistake

QUICK = ("--draws", "40", "--chains", "1", "--max-depth", "5", "--factors", "1", "--workers", "1", "--quiet")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """12 models whose scores follow their size, on 5 benchmarks; one cell is missing."""
    folder = tmp_path_factory.mktemp("predict")
    rng = np.random.default_rng(3)
    size = np.geomspace(1, 70, 12)
    ability = np.log10(size) - 1
    names = [f"model {i}" for i in range(12)]
    rows = [
        {"model": m, "benchmark": f"task {'abcde'[j]}", "score": float(s)}
        for i, m in enumerate(names)
        for j, s in enumerate(
            1 / (1 + np.exp(-1.5 * ability[i] - 0.2 * np.arange(5))) + 0.01 * rng.standard_normal(5)
        )
    ]
    frame = pd.DataFrame(rows)
    frame = frame[~((frame["model"] == "model 5") & (frame["benchmark"] == "task b"))]
    frame.to_parquet(folder / "scores.parquet", index=False)
    pd.DataFrame({"model": names, "params_b": size, "family": [f"family {i % 4}" for i in range(12)]}).to_csv(
        folder / "models.csv", index=False
    )
    pd.DataFrame(
        {"benchmark": [f"task {c}" for c in "abcde"], "min": 0.0, "max": 1.0, "n_instances": 1000}
    ).to_csv(folder / "benchmarks.csv", index=False)
    return folder / "scores.parquet"


def test_a_missing_cell_is_predicted_within_what_its_neighbours_allow(table, tmp_path):
    out = call("predict", table, *QUICK, "--splits", "2", "--json", "--out", tmp_path / "cells.csv")
    told = json.loads(out.stdout)
    assert [(c["model"], c["benchmark"], c["basis"]) for c in told["cells"]] == [
        ("model 5", "task b", "cell")
    ]
    cell = told["cells"][0]
    truth = 1 / (1 + np.exp(-1.5 * (np.log10(np.geomspace(1, 70, 12)[5]) - 1) - 0.2))
    assert abs(cell["median"] - truth) < 0.05
    assert cell["low"] <= cell["median"] <= cell["high"]
    assert cell["raw_low"] <= cell["median"] <= cell["raw_high"]
    assert set(told["calibration"]["factor"]) == {"cell", "model"}
    written = pd.read_csv(tmp_path / "cells.csv")
    assert written["median"].to_list() == pytest.approx([cell["median"]])


def test_a_new_model_is_placed_by_its_size_and_marked_where_it_is_the_largest(table, tmp_path):
    out = call(
        "predict", table, *QUICK, "--splits", "0", "--json", "--figure", tmp_path / "new",
        "--new", "small", "--set", "small:params_b=2", "--set", "small:family=family 0",
        "--new", "huge", "--set", "huge:params_b=500", "--set", "huge:family=family 9",
        "--beats", "model 11",
    )  # fmt: skip
    cells = pd.DataFrame(json.loads(out.stdout)["cells"])
    assert len(cells) == 10
    small, huge = (cells[cells["model"] == name] for name in ("small", "huge"))
    assert (huge["median"].to_numpy() > small["median"].to_numpy()).all()
    assert (small["extrapolates"] == "").all()
    assert (
        huge["extrapolates"].iloc[0] == "log10 N above every scored model's; no scored model of its lineage"
    )
    assert (small["beats model 11"] < 0.2).all()
    assert (huge["beats model 11"].to_numpy() > small["beats model 11"].to_numpy()).all()
    assert (tmp_path / "new.png").stat().st_size > 10_000
    assert (tmp_path / "new.svg").is_file()


def test_the_terminal_shows_intervals_and_says_that_they_are_raw(table):
    out = call("predict", table, *QUICK, "--splits", "0").stdout
    assert "task b" in out
    assert "[0." in out
    assert "Intervals are raw: nothing was held out to recalibrate them." in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "nobody"), "'nobody' is no model of table 'scores'"),
        (("--benchmark", "nothing"), "'nothing' is no benchmark of table 'scores'"),
        (("--model", "model 1"), "nothing to predict: every cell asked for"),
        (("--new", "model 1"), "model 'model 1' is in table 'scores' already"),
        (("--new", "a", "--set", "a:colour=2"), "'colour', which is no column of the models table"),
        (("--new", "a", "--set", "b:params_b=2"), "names 'b', which no --new does"),
        (("--new", "a", "--set", "a:params_b=-2"), "params_b"),
        (("--new", "a", "--set", "params_b"), "is not of the form NAME:COLUMN=VALUE"),
        (("--new", "a", "--score", "a:task a=7"), "score 7 of 'a' on 'task a' is outside its range 0 to 1"),
        (("--new", "a", "--score", "a:task z=0.5"), "'task z' is no benchmark of the table"),
        (("--new", "a", "--score", "a:task a=much"), "is not of the form NAME:BENCHMARK=SCORE"),
        (("--beats", "nobody"), "--beats 'nobody' is no model of the table"),
        (("--factors", "many"), "--factors 'many' is no list of numbers"),
        (("--factors", "9"), "9 factors asked for a prediction; give 1 to 6"),
        (("--level", "90"), "level 90.0 is no probability"),
        (("--splits", "1"), "1 splits asked"),
        (("--draws", "3"), "--draws 3 is too few"),
        (("--covariate", "colour"), "covariate 'colour' is no column of the models table"),
        (("--out", "cells.txt"), "has no ending .csv or .parquet"),
    ],
)
def test_a_mistake_is_one_line(table, arguments, message):
    quick = [a for a in QUICK if not (a in ("--factors", "1") and "--factors" in arguments)]
    if "--factors" in arguments:
        quick = ["--draws", "40", "--chains", "1", "--workers", "1", "--quiet"]
    if "--draws" in arguments:
        quick = ["--workers", "1", "--quiet"]
    assert message in mistake("predict", table, *quick, *arguments)


def test_a_run_folder_will_do(table, tmp_path):
    run = tmp_path / "run.fit"
    call("fit", table, "--method", "pca", "--factors", "1", "--no-page", "--quiet", "--out", run)
    out = call("predict", run, *QUICK, "--splits", "0", "--json")
    assert len(json.loads(out.stdout)["cells"]) == 1
