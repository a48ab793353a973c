"""Whether the factors of all models are those of a part of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from factorlab.inference.conclusions import SAME_FACTOR
from factorlab.questions.answer import LOWER, UPPER, Answer
from factorlab.questions.quick_pca import Rows, reweighted
from factorlab.questions.reading import Reading
from factorlab.questions.structure import matched_congruence
from factorlab.wording import listed, number, plural

MIN_MODELS = 8
"""Groups of fewer models have no factors worth comparing."""

DRAWS = 200


class Subset(NamedTuple):
    """Congruence of a part's factors with those of all models; (factor,)."""

    point: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    chance: np.ndarray


def other_subsets(reading: Reading) -> Answer:
    """Congruence of the factors of every large enough group with those of all models."""
    ask: dict[str, Any] = {"key": "subsets", "question": "Do the factors hold in other sets of models?"}
    pca, rows = reading.analysis.pca, reading.rows
    if pca is None or rows is None:
        return Answer(**ask, cannot="This run has no PCA; fit with --method all or pca.")
    groups, small = _groups(reading, rows.used)
    if not groups:
        have = f" ({listed(small)})" if small else ""
        return Answer(
            **ask,
            cannot=f"No part of the models has {MIN_MODELS} or more by the columns construction and group{have}; "
            "those columns, and more models, would answer this.",
        )
    reference = pca.stacked("loading")[0]
    kept = [k for k, f in enumerate(pca.factors) if f in reading.factors]
    table_rows, parts = [], []
    for name, member in groups.items():
        found = subset_congruence(rows, member, reference, reading.analysis.options.seed, reading.level)
        n = int(member.sum())
        told = [k for k in kept if pca.factors[k] not in reading.beyond_noise] or kept
        holds = [k for k in told if found.point[k] >= SAME_FACTOR]
        lost = [k for k in told if k not in holds]
        parts.append(
            _told(name, n, [pca.factors[k] for k in holds], [pca.factors[k] for k in lost], found, lost)
        )
        table_rows += [
            (name, n, pca.factors[k], found.point[k], found.lower[k], found.upper[k], found.chance[k])
            for k in kept
        ]
    columns = [
        "group",
        "models",
        "factor",
        "congruence",
        f"congruence{LOWER}",
        f"congruence{UPPER}",
        "as many at random",
    ]
    sentences = [
        f"The same: congruence {SAME_FACTOR} or more of the group's own PCA with that of all models, its own included.",
        "Interval: the group's models drawn again, which lowers the congruence, so it can lie below the number itself. "
        "As many at random: the median of random sets of as many models, what so few models give by themselves.",
    ]
    if small:
        sentences.append(f"Too few models: {listed(small)}.")
    return Answer(
        **ask,
        verdict=f"{'; '.join(parts)}.",
        sentences=tuple(sentences),
        table=pd.DataFrame(table_rows, columns=columns),
        links=("scores_by_group", "leave_one_lineage_out"),
    )


def subset_congruence(
    rows: Rows, member: np.ndarray, reference: np.ndarray, seed: int, level: float
) -> Subset:
    """PCA of some models beside a reference.

    Parameters
    ----------
    rows : Rows
    member : ndarray of bool, (model,)
    reference : ndarray, (benchmark, factor)
    seed : int
    level : float

    Returns
    -------
    Subset
        ``lower, upper``: bootstrap of the members; ``chance``: median of random sets of as many models.
    """
    rng = np.random.default_rng(seed)
    inside, used = np.flatnonzero(member & rows.used), np.flatnonzero(rows.used)
    n = len(inside)
    weights = np.zeros((1 + 2 * DRAWS, len(rows.used)))
    weights[0, inside] = 1.0
    weights[1 : DRAWS + 1, inside] = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    order = np.argsort(rng.random((DRAWS, len(used))), axis=1)[:, :n]
    np.put_along_axis(weights[DRAWS + 1 :], used[order], 1.0, axis=1)
    found = np.abs(matched_congruence(reweighted(rows, weights, reference).loading, reference))
    tail = (1 - level) / 2
    lower, upper = np.nanquantile(found[1 : DRAWS + 1], [tail, 1 - tail], axis=0)
    return Subset(found[0], lower, upper, np.nanmedian(found[DRAWS + 1 :], axis=0))


def _groups(reading: Reading, used: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """Members of every group that is large enough and not all, and the names of those that are not."""
    models = reading.analysis.table.scored_models
    found: dict[str, np.ndarray] = {}
    small = []
    for column in ("construction", "group"):
        if column not in models:
            continue
        values = models[column].astype(object)
        for name in dict.fromkeys(values.dropna()):
            member = (values == name).to_numpy(dtype=bool) & used
            n = int(member.sum())
            known = any(np.array_equal(member, other) for other in found.values())
            if known or n == used.sum() or n == 0:
                continue
            if n < MIN_MODELS:
                small.append(f"{name} ({n})")
            else:
                found[str(name)] = member
    return found, small


def _told(name: str, n: int, holds: list[str], lost: list[str], found: Subset, places: list[int]) -> str:
    parts = [f"{listed(holds)} the same"] if holds else []
    if lost:
        pairs = (
            f"{f} (congruence {number(found.point[k])}; random sets {number(found.chance[k])})"
            for f, k in zip(lost, places, strict=True)
        )
        parts.append(f"not the same {', '.join(pairs)}")
    return f"{name} ({plural(n, 'model')}): {', '.join(parts)}"
