"""Fits and tables that several tests read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from factorlab.inference.bayes import fit_bayes
from factorlab.scores import ScoreTable, read_scores
from factorlab.simulation import Simulated, simulate

# A shell starts its background jobs deaf to SIGINT, and they hand that on: tests of interruption would wait forever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run side by side: threads of one wait, spinning, for cores that another has, and take ten times as long.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")  # of what is loaded later, and of other processes
threadpool_limits(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def swallow() -> ScoreTable:
    """The real 35 x 19 matrix of the project's own data folder."""
    return read_scores(ROOT / "data" / "scores.parquet")


@pytest.fixture(scope="session")
def small() -> Simulated:
    """A simulated table on which a fit takes seconds: 24 models x 8 benchmarks, 2 factors.

    A general factor and a contrast of the two halves, so that the principal axes are the true ones.
    """
    loading = np.column_stack([np.full(8, 0.75), np.repeat([0.6, -0.4], 4)])
    return simulate(models=24, benchmarks=8, loading=loading, n_instances=500, family_share=0.3, seed=20)


@pytest.fixture(scope="session")
def small_fit(small: Simulated):
    """A short posterior of `small`."""
    return fit_bayes(small.table, 2, draws=400, tune=400, chains=2, seed=3)
