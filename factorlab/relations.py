"""Benchmarks that are an exact linear combination of others, such as an average beside its parts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Relation(NamedTuple):
    """Column ``target`` equals ``sum(weights * columns[parts]) + constant`` to the last decimal printed."""

    target: int
    parts: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def is_average(self) -> bool:
        """True when the weights are positive, nearly equal and add to about 1, over two parts or more."""
        weights = np.asarray(self.weights)
        return bool(
            len(weights) > 1
            and weights.min() > 0
            and abs(weights.sum() - 1) < 0.02
            and np.ptp(weights) < 0.02
        )


def exact_relations(scores: np.ndarray, spare_rows: int = 3, most: int = 20) -> list[Relation]:
    """Exact linear dependence among columns, up to the rounding of the printed scores.

    Columns are compared within each group that shares its missing cells, and all together over the
    complete rows; a group needs ``spare_rows`` more rows than columns, else everything is dependent.

    Parameters
    ----------
    scores : ndarray, (model, benchmark)
        NaN where missing.
    spare_rows : int
        Rows asked for beyond the number of columns.
    most : int
        Stop after this many relations.

    Returns
    -------
    list of Relation
        Averages first found; each target is left out of the search for the next.
    """
    relations: list[Relation] = []
    left = [j for j in range(scores.shape[1]) if np.nanstd(scores[:, j]) > 0] if scores.size else []
    while len(relations) < most:
        found = None
        for columns in _groups(scores, left):
            rows = np.isfinite(scores[:, columns]).all(axis=1)
            if rows.sum() >= len(columns) + spare_rows and len(columns) > 1:
                found = _first_relation(scores[np.ix_(rows, columns)], columns)
            if found is not None:
                break
        if found is None:
            break
        relations.append(found)
        left = [j for j in left if j != found.target]
    return relations


def near_copies(scores: np.ndarray, least: float = 0.999, spare_rows: int = 8) -> list[tuple[int, int]]:
    """Pairs of columns that correlate at ``least`` or more over at least ``spare_rows`` common models.

    Parameters
    ----------
    scores : ndarray, (model, benchmark)
    """
    pairs = []
    for a in range(scores.shape[1]):
        for b in range(a + 1, scores.shape[1]):
            both = np.isfinite(scores[:, a]) & np.isfinite(scores[:, b])
            if both.sum() < spare_rows:
                continue
            x, y = scores[both, a], scores[both, b]
            spread = x.std() * y.std()
            if spread > 0 and abs(np.mean((x - x.mean()) * (y - y.mean()))) >= least * spread:
                pairs.append((a, b))
    return pairs


def _groups(scores: np.ndarray, columns: list[int]) -> list[list[int]]:
    """All columns, then the groups of columns with one pattern of missing cells."""
    patterns: dict[bytes, list[int]] = {}
    for j in columns:
        patterns.setdefault(np.isfinite(scores[:, j]).tobytes(), []).append(j)
    groups = [columns] if columns else []
    return groups + [group for group in patterns.values() if len(patterns) > 1]


def _first_relation(x: np.ndarray, columns: list[int]) -> Relation | None:
    """An exact relation among complete columns: an average where there is one, else the closest fit."""
    sd = x.std(axis=0)
    keep = np.flatnonzero(sd > 0)
    if len(keep) < 2:
        return None
    z = (x[:, keep] - x[:, keep].mean(axis=0)) / sd[keep]
    # Nothing can be exact when the smallest singular value is far above rounding.
    if np.linalg.svd(z, compute_uv=False)[-1] > 0.05 * np.sqrt(len(z)):
        return None
    rounding = np.asarray([_half_unit(x[:, j]) for j in keep])
    best: tuple[bool, float, Relation] | None = None
    for position in range(len(keep)):
        others = np.delete(np.arange(len(keep)), position)
        beta, *_ = np.linalg.lstsq(z[:, others], z[:, position], rcond=None)
        weight = beta * sd[keep[position]] / sd[keep[others]]
        residual = np.abs(z[:, position] - z[:, others] @ beta).max() * sd[keep[position]]
        tolerance = rounding[position] + float(np.abs(weight) @ rounding[others])
        slack = 1e-9 * sd[keep[position]]
        if residual > tolerance + slack or tolerance > 0.05 * sd[keep[position]]:
            continue
        large = np.abs(beta) > 0.02
        if not large.any():
            continue
        relation = Relation(
            columns[keep[position]],
            tuple(columns[keep[k]] for k in others[large]),
            tuple(float(w) for w in weight[large]),
        )
        rank = (not relation.is_average, float(residual / sd[keep[position]]))
        if best is None or rank < best[:2]:
            best = (*rank, relation)
    return None if best is None else best[2]


def _half_unit(column: np.ndarray, most: int = 10) -> float:
    """Half of the last decimal that the column is printed with (nearly all of it: means differ)."""
    near = 1e-9 * max(1.0, float(np.abs(column).max()))
    for decimals in range(most):
        if (np.abs(column - np.round(column, decimals)) < near).mean() >= 0.95:
            return float(0.5 * 10.0**-decimals)
    return 0.0
