"""Tasks for the tests of batches: they run in other processes, so they are in a module of their own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from factorlab.errors import InputError


def square(offset: int, value: int) -> dict:
    return {"value": value**2 + offset, "pid": os.getpid()}


def limits(value: int) -> dict:
    """Threads of linear algebra after it was used."""
    np.linalg.eigh(np.eye(300) + value)
    return {
        "threads": [info["num_threads"] for info in threadpool_info()],
        "numba": os.environ.get("NUMBA_NUM_THREADS"),
    }


def counted(folder: str, value: int, mood: str = "well") -> int:
    """Leaves a trace of each call; a mood makes it fail or its process die, at once or every time."""
    calls = len(list(Path(folder).glob(f"{value}.*")))
    (Path(folder) / f"{value}.{calls}").touch()
    if mood == "dies" or (mood == "dies once" and not calls):
        os._exit(9)
    if mood == "fails" or (mood == "fails once" and not calls):
        raise ValueError(f"no luck with {value}\nand more")
    if mood == "is wrong":
        raise InputError("this table is too small;\ngive another")
    time.sleep(0.05)
    return value * 10


def calls(folder: Path) -> dict[int, int]:
    """How often each task was called."""
    values = [int(path.name.split(".")[0]) for path in folder.iterdir()]
    return {value: values.count(value) for value in values}


def arrays(value: int) -> dict:
    return {
        "name": f"日本語 {value}",
        "nothing": None,
        "matrix": np.full((2, 3), value / 7),
        "gaps": np.array([np.nan, -np.inf]),
        "words": np.array(["a", "日本"]),
    }


def slow(value: int) -> int:
    """Quick at first, then so slow that it must be interrupted."""
    time.sleep(0.05 if value < 3 else 60)
    return value


def ends_early(value: int) -> int:
    """Interrupted in the second task, it gives back what it has, as a sampler may."""
    try:
        if value == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    except KeyboardInterrupt:
        return -1
    return value


def waiting(offset: int, value: int, wait: float) -> int:
    time.sleep(wait)
    return value + offset
