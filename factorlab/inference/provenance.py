"""Provenance: what a result was made from and with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from factorlab.scores import ScoreTable

PACKAGES = (
    "factorlab",
    "pymc",
    "arviz",
    "nutpie",
    "numpy",
    "pandas",
    "scikit-learn",
    "statsmodels",
    "xarray",
)


def versions() -> dict[str, str]:
    """Version of Python and of every package that shapes a result, "absent" where not installed."""
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "absent"
    return out


def describe(table: ScoreTable, seed: int | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Table name and digest, seed, settings and versions: JSON-able."""
    return {
        "table": table.name,
        "digest": table.digest(),
        "seed": seed,
        "settings": dict(settings),
        "versions": versions(),
    }
