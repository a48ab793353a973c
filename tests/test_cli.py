"""The command line: what it prints, what it writes, and one line for every mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from command_line import call, mistake

ROOT = Path(__file__).resolve().parents[1]
SCORES = str(ROOT / "data" / "scores.parquet")


@pytest.fixture(scope="module")
def pca_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pca.fit"
    call("fit", SCORES, "--out", folder, "--method", "pca", "--resamples", 50, "--quiet")
    return folder


@pytest.mark.parametrize(
    "verb", [[], ["check"], ["fit"], ["compare"], ["plot"], ["report"], ["simulate"], ["refit"]]
)
def test_help_says_what_the_verb_is_for(verb):
    text = call(*verb, "--help").output
    assert "Usage:" in text
    for line in text.splitlines():
        assert len(line) <= 100


def test_help_names_every_verb_and_answers_quickly():
    began = time.perf_counter()
    out = subprocess.run(
        [sys.executable, "-m", "factorlab.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - began < 5  # it takes 0.1 s; a wide margin for a loaded machine
    for verb in ("check", "fit", "refit", "compare", "plot", "report", "simulate"):
        assert f"  {verb} " in out.stdout


def test_check_names_the_six_zero_cells():
    text = call("check", SCORES).output
    assert "35 models x 19 benchmarks" in text
    assert "zero (6)" in text
    for model in ("CyberAgentLM2-7B", "Sarashina2-7B", "Sarashina2-13B"):
        assert f"{model} on HumanEval: exactly 0" in text
        assert f"{model} on JHumanEval: exactly 0" in text


def test_check_json_and_strict():
    out = call("check", SCORES, "--json", "--strict", code=3)
    report = json.loads(out.stdout)
    assert sum(flag["kind"] == "zero" for flag in report["flags"]) == 6


def test_fit_writes_the_folder_and_prints_the_paper(pca_run):
    files = {path.name for path in pca_run.iterdir()}
    assert {"summary.json", "pca.nc", "report.html", "figures", "tables", "table", "run.json"} <= files
    assert "bayes.nc" not in files
    summary = json.loads((pca_run / "summary.json").read_text(encoding="utf-8"))
    assert [round(100 * v, 1) for v in summary["pca"]["explained_variance_ratio"][:4]] == [
        65.2,
        15.4,
        7.0,
        3.2,
    ]
    rho = summary["pca"]["rho"]
    assert rho["PC1"]["en"]["r"] == pytest.approx(0.916, abs=5e-4)
    assert rho["PC1"]["en"]["n"] == 27
    assert rho["PC2"]["ja"]["r"] == pytest.approx(0.779, abs=5e-4)
    assert rho["PC2"]["ja"]["n"] == 25
    assert summary["pca"]["loadings"]["PC2"]["NIILC"] > 0.5
    assert {"model": "Sarashina2-7B", "benchmark": "HumanEval", "kind": "zero"}.items() <= next(
        f for f in summary["flags"] if f["model"] == "Sarashina2-7B" and f["benchmark"] == "HumanEval"
    ).items()
    for name in ("scree.png", "scree.svg", "PC2_ja.png"):
        assert (pca_run / "figures" / name).stat().st_size > 1000
    loadings = pd.read_csv(pca_run / "tables" / "pca_loadings.csv")
    assert len(loadings) == 19 * 4


def test_fit_prints_tables_a_person_can_read(tmp_path):
    out = call("fit", SCORES, "--out", tmp_path / "x.fit", "--method", "pca", "--resamples", 20, "--no-page")
    assert "Explained variance" in out.stdout
    assert "65.15" in out.stdout
    assert "0.779" in out.stdout
    assert "PCA and its resamples" in out.stderr  # progress as plain lines
    assert "x.fit/" in out.stdout
    assert not (tmp_path / "x.fit" / "report.html").exists()


def test_from_scratch_models_by_query(tmp_path):
    out = call(
        "fit", SCORES, "--models-where", "construction == 'PT'", "--method", "pca", "--json", "--quiet",
        "--out", tmp_path / "pt.fit", "--resamples", 20, "--no-page",
    )  # fmt: skip
    summary = json.loads(out.stdout)
    assert summary["table"]["models"] == 20
    assert [round(100 * v, 1) for v in summary["pca"]["explained_variance_ratio"][:4]] == [
        65.6,
        17.0,
        7.1,
        3.0,
    ]
    assert summary["pca"]["rho"]["PC2"]["ja"]["r"] == pytest.approx(0.8025, abs=5e-4)
    assert summary["pca"]["rho"]["PC2"]["ja"]["n"] == 10


def test_a_run_is_never_overwritten_without_force(pca_run):
    before = (pca_run / "summary.json").read_bytes()
    message = mistake("fit", SCORES, "--out", pca_run, "--method", "pca", "--quiet")
    assert "exists; give --out another folder, or --force to replace it" in message
    assert (pca_run / "summary.json").read_bytes() == before


def test_force_replaces_runs_only(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("keep me")
    message = mistake("fit", SCORES, "--out", folder, "--force", "--quiet")
    assert "is not a run folder of factorlab" in message
    assert (folder / "thesis.txt").read_text() == "keep me"
    run = tmp_path / "run.fit"
    for _ in range(2):
        call(
            "fit",
            SCORES,
            "--out",
            run,
            "--method",
            "pca",
            "--resamples",
            10,
            "--quiet",
            "--force",
            "--no-page",
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "run.fit"]


def test_plot_and_report_of_a_run(pca_run):
    names = call("plot", pca_run).output
    assert "scree" in names
    out = call("plot", pca_run, "PC3_ja")
    assert (pca_run / "figures" / "PC3_ja.png").is_file()
    assert "PC3_ja.svg" in out.output
    assert "no figure 'nothing' in this run; it has" in mistake("plot", pca_run, "nothing")
    (pca_run / "report.html").unlink()
    call("report", pca_run, "--quiet")
    assert (pca_run / "report.html").stat().st_size > 10_000


def test_compare_two_runs(pca_run, tmp_path):
    out = call("compare", pca_run, pca_run, "--solution", "pca", "--json", "--out", tmp_path / "c.csv")
    comparison = json.loads(out.stdout)
    assert comparison["congruence"]["PC1"]["median"] == pytest.approx(1.0)
    assert len(pd.read_csv(tmp_path / "c.csv")) > 19
    assert "lacks PCA or Bayes; fit with --method all" in mistake("compare", pca_run)
    assert "has no bayes solution" in mistake("compare", pca_run, pca_run, "--solution", "bayes")


def test_simulate_fit_compare(tmp_path):
    out = tmp_path / "sim"
    call(
        "simulate",
        "--out",
        out,
        "--models",
        30,
        "--benchmarks",
        8,
        "--factors",
        2,
        "--rho",
        "PC2:ja=0.7",
        "--seed",
        4,
    )
    assert {path.name for path in out.iterdir()} == {
        "scores.parquet", "models.csv", "benchmarks.csv", "truth.nc", "true_budgets.csv",
    }  # fmt: skip
    call(
        "fit",
        out / "scores.parquet",
        "--method",
        "pca",
        "--factors",
        2,
        "--out",
        tmp_path / "s.fit",
        "--quiet",
    )
    result = json.loads(
        call("compare", tmp_path / "s.fit", out / "truth.nc", "--align", "procrustes", "--json").stdout
    )
    assert result["congruence"]["PC1"]["median"] > 0.9
    assert "exists; give --out another folder" in mistake("simulate", "--out", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "none.parquet"], "none.parquet"),
        (["fit", SCORES, "--factors", "many"], "--factors 'many' is no number; give 1, 2, ... or auto"),
        (["fit", SCORES, "--level", "94"], "level 94.0 is not a probability"),
        (["fit", SCORES, "--seed", "-1"], "seed is -1; give 0 or more"),
        (["fit", SCORES, "--cores", "0"], "cores is 0; give 1 or more, or leave it out"),
        (["fit", SCORES, "--anchor", "PC9=NIILC"], "anchor of PC9, but 4 factors are fitted"),
        (["check", str(ROOT / "data")], "is a folder; give a table in it"),
        (["simulate", "--out", "s", "--models", "1"], "models is 1; give 3 or more"),
        (["simulate", "--out", "s", "--instances", "0"], "n_instances is 0; give 1 or more"),
        (["fit", SCORES, "--draws", "0"], "draws is 0; give 1 or more"),
        (["fit", SCORES, "--factors", "40", "--method", "bayes"], "40 factors asked of 35 models x 19"),
        (["fit", SCORES, "--factors", "40", "--method", "pca"], "40"),
        (["fit", SCORES, "--priors", "none.toml"], "no such priors file: 'none.toml'"),
        (["fit", SCORES, "--anchor", "NIILC"], "--anchor 'NIILC' is not of the form PCk=BENCHMARK"),
        (["fit", SCORES, "--anchor", "PC2=Nothing"], "anchor benchmark 'Nothing' is not in the table"),
        (["fit", SCORES, "--models-where", "nothing == 1"], "nothing"),
        (["fit", SCORES, "--out", "no/such/folder/x.fit"], "no such folder"),
        (["plot", "none.fit", "scree"], "no such run folder: 'none.fit'"),
        (["report", str(ROOT / "data")], "is not a run folder: it has no run.json"),
        (["compare", "a.nc", "b.nc"], "no such file: 'a.nc'"),
        (["simulate", "--out", "s", "--rho", "ja=0.5"], "--rho names factor 'ja'"),
        (["simulate", "--out", "s", "--rho", "PC2:ja=high"], "is not of the form PCk:LANG=R"),
        (["simulate", "--out", "s", "--missing", "2"], "missing is 2.0; give a share between 0 and 0.95"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in mistake(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_exit_with_two():
    call("fit", code=2)
    call("fit", SCORES, "--method", "magic", code=2)


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_interruption_leaves_nothing(tmp_path, signal_number):
    process = subprocess.Popen(
        [sys.executable, "-m", "factorlab.cli", "fit", SCORES, "--draws", "20000", "--factors", "2"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("sampling"):
            break
    process.send_signal(signal_number)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, "".join(seen) + rest
    assert "Interrupted: nothing was written." in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
