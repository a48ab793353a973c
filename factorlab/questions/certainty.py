"""How uncertain the numbers are, and what the uncertainty of rho comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from factorlab.inference.solution import FactorSolution
from factorlab.questions.answer import Answer
from factorlab.questions.drivers import main_relations
from factorlab.questions.quick_pca import budget_correlations, reweighted, with_noise
from factorlab.questions.reading import Reading
from factorlab.questions.token_units import shifted_budgets, token_units
from factorlab.wording import language_name, number, percent

DRAWS = 200
"""Tables with noise added, sets of token counts, samples of families."""

MIN_FAMILIES = 4
"""Fewer families than this are not worth drawing again."""


def how_uncertain(reading: Reading) -> Answer:
    """Median widths of intervals, and the spread of the main correlations by its source."""
    ask: dict[str, Any] = {
        "key": "uncertainty",
        "question": "How uncertain are the numbers, and what makes them so?",
    }
    if reading.solution is None:
        return Answer(**ask, cannot="No model could be fitted to this table.")
    widths = median_widths(reading)
    sources = rho_sources(reading)
    if not widths and sources.empty:
        return Answer(
            **ask,
            cannot="A point fit has no intervals; fit with --method all (or pca, for a bootstrap of the models).",
        )
    told = ", ".join(f"{number(width)} for {what}" for what, width in widths.items())
    verdict = f"Median width of a {percent(reading.level, 0)} interval: {told}" if told else ""
    largest = _largest(sources)
    if largest:
        verdict = f"{verdict}; {largest}" if verdict else largest[0].upper() + largest[1:]
    return Answer(
        **ask,
        verdict=f"{verdict}.",
        sentences=tuple([*_notes(reading, sources), *_forms(reading)]),
        table=sources.assign(language=sources["language"].map(language_name)) if len(sources) else None,
        links=("loadings_forest", "abilities", "leave_one_lineage_out"),
    )


def median_widths(reading: Reading) -> dict[str, float]:
    """Median interval widths: "loadings", "abilities (sd)", "slopes (sd per factor of ten)"."""
    solution = reading.solution
    assert solution is not None
    out: dict[str, float] = {}
    loadings = reading.loadings()
    loadings = loadings[loadings["factor"].isin(reading.factors)]
    _add(out, "loadings", loadings["upper"] - loadings["lower"])
    source: FactorSolution | None = solution if solution.n_draws > 1 else None
    if source is None and solution is reading.analysis.pca:
        source = reading.analysis.resamples.get("bootstrap")
    if source is not None:
        rows = source.summary("ability", reading.level)
        rows = rows[rows["factor"].isin(reading.factors)]
        _add(out, "abilities (sd)", rows["upper"] - rows["lower"])
    found = reading.regression or reading.analysis.pca_budgets
    if found is not None and len(found.slopes):
        part = found.slopes[found.slopes["factor"].isin(reading.factors)]
        _add(out, "slopes (sd per factor of ten)", part["upper"] - part["lower"])
    return out


def _add(out: dict[str, float], name: str, widths: pd.Series) -> None:
    middle = float(widths.median())
    if np.isfinite(middle):
        out[name] = middle


def rho_sources(reading: Reading) -> pd.DataFrame:
    """Standard deviation of the two-step rho of the main relations, one source of error at a time.

    Returns
    -------
    pandas.DataFrame
        ``factor, language, rho``, then a column a source: "benchmark noise" (the table's standard errors
        added once more), "token counts" (errors by status, shared as in the model), "models" (bootstrap),
        "families" (bootstrap of whole families); NaN where a source cannot be had. No rows without PCA
        or budgets.
    """
    columns = ["factor", "language", "rho", "benchmark noise", "token counts", "models", "families"]
    pca, rows = reading.analysis.pca, reading.rows
    relations = main_relations(reading) if reading.languages else []
    if pca is None or rows is None or not relations:
        return pd.DataFrame(columns=columns)
    reference = pca.stacked("loading")[0]
    seed = reading.analysis.options.seed
    noisy = with_noise(rows, DRAWS, reference, seed).ability if rows.z_se.any() else None
    boot, weights = reading.bootstrap, reading.bootstrap_weights
    families = family_weights(reading.family, rows.used, DRAWS, seed)
    drawn = reweighted(rows, families, reference).ability if families is not None else None
    out = []
    for factor, language in relations:
        k = pca.factors.index(factor)
        x = reading.budgets[language].to_numpy()
        point = float(reading.two_step[language][k])
        noise = np.nan if noisy is None else _sd(budget_correlations(noisy, x)[:, k])
        models = np.nan if boot is None else _sd(budget_correlations(boot.ability, x, weights)[:, k])
        family = np.nan if drawn is None else _sd(budget_correlations(drawn, x, families)[:, k])
        out.append((factor, language, point, noise, _token_sd(reading, k, language), models, family))
    return pd.DataFrame(out, columns=columns)


def family_weights(family: np.ndarray, used: np.ndarray, draws: int, seed: int) -> np.ndarray | None:
    """How often each model's family was drawn, (draw, model); None with too few families of several models.

    Draws with fewer than three different families are left out.
    """
    names = list(dict.fromkeys(family[used]))
    if len(names) < MIN_FAMILIES or len(names) == int(used.sum()):
        return None
    counts = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=draws
    )
    counts = counts[(counts > 0).sum(axis=1) >= 3]
    place = {name: i for i, name in enumerate(names)}
    index = np.array([place.get(name, 0) for name in family])
    return np.where(used, counts[:, index], 0).astype(float)


def _token_sd(reading: Reading, factor: int, language: str) -> float:
    """Spread of rho when every token count is wrong as much as its status says."""
    units = token_units(reading.analysis.table, language)
    known = [s in ("official", "derived", "guessed") for s in units.status]
    if not any(known):
        return np.nan
    priors, pca = reading.analysis.options.priors, reading.analysis.pca
    assert pca is not None
    sd = np.array([priors.token_log_sd(s) if ok else 0.0 for s, ok in zip(units.status, known, strict=True)])
    rng = np.random.default_rng(reading.analysis.options.seed)
    factors = np.exp(rng.standard_normal((DRAWS, len(sd))) * sd)
    return _sd(budget_correlations(pca.stacked("ability"), shifted_budgets(units, factors))[:, factor])


def _sd(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.std()) if len(values) > 1 else np.nan


SOURCES = {
    "benchmark noise": "the noise of the benchmarks",
    "token counts": "the error of token counts",
    "models": "which models were scored",
    "families": "which families were scored",
}


def _largest(sources: pd.DataFrame) -> str:
    """ "most of the uncertainty of rho(PC2, ja) is which families were scored (sd 0.14)"."""
    parts = []
    for _, row in sources.iterrows():
        have = {name: row[name] for name in SOURCES if np.isfinite(row[name])}
        if not have:
            continue
        top = max(have, key=lambda name: have[name])
        parts.append(
            f"rho({row['factor']}, {row['language']}) moves most with {SOURCES[top]} (sd {number(have[top])})"
        )
    return "; ".join(parts)


def _notes(reading: Reading, sources: pd.DataFrame) -> list[str]:
    if sources.empty:
        return []
    out = ["The table gives the standard deviation of rho (PCA in two steps), one source of error at a time."]
    if sources["benchmark noise"].isna().all():
        out.append(
            "Benchmark noise: no standard errors; n_instances in the benchmarks table would give them."
        )
    if sources["families"].isna().all():
        out.append(
            f"Families: fewer than {MIN_FAMILIES}, or none of two models; columns family and base_model say which "
            "models belong together."
        )
    out.append("The verb factorlab tornado adds what choices of table and method do.")
    return out


def _forms(reading: Reading) -> list[str]:
    """Width of the posterior's interval at hand and for new families, for the main relations."""
    joint = reading.regression
    if joint is None:
        return []
    out = []
    for factor, language in main_relations(reading):
        rows = joint.table[(joint.table["factor"] == factor) & (joint.table["budget"] == language)].set_index(
            "form"
        )
        if not {"at_hand", "population"} <= set(rows.index):
            continue
        width = (rows["upper"] - rows["lower"]).astype(float)
        here, new = (float(width[form]) for form in ("at_hand", "population"))
        out.append(
            f"Posterior of rho({factor}, {language}): interval {number(here)} wide over these models (benchmark noise "
            f"and token counts), {number(new)} among models of new families (what families differ in adds)."
        )
    return out
