"""What goes with ten times the tokens of a language on each benchmark, the other predictors held fixed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from factorlab.inference.budgets import clustered_slopes
from factorlab.questions.reading import Reading

COLUMNS = ["benchmark", "language", "benchmark_language", "slope", "lower", "upper", "sd", "n"]


def benchmark_slopes(reading: Reading) -> pd.DataFrame:
    """Slope of every benchmark on log10 D_l given the parameters and the tokens of the other languages.

    Of the joint posterior it is ``sum_k loading_jk slope_lk`` in each draw, which no rotation of the axes
    changes; else least squares of the standardised scores on log10 N and every log10 D_l, errors clustered
    by lineage, over the models that have all of them above 0.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`: ``language`` of the tokens, ``slope, lower, upper`` in standard deviations of
        the benchmark per factor of ten (higher is better), ``sd`` of the benchmark in score units, ``n``
        models. No rows where the slopes of single languages cannot be had.
    """
    table = reading.analysis.table
    spoken = table.benchmarks["language"] if "language" in table.benchmarks else pd.Series(dtype=object)
    found = _joint(reading) if reading.regression is not None else _least_squares(reading)
    own = [None if pd.isna(v) else str(v) for v in spoken.reindex(found["benchmark"])]
    return found.assign(benchmark_language=pd.Series(own, index=found.index, dtype=object))[COLUMNS]


def _joint(reading: Reading) -> pd.DataFrame:
    solution = reading.analysis.bayes
    assert solution is not None
    names = [str(p) for p in solution.draws["predictor"].values]
    rows = []
    for language in reading.languages:
        place = next(
            (i for i, p in enumerate(names) if p in (f"log10 D_{language}", f"log10 N*D_{language}")), None
        )
        if place is None:
            continue
        draws = np.einsum("djk,dk->dj", solution.stacked("loading"), solution.stacked("slope")[:, place])
        lower, upper = reading.interval(draws)
        middle = np.median(draws, axis=0)
        for j, benchmark in enumerate(solution.benchmarks):
            sd = float(solution.constants["scale"].values[j])
            n = int(reading.budgets[language].notna().sum())
            rows.append((benchmark, language, middle[j], lower[j], upper[j], sd, n))
    return pd.DataFrame(rows, columns=["benchmark", "language", "slope", "lower", "upper", "sd", "n"])


def _least_squares(reading: Reading) -> pd.DataFrame:
    table = reading.analysis.table
    standard = table.standardised()
    models = table.scored_models
    columns = ["params_b", *(f"tokens_b_{l}" for l in reading.languages)]
    counts = models[columns].to_numpy(dtype=float, na_value=np.nan)
    known = np.asarray((counts > 0).all(axis=1))
    rows = []
    x = np.log10(np.where(known[:, None], counts, 1.0))
    for j, benchmark in enumerate(table.benchmark_names):
        use = known & np.isfinite(standard.z[:, j])
        if use.sum() < counts.shape[1] + 3:
            continue
        fits = clustered_slopes(standard.z[use, j], x[use], reading.family[use], reading.level)
        for language, fit in zip(reading.languages, fits[1:], strict=True):
            values = (fit.estimate, fit.lower, fit.upper, float(standard.scale[j]), int(use.sum()))
            if np.isfinite(fit.estimate):
                rows.append((benchmark, language, *values))
    return pd.DataFrame(rows, columns=["benchmark", "language", "slope", "lower", "upper", "sd", "n"])
