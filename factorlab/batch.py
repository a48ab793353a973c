"""Many tasks at once: in this process, on the cores here, or on a Dask or Ray cluster.

All three run through `joblib.Parallel`. What ended is kept as it ends, what failed or lost its worker
is tried again, and a batch that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import joblib

from factorlab.cluster import Cluster, connect
from factorlab.cluster_backend import ClusterLost
from factorlab.errors import InputError
from factorlab.kept import Kept
from factorlab.worker import Outcome, attempt, in_cluster, in_pool, noting_interruptions, single_threaded

Tasks = Mapping[str, Mapping[str, Any]]
"""Name of each task to its JSON-able arguments."""

MOST_LOSSES = 30
"""Workers lost in a row, without a task that ended, after which a batch is given up."""


@dataclass(frozen=True)
class Batch:
    """What became of the tasks.

    Attributes
    ----------
    results : dict
        Name to result, in the order of the tasks; those kept earlier are among them.
    failures : dict of str to str
        Name to what went wrong, one line.
    pending : tuple of str
        Tasks that were not started because time was up.
    reused : int
        Results that were kept by an earlier call.
    notes : tuple of str
    """

    results: Mapping[str, Any]
    failures: Mapping[str, str]
    pending: tuple[str, ...] = ()
    reused: int = 0
    notes: tuple[str, ...] = ()


def run_batch(
    function: Callable[..., Any],
    tasks: Tasks,
    *,
    shared: Sequence[Any] = (),
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    cluster: str | Cluster | None = None,
    folder: str | os.PathLike[str] | None = None,
    tidy: bool = False,
    retries: int = 2,
    seconds: float | None = None,
    stage: str = "fits",
    progress: Callable[[str, int, int], None] | None = None,
    ended: Callable[[str, Any], None] | None = None,
) -> Batch:
    """Call ``function(*shared, **arguments)`` for every task.

    Parameters
    ----------
    function : callable
        Picklable; it may run in another process, on another machine, several times.
    tasks : mapping of str to mapping
        Name of each task to its arguments, JSON-able.
    shared : sequence
        What every task needs: sent to a cluster once.
    settings : mapping, optional
        JSON-able: all else that shapes the results, such as a digest of what is shared. Needed with
        `folder`.
    workers : int, optional
        Tasks at once; the cores of this machine when not given, 1: in this process. On a cluster an
        upper limit, all its workers when not given.
    cluster : str or Cluster, optional
        ``dask://host:port`` or ``ray://host:port``; or an open connection (`factorlab.cluster.connect`), with
        which Ray keeps its worker processes from one batch to the next.
    folder : path, optional
        Where each result is kept as it ends, in a file of its own (`factorlab.kept`). Results that are
        there already are not computed again. They must be JSON-able, or dictionaries of JSON-able
        values and arrays.
    tidy : bool
        Delete every file in `folder` that is no result of these tasks, when the batch has ended.
    retries : int
        How often a task that failed, or lost its worker, is tried again.
    seconds : float, optional
        No task is started after this long.
    stage : str
        Name of the work, for `progress`.
    progress : callable, optional
        Called with (stage, done, total), as `factorlab.inference.watch.Progress`.
    ended : callable, optional
        Called here with name and result as each task ends; not for those kept earlier.

    Returns
    -------
    Batch

    Raises
    ------
    InputError
        `workers` or `retries` out of range; a cluster that cannot be used (`factorlab.cluster`), or
        that was lost.
    KeyboardInterrupt
        When interrupted; what ended is kept.

    Notes
    -----
    A worker has one thread for linear algebra and numba. When a process of the local pool dies, all
    tasks then running are suspect: they are run again in halves until the one at fault runs alone, so
    that no other is blamed. A Dask scheduler gives a task that kills its workers up only after several
    of them (its own ``allowed-failures``); Dask and Ray tell which task it was.
    """
    _check(workers, retries, settings, folder)
    kept = None if folder is None else Kept(folder, _name(function), settings or {})
    state = _State(tasks, retries, stage, progress or (lambda stage, done, total: None), ended, kept)
    state.reuse()
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    notes: tuple[str, ...] = ()
    if state.open and cluster is not None:
        with connect(cluster) if isinstance(cluster, str) else nullcontext(cluster) as connected:
            notes = connected.notes
            limit = workers if workers is not None else connected.slots if seconds is not None else "all"
            with joblib.parallel_config(backend=connected.backend):
                work = (function, connected.share(tuple(shared)))
                try:
                    _run(
                        state,
                        lambda names: _pool(-1, limit)(_calls(in_cluster, names, work, tasks)),
                        deadline,
                    )
                except ClusterLost as lost:
                    raise InputError(state.told_lost(str(lost))) from None
    elif state.open:
        count = workers if workers is not None else joblib.cpu_count()
        work = (function, tuple(shared))
        if count == 1:
            with single_threaded():
                _run(state, lambda names: _here(names, work, tasks), deadline)
        else:
            with joblib.parallel_config("loky", inner_max_num_threads=1):
                _run(
                    state, lambda names: _pool(count, "n_jobs")(_calls(in_pool, names, work, tasks)), deadline
                )
    if tidy and kept is not None:
        kept.prune(tasks)
    return state.batch(notes)


Lane = Callable[[Iterable[str]], Generator[tuple[str, Outcome], None, None]]
"""Runs the tasks of these names; yields name and outcome of each as it ends."""


def _check(
    workers: int | None,
    retries: int,
    settings: Mapping[str, Any] | None,
    folder: str | os.PathLike[str] | None,
) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more, or leave it out")
    if retries < 0:
        raise InputError(f"retries is {retries}; give 0 or more")
    if folder is not None and settings is None:
        raise InputError(
            "results can be kept only with settings, which tell them from those of other batches"
        )


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


class _State:
    """What has become of each task so far."""

    def __init__(
        self,
        tasks: Tasks,
        retries: int,
        stage: str,
        progress: Callable[[str, int, int], None],
        ended: Callable[[str, Any], None] | None,
        kept: Kept | None,
    ) -> None:
        self.tasks, self.retries, self.stage, self.progress = tasks, retries, stage, progress
        self.kept, self.ended = kept, ended
        self.results: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.tries: Counter[str] = Counter()
        self.open = dict.fromkeys(tasks)
        self.reused = 0

    def reuse(self) -> None:
        """Take what is kept from an earlier call."""
        for name, arguments in self.tasks.items() if self.kept is not None else ():
            assert self.kept is not None
            found, result = self.kept.read(name, arguments)
            if found:
                self.results[name] = result
                del self.open[name]
        self.reused = len(self.results)
        self.tell()

    def tell(self) -> None:
        self.progress(self.stage, len(self.tasks) - len(self.open), len(self.tasks))

    def settle(self, name: str, kind: str, value: Any) -> bool:
        """Note how a task ended; True where it is to be tried again."""
        if kind == "done":
            self.results[name] = (
                self.kept.write(name, self.tasks[name], value) if self.kept is not None else value
            )
            del self.open[name]
            if self.ended is not None:
                self.ended(name, self.results[name])
            self.tell()
            return False
        self.tries[name] += 1
        if kind != "mistake" and self.tries[name] <= self.retries:
            return True
        times = f" ({self.tries[name]} times)" if self.tries[name] > 1 else ""
        self.fail(name, f"{value}{times}")
        return False

    def fail(self, name: str, message: str) -> None:
        self.failures[name] = message
        del self.open[name]
        self.tell()

    def told_lost(self, why: str) -> str:
        done = f"{len(self.results)} of {len(self.tasks)} {self.stage} had ended"
        kept = " and are kept: the same call goes on from there" if self.kept is not None else ""
        return f"{why}; {done}{kept}"

    def batch(self, notes: tuple[str, ...]) -> Batch:
        """In the order of the tasks."""
        results, failures = (
            {name: part[name] for name in self.tasks if name in part}
            for part in (self.results, self.failures)
        )
        return Batch(results, failures, tuple(self.open), self.reused, notes)


def _run(state: _State, lane: Lane, deadline: float) -> None:
    """Run all open tasks, and again those that failed or whose worker died."""
    groups = deque([list(state.open)])
    losses = 0
    while groups and time.monotonic() < deadline:
        names = groups.popleft()
        again: list[str] = []
        started: list[str] = []
        try:
            with _closed(lane(_until(names, started, deadline))) as ending:
                for name, (kind, value) in ending:
                    losses = 0
                    if state.settle(name, kind, value):
                        again.append(name)
        except BrokenProcessPool as error:
            losses += 1
            begun = set(started)
            suspects = [name for name in names if name in begun & state.open.keys() and name not in again]
            rest = [name for name in names if name not in begun]
            if len(suspects) == 1 and state.settle(suspects[0], "lost", _death(error)):
                again += suspects
            elif len(suspects) > 1:
                half = len(suspects) // 2
                groups += [suspects[:half], suspects[half:]]
            if rest:
                groups.appendleft(rest)
            if losses > MOST_LOSSES:
                for name in list(state.open):
                    state.fail(name, f"given up: {losses} workers died in a row; {_death(error)}")
                return
        if again:
            groups.append(again)


@contextmanager
def _closed(lane: Generator[tuple[str, Outcome], None, None]) -> Iterator[Iterator[tuple[str, Outcome]]]:
    """End a lane with the block, however the block ends."""
    try:
        yield lane
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of joblib, that tasks were broken off: they are meant to be
            lane.close()


def _until(names: Iterable[str], started: list[str], deadline: float) -> Iterator[str]:
    """Names as they are asked for, noted; none after the deadline."""
    for name in names:
        if time.monotonic() >= deadline:
            return
        started.append(name)
        yield name


def _death(error: BaseException) -> str:
    codes = re.search(r"exit codes? .*?\{(.*?)\}", str(error), re.DOTALL)
    code = codes.group(1) if codes else "unknown"
    hint = ": killed, often for want of memory; try fewer workers" if "SIGKILL" in code else ""
    return f"its worker process died ({code}{hint})"


def _pool(count: int, at_once: int | str) -> joblib.Parallel:
    """A new one each time: one that was broken off still holds tasks it had looked ahead at."""
    return joblib.Parallel(
        count, batch_size=1, pre_dispatch=at_once, return_as="generator_unordered", mmap_mode="c"
    )


def _calls(
    call: Callable[..., Any], names: Iterable[str], work: tuple[Any, Any], tasks: Tasks
) -> Iterator[Any]:
    return (joblib.delayed(call)(name, *work, dict(tasks[name])) for name in names)


def _here(
    names: Iterable[str], work: tuple[Any, Any], tasks: Tasks
) -> Generator[tuple[str, Outcome], None, None]:
    """One after the other in this process; what an interrupted task gives back is not taken for whole."""
    with noting_interruptions() as caught:
        for name in names:
            outcome = attempt(*work, tasks[name])
            if caught:
                raise KeyboardInterrupt
            yield name, outcome
