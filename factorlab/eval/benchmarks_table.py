"""What tasks say of their benchmarks, as the table that a fit reads beside the scores."""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from factorlab.eval.task import Task
from factorlab.metrics import find_metric
from factorlab.tabular import read_frame, write_atomically


def benchmarks_table(tasks: Sequence[Task]) -> pd.DataFrame:
    """A row a benchmark: language, metric, its range and direction, chance level, group of shared items."""
    rows = []
    for task in tasks:
        metric = find_metric(task.metric.name)
        rows.append(
            {
                "benchmark": task.benchmark,
                "language": task.language,
                "metric": task.metric.name,
                "chance": task.chance,
                "min": metric.low if metric else None,
                "max": metric.high if metric else None,
                "higher_is_better": metric.higher_is_better if metric else True,
                "shared_items_group": task.shared[0] if task.shared else None,
            }
        )
    return pd.DataFrame(rows).drop_duplicates("benchmark")


def write_benchmarks(tasks: Sequence[Task], folder: Path) -> None:
    """Write ``benchmarks.csv``; rows that a table there has already stay as they are."""
    file = folder / "benchmarks.csv"
    with open(folder / ".benchmarks.lock", "w") as lock:  # another run may add its rows at the same time
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        own = benchmarks_table(tasks)
        if file.exists():
            earlier = read_frame(file)
            own = own[~own["benchmark"].isin(earlier["benchmark"])]
            if own.empty:
                return
            own = pd.concat([earlier, own.reindex(columns=earlier.columns)], ignore_index=True)
        write_atomically(file, lambda name: own.to_csv(name, index=False))
