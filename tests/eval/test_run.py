"""A run writes records that become scores, repeats nothing, mixes nothing, and loses nothing when it fails."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_model import FakeModel, add_up, write_choices, write_items, write_task

from factorlab import __version__
from factorlab.errors import InputError
from factorlab.eval.prompts import build_instances
from factorlab.eval.run import Evaluation, Settings, evaluate
from factorlab.eval.sandbox import Sandbox
from factorlab.eval.task import load_task
from factorlab.record_scores import scores_from_records
from factorlab.records import read_records

SHARED = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"


def half(request, sample=0) -> str:
    """Right where the first number is even."""
    answer = add_up(request)
    return answer if int(request.prompt.rsplit("\n", 1)[-1].split("+")[0]) % 2 == 0 else answer + "?"


@pytest.fixture
def run(tmp_path):
    """evaluate() on tasks of `tmp_path`, into `tmp_path/out`."""

    def run(models: Any = None, tasks: Any = None, *, out: Any = None, facts=None, **settings) -> Evaluation:
        models = {"m": FakeModel(half)} if models is None else models
        models = models if isinstance(models, dict) else {"m": models}
        openers = {n: m if not isinstance(m, FakeModel) else (lambda m=m: m) for n, m in models.items()}
        paths = tasks or sorted((tmp_path / "tasks").glob("*.yaml"))
        chosen = Settings(**{"data_dir": tmp_path / "data"} | settings)
        return evaluate(openers, [load_task(p) for p in paths], out or tmp_path / "out", chosen, facts=facts)

    return run


def frame(done: Evaluation | Path) -> pd.DataFrame:
    folder = done.records if isinstance(done, Evaluation) else done
    told = read_records(folder).to_dataframe().drop(columns="created")
    return told.sort_values(["model", "benchmark", "metric", "instance_id", "trial"], ignore_index=True)


def score(done: Evaluation, benchmark: str, model: str = "m") -> float:
    table = scores_from_records(done.records).table
    return float(table.set_index(["model", "benchmark"])["score"][model, benchmark])


def parts(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "records").iterdir())}


def test_records_become_the_right_scores(run, tmp_path):
    """Five of nine sums and, by always taking the second choice, a third."""
    write_task(tmp_path, items=9, cluster="{{ id % 2 }}")
    write_choices(tmp_path, items=12)
    model = FakeModel(half, likes=lambda r: [-2.0, -1.0, -3.0])
    done = run(model, all_metrics=False)
    assert not done.failures
    assert model.closed == 1
    told = {r.benchmark: r for r in done.results}
    assert told["Sums"].score == score(done, "Sums") == 5 / 9
    assert told["Pick"].score == pytest.approx(1 / 3)
    assert score(done, "Pick") == pytest.approx(1 / 3)
    assert (told["Sums"].instances, told["Sums"].reused, told["Sums"].metric) == (9, 0, "exact_match")
    assert any("at chance" in f for f in told["Pick"].findings)
    rows = frame(done)
    assert len(rows) == 21
    sums = rows[rows["benchmark"] == "Sums"]
    assert set(sums["cluster"]) == {"0", "1"}
    assert set(sums["prediction"]) >= {"0", "2?"}
    columns = ["model", "model_revision", "protocol", "engine", "dtype", "harness", "harness_version"]
    assert [*rows[columns].drop_duplicates().itertuples(index=False, name=None)] == [
        ("m", "r1", "paper", "hf", "float32", "factorlab", __version__)
    ]
    table = pd.read_csv(tmp_path / "out" / "benchmarks.csv").set_index("benchmark")
    assert table.loc["Pick", ["metric", "chance", "min", "max"]].tolist() == ["acc", 0.25, 0, 1]
    more = run(model, all_metrics=True, out=tmp_path / "more")
    assert set(frame(more)["metric"]) > {"exact_match", "acc"}
    assert len(frame(more)) > 21


def test_a_second_run_asks_nothing_and_writes_nothing(run, tmp_path):
    write_task(tmp_path)
    write_choices(tmp_path)
    first = run()
    before = parts(tmp_path / "out")
    model = FakeModel(half)
    again = run(model)
    assert model.asked == []
    assert parts(tmp_path / "out") == before
    assert [r.reused for r in again.results] == [12, 12]
    assert [r.score for r in again.results] == [r.score for r in first.results]
    assert again.report != first.report
    # Records that were lost are written anew from the journal.
    shutil.rmtree(tmp_path / "out" / "records")
    known = frame(run(model))
    assert model.asked == []
    assert len(known) == 24


def test_a_limit_that_is_lifted_adds_the_rest(run, tmp_path):
    write_task(tmp_path)
    models = [FakeModel(half) for _ in range(3)]
    assert run(models[0], limit=5).results[0].instances == 5
    assert len(frame(tmp_path / "out" / "records")) == 5
    done = run(models[1])
    assert (done.results[0].instances, done.results[0].reused) == (12, 5)
    assert (len(models[0].asked), len(models[1].asked)) == (5, 7)
    assert frame(done).equals(frame(run(models[2], out=tmp_path / "whole")))
    assert run(models[1], limit=5).results[0].reused == 5


def test_a_failing_task_does_not_stop_the_others(run, tmp_path):
    """A broken file, a model that cannot, a fault of a library: each named, the last one with its traceback."""
    for name in ("a_empty", "b_fields", "c_dies", "d_bug", "e_good"):
        write_task(tmp_path, name)
    write_items(tmp_path, "a_empty", [])
    write_items(tmp_path, "b_fields", [{"id": 1}])
    write_items(tmp_path, "c_dies", [{"id": 1, "q": "5+die", "a": "5"}])
    write_items(tmp_path, "d_bug", [{"id": 1, "q": "5+bug", "a": "5"}])

    def text(request, sample):
        if "die" in request.prompt:
            raise InputError("cannot be asked")
        return {}["bug"] if "bug" in request.prompt else half(request)

    done = run(FakeModel(text))
    assert [r.benchmark for r in done.results] == ["E_good"]
    assert list(done.failures) == ["m, A_empty", "m, B_fields", "m, C_dies", "m, D_bug"]
    assert "holds no items" in done.failures["m, A_empty"]
    assert "item 1, field 'a': 'a' cannot be read" in done.failures["m, B_fields"]
    assert done.failures["m, C_dies"] == "cannot be asked"
    assert "KeyError: 'bug' (all of it in " in done.failures["m, D_bug"]
    assert all("\n" not in why for why in done.failures.values())
    errors = list((tmp_path / "out" / "runs").glob("*.error.txt"))
    assert len(errors) == 1
    assert 'return {}["bug"]' in errors[0].read_text()
    assert str(errors[0]) in done.failures["m, D_bug"]
    report = json.loads(done.report.read_text())
    assert [f["task"] for f in report["failures"]] == ["a_empty", "b_fields", "c_dies", "d_bug"]
    assert set(frame(done)["benchmark"]) == {"E_good"}


@pytest.mark.parametrize(
    "error", [InputError("is not there"), MemoryError("too large"), AttributeError("ours")]
)
def test_a_model_that_cannot_be_opened_does_not_stop_the_others(run, tmp_path, error):
    write_task(tmp_path)

    def broken():
        raise error

    done = run({"bad": broken, "good": FakeModel(half)})
    assert list(done.failures) == ["bad"]
    assert str(error) in done.failures["bad"]
    assert [r.model for r in done.results] == ["good"]
    assert json.loads(done.report.read_text())["failures"][0]["task"] is None


@pytest.mark.parametrize(
    ("fact", "column"), [("revision", "model_revision"), ("dtype", "dtype"), ("engine", "engine")]
)
def test_another_version_of_a_model_is_refused(run, tmp_path, fact, column):
    write_task(tmp_path)
    run()
    before = parts(tmp_path / "out")
    model = FakeModel(half).with_facts(**{fact: "other"})
    done = run(model)
    assert not done.results
    (why,) = done.failures.values()
    assert f"has records of 'm' on Sums with {column} '" in why
    assert "now it is 'other'; give another --out, or another name" in why
    assert model.asked == []
    assert parts(tmp_path / "out") == before
    assert not run({"n": model}).failures
    assert len(model.asked) == 12


def test_data_that_changed_are_refused(run, tmp_path):
    """Other examples before the same items; other items; fewer items. A limit is no change."""
    write_task(tmp_path)
    run()
    before = parts(tmp_path / "out")
    data = tmp_path / "data"
    shutil.copytree(data, tmp_path / "kept")
    whole = (data / "sums" / "test.jsonl").read_text().splitlines(keepends=True)
    write_items(tmp_path, "sums", [{"id": i, "q": f"1+{i}", "a": str(i + 1)} for i in range(90, 94)], "train")
    model = FakeModel(half)
    (why,) = run(model).failures.values()
    assert "with other prompts (instance '" in why
    assert "the task or its data have changed; give another --out" in why
    shutil.copytree(tmp_path / "kept", data, dirs_exist_ok=True)
    (data / "sums" / "test.jsonl").write_text("".join(whole[:-2]))
    (why,) = run(model).failures.values()
    assert "for 2 instances that the data do not hold (as '" in why
    assert model.asked == []
    assert parts(tmp_path / "out") == before
    (data / "sums" / "test.jsonl").write_text("".join(whole))
    assert not run(model, limit=3).failures
    assert parts(tmp_path / "out") == before


def test_scores_that_changed_are_refused(run, tmp_path):
    """The task's metric is another one, so the score that is shown would not be that of the records."""
    write_task(tmp_path)
    run()
    lenient = {
        "name": "exact_match",
        "extract": [{"step": "regex", "pattern": "[0-9]+", "which": "first", "fallback": ""}],
    }
    write_task(tmp_path, metric=lenient)
    (why,) = run().failures.values()
    assert "with other scores (instance '" in why
    assert "0, now 1): how answers are scored has changed" in why
    assert score(run(out=tmp_path / "new"), "Sums") == 1


def test_two_tasks_of_one_benchmark_are_refused(run, tmp_path):
    write_task(tmp_path)
    write_task(tmp_path, "again", benchmark="Sums")
    with pytest.raises(InputError, match=r"two tasks \(.again. and .sums.\) are of the benchmark .Sums."):
        run()
    assert not (tmp_path / "out").exists()


def test_protocols_stay_apart(run, tmp_path):
    """Chat and another seed have names of their own."""
    write_task(tmp_path)
    model = FakeModel(lambda r, s: "1", template="[{}]")
    run(model)
    run(model, chat=True)
    done = run(model, seed=5)
    assert set(frame(done)["protocol"]) == {"paper", "paper+chat", "paper+seed5"}
    assert len(frame(done)) == 36
    assert scores_from_records(done.records, protocol="paper+chat").table["n_instances"].tolist() == [12]


def test_the_report_has_the_provenance_of_every_result(run, tmp_path):
    write_task(tmp_path)
    model = FakeModel(lambda r, s: "\n", has_bos=True, adds_bos=False).with_facts(
        context=8 + 16 + 4, notes=("slow",)
    )
    done = run(model, facts={"command": ["eval", "--model", "m"]}, limit=11)
    report = json.loads(done.report.read_text())
    task = load_task(tmp_path / "tasks" / "sums.yaml")
    assert (report["format"], report["version"], report["factorlab"]) == (
        "factorlab evaluation",
        1,
        __version__,
    )
    assert report["command"] == ["eval", "--model", "m"]
    assert report["settings"]["limit"] == 11
    assert report["settings"]["data_dir"] == str(tmp_path / "data")
    assert report["began"] <= report["ended"]
    assert report["machine"]["cores"] == os.cpu_count()
    assert report["packages"]["rapidfuzz"]
    assert report["tasks"]["sums"]["digest"] == task.digest
    assert report["tasks"]["sums"]["resolved"] == task.resolved
    facts = {
        "revision": "r1",
        "engine": "hf",
        "dtype": "float32",
        "device": "cpu",
        "context": 28,
        "parameters": 1000,
    }
    assert report["models"]["m"] == facts | {"versions": {"torch": "0"}, "notes": ["slow"]}
    assert done.notes == ("m: slow",)
    (result,) = report["results"]
    files = {s["role"]: s["files"] for s in result["sources"]}
    for role, part in (("items", "test"), ("shots", "train")):
        raw = (tmp_path / "data" / "sums" / f"{part}.jsonl").read_bytes()
        assert files[role] == {f"sums/{part}.jsonl": hashlib.sha256(raw).hexdigest()}
    assert (result["n_documents"], result["n_held_out"], result["records_written"]) == (12, 0, 11)
    assert (tmp_path / "out" / result["journal"]).is_file()
    last = build_instances(task, tmp_path / "data", 11).instances[10]
    assert (result["dropped_shots"], result["truncated"]) == (1, 0)
    which = json.loads((tmp_path / "out" / result["which"]).read_text())
    assert which == {"dropped_shots": {last.instance_id: 1}, "truncated": []}
    told = " ".join(result["findings"])
    for text in (
        "1 of 11 prompts lost",
        "no begin-of-text",
        "11 of 11 answers are empty",
        "newline",
        "exactly 0",
    ):
        assert text in told
    assert len(result["findings"]) == 5


def code_task(folder: Path, **changes: Any) -> Path:
    """Programs f(x) = x + k, with tests."""
    rows = [
        {
            "id": k,
            "prompt": f"def f(x):  # {k}\n",
            "test": f"def check(f):\n    assert f(1) == {1 + k}\n",
            "entry": "f",
        }
        for k in range(4)
    ]
    fields = {name: name for name in rows[0]}
    path = write_task(
        folder,
        "code",
        data={"local": {"files": ["code/test.jsonl"], "format": "jsonl"}, "fields": fields},
        prompt={"query": "{{ prompt }}"},
        gold="{'test': test, 'entry_point': entry}",
        scoring="code",
        shots=None,
        decoding={"max_new_tokens": 8, "temperature": 0.5, "samples": 2},
        metric={"name": "pass@1", "timeout": 3.0},
        **changes,
    )
    write_items(folder, "code", rows)
    return path


@pytest.fixture
def sandbox() -> Sandbox:
    try:
        return Sandbox.find()
    except InputError as error:
        pytest.skip(str(error))  # the machine has no sandbox that holds; programs are not run without one


def test_programs_are_run(run, tmp_path, sandbox):
    """The first sample is right, the second one where k is even."""
    code_task(tmp_path)

    def text(request, sample):
        k = int(request.prompt.split("#")[1])
        return f"    return x + {k}" if sample == 0 or k % 2 == 0 else "    return open('/etc/passwd')"

    done = run(FakeModel(text))
    assert not done.failures
    assert score(done, "Code") == done.results[0].score == 0.75
    assert frame(done)["trial"].value_counts().to_dict() == {0: 4, 1: 4}
    assert json.loads(done.report.read_text())["results"][0]["sandbox"] == sandbox.backend


def test_without_a_sandbox_nothing_is_asked(run, tmp_path, monkeypatch):
    code_task(tmp_path)

    def none(cls, *, unsafe=False, **_):
        raise InputError("no sandbox holds")

    monkeypatch.setattr(Sandbox, "find", classmethod(none))
    model = FakeModel()
    assert run(model).failures == {"m, Code": "no sandbox holds"}
    assert model.asked == []


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared with the benchmarks is not there")
@pytest.mark.parametrize(
    ("name", "file", "right"), [("humaneval", "HumanEval", 164), ("jhumaneval", "jhuman-eval", 163)]
)
def test_reference_solutions_as_a_model(run, tmp_path, sandbox, name, file, right):
    """The paper's protocol but for the samples, which would all be the same."""
    with gzip.open(SHARED / name / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        solutions = {p["prompt"]: p["canonical_solution"] for p in map(json.loads, lines)}
    task = load_task(name)
    task = replace(task, decoding=replace(task.decoding, samples=1))
    model = FakeModel(lambda request, sample: solutions[request.prompt])
    done = evaluate({"reference": lambda: model}, [task], tmp_path / "out", Settings(data_dir=SHARED))
    assert not done.failures
    (result,) = done.results
    assert (result.instances, result.metric, result.protocol) == (164, "pass@1", "paper")
    assert score(done, task.benchmark, "reference") == result.score == right / 164
    rows = frame(done)
    assert len(rows) == 164
    assert rows["shared_item_id"].nunique() == 164
    assert set(rows[rows["score"] == 0]["shared_item_id"]) == ({"humaneval:64"} if right == 163 else set())


def test_bleu_is_sacrebleus_of_the_texts(run, tmp_path):
    """A corpus metric has no score of an instance; the sums of its counts give that of the whole."""
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = np.random.default_rng(0)
    words = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", ",", "."]
    pairs = [[" ".join(rng.choice(words, rng.integers(4, 12))) for _ in range(2)] for _ in range(20)]
    texts = [
        " ".join(rng.choice([*a.split(), *b.split()], 9)) if i % 3 else b for i, (a, b) in enumerate(pairs)
    ]
    write_task(
        tmp_path,
        "bleu",
        metric={"name": "bleu", "words": "13a", "extract": [{"step": "strip"}]},
        gold="a",
        shots=None,
    )
    write_items(tmp_path, "bleu", [{"id": i, "q": a, "a": b} for i, (a, b) in enumerate(pairs)])
    answers = {f"{a}=": f" {text}" for (a, _), text in zip(pairs, texts, strict=True)}
    done = run(FakeModel(lambda r, s: answers[r.prompt]))
    assert not done.failures
    known = sacrebleu.corpus_bleu(texts, [[b for _, b in pairs]]).score
    assert 5 < known < 95
    assert done.results[0].score == pytest.approx(known, abs=1e-9)
    assert score(done, "Bleu") == pytest.approx(known, abs=1e-9)
    assert np.isnan(done.results[0].se)
    assert not run(FakeModel(lambda r, s: "never asked")).failures


def test_half_pairs_of_surrogates_are_kept_and_written(run, tmp_path):
    write_task(tmp_path, items=3)
    done = run(FakeModel(lambda r, s: "\ud83d"))
    assert not done.failures
    assert set(frame(done)["prediction"]) == {"?"}
    assert not run(FakeModel(lambda r, s: "never asked")).failures


def test_an_interrupted_run_goes_on(run, tmp_path):
    """Killed twice on the way, it asks each question once and has the records of one that was not."""
    write_task(tmp_path)
    write_choices(tmp_path)
    likes = {"likes": lambda r: [-float(len(r.contexts[0])), -25.0, -26.0]}
    killed = []
    for dies in (4, 14):
        model = FakeModel(half, dies=dies, error=KeyboardInterrupt(), **likes)
        with pytest.raises(KeyboardInterrupt):
            run(model)
        killed += model.asked
    model = FakeModel(half, **likes)
    done = run(model)
    whole = FakeModel(half, **likes)
    assert frame(done).equals(frame(run(whole, out=tmp_path / "whole")))
    assert len(killed) + len(model.asked) == len(whole.asked) == 24


# Where it cannot write.


def test_an_out_that_is_a_file(run, tmp_path):
    write_task(tmp_path)
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            InputError, match=r"cannot write to '.*'; give another --out|: .*; give another --out"
        ):
            run(out=out)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_out_that_cannot_be_written(run, tmp_path):
    write_task(tmp_path)
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(
        InputError, match=r"cannot write to '.*locked': Permission denied; give another --out"
    ):
        run(out=tmp_path / "locked")


def test_records_that_are_something_else(run, tmp_path):
    write_task(tmp_path)
    (tmp_path / "out" / "records").mkdir(parents=True)
    (tmp_path / "out" / "records" / "letter.txt").write_text("mine")
    (why,) = run().failures.values()
    assert "holds other files and is no record folder" in why


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 160 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True)
    except OSError as error:
        pytest.skip(f"no mount: {error}")  # macOS and minimal images have no such command
    if done.returncode:
        pytest.skip("only root may mount a small disk")  # a full disk is made, not imitated
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk(run, tmp_path, small_disk):
    """One line; what was answered is kept, and the rerun asks for the rest alone."""
    write_task(tmp_path, items=40)
    ballast = small_disk / "ballast"
    long = "x" * 2000
    before = FakeModel(lambda r, s: half(r) + "\n" + long)
    (small_disk / "out").mkdir()
    ballast.write_bytes(b"0" * 100_000)
    try:
        (why,) = run(before, out=small_disk / "out").failures.values()
    except InputError as error:  # not even the report had room
        why = str(error)
    assert "No space left on device" in why
    assert "\n" not in why
    assert 0 < len(before.asked) < 40
    assert not list(small_disk.rglob("*.partial"))
    ballast.unlink()
    after = FakeModel(lambda r, s: half(r) + "\n" + long)
    done = run(after, out=small_disk / "out")
    assert not done.failures
    # A batch of two was lost, and nothing else asked twice.
    assert 40 <= len(before.asked) + len(after.asked) <= 42
    whole = run(FakeModel(lambda r, s: half(r) + "\n" + long), out=tmp_path / "whole")
    assert frame(done).equals(frame(whole))


def test_a_disk_that_is_full_when_records_are_written(run, tmp_path, monkeypatch):
    from factorlab.eval import task_records

    write_task(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device", "records/part")

    with monkeypatch.context() as patch:
        patch.setattr(task_records.RecordWriter, "_commit", full)
        (why,) = run().failures.values()
    assert why == "cannot read or write 'records/part': No space left on device"
    model = FakeModel(half)
    done = run(model)
    assert not done.failures
    assert model.asked == []
    assert len(frame(done)) == 12
    assert not [p for p in (tmp_path / "out").rglob(".*") if p.name.endswith(".partial")]
