"""factorlab: what large language models are able to do, measured with honest uncertainty.

Names are loaded when first used: importing the package loads neither torch nor pymc.
"""

from importlib import import_module
from typing import Any

from factorlab.collector import seldom_collected

__version__ = "0.1.0"

_WHERE = {
    "InputError": "factorlab.errors",
    "ScoreTable": "factorlab.scores",
    "read_scores": "factorlab.scores",
    "read_records": "factorlab.records",
    "write_records": "factorlab.record_writer",
    "scores_from_records": "factorlab.record_scores",
    "import_records": "factorlab.importers.jobs",
    "evaluate": "factorlab.eval.run",
    "load_task": "factorlab.eval.task",
    "check": "factorlab.health",
    "simulate": "factorlab.simulation",
    "FactorSolution": "factorlab.inference.solution",
    "load_solution": "factorlab.inference.solution",
    "fit_pca": "factorlab.inference.pca",
    "fit_ml": "factorlab.inference.ml",
    "Priors": "factorlab.inference.priors",
    "fit_bayes": "factorlab.inference.bayes",
    "fit_budgets": "factorlab.inference.joint_budgets",
    "compare": "factorlab.inference.compare",
    "find_outliers": "factorlab.inference.outliers",
    "FitOptions": "factorlab.options",
    "next_benchmarks": "factorlab.inference.information",
    "measure_power": "factorlab.power",
    "refit": "factorlab.refits",
    "plan": "factorlab.inference.predict.plan",
    "run_batch": "factorlab.batch",
    "predict": "factorlab.inference.predict.prediction",
    "add_models": "factorlab.inference.predict.new_models",
    "PredictionSettings": "factorlab.inference.predict.mixture",
    "validate": "factorlab.inference.predict.validation",
    "ValidationOptions": "factorlab.inference.predict.validation_options",
    "answer_questions": "factorlab.questions.ask",
    "write_report": "factorlab.report",
}

__all__ = [*_WHERE, "plots"]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return import_module("factorlab.plots")
    if name not in _WHERE:
        raise AttributeError(f"module 'factorlab' has no attribute {name!r}")
    with seldom_collected():
        return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
