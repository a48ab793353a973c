"""Summary: the numbers of an analysis as one JSON-able dictionary, and as CSV tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from factorlab.analysis import Analysis
from factorlab.inference.budgets import BudgetRegression
from factorlab.inference.provenance import versions
from factorlab.inference.solution import FactorSolution

INTERVAL = ["mean", "median", "lower", "upper", "level", "n"]


def summarise(analysis: Analysis) -> dict[str, Any]:
    """The contents of ``summary.json``; documented key by key in ``docs/formats.md``.

    Parameters
    ----------
    analysis : Analysis

    Returns
    -------
    dict
        JSON-able; a number that does not exist is None.
    """
    table, options = analysis.table, analysis.options
    out: dict[str, Any] = {
        "table": {
            "name": table.name,
            "digest": table.digest(),
            "models": len(table.model_names),
            "benchmarks": len(table.benchmark_names),
            "missing": int(np.isnan(table.scores).sum()),
            "languages": list(table.languages),
        },
        "flags": [asdict(flag) for flag in analysis.health.flags],
        "warnings": list(analysis.warnings),
        "options": {**asdict(options)},
        "seed": options.seed,
        "versions": versions(),
        "seconds": {"total": sum(analysis.seconds.values()), **analysis.seconds},
    }
    if analysis.parallel is not None:
        out["parallel_analysis"] = {
            "n_factors": analysis.parallel.n_factors,
            "level": analysis.parallel.level,
        }
    if analysis.pca is not None:
        out["pca"] = _pca(analysis)
    if analysis.ml is not None:
        out["ml"] = {"loadings": _loadings(analysis.ml, options.level), **analysis.ml.extra}
    if analysis.bayes is not None:
        out["bayes"] = _bayes(analysis, analysis.bayes)
    if analysis.sensitivity is not None:
        out["bayes"]["prior_sensitivity"] = analysis.sensitivity.to_dict("records")
    if analysis.comparison is not None:
        rows = analysis.comparison.factors.set_index("factor")
        out["comparison"] = {
            "congruence": {
                str(f): {q: row[f"congruence_{q}"] for q in ("median", "lower", "upper")}
                for f, row in rows.iterrows()
            },
            **analysis.comparison.to_dict(),
        }
    out["answers"] = [answer.to_dict() for answer in analysis.answers]
    return clean(out)


def _pca(analysis: Analysis) -> dict[str, Any]:
    solution = analysis.pca
    assert solution is not None
    unit = pd.DataFrame(solution.unit_loadings()[0], index=solution.benchmarks, columns=solution.factors)
    out: dict[str, Any] = {
        "explained_variance_ratio": solution.extra["explained_variance_ratio"],
        "eigenvalues": solution.extra["eigenvalues"],
        "loadings": {f: unit[f].to_dict() for f in unit},
        "loadings_scaled": {f: column.to_dict() for f, column in solution.loading_mean().items()},
        "missing": solution.extra.get("missing"),
        "n_models": solution.extra.get("n_models"),
    }
    if analysis.pca_budgets is not None:
        out["rho"] = _two_step_rho(analysis.pca_budgets)
        out["slopes"] = analysis.pca_budgets.slopes.to_dict("records")
        out["left_out"] = analysis.pca_budgets.left_out.to_dict("records")
    return out


def _two_step_rho(budgets: BudgetRegression) -> dict[str, Any]:
    """Factor, budget: r with its interval, n, Spearman."""
    out: dict[str, Any] = {}
    for (factor, budget), rows in budgets.table.groupby(["factor", "budget"], sort=False):
        form = rows.set_index("form")
        pearson, ranks = form.loc["at_hand"], form.loc["spearman"]
        out.setdefault(str(factor), {})[str(budget)] = {
            "r": pearson["mean"],
            "lower": pearson["lower"],
            "upper": pearson["upper"],
            "level": pearson["level"],
            "n": int(np.asarray(pearson["n"])),
            "spearman": ranks["mean"],
        }
    return out


def _bayes(analysis: Analysis, solution: FactorSolution) -> dict[str, Any]:
    level = analysis.options.level
    out: dict[str, Any] = {
        "factors": solution.factors,
        "orientation": solution.orientation,
        "identified": dict(zip(solution.factors, solution.extra["identified"], strict=True)),
        "loadings": _loadings(solution, level),
        "noise_sd": _by_label(solution.summary("noise_sd", level), "benchmark"),
        "communality": _communality(solution, level),
        "settings": solution.provenance["settings"],
    }
    if solution.diagnostics is not None:
        d = solution.diagnostics
        out["diagnostics"] = {
            "rhat_max": d.rhat_max,
            "ess_bulk_min": d.ess_bulk_min,
            "ess_tail_min": d.ess_tail_min,
            "divergences": d.divergences,
            "converged": not d.problems,
            "problems": list(d.problems),
            "leapfrog_steps": solution.extra.get("leapfrog_steps"),
        }
    if "axis_cosine_pca" in solution.draws:
        out["axis_cosine_pca"] = _by_label(solution.summary("axis_cosine_pca", level), "factor")
        out["axis_cosine"] = _by_label(solution.summary("axis_cosine", level), "factor")
    if "pair_sd" in solution.draws:
        out["pair_sd"] = _by_label(solution.summary("pair_sd", level), "pair")
    if analysis.bayes_budgets is not None:
        out |= _joint(analysis.bayes_budgets)
    return out


def _joint(budgets: BudgetRegression) -> dict[str, Any]:
    """``rho`` is the form at hand; the other forms under ``rho_<form>``."""
    out: dict[str, Any] = {"regression": budgets.method}
    for (form, factor, budget), rows in budgets.table.groupby(["form", "factor", "budget"], sort=False):
        name = "rho" if form == "at_hand" else f"rho_{form}"
        row = rows.iloc[0]
        out.setdefault(name, {}).setdefault(str(factor), {})[str(budget)] = {
            **{key: row[key] for key in INTERVAL},
            **({"prob_positive": row["prob_positive"]} if "prob_positive" in row else {}),
        }
    out["slopes"] = budgets.slopes.to_dict("records")
    return out


def _loadings(solution: FactorSolution, level: float) -> dict[str, Any]:
    rows = solution.summary("loading", level)
    return {
        str(factor): {
            str(row["benchmark"]): {key: row[key] for key in ("mean", "lower", "upper")}
            for _, row in part.iterrows()
        }
        for factor, part in rows.groupby("factor", sort=False)
    }


def communality_draws(solution: FactorSolution) -> np.ndarray:
    """Share of each benchmark's variance over the models that the factors account for, (draw, benchmark)."""
    loading, ability = solution.stacked("loading"), solution.stacked("ability")
    common = np.einsum("djk,dmk->djm", loading, ability).var(axis=2)
    return common / (common + solution.stacked("noise_sd") ** 2)


def _communality(solution: FactorSolution, level: float) -> dict[str, Any]:
    values = communality_draws(solution)
    tail = (1 - level) / 2
    lower, median, upper = np.quantile(values, [tail, 0.5, 1 - tail], axis=0)
    return {
        name: {"median": median[j], "lower": lower[j], "upper": upper[j]}
        for j, name in enumerate(solution.benchmarks)
    }


def _by_label(rows: pd.DataFrame, label: str) -> dict[str, Any]:
    return {
        str(row[label]): {q: row[q] for q in ("mean", "median", "lower", "upper")}
        for _, row in rows.iterrows()
    }


def tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Every table of the run folder by its file name without ending."""
    level = analysis.options.level
    health = analysis.health
    out = {"benchmarks_health": health.benchmarks.reset_index(), "flags": health.to_dataframe()}
    if not health.budgets.empty:
        out["budgets_health"] = health.budgets.reset_index()
    if analysis.parallel is not None:
        out["scree"] = analysis.parallel.to_dataframe()
    for name in ("pca", "ml", "bayes"):
        solution = getattr(analysis, name)
        if solution is not None:
            out[f"{name}_loadings"] = solution.summary("loading", level)
            out[f"{name}_abilities"] = solution.summary("ability", level)
    for scheme, solution in analysis.resamples.items():
        out[f"pca_loadings_{scheme.replace('-', '_')}"] = solution.summary("loading", level)
    if analysis.bayes is not None and analysis.bayes.diagnostics is not None:
        out["diagnostics"] = analysis.bayes.diagnostics.table
    out |= _budget_tables(analysis)
    if analysis.comparison is not None:
        out["comparison_factors"] = analysis.comparison.factors
        out["comparison_loadings"] = analysis.comparison.loadings
    if analysis.sensitivity is not None:
        out["prior_sensitivity"] = analysis.sensitivity
    if analysis.outliers is not None:
        out["outliers"] = analysis.outliers.cells
        out["outlier_models"] = analysis.outliers.models
    return out


def _budget_tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    parts = [b for b in (analysis.pca_budgets, analysis.bayes_budgets) if b is not None]
    if not parts:
        return {}
    out = {
        "rho": pd.concat([b.to_dataframe() for b in parts], ignore_index=True),
        "slopes": pd.concat([b.slopes.assign(method=b.method) for b in parts], ignore_index=True),
        "left_out": parts[0].left_out,
    }
    contrasts = parts[-1].contrasts
    return out if contrasts is None else {**out, "contrasts": contrasts}


def clean(value: Any) -> Any:
    """Plain JSON values: numpy scalars become numbers, NaN and infinities None."""
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, np.ndarray):
        return clean(value.tolist())
    if isinstance(value, np.generic):
        return clean(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
