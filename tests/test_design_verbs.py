"""The verbs `next` and `power`: what they print and write, and one line for every mistake."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from command_line import call, mistake
from small_runs import bare_run, small_run

from factorlab.runs import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(small_run(), tmp_path_factory.mktemp("runs") / "small.fit", page=False)


@pytest.fixture(scope="module")
def pca_only(tmp_path_factory) -> Path:
    return write_run(bare_run(), tmp_path_factory.mktemp("runs") / "bare.fit", page=False)


def test_next_prints_ranks_and_a_design(run):
    text = call("next", run, "--ability", "pc2", "--steps", 2).stdout
    assert "PC2 of a new model: standard deviation 1.00" in text
    assert "nats per 1000 instances" in text
    assert "One after the other" in text
    for name in ("bench0", "bench6", "enough"):
        assert name in text


def test_next_of_models_as_json_csv_and_figure(run, tmp_path):
    table = tmp_path / "next.csv"
    out = call(
        "next",
        run,
        "--ability",
        "PC1",
        "--model",
        "日本語モデル",
        "--model",
        "model-8",
        "--json",
        "--out",
        table,
    )
    first, second = json.loads(out.stdout)
    assert (first["model"], second["model"]) == ("日本語モデル", "model-8")
    assert {row["kind"] for row in first["candidates"]} == {"more instances"}
    frame = pd.read_csv(table)
    assert list(frame["model"].unique()) == ["日本語モデル", "model-8"]
    assert len(frame) == 14
    call("next", run, "--ability", "PC1", "--model", "日本語モデル", "--figure", tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 10_000
    assert (tmp_path / "drawn.svg").is_file()


def test_costs_by_file_and_by_option(run, tmp_path):
    costs = tmp_path / "costs.csv"
    costs.write_text("benchmark,cost,fixed_cost\nbench0,2,10\nbench1,3,\n")
    out = call(
        "next", run, "--ability", "PC1", "--cost", costs, "--cost", "bench2=5", "--cost", "0.5",
        "--fixed-cost", 1, "--instances", "bench3=20", "--instances", "best", "--json",
    )  # fmt: skip
    rows = {row["benchmark"]: row for row in json.loads(out.stdout)[0]["candidates"]}
    assert rows["bench0"]["cost"] == 10 + 2 * rows["bench0"]["n"]
    assert rows["bench1"]["cost"] == 1 + 3 * rows["bench1"]["n"]
    assert rows["bench2"]["cost"] == 1 + 5 * rows["bench2"]["n"]
    assert rows["bench3"]["n"] == 20
    assert rows["bench3"]["cost"] == 1 + 0.5 * 20
    assert rows["bench0"]["n"] < 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ability", "PC9"], "'PC9' is no ability of the run; it has PC1, PC2"),
        (["--ability", "PC1", "--model", "gpt"], "'gpt' is no model of the run"),
        (["--ability", "PC1", "--instances", "few"], "give a number, or all, enough, best"),
        (["--ability", "PC1", "--instances", "-3"], "is -3; give 1 or more"),
        (["--ability", "PC1", "--cost", "x=y"], "is not of the form BENCHMARK=COST, such as"),
        (["--ability", "PC1", "--cost", "no.csv"], "no such file: 'no.csv'"),
        (["--ability", "PC1", "--cost", "nan"], "cost of '\\*' is nan; give 0 or more"),
        (["--ability", "PC1", "--fixed-cost", "-1"], "fixed cost of '\\*' is -1.0; give 0 or more"),
        (["--ability", "PC1", "--level", "94"], "level 94.0 is not a probability"),
        (["--ability", "PC1", "--out", "a.txt"], "ends in '.txt'; give a name ending in .csv"),
        (["--ability", "PC1", "--out", "nowhere/a.csv"], "no such folder: 'nowhere'; make it first"),
        (
            ["--ability", "PC1", "--figure", "f", "--model", "a", "--model", "b"],
            "--figure shows one model, 2 are",
        ),
    ],
)
def test_mistakes_of_next(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, mistake("next", run, *arguments))
    assert list(tmp_path.iterdir()) == []


def test_next_needs_a_posterior(pca_only, tmp_path):
    assert "has no posterior; fit with --method bayes or all" in mistake("next", pca_only, "--ability", "PC1")
    assert "no such run folder" in mistake("next", tmp_path / "none", "--ability", "PC1")


QUICK = [
    "power",
    "--quiet",
    "--workers",
    1,
    "--simulations",
    2,
    "--models",
    20,
    "--factors",
    2,
    "--benchmarks",
    6,
]


def test_power_prints_chance_and_size(tmp_path):
    out = call(*QUICK, "--out", tmp_path / "study")
    assert "Chance to tell rho(PC2, ja) from rho(PC2, en)" in out.stdout
    assert "without a difference" in out.stdout
    assert "Rule: two-step PCA, abilities taken as known; 94 % t interval" in " ".join(out.stdout.split())
    assert sorted(p.name for p in (tmp_path / "study").iterdir()) == [
        "power.csv", "power.json", "power.png", "power.svg"
    ]  # fmt: skip
    frame = pd.read_csv(tmp_path / "study" / "power.csv")
    assert list(frame["truth"]) == ["difference", "no difference"]
    assert "exists; give --out another folder" in mistake(*QUICK, "--out", tmp_path / "study")
    call(*QUICK, "--force", "--out", tmp_path / "study")


def test_power_like_a_run_for_factors(run, tmp_path):
    quick = [*QUICK[:-2], "--question", "factors"]
    out = call(*quick, "--like", run, "--json", "--out", tmp_path / "f.csv")
    study = json.loads(out.stdout)
    assert study["table"][0]["benchmarks"] == 7
    assert study["rule"].startswith("parallel analysis")
    assert pd.read_csv(tmp_path / "f.csv")["truth"][0] == "2 factors"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "ten"], "--models 'ten' is no list of numbers"),
        (["--models", "2"], "models is 2; 2 factors need 5 models or more"),
        (["--token-log-sd", "-1"], "token_log_sd is -1.0; give 0 or more"),
        (["--rho", "PC2=0.5"], "is not of the form PCk:LANG=R"),
        (["--rho", "PC2:ja=0.5"], "rho of PC2 and 'en' is not given"),
        (
            ["--rho", "PC2:ja=0.9", "--rho", "PC2:en=-0.9"],
            "cannot be had together: the log budgets correlate",
        ),
        (["--difference", "ja-en"], "is not of the form PCk:A-B, such as PC2:ja-en"),
        (["--difference", "PC2:ja-fr"], "names language 'fr'; those with a budget are en, ja"),
        (["--like", "none.csv"], "no such file: 'none.csv'"),
        (["--like", "."], "is a folder but no run; give a score table, or a run"),
        (["--out", "nowhere/x"], "no such folder: 'nowhere'"),
        (["--simulations", "0"], "simulations is 0; give 1 or more"),
        (["--workers", "0"], "workers is 0; give 1 or more"),
    ],
)
def test_mistakes_of_power(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in mistake(*QUICK, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_power_leaves_one_line_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "factorlab.cli", *map(str, QUICK), "--simulations", "5000", "--out", "s"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip().splitlines() == ["Interrupted: nothing was written."]
    assert out == ""
    assert list(tmp_path.iterdir()) == []
