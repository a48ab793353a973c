"""Batches: the same results wherever they run, nothing lost, nobody blamed for another's fault."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import batch_tasks
import numpy as np
import pytest

from factorlab import batch, cluster
from factorlab.batch import run_batch
from factorlab.errors import InputError
from factorlab.kept import Kept

WORKERS = [1, 2]


@pytest.fixture(scope="module")
def dask_url():
    """A local Dask cluster of two workers, each a process of its own."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (factorlab[cluster])")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as local:
        yield local.scheduler_address.replace("tcp://", "dask://")


@pytest.fixture(params=["here", "pool", "dask"])
def place(request) -> dict:
    """Where a batch runs, as options of `run_batch`."""
    if request.param == "dask":
        return {"cluster": request.getfixturevalue("dask_url")}
    return {"workers": 1 if request.param == "here" else 2}


def tasks(count: int, **moods: str) -> dict[str, dict]:
    """Tasks called t0, t1, ...; a mood of some by name."""
    return {
        f"t{i}": {"value": i, **({"mood": moods[f"t{i}"]} if f"t{i}" in moods else {})} for i in range(count)
    }


def test_results_are_those_of_a_loop_in_the_order_of_the_tasks(place):
    told = []
    done = run_batch(
        batch_tasks.square,
        tasks(7),
        shared=(100,),
        progress=lambda *now: told.append(now),
        stage="squares",
        **place,
    )
    assert {name: result["value"] for name, result in done.results.items()} == {
        f"t{i}": i**2 + 100 for i in range(7)
    }
    assert list(done.results) == [f"t{i}" for i in range(7)]
    assert told == [("squares", done, 7) for done in range(8)]
    assert not done.failures
    pids = {result["pid"] for result in done.results.values()}
    assert (pids == {os.getpid()}) == (place == {"workers": 1})


def test_a_worker_has_one_thread(place):
    done = run_batch(batch_tasks.limits, tasks(4), **place)
    for result in done.results.values():
        assert result["threads"]
        assert set(result["threads"]) == {1}
        if place != {"workers": 1}:
            assert result["numba"] == "1"


def test_threads_of_this_process_are_given_back():
    from threadpoolctl import threadpool_info

    before = [info["num_threads"] for info in threadpool_info()]
    run_batch(batch_tasks.limits, tasks(1), workers=1)
    assert [info["num_threads"] for info in threadpool_info()] == before


@pytest.mark.parametrize("place", ["pool", "dask"], indirect=True)
def test_a_task_whose_worker_dies_once_is_tried_again(place, tmp_path):
    asked = tasks(8, t2="dies once", t5="dies once")
    done = run_batch(batch_tasks.counted, asked, shared=(str(tmp_path),), **place)
    assert done.results == {f"t{i}": 10 * i for i in range(8)}
    assert not done.failures
    assert batch_tasks.calls(tmp_path)[2] >= 2


def test_a_task_that_always_kills_its_worker_is_named_and_nobody_else(tmp_path):
    """The tasks beside it in the pool die with it, and must not be blamed."""
    asked = tasks(9, t4="dies")
    done = run_batch(batch_tasks.counted, asked, shared=(str(tmp_path),), workers=3, retries=1)
    assert done.results == {f"t{i}": 10 * i for i in range(9) if i != 4}
    assert done.failures == {"t4": "its worker process died (EXIT(9)) (2 times)"}


def test_a_batch_whose_workers_all_die_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "MOST_LOSSES", 6)
    asked = tasks(40, **{f"t{i}": "dies" for i in range(40)})
    done = run_batch(batch_tasks.counted, asked, shared=(str(tmp_path),), workers=2, retries=0)
    assert set(done.failures) == set(asked)
    assert any("workers died in a row" in text for text in done.failures.values())


def test_what_fails_is_tried_again_named_and_the_rest_kept(place, tmp_path):
    traces, kept = tmp_path / "traces", tmp_path / "kept"
    traces.mkdir()
    asked = tasks(6, t1="fails", t3="fails once", t4="is wrong")
    options = {"shared": (str(traces),), "settings": {"table": "x"}, "folder": kept, **place}
    done = run_batch(batch_tasks.counted, asked, **options)
    assert done.results == {f"t{i}": 10 * i for i in (0, 2, 3, 5)}
    assert set(done.failures) == {"t1", "t4"}
    assert done.failures["t1"].startswith("ValueError: no luck with 1 (batch_tasks.py:")
    assert done.failures["t1"].endswith(") (3 times)")
    assert done.failures["t4"] == "this table is too small; give another"  # another try would not help
    assert batch_tasks.calls(traces) == {0: 1, 1: 3, 2: 1, 3: 2, 4: 1, 5: 1}
    again = run_batch(batch_tasks.counted, asked, retries=0, **options)
    assert again.results == done.results
    assert again.reused == 4
    assert batch_tasks.calls(traces) == {0: 1, 1: 4, 2: 1, 3: 2, 4: 2, 5: 1}


@pytest.mark.parametrize("workers", WORKERS)
def test_an_interrupted_batch_goes_on_where_it_stopped(workers, tmp_path):
    traces, kept = tmp_path / "traces", tmp_path / "kept"
    traces.mkdir()
    ended = []

    def stop_at_three(name, result):
        ended.append(name)
        if len(ended) == 3:
            raise KeyboardInterrupt

    options = {"shared": (str(traces),), "settings": {}, "folder": kept, "workers": workers}
    with pytest.raises(KeyboardInterrupt):
        run_batch(batch_tasks.counted, tasks(8), ended=stop_at_three, **options)
    before = batch_tasks.calls(traces)
    assert len(list(kept.iterdir())) == 3
    done = run_batch(batch_tasks.counted, tasks(8), **options)
    assert done.reused == 3
    assert done.results == {f"t{i}": 10 * i for i in range(8)}
    for name in ended:
        value = int(name[1:])
        assert batch_tasks.calls(traces)[value] == before[value] == 1


@pytest.mark.parametrize("workers", WORKERS)
def test_ctrl_c_in_a_terminal_keeps_what_ended_and_says_no_more(workers, tmp_path):
    """The signal reaches the workers too; none of them may print of it, or stay."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import batch_tasks\n"
        "from factorlab.batch import run_batch\n"
        "try:\n"
        "    run_batch(batch_tasks.slow, {str(i): {'value': i} for i in range(6)}, settings={},\n"
        "              workers=int(sys.argv[2]), folder=sys.argv[3],\n"
        "              ended=lambda *_: print('.', flush=True))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(workers), str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == ".\n"
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert rest == "interrupted\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_task_that_gives_back_something_when_interrupted_does_not_count_as_ended(tmp_path):
    options = {"settings": {}, "folder": tmp_path, "workers": 1}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_batch(batch_tasks.ends_early, tasks(3), **options)
    assert len(list(tmp_path.iterdir())) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_results_of_other_settings_tasks_or_functions_are_not_taken(tmp_path):
    def run(**changes):
        options = {"shared": (1,), "settings": {"seed": 1}, "folder": tmp_path, "workers": 1, **changes}
        return run_batch(
            options.pop("function", batch_tasks.square), options.pop("asked", tasks(2)), **options
        )

    run()
    assert run().reused == 2
    assert run(settings={"seed": 2}).reused == 0
    assert run(asked={"t0": {"value": 5}}).reused == 0
    assert run(asked={"other": {"value": 0}}).reused == 0
    assert run(function=batch_tasks.limits, shared=()).reused == 0
    assert run().reused == 2


def test_a_damaged_or_exchanged_file_is_not_believed(tmp_path):
    options = {"shared": (1,), "settings": {}, "folder": tmp_path, "workers": 1}
    first = run_batch(batch_tasks.square, tasks(3), **options)
    paths = sorted(tmp_path.iterdir())
    paths[0].write_text(paths[0].read_text()[:-9])
    paths[1].write_text(paths[2].read_text())
    again = run_batch(batch_tasks.square, tasks(3), **options)
    assert again.reused == 1
    assert {n: r["value"] for n, r in again.results.items()} == {
        n: r["value"] for n, r in first.results.items()
    }


def test_arrays_are_kept_as_they_are_without_pickle(tmp_path):
    options = {"settings": {}, "folder": tmp_path, "workers": 1}
    first = run_batch(batch_tasks.arrays, tasks(2), **options)
    again = run_batch(batch_tasks.arrays, tasks(2), **options)
    assert again.reused == 2
    for done in (first, again):
        expected = batch_tasks.arrays(1)
        found = done.results["t1"]
        assert set(found) == set(expected)
        assert (found["name"], found["nothing"]) == ("日本語 1", None)
        for name in ("matrix", "gaps", "words"):
            np.testing.assert_array_equal(found[name], expected[name])
    with np.load(next(tmp_path.glob("*.npz")), allow_pickle=False) as file:
        assert json.loads(str(file["head"]))["key"] in ("t0", "t1")


def test_results_that_cannot_be_kept_are_refused(tmp_path):
    store = Kept(tmp_path, "f", {})
    for wrong in ({"x": np.array([{}], dtype=object)}, {"x": object()}, {"head": np.zeros(1)}):
        with pytest.raises(TypeError):
            store.write("t", {}, wrong)
    with pytest.raises(ValueError, match="Out of range float"):
        store.write("t", {}, float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_only_results_of_these_tasks_stay(tmp_path):
    options = {"shared": (1,), "folder": tmp_path, "workers": 1}
    run_batch(batch_tasks.square, tasks(2), settings={"seed": 1}, **options)
    run_batch(batch_tasks.square, tasks(3), settings={"seed": 2}, **options)
    Kept(tmp_path, "batch_tasks.square", {"seed": 2}).prune(tasks(2))
    assert len(list(tmp_path.iterdir())) == 2
    assert run_batch(batch_tasks.square, tasks(2), settings={"seed": 2}, **options).reused == 2


@pytest.mark.parametrize("workers", WORKERS)
def test_no_task_is_started_after_the_time_is_up(workers, tmp_path):
    done = run_batch(
        batch_tasks.counted,
        tasks(200),
        shared=(str(tmp_path),),
        workers=workers,
        seconds=2.0 if workers > 1 else 0.3,
    )
    assert 0 < len(done.results) < 200
    assert set(done.results).isdisjoint(done.pending)
    assert len(done.results) + len(done.pending) == 200


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "http://host:1",
            "cluster 'http://host:1' is of no known kind; give dask://host:port or ray://host:port",
        ),
        ("dask://", "cluster 'dask://' is no address; give dask://host:port"),
        ("dask://host:high", "has a port that is no number below 65536"),
        ("dask://127.0.0.1:1", "no cluster answers at dask://127.0.0.1:1 "),
        ("dask://nobody.invalid", "no cluster answers at dask://nobody.invalid "),
    ],
)
def test_a_wrong_address_is_one_line_at_once(url, message):
    pytest.importorskip("distributed", reason="Dask is not installed (factorlab[cluster])")
    began = time.monotonic()
    with pytest.raises(InputError) as error:
        run_batch(batch_tasks.square, tasks(1), shared=(1,), cluster=url)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 15


def test_something_that_accepts_and_says_nothing_is_told_within_seconds(monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed (factorlab[cluster])")
    monkeypatch.setattr(cluster, "TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"dask://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=r"no cluster answers at .* \(timed out\)"):
            run_batch(batch_tasks.square, tasks(1), shared=(1,), cluster=url)


@pytest.mark.parametrize(
    ("kind", "library", "extra"), [("dask", "distributed", "cluster"), ("ray", "ray", "ray")]
)
def test_a_missing_library_names_its_extra(kind, library, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"{kind}:// needs .*: pip install 'factorlab\[{extra}\]'"):
        run_batch(batch_tasks.square, tasks(1), shared=(1,), cluster=f"{kind}://127.0.0.1:1")


def test_workers_with_another_version_are_refused():
    cluster.check_facts("dask://h:1", {cluster.facts()})
    with pytest.raises(
        InputError, match=r"has Python 3.9 with factorlab 0.0, here it is Python .*; install the same"
    ):
        cluster.check_facts("dask://h:1", {cluster.facts(), ("3.9", "0.0")})


def test_a_scheduler_without_workers_is_told(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (factorlab[cluster])")
    monkeypatch.setattr(cluster, "TIMEOUT", 1.0)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as empty:
        url = empty.scheduler_address.replace("tcp://", "dask://")
        with pytest.raises(InputError, match="has no workers; start some with: dask worker"):
            run_batch(batch_tasks.square, tasks(1), shared=(1,), cluster=url)


def test_a_lost_cluster_is_told_and_what_ended_is_kept(tmp_path):
    pytest.importorskip("distributed", reason="Dask is not installed (factorlab[cluster])")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    run = [sys.executable, "-m"]
    quiet = {
        "cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
        "env": {**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    }  # fmt: skip
    scheduler = subprocess.Popen(
        [*run, "distributed.cli.dask_scheduler", "--port", address.split(":")[1], "--no-dashboard"], **quiet
    )
    worker = subprocess.Popen(
        [
            *run,
            "distributed.cli.dask_worker",
            f"tcp://{address}",
            "--nthreads=1",
            "--no-nanny",
            "--no-dashboard",
        ],
        **quiet,
    )
    ended = []

    def kill_after_two(name, result):
        ended.append(name)
        if len(ended) == 2:
            scheduler.kill()

    try:
        wait_for(address)
        asked = {f"t{i}": {"value": i, "wait": 1.0} for i in range(4)}  # one after the other
        with pytest.raises(InputError, match="2 of 4 fits had ended and are kept: the same call goes on"):
            run_batch(
                batch_tasks.waiting, asked, shared=(1,), settings={}, folder=tmp_path / "kept",
                cluster=f"dask://{address}", ended=kill_after_two,
            )  # fmt: skip
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert len(list((tmp_path / "kept").iterdir())) == 2


def wait_for(address: str) -> None:
    host, port = address.split(":")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0; give 1 or more"),
        ({"retries": -1}, "retries is -1; give 0 or more"),
        ({"folder": "x"}, "results can be kept only with settings"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        run_batch(batch_tasks.square, tasks(1), **options)


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
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(f"127.0.0.1:{client}")
        yield f"ray://127.0.0.1:{client}"
    finally:
        node.terminate()
        node.wait(30)


def test_ray_gives_the_same_with_failures_and_deaths(ray_url, tmp_path):
    traces, kept = tmp_path / "traces", tmp_path / "kept"
    traces.mkdir()
    asked = tasks(8, t1="fails", t2="dies once", t5="dies")
    options = {"shared": (str(traces),), "settings": {}, "folder": kept, "cluster": ray_url}
    done = run_batch(batch_tasks.counted, asked, **options)
    assert done.results == {f"t{i}": 10 * i for i in (0, 2, 3, 4, 6, 7)}
    assert done.failures["t1"].startswith("ValueError: no luck with 1")
    assert done.failures["t5"] == "its worker process died (3 times)"
    assert run_batch(batch_tasks.counted, tasks(5), **options).reused == 3
