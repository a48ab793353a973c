"""Whether the factors are those of linear PCA alone, and whether they are the same in parts of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from factorlab.analysis import Analysis
from factorlab.errors import InputError
from factorlab.inference.compare import compare
from factorlab.inference.conclusions import SAME_FACTOR
from factorlab.inference.identify import congruence, match, take_factors
from factorlab.inference.pca import fit_pca
from factorlab.questions.answer import LOWER, UPPER, Answer
from factorlab.questions.reading import Reading
from factorlab.wording import listed, number

WAYS = {
    "ranks": "PCA of ranks",
    "ml": "maximum likelihood",
    "bayes": "Bayes",
    "model": "a model less (least)",
    "lineage": "a lineage less (least)",
}
"""Checks of a factor: what their column is called."""

WORDS = {
    "ranks": "with PCA of ranks",
    "ml": "with maximum likelihood",
    "bayes": "with Bayes",
    "model": "when one model is left out",
    "lineage": "when one lineage is left out",
}

MOST_WHY = 2
"""The lowest congruences that are named in a verdict."""


def only_pca(reading: Reading) -> Answer:
    """Congruence of each PCA factor with every other method, and with itself when models are left out."""
    ask: dict[str, Any] = {"key": "structure", "question": "Are the factors an artefact of linear PCA?"}
    pca = reading.analysis.pca
    if pca is None:
        return Answer(**ask, cannot="This run has no PCA to compare with; fit with --method all.")
    table, notes = factor_stability(reading.analysis)
    stands = list(table.loc[table["stands"], "factor"])
    falls = table[~table["stands"]]
    parts = []
    if stands:
        least = table.loc[table["stands"], "least"].min()
        parts.append(
            f"{listed(stands)} {_verb(stands, 'stand')} (least congruence of all checks {number(least)})"
        )
    parts += [f"{r['factor']} does not stand ({r['why']})" for _, r in falls.iterrows()]
    sentences = []
    parallel = reading.analysis.parallel
    if parallel is not None:
        sentences.append(f"Parallel analysis, against tables of pure noise, keeps {parallel.n_factors}.")
    sentences.append(
        f"Congruence (Tucker's) is 1 for the same factor; below {SAME_FACTOR} two are not taken for one. A factor "
        "stands when every check is above it, the posterior fixes its axis and parallel analysis keeps it."
    )
    return Answer(
        **ask,
        verdict=f"{'; '.join(parts)}.",
        sentences=(*sentences, *notes),
        table=table.drop(columns=["stands", "least", "why"]).rename(columns=_columns()),
        links=("leave_one_out", "leave_one_lineage_out", "scree", "axes", "comparison"),
    )


def factor_stability(analysis: Analysis) -> tuple[pd.DataFrame, list[str]]:
    """Congruences of every PCA factor, and whether it stands.

    Returns
    -------
    pandas.DataFrame
        ``factor``; ``ranks`` (PCA of ranks), ``ml`` (after the rotation that comes nearest), ``bayes``
        (median, with ``bayes lower, bayes upper``), ``model`` and ``lineage`` (the least of any left out);
        columns that cannot be had are absent. ``least`` of them, ``stands``, ``why`` not.
    list of str
        What could not be checked, in sentences.
    """
    pca = analysis.pca
    assert pca is not None
    reference = pca.stacked("loading")[0]
    out = pd.DataFrame({"factor": pca.factors})
    notes = []
    try:
        ranks = fit_pca(
            analysis.table, len(pca.factors), missing=analysis.options.missing, correlation="spearman"
        )
        out["ranks"] = matched_congruence(ranks.stacked("loading"), reference)[0]
    except InputError as error:
        notes.append(f"PCA of ranks could not be done: {error}.")
    if analysis.ml is not None:
        found = compare(pca, analysis.ml, align="procrustes").factors.set_index("factor")
        out["ml"] = found["congruence_median"].reindex(pca.factors).to_numpy()
    if analysis.comparison is not None:
        rows = analysis.comparison.factors.set_index("factor").reindex(pca.factors)
        for name, column in (("bayes", "median"), (f"bayes{LOWER}", "lower"), (f"bayes{UPPER}", "upper")):
            out[name] = rows[f"congruence_{column}"].to_numpy()
    for name, scheme in (("model", "leave-one-model-out"), ("lineage", "leave-one-lineage-out")):
        if scheme in analysis.resamples:
            out[name] = congruence(analysis.resamples[scheme].stacked("loading"), reference).min(axis=0)
    return _judged(out, analysis), notes


def _judged(table: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """The table with ``least``, ``stands`` and ``why``."""
    checks = [c for c in WAYS if c in table]
    values = table[checks]
    fixed = _identified(analysis)
    kept = analysis.parallel.n_factors if analysis.parallel is not None else len(table)
    why = []
    for k, factor in enumerate(table["factor"]):
        low = sorted((float(values[c].iloc[k]), c) for c in checks if values[c].iloc[k] < SAME_FACTOR)
        parts = [f"congruence {number(value)} {WORDS[c]}" for value, c in low[:MOST_WHY]]
        if not fixed.get(factor, True):
            parts.append("axis not identified by the posterior")
        if k >= kept:
            parts.append(f"parallel analysis keeps {kept}")
        why.append(", ".join(parts))
    least = values.min(axis=1) if checks else pd.Series(np.nan, index=table.index)
    return table.assign(least=least, stands=[not text for text in why], why=why)


def _identified(analysis: Analysis) -> dict[str, bool]:
    """Whether the posterior fixes the factor that goes with each PCA factor; empty without one."""
    if analysis.bayes is None or analysis.comparison is None:
        return {}
    flags = dict(zip(analysis.bayes.factors, analysis.bayes.extra.get("identified", []), strict=False))
    pairs = analysis.comparison.factors[["factor", "second_factor"]].itertuples(index=False)
    return {str(one): bool(flags.get(str(other), True)) for one, other in pairs}


def _columns() -> dict[str, str]:
    bounds = {f"bayes{end}": f"{WAYS['bayes']}{end}" for end in (LOWER, UPPER)}
    return WAYS | bounds


def matched_congruence(loading: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Congruence of each fit's factors with those of the reference they pair with, (fit, factor)."""
    if loading.shape[-1] < reference.shape[-1]:
        short = loading.shape[-1]
        pad = np.full((*loading.shape[:-1], reference.shape[-1] - short), 0.0)
        loading = np.concatenate([loading, pad], axis=-1)
    with np.errstate(invalid="ignore"):
        return congruence(take_factors(loading, *match(loading, reference)), reference)


def _verb(names: list[str], verb: str) -> str:
    return verb + ("s" if len(names) == 1 else "")
