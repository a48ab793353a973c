"""factorlab eval as a person runs it: from models to factors, killed and interrupted, and every mistake in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from factorlab.cli import main
from factorlab.eval.task import load_task, shipped_tasks
from factorlab.records import read_records

for _name in ("torch", "transformers"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: no model can be run")


SHARED = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"
LIMIT = 60
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def evaluated(ladder, *arguments: object, models=None, tasks=None) -> list[str]:
    """Arguments of an evaluation of ladder models on ladder tasks."""
    out = ["eval", "--device", "cpu", "--data-dir", ladder.data]
    for model in ladder.models[-1:] if models is None else models:
        out += ["--model", model]
    chosen = [p for p in ladder.tasks if p.stem in ("home_en", "most_en")] if tasks is None else tasks
    return [str(a) for a in (*out, "--tasks", ",".join(map(str, chosen)), *arguments)]


def frame(out: Path) -> pd.DataFrame:
    told = read_records(out / "records").to_dataframe().drop(columns="created")
    return told.sort_values(["model", "benchmark", "metric", "instance_id", "trial"], ignore_index=True)


def lines(out: Path) -> dict[str, list[str]]:
    """What names the answers in each journal."""
    told = {}
    for path in (out / "answers").rglob("*.jsonl"):
        rows = [json.loads(t) for t in path.read_text().splitlines(True) if t.endswith("\n")]
        told[path.name.split(".")[0]] = [f"{row['k']} {row.get('s')}" for row in rows]
    return told


@pytest.mark.slow
def test_from_models_to_factors(ladder, tmp_path):
    """The abilities that the models were trained to have: how long, and in which language."""
    out, table = tmp_path / "eval", tmp_path / "eval" / "scores.parquet"
    done = run(*evaluated(ladder, "--out", out, "--limit", LIMIT, models=ladder.models, tasks=ladder.tasks))
    assert done.exit_code == 0, done.stderr
    n = len(ladder.models) * len(ladder.tasks)
    assert f"({n} of {n} runs)" in done.stdout
    assert f"Next: factorlab scores {out}/records --out {table}" in done.stdout
    rows = frame(out)
    assert len(rows) == n * LIMIT
    done = run("scores", out / "records", "--out", table, "--quiet")
    assert done.exit_code == 0, done.output
    score = pd.read_parquet(table).pivot(index="model", columns="benchmark", values="score")
    assert score.shape == (len(ladder.models), len(ladder.tasks))
    assert (score.min() >= 0).all()
    done = run(
        "fit", table, "--models", ladder.folder / "models.csv", "--factors", 2, "--draws", 100, "--max-draws", 100,
        "--tune", 200, "--chains", 2, "--resamples", 20, "--no-page", "--out", tmp_path / "fit", "--quiet",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    known = pd.read_csv(ladder.folder / "models.csv").set_index("model")
    rule = ["more_en", "more_ja", "most_en", "most_ja"]
    facts = {
        language: score[[f"home_{language}", f"food_{language}"]].mean(axis=1) for language in ("en", "ja")
    }
    contrast = (facts["ja"] - facts["en"]).groupby(known["share_ja"]).mean()
    assert (np.diff(contrast) > 0.1).all()
    assert np.corrcoef(score[rule].mean(axis=1), np.log(known["steps"].loc[score.index]))[0, 1] > 0.8
    for method in ("pca", "bayes"):
        told = pd.read_csv(tmp_path / "fit" / "tables" / f"{method}_abilities.csv")
        ability = told.pivot(index="model", columns="factor", values="mean")
        here = known.loc[ability.index]
        assert abs(np.corrcoef(ability["PC1"], np.log(here["steps"]))[0, 1]) > 0.8
        assert abs(np.corrcoef(ability["PC2"], here["share_ja"])[0, 1]) > 0.8
    summary = json.loads((tmp_path / "fit" / "summary.json").read_text())
    assert summary["table"]["languages"] == ["en", "ja"]
    assert not any("No benchmark declares language" in text for text in summary["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_cut_off_goes_on(ladder, tmp_path, number):
    """No question twice, and the records of a run that was left alone."""
    tasks = [p for p in ladder.tasks if p.stem in ("food_en", "home_en", "most_en", "plural_en")]
    rest = ["--batch", 512, "--quiet"]
    out = tmp_path / "cut"
    command = [sys.executable, "-m", "factorlab.cli", *evaluated(ladder, "--out", out, *rest, tasks=tasks)]
    process = subprocess.Popen(command, env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while sum(p.read_bytes().count(b"\n") for p in (out / "answers").rglob("home_en*")) < 8:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert stderr.splitlines() == [
            "Interrupted: what was answered is kept; the same command goes on from there."
        ]
    else:
        assert process.returncode == -signal.SIGKILL
    assert stdout == ""
    before = lines(out)
    assert "plural_en" not in before or len(before["plural_en"]) < 120
    done = run(*evaluated(ladder, "--out", out, *rest, tasks=tasks))
    assert done.exit_code == 0, done.stderr
    for name, keys in lines(out).items():
        assert max(Counter(keys).values()) == 1
        assert len(keys) == 120
        assert keys[: len(before.get(name, []))] == before.get(name, [])
    whole = run(*evaluated(ladder, "--out", tmp_path / "whole", *rest, tasks=tasks))
    assert whole.exit_code == 0
    assert frame(out).equals(frame(tmp_path / "whole"))
    assert len(frame(out)) == 480
    reused = sum(r["reused"] for r in json.loads(max((out / "runs").glob("*.json")).read_text())["results"])
    assert reused == sum(map(len, before.values())) >= 128


def test_a_rehearsal_shows_the_first_prompt_and_writes_nothing(ladder, broken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*evaluated(ladder, "--dry-run", "--out", tmp_path / "out", "--limit", 20))
    assert done.exit_code == 0, done.stderr
    for name in ("home_en", "most_en"):
        text = (ladder.data / name / "test.jsonl").read_text("utf-8").splitlines()[0]
        assert f"\n{json.loads(text)['question']}=|\n" in done.stdout
        assert f"== {name} (paper), {ladder.models[-1].name}" in done.stdout
    assert len(re.findall(r"20 instances; prompts of \d+ tokens, at most \d+; about \d+ s", done.stdout)) == 2
    assert "choices: '" in done.stdout
    assert "answer: '" in done.stdout
    assert re.search(r"All together: about \d+ s\. Nothing was written\.", done.stdout)
    assert list(tmp_path.iterdir()) == []
    done = run(*evaluated(ladder, "--dry-run", "--limit", 2, models=[ladder.models[0], broken / "cut"]))
    assert done.exit_code == 1
    assert done.stdout.count("== ") == 2
    assert done.stderr.splitlines()[-1] == "Error: 1 of 3 runs would fail"
    assert "Failed: cut: " in done.stderr


def test_the_list_has_every_task():
    done = run("eval", "--list")
    assert done.exit_code == 0
    for name in shipped_tasks():
        assert re.search(rf"^ *{name} ", done.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def broken(ladder, tmp_path_factory) -> Path:
    """Models and tasks with a fault each."""
    folder = tmp_path_factory.mktemp("broken")
    model = ladder.models[0]
    shutil.copytree(model, folder / "no_tokenizer", ignore=shutil.ignore_patterns("*token*"))
    shutil.copytree(model, folder / "no_weights", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(model, folder / "cut")
    weights = folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    shutil.copytree(model, folder / "other" / model.name)
    (folder / "nothing").mkdir()
    task = next(p for p in ladder.tasks if p.stem == "home_en").read_text("utf-8")
    (folder / "fields.yaml").write_text(task.replace("question: question", "question: frage"), "utf-8")
    (folder / "keys.yaml").write_text(task.replace("scoring:", "scorign:"), "utf-8")
    (folder / "empty.yaml").write_text(task.replace("home_en/test.jsonl", "empty.jsonl"), "utf-8")
    shutil.copytree(ladder.data, folder / "data")
    (folder / "data" / "empty.jsonl").write_text("")
    return folder


MISTAKES = [
    (["--tasks", "gsmk8"], r"no task 'gsmk8' \(did you mean 'gsm8k'\?\)"),
    (["--tasks", "{broken}/nowhere.yaml"], r"no such task file: '.*nowhere.yaml'"),
    (["--tasks", " , "], r"no task is named; name one of bbh, "),
    (["--tasks", "{broken}/keys.yaml"], r"'.*keys.yaml'.*scoring"),
    (["--model", "./nowhere"], r"--model './nowhere' is no folder; give the folder of a model, or its name"),
    (["--model", "{model}"], r"two models are called '(.*)'; name them apart with --model NAME=.*\1"),
    (["--model", "{broken}/other/{name}"], r"two models are called '.*'; name them apart with --model NAME="),
    (["--model", "x="], r"--model 'x=' is not of the form \[NAME=\]PATH_OR_ID\[@REVISION\]"),
    (["--device", "cuda:99"], r"--device 'cuda:99'"),
    (["--device", "tpu0"], r"--device 'tpu0' is no device; give auto, cpu, cuda"),
    (["--dtype", "x"], r"--dtype 'x' is unknown; give auto, bf16, fp16, fp32"),
    (["--engine", "x"], r"--engine 'x' is unknown; there are hf, vllm"),
    (["--limit", "0"], r"--limit is 0; it must be 1 or more"),
    (["--seed", "-1"], r"--seed is -1; it must be 0 or more"),
    (["--batch", "x"], r"--batch 'x' is no number of tokens; give auto, or a whole number above 0"),
    (["--batch", "0"], r"--batch '0' is no number of tokens"),
    (["--data-dir", "{broken}/nowhere"], r"--data-dir '.*nowhere' is no folder"),
    (["--protocol", "papr"], r"has no protocol 'papr' \(did you mean 'paper'\?\); it has paper"),
    (["--out", "{broken}/cut/runs"], r"--out '.*cut/runs' is inside the folder of the model 'cut'"),
    (["--workers", "2"], r"--workers goes with --cluster"),
    (["--cluster", "dask://x:1", "--workers", "0"], r"--workers is 0; it must be 1 or more"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_before_anything_is_done(ladder, broken, tmp_path, arguments, message):
    model = ladder.models[0]
    told = [a.format(broken=broken, model=model, name=model.name) for a in arguments]
    model = broken / "cut" if "cut/runs" in arguments[-1] else model
    done = run(*evaluated(ladder, "--out", tmp_path / "out", "--limit", 2, *told, models=[model]))
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr), done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_needs_models_and_a_place(ladder):
    done = run(*evaluated(ladder, "--out", "x", models=[]))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "no model is given; give --model" in done.stderr
    done = run(*evaluated(ladder))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "there is no --out; name a folder for the records" in done.stderr


FAULTS = [
    ("no_tokenizer", None, [], r"no_tokenizer: the tokenizer of '.*no_tokenizer' cannot be read"),
    ("no_weights", None, [], r"no_weights: the weights of '.*no_weights' cannot be read"),
    ("cut", None, [], r"cut: the weights of '.*cut' cannot be read"),
    ("nothing", None, [], r"nothing: '.*nothing' holds no config.json"),
    (None, None, ["--chat"], r"--chat: this model's tokenizer has no chat template"),
    (None, "empty", [], r"home_en: 'empty.jsonl' holds no items \(items of home_en\)"),
    (None, "fields", [], r"home_en: 'home_en/test.jsonl', item 1, field 'question'.*'frage' is undefined"),
]


@pytest.mark.parametrize(
    ("model", "task", "more", "message"), FAULTS, ids=[str(f[0] or f[1] or f[2]) for f in FAULTS]
)
def test_a_fault_is_one_line_and_leaves_no_records(ladder, broken, tmp_path, model, task, more, message):
    """The report says what failed; nothing else is there."""
    tasks = None if task is None else [broken / f"{task}.yaml"]
    models = [ladder.models[0] if model is None else broken / model]
    tasks = tasks or [next(p for p in ladder.tasks if p.stem == "home_en")]
    more = [*more, "--data-dir", broken / "data", "--limit", 2, "--quiet"]
    done = run(*evaluated(ladder, "--out", tmp_path / "out", *more, models=models, tasks=tasks))
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.output
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert {p.parent.name for p in files} <= {"runs", "out"}
    assert not [p for p in files if p.name.endswith((".partial", ".error.txt", ".jsonl"))]


def test_a_name_that_the_hub_cannot_be_asked_for(ladder, tmp_path):
    """Without a network there is one line, in the command as it is started."""
    command = [
        sys.executable,
        "-m",
        "factorlab.cli",
        *evaluated(ladder, "--out", tmp_path / "o", models=["no/thing"]),
    ]
    done = subprocess.run([*command, "--quiet"], env=QUIET, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "the model of 'no/thing' cannot be had: it is no folder here, and the hub said: " in done.stderr


def test_failures_are_named_at_the_end_and_the_rest_is_kept(ladder, broken, tmp_path):
    models = [broken / "cut", ladder.models[0]]
    tasks = [broken / "empty.yaml", next(p for p in ladder.tasks if p.stem == "most_en")]
    data = ["--data-dir", broken / "data", "--limit", 2, "--quiet", "--out", tmp_path]
    done = run(*evaluated(ladder, *data, models=models, tasks=tasks))
    assert done.exit_code == 1
    told = done.stderr.splitlines()
    assert told[-1] == "Error: 2 of 3 runs failed; what ended well is kept"
    assert [t.split(":")[:2] for t in told if t.startswith("Failed")] == [
        ["Failed", " cut"],
        ["Failed", f" {ladder.models[0].name}, home_en"],
    ]
    assert set(frame(tmp_path)["benchmark"]) == {"most_en"}


def test_odd_names_of_folders(ladder, tmp_path, monkeypatch):
    """Blanks, Japanese, an equals sign, relative paths, blanks in the list of tasks, a model that is read-only."""
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "日本語 の モデル" / "step=100"
    shutil.copytree(ladder.models[0], here)
    here.chmod(0o500)
    shutil.copytree(ladder.data, tmp_path / "データ 1")
    tasks = f" {ladder.tasks[0]} , {ladder.tasks[1]},"
    source = "日本語 の モデル/step=100"
    done = run(
        "eval", "--model", source, "--model", f"名前={source}/", "--tasks", tasks, "--data-dir", "データ 1",
        "--out", "データ 1/結果 x", "--limit", 3, "--device", "cpu", "--batch", 1,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert set(frame(tmp_path / "データ 1" / "結果 x")["model"]) == {"step=100", "名前"}
    assert len(list(here.iterdir())) == len(list(ladder.models[0].iterdir()))


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared with the benchmarks is not there")
def test_the_real_benchmarks_through_a_small_model(ladder, tmp_path):
    """Answers are noise; benchmarks, counts, metrics, protocols and clusters are those of the tasks."""
    names = [name for name in shipped_tasks() if name != "xlsum"]
    more = ["--data-dir", SHARED, "--limit", 3, "--out", tmp_path / "out", "--quiet"]
    done = run(*evaluated(ladder, *more, tasks=names))
    assert done.exit_code == 0, done.stderr
    rows = frame(tmp_path / "out")
    tasks = {task.benchmark: task for task in map(load_task, names)}
    assert len(tasks) == 18
    counts = {name: 3 * task.decoding.samples for name, task in tasks.items()}
    assert rows["benchmark"].value_counts().to_dict() == counts
    assert rows.groupby("benchmark")["metric"].unique().map(list).to_dict() == {
        name: [task.metric.name] for name, task in tasks.items()
    }
    clustered = rows.groupby("benchmark")["cluster"].apply(lambda c: c.notna().all()).to_dict()
    assert clustered == {name: task.cluster is not None for name, task in tasks.items()}
    shared = rows.groupby("benchmark")["shared_item_id"].apply(lambda c: c.notna().all()).to_dict()
    assert shared == {name: task.shared is not None for name, task in tasks.items()}
    assert set(rows["protocol"]) == {"paper"}
    assert rows["score"].isna().equals(rows["metric"] == "bleu")
    assert rows.groupby("benchmark")["instance_id"].nunique().eq(3).all()
    done = run(
        "scores", tmp_path / "out" / "records", "--out", tmp_path / "out" / "scores.parquet", "--quiet"
    )
    assert done.exit_code == 0, done.output
    assert len(pd.read_parquet(tmp_path / "out" / "scores.parquet")) == 18
