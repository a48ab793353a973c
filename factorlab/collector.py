"""Garbage collection put off while many objects are made that all stay."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

GARBAGE_AFTER = 1_000_000
"""New objects before Python looks for garbage; at its own 700 or 2000 importing PyMC pays 0.6 s for nothing."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for garbage seldom: importing PyMC and compiling a model make objects that nearly all stay."""
    thresholds = gc.get_threshold()
    gc.set_threshold(GARBAGE_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def end_unsearched() -> None:
    """Before Python ends: what is alive is not searched for garbage, which takes a second after a fit.

    Not where DuckDB is loaded, which would print that its objects are left over.
    """
    if "duckdb" not in sys.modules:
        gc.freeze()
