"""What a reader must know of a score table, in sentences."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from factorlab.layout import Cells
from factorlab.metadata import listed
from factorlab.relations import Relation, exact_relations, near_copies

# Words that name a property of a model or an average of benchmarks, in headers of public score tables.
NOT_A_BENCHMARK = re.compile(
    r"(?<![a-z])(params?|parameters?|size|flops?|tokens?|likes|average|avg|mean|overall|rank)(?![a-z])|❤",
    re.IGNORECASE,
)


def describe(
    cells: Cells,
    benchmarks: pd.DataFrame,
    se_kind: np.ndarray,
    assumed_fraction: np.ndarray,
    has_models: bool,
    has_benchmarks: bool,
) -> list[str]:
    """Notes on metadata, ranges, standard errors, shape and dependence of a checked matrix."""
    return [
        *_metadata_notes(cells, has_models, has_benchmarks),
        *_range_notes(cells, benchmarks, assumed_fraction),
        *_se_notes(cells, se_kind),
        *_shape_notes(cells),
        *dependence_notes(cells.score, cells.benchmarks),
    ]


def dependence_notes(scores: np.ndarray, names: list[str]) -> list[str]:
    """Averages beside their parts, other exact combinations, and benchmarks that are nearly copies."""
    notes = [relation_note(r, names) for r in exact_relations(scores)]
    copies = [f"{names[a]} / {names[b]}" for a, b in near_copies(scores)]
    if copies:
        notes.append(f"Nearly the same benchmark twice (correlation 0.999 or more): {listed(copies)}.")
    return notes


def relation_note(relation: Relation, names: list[str]) -> str:
    """One sentence that names an average or another exact combination, and the cure."""
    target = names[relation.target]
    what = "the average" if relation.is_average else "an exact linear combination"
    parts = listed([names[k] for k in relation.parts])
    return (
        f"'{target}' is {what} of {parts}: it counts them twice and leaves no noise of its own; "
        f"drop it with drop ('{target}') unless you mean to keep it."
    )


def _metadata_notes(cells: Cells, has_models: bool, has_benchmarks: bool) -> list[str]:
    notes = []
    if not has_models:
        notes.append("No models table: no budgets and no lineage, so no budget regression.")
    if not has_benchmarks:
        notes.append("No benchmarks table: languages, metrics, chance levels and shared items are unknown.")
        odd = [b for b in cells.benchmarks if NOT_A_BENCHMARK.search(b)]
        if odd:
            notes.append(
                f"Read as benchmarks, but named like something else: {listed(odd)}; "
                "leave them out with ignore (columns of a wide table) or drop."
            )
    return notes


def _range_notes(cells: Cells, benchmarks: pd.DataFrame, assumed_fraction: np.ndarray) -> list[str]:
    notes = []
    open_range = benchmarks[["min", "max"]].isna().any(axis=1).to_numpy()
    if open_range.any():
        names = [b for b, o in zip(cells.benchmarks, open_range, strict=True) if o]
        notes.append(
            f"{len(names)} of {len(cells.benchmarks)} benchmarks declare no range: their scores are "
            f"standardised as they stand, and percent or fraction is not checked ({listed(names)})."
        )
    if assumed_fraction.any():
        names = [b for b, a in zip(cells.benchmarks, assumed_fraction, strict=True) if a]
        notes.append(
            f"Standard errors of {listed(names)} take the scores for fractions of 1: none is above 1; "
            "declare min and max to settle it."
        )
    mixed = [b for j, b in enumerate(cells.benchmarks) if open_range[j] and _mixes_units(cells.score[:, j])]
    if mixed:
        notes.append(
            f"Percent and fraction may be mixed within {listed(mixed)}: "
            "many scores are at most 1 and many above 10."
        )
    return notes


def _mixes_units(column: np.ndarray) -> bool:
    positive = column[column > 0]
    return bool(len(positive) and (positive <= 1).mean() >= 0.2 and (positive > 10).mean() >= 0.2)


def _se_notes(cells: Cells, se_kind: np.ndarray) -> list[str]:
    notes = []
    unknown = (se_kind == "unknown").any(axis=0)
    if unknown.any():
        names = [b for b, u in zip(cells.benchmarks, unknown, strict=True) if u]
        notes.append(
            f"{int((se_kind == 'unknown').sum())} scores on {len(names)} benchmarks have no standard error: "
            f"the unique noise takes up their sampling error ({listed(names)}); give se, or n_instances "
            "with min and max."
        )
    bound = (se_kind == "binomial (upper bound)").any(axis=0)
    if bound.any():
        names = [b for b, u in zip(cells.benchmarks, bound, strict=True) if u]
        notes.append(f"The binomial standard error is only an upper bound for {listed(names)}.")
    if (cells.se == 0).any():
        notes.append(
            f"{int((cells.se == 0).sum())} given standard errors of 0 were not believed: none is exact."
        )
    return notes


def _shape_notes(cells: Cells) -> list[str]:
    n_models, n_benchmarks = cells.score.shape
    notes = []
    missing = int(np.isnan(cells.score).sum())
    if missing:
        notes.append(
            f"{missing} of {cells.score.size} cells ({missing / cells.score.size:.0%}) are missing "
            "and stay missing."
        )
    if n_models == 1:
        notes.append("One model: there is nothing to compare; no factors can be fitted.")
    if n_benchmarks == 1:
        notes.append("One benchmark: no correlations; no factors can be fitted.")
    elif n_models <= n_benchmarks:
        notes.append(
            f"{n_models} models on {n_benchmarks} benchmarks: with no more models than benchmarks the "
            "correlations are singular, and maximum-likelihood factor analysis cannot be fitted."
        )
    constant = [
        b
        for j, b in enumerate(cells.benchmarks)
        if n_models > 1 and len(np.unique(cells.score[np.isfinite(cells.score[:, j]), j])) < 2
    ]
    if constant:
        notes.append(
            f"Benchmarks without two different scores carry no information: {listed(constant)}; drop them."
        )
    return notes
