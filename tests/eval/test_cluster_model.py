"""A model on a cluster: the same answers as here, each exactly once, though a worker is killed on the way."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked import assert_same_choices, choices, scored, texts, written

from factorlab.errors import InputError
from factorlab.eval import cluster_model
from factorlab.eval.cluster_model import ClusterModel
from factorlab.eval.model_spec import ModelSpec, open_model
from factorlab.eval.run import Settings, evaluate
from factorlab.eval.task import load_task
from factorlab.records import read_records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dask_url():
    """A local Dask cluster of two workers, each a process of its own."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (factorlab[cluster])")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as local:
        yield local.scheduler_address.replace("tcp://", "dask://")


@pytest.fixture(scope="module")
def ray_url():
    """A Ray node of two cores of its own, with a server for clients."""
    pytest.importorskip("ray", reason="Ray is not installed (factorlab[ray])")
    command = [sys.executable, "-m", "ray.scripts.scripts"]
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        head, client = one.getsockname()[1], two.getsockname()[1]
    # Not `ray stop` at the end, which stops every Ray of this machine: with --block the command is the node.
    node = subprocess.Popen(
        [
            *command, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2",
            f"--port={head}", f"--ray-client-server-port={client}",
            "--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and node.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", client), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"ray://127.0.0.1:{client}"
    finally:
        node.terminate()
        node.wait(30)


@pytest.fixture(params=["dask", "ray"])
def url(request) -> str:
    """A cluster of two workers."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="module")
def spec(ladder) -> ModelSpec:
    return ModelSpec("small", str(ladder.models[0]), device="cpu")


@pytest.fixture(scope="module")
def one(spec):
    """The model in this process."""
    return open_model(spec)


def full(batch):
    raise InputError("answers cannot be written: No space left on device")


def test_a_cluster_answers_as_one_process_though_a_worker_is_killed(one, spec, url):
    """A worker dies as soon as it has answered its first stretch: it is at its next one then."""
    model = open_model(spec, cluster=url)
    assert isinstance(model, ClusterModel)
    with closing(model):  # an open Ray client would refuse the next test's
        compare(model, one)


def compare(model, one):
    """Facts, tokens, log-likelihoods and texts of a model on a cluster and of one here."""
    told, here = model.facts, one.facts
    assert (told.revision, told.engine, told.dtype, told.context, told.versions) == (
        here.revision, here.engine, here.dtype, here.context, here.versions,
    )  # fmt: skip
    assert told.device == "2 x cpu"
    assert model.encode("a かな") == one.encode("a かな")
    assert model.begin_of_text(model.encode("a")) == 1
    asked, prompts = choices(160, longer=8), texts(24)
    answers: list[Any] = []
    killed: list[int] = []

    def take(batch):
        if not killed:
            killed.append(int(next(iter(model.answered)).split(":")[1]))
            os.kill(killed[0], signal.SIGKILL)
        answers.extend(batch)

    model.score(asked, take)
    assert sorted(i for i, _ in answers) == list(range(160))
    assert_same_choices(dict(answers), scored(one, asked))
    assert len(model.answered) >= 2
    assert sum(model.answered.values()) == 160
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)
    assert written(model, prompts) == written(one, prompts)
    model.score([], take)
    with pytest.raises(InputError, match="No space left"):
        model.score(asked, full)
    assert_same_choices(scored(model, asked), scored(one, asked))


@pytest.mark.parametrize("number", [0, -1])
def test_evaluation_writes_the_same_records(one, spec, ladder, dask_url, tmp_path, number):
    """One task of each kind: texts and choices."""
    tasks = [load_task(ladder.tasks[number])]
    settings = Settings(limit=40, data_dir=ladder.data)
    openers = {"here": lambda: one, "there": lambda: open_model(spec, cluster=dask_url, workers=2)}
    frames = []
    for place, opener in openers.items():
        done = evaluate({"small": opener}, tasks, tmp_path / place, settings)
        assert not done.failures
        frames.append(records_of(done.records))
        again = evaluate({"small": opener}, tasks, tmp_path / place, settings) if place == "there" else done
        assert [result.reused for result in again.results] == ([40] if place == "there" else [0])
    assert len(frames[0]) >= 40
    assert frames[0].equals(frames[1])


def records_of(folder: Path):
    """All records but for when they were made."""
    frame = read_records(folder).to_dataframe()
    keys = ["benchmark", "metric", "instance_id", "trial"]
    return frame.drop(columns="created").sort_values(keys).reset_index(drop=True)


def test_a_model_that_is_changed_on_a_worker_does_not_mix_in(spec, dask_url, tmp_path):
    """Workers hold a model; they see that its files are others now, and the asker that answers are of others."""
    folder = tmp_path / "model"
    shutil.copytree(spec.source, folder)
    model = ClusterModel(replace(spec, source=str(folder)), dask_url)
    with open(folder / "config.json", "a", encoding="utf-8") as file:
        file.write("\n")
    answers: list[Any] = []
    with pytest.raises(
        InputError, match=r"worker \S+:\d+ runs 'small' with revision \w+, the first one"
    ) as error:
        model.score(choices(60), answers.extend)
    model.close()
    assert "put the same model and libraries on all workers" in str(error.value)
    assert not answers


def test_what_a_user_has_to_mend_is_one_line(one, spec, dask_url, tmp_path, monkeypatch):
    cases = [
        (replace(spec, device="cuda:0,cuda:1"), "a worker has one device; give auto, cpu or cuda"),
        (replace(spec, source=str(tmp_path)), "tokenizer and config.json are needed here, too"),
        (replace(spec, dtype="fp7"), "could not load the model 'small': --dtype 'fp7' is unknown"),
    ]
    for wrong, message in cases:
        with pytest.raises(InputError) as error:
            ClusterModel(wrong, dask_url)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no cluster answers at dask://127"):
        ClusterModel(spec, "dask://127.0.0.1:1")
    # The tokenizer here is of another model than that of the workers.
    monkeypatch.setattr(ClusterModel, "encode", lambda self, text, bos=True: [1, 2, 3])
    with pytest.raises(InputError, match=r"the tokenizer of '.*' here is another than on worker"):
        ClusterModel(spec, dask_url)


def test_a_worker_tells_of_gpus_that_would_stay_idle(monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(
        InputError, match=r"sees 4 GPUs, and each would take the first; start a worker for each"
    ):
        cluster_model._check_device("auto")
    cluster_model._check_device("cuda:1")
    cluster_model._check_device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cluster_model._check_device("auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(Path, "is_dir", lambda self: True)
    with pytest.raises(InputError, match="GPUs are hidden from a worker"):
        cluster_model._check_device("auto")
