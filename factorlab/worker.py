"""Worker: what happens where a task runs, in this process, in a pool or on a cluster."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from factorlab import __version__
from factorlab.errors import InputError

Outcome = tuple[str, Any]
"""("done", result), ("mistake", message): an `InputError`, which another try cannot mend, ("failed",
message) or ("lost", message): the worker died."""

# PyTensor's and numba's compilers do not stand several threads: one task at a time in a process.
_ONE_AT_A_TIME = threading.Lock()


def in_pool(
    name: str, function: Callable[..., Any], shared: Sequence[Any], arguments: Mapping[str, Any]
) -> tuple[str, Outcome]:
    """In a process of the local pool, which leaves Ctrl-C to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return in_cluster(name, function, shared, arguments)


def in_cluster(
    name: str, function: Callable[..., Any], shared: Sequence[Any], arguments: Mapping[str, Any]
) -> tuple[str, Outcome]:
    """In a process that is there for such tasks: its limits stay."""
    with _ONE_AT_A_TIME:
        if "numba" not in sys.modules:
            os.environ["NUMBA_NUM_THREADS"] = "1"
        _limit_numba(1)
        threadpool_limits(limits=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each worker would print them all again
            return name, attempt(function, shared, arguments)


def attempt(function: Callable[..., Any], shared: Sequence[Any], arguments: Mapping[str, Any]) -> Outcome:
    """Call a function; what it raises becomes a line of text."""
    try:
        return "done", function(*shared, **arguments)
    except InputError as error:
        return "mistake", " ".join(str(error).split())
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = (str(error).strip().splitlines() or [""])[0]
        return "failed", f"{type(error).__name__}: {text[:300]} ({Path(where.filename).name}:{where.lineno})"


def _limit_numba(threads: int) -> int:
    """Set the number of threads of numba, where it is loaded; the number before."""
    numba = sys.modules.get("numba")
    if numba is None:
        return threads
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    return int(before)


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for linear algebra and numba in this process, for the time of the block."""
    before = _limit_numba(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        _limit_numba(before)


@contextmanager
def noting_interruptions() -> Iterator[list[int]]:
    """A list of the interruptions that come in the block, for tasks that end early instead of raising.

    The handlers in place are called all the same. Nothing is noted outside the main thread.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


def facts() -> tuple[str, str]:
    """Python (major and minor) and factorlab, as they are here."""
    return ".".join(platform.python_version_tuple()[:2]), __version__
