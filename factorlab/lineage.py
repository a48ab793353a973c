"""The tree of base models and the token budgets that add along it.

A continually pre-trained model names its base in column ``base_model``; the base is another row of the models
table, scored or not. Roots belong to a ``family``. Budgets are additive: ``D_child = D_parent + D_cpt``, so
an error in the parent's count moves all its children.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from factorlab.errors import InputError

STATUSES = ("official", "derived", "guessed", "none", "unknown")


@dataclass(frozen=True)
class Lineage:
    """Tree over all rows of a models table, scored models first.

    Attributes
    ----------
    names : tuple of str
        One name a node, in the order of the models table.
    parent : ndarray of int, (node,)
        Index of the base model; -1 for a root.
    family : tuple of str
        Per node, the family of its root (the root's own name where none is declared).
    families : tuple of str
        The distinct families, in order of first appearance.
    """

    names: tuple[str, ...]
    parent: np.ndarray
    family: tuple[str, ...]
    families: tuple[str, ...]

    def ancestors(self, i: int) -> list[int]:
        """Indices from the parent of node ``i`` up to its root; empty for a root."""
        chain = []
        node = int(self.parent[i])
        while node >= 0:
            chain.append(node)
            node = int(self.parent[node])
        return chain

    def root(self, i: int) -> int:
        """Index of the root above node ``i`` (itself for a root)."""
        return ([i, *self.ancestors(i)])[-1]

    def children(self, i: int) -> list[int]:
        """Indices of the models that name node ``i`` as their base."""
        return [int(c) for c in np.flatnonzero(self.parent == i)]

    def family_of(self, models: Sequence[str]) -> np.ndarray:
        """Family of each model: (len(models),) array of str.

        Raises
        ------
        InputError
            When a name is not a row of the models table.
        """
        family = dict(zip(self.names, self.family, strict=True))
        unknown = [m for m in models if m not in family]
        if unknown:
            raise InputError(f"model '{unknown[0]}' is not in the models table; give its row there")
        return np.asarray([family[m] for m in models], dtype=object)


class TokenSources(NamedTuple):
    """Where each model's tokens of one language come from; every array has shape (node,).

    Attributes
    ----------
    own_tokens_b : ndarray of float
        Billions of tokens the node itself adds: a root's count, a child's continual stage. NaN = unknown.
    status : ndarray of str
        Status of ``own_tokens_b``, one of `STATUSES`.
    is_root : ndarray of bool
    total_published_b : ndarray of float
        The table's ``tokens_b_<language>``, both stages together, in billions. NaN = not published.
    """

    own_tokens_b: np.ndarray
    status: np.ndarray
    is_root: np.ndarray
    total_published_b: np.ndarray


def build_lineage(models: pd.DataFrame) -> Lineage:
    """The tree of ``models`` (indexed by name; columns ``base_model`` and ``family``, both optional).

    Raises
    ------
    InputError
        A base model that is no row of the table, a model that is its own base, a circle.
    """
    names = [str(name) for name in models.index]
    index = {name: i for i, name in enumerate(names)}
    bases = _text(models, "base_model")
    parent = np.full(len(names), -1, dtype=int)
    for i, base in enumerate(bases):
        if base is None:
            continue
        if base not in index:
            raise InputError(
                f"base_model '{base}' of '{names[i]}' is not a row of the models table; add a row for it "
                "(it needs no scores) or leave base_model empty"
            )
        if base == names[i]:
            raise InputError(f"model '{base}' names itself as its base_model; leave it empty for a root")
        parent[i] = index[base]
    roots = [_root(i, parent, names) for i in range(len(names))]
    declared = _text(models, "family")
    family = tuple(declared[r] or names[r] for r in roots)
    return Lineage(tuple(names), parent, family, tuple(dict.fromkeys(family)))


def published_log10_budget(models: pd.DataFrame, language: str) -> pd.Series:
    """Published log10(N x D_l), the paper's budget (it takes compute as C = 6 N D).

    Parameters
    ----------
    models : DataFrame
        Indexed by model, with ``params_b`` and ``tokens_b_<language>`` (both in billions).
    language : str
        A language of the table, or "total".

    Returns
    -------
    Series
        Indexed by model; NaN where size or count is absent, or the count is 0.

    Raises
    ------
    InputError
        When the table has no such column.
    """
    tokens = _numbers(models, f"tokens_b_{language}", required=True)
    params = _numbers(models, "params_b", required=True)
    product = params * 1e9 * tokens * 1e9
    with np.errstate(divide="ignore", invalid="ignore"):
        budget = np.where(product > 0, np.log10(product), np.nan)
    return pd.Series(budget, index=models.index, name=f"log10_budget_{language}")


def token_sources(models: pd.DataFrame, lineage: Lineage, language: str) -> TokenSources:
    """What each node of the tree adds to its tokens of one language.

    A root adds ``tokens_b_<l>``. A child adds ``cpt_tokens_b_<l>`` where given, else its total minus its
    parent's where both are published, else nothing known: with an ``unknown`` status, or a total whose
    parent is unknown, the stage is NaN; with no word at all it is 0 with status ``none``.
    An undeclared status of a given count reads ``official``.

    Raises
    ------
    InputError
        No column for the language; a child with fewer tokens than its base model.
    """
    total = _numbers(models, f"tokens_b_{language}", required=True)
    total_status = _text(models, f"tokens_b_{language}_status")
    stage = _numbers(models, f"cpt_tokens_b_{language}")
    stage_status = _text(models, f"cpt_tokens_b_{language}_status")
    total = np.where([s == "none" for s in total_status] & np.isnan(total), 0.0, total)
    is_root = lineage.parent < 0
    own = np.full(len(total), np.nan)
    status = np.empty(len(total), dtype=object)
    for i, parent in enumerate(lineage.parent):
        if parent < 0:
            own[i], status[i] = total[i], total_status[i]
        elif not np.isnan(stage[i]) or stage_status[i] is not None:
            own[i], status[i] = stage[i], stage_status[i]
        elif np.isnan(total[i]) and total_status[i] is None:
            own[i], status[i] = 0.0, "none"
        else:
            own[i] = _stage_from_totals(i, int(parent), total, lineage.names, language)
            status[i] = total_status[i]
        own[i], status[i] = _settle(own[i], status[i])
    return TokenSources(own, status, is_root, total)


def _stage_from_totals(i: int, parent: int, total: np.ndarray, names: Sequence[str], language: str) -> float:
    """Child's total minus its parent's; NaN where either is not published."""
    stage = total[i] - total[parent]
    if stage < -1e-9 * abs(total[parent]):
        raise InputError(
            f"'{names[i]}' has tokens_b_{language} {total[i]:g}, less than the {total[parent]:g} of its base "
            f"model '{names[parent]}'; give the tokens of both stages together, or cpt_tokens_b_{language}"
        )
    return max(stage, 0.0) if not np.isnan(stage) else np.nan


def _settle(count: float, status: str | None) -> tuple[float, str]:
    """Count and status made to agree: no count is unknown (or 0 for none), a bare count is official, a
    count whose status says unknown is a guess."""
    if np.isnan(count):
        return (0.0, "none") if status == "none" else (np.nan, "unknown")
    if count == 0:
        return 0.0, "none"
    if status is None:
        return count, "official"
    return count, "guessed" if status in ("none", "unknown") else status


def _root(i: int, parent: np.ndarray, names: Sequence[str]) -> int:
    """Root above node ``i``; refuses a circle."""
    seen = [i]
    while parent[seen[-1]] >= 0:
        above = int(parent[seen[-1]])
        if above in seen:
            circle = " -> ".join(names[k] for k in [*seen[seen.index(above) :], above])
            raise InputError(f"base_model runs in a circle: {circle}; one of them must be a root")
        seen.append(above)
    return seen[-1]


def _text(models: pd.DataFrame, column: str) -> list[str | None]:
    if column not in models:
        return [None] * len(models)
    return [None if pd.isna(v) or str(v).strip() == "" else str(v) for v in models[column]]


def _numbers(models: pd.DataFrame, column: str, required: bool = False) -> np.ndarray:
    if column in models:
        return models[column].to_numpy(dtype=float, na_value=np.nan)
    if required:
        have = [c for c in models.columns if str(c).startswith(("tokens_b_", "params_"))]
        raise InputError(
            f"the models table has no column '{column}'; it has {', '.join(have) or 'no budgets at all'}"
        )
    return np.full(len(models), np.nan)
