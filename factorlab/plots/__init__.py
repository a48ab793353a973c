"""Figures: one module a subject; each function prepares data, then draws, and returns a matplotlib Figure.

Names are loaded when first used: importing the package does not load matplotlib.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "ability_intervals": "abilities",
    "ability_against_budget": "budgets",
    "ability_against_scores": "abilities",
    "ability_agreement": "agreement",
    "axis_identification": "diagnostics",
    "chain_modes": "modes",
    "chain_ranks": "diagnostics",
    "convergence": "diagnostics",
    "correlation_heatmap": "correlations",
    "headline_moves": "refits",
    "information_gain": "information",
    "leave_one_out_loadings": "loadings",
    "lineage_contrasts": "associations",
    "loadings_forest": "loadings",
    "loadings_heatmap": "loadings",
    "outlier_scores": "outliers",
    "paired_differences": "abilities",
    "power_curves": "power",
    "plan_curves": "plans",
    "plan_strategies": "plans",
    "predictive_correlations": "predictive",
    "predictive_floor": "predictive",
    "predictive_outliers": "predictive",
    "prior_sensitivity": "associations",
    "rank_intervals": "abilities",
    "rho_difference": "associations",
    "save": "saving",
    "scores_by_group": "scores",
    "scree": "eigenvalues",
    "standard_errors": "records",
    "tornado_bars": "tornado",
    "validation_errors": "validation",
    "validation_predictions": "validation",
    "validation_reliability": "validation",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'factorlab.plots' has no attribute {name!r}")
    return getattr(import_module(f"factorlab.plots.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
