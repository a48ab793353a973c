"""Kin: models that share a family or a base model, and benchmarks that share a name, as arrays."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from factorlab.inference.design import BudgetDesign
from factorlab.score_table import ScoreTable

FAMILY, BASE_MODEL = 0, 1


class Kin(NamedTuple):
    """Which nodes of the tree of models each model hangs on.

    Attributes
    ----------
    row, node : ndarray of int, (entry,)
        Model i has what node n passes on.
    level : ndarray of int, (node,)
        FAMILY or BASE_MODEL.
    names : tuple of str
        Of the nodes.
    """

    row: np.ndarray
    node: np.ndarray
    level: np.ndarray
    names: tuple[str, ...]


def kin_of(design: BudgetDesign, model_names: list[str]) -> Kin:
    """Families and base models with at least two models below them (one alone cannot be told from itself)."""
    labels = [*design.families, *design.steps]
    below: dict[int, list[int]] = {}
    for i in range(len(model_names)):
        n = int(design.node[i])
        while n >= 0:
            below.setdefault(n, []).append(i)
            n = int(design.parent[n])
    kept: list[int] = []
    for n in sorted(below):
        if len(below[n]) < 2:
            continue
        if any(below[n] == below[m] for m in kept):  # a family with one root: the same models twice
            continue
        kept.append(n)
    rows = [i for n in kept for i in below[n]]
    nodes = [k for k, n in enumerate(kept) for _ in below[n]]
    level = [FAMILY if n < len(design.families) else BASE_MODEL for n in kept]
    return Kin(
        np.array(rows, dtype=int),
        np.array(nodes, dtype=int),
        np.array(level, dtype=int),
        tuple(str(labels[n]) for n in kept),
    )


def benchmark_groups(table: ScoreTable) -> tuple[np.ndarray, tuple[str, ...]]:
    """Group of each benchmark: declared shared items, else the first word of its name.

    "AIME 2024" and "aime_2025" are of one group, as are "tau-bench" and "tau2-bench"; a group of one is none.

    Returns
    -------
    index : ndarray of int, (benchmark,)
        -1 without a group.
    names : tuple of str
    """
    declared = table.benchmarks["shared_items_group"]
    keys = [
        f"group {given}" if isinstance(given, str) and given else first_word(name)
        for name, given in zip(table.benchmark_names, declared, strict=True)
    ]
    shared = [k for k in dict.fromkeys(keys) if k and keys.count(k) > 1]
    return np.array([shared.index(k) if k in shared else -1 for k in keys]), tuple(shared)


def first_word(name: str) -> str:
    """The first word of a benchmark's name, in lower case and without a number at its end."""
    words = re.split(r"[\W_]+", name.strip().lower(), maxsplit=1)
    return re.sub(r"\d+$", "", words[0])
