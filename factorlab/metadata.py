"""The two tables beside the scores, checked once: models (budgets, lineage), benchmarks (metric, range)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.lineage import STATUSES, build_lineage
from factorlab.tabular import first_text_in, is_number

MODEL_TEXT = ("family", "base_model", "construction", "group")
MODEL_NUMBERS = re.compile(r"params_b|params_total_b|(cpt_)?tokens_b_[A-Za-z0-9-]+")
MODEL_STATUS = re.compile(r"(cpt_)?tokens_b_[A-Za-z0-9-]+_status")
BENCHMARK_TEXT = ("language", "category", "metric", "shared_items_group", "se_rule")
BENCHMARK_NUMBERS = ("chance", "min", "max", "n_instances", "anchor_factor")
BENCHMARK_COLUMNS = (
    *("language", "category", "metric", "chance", "min", "max", "higher_is_better"),
    *("n_instances", "se_rule", "shared_items_group", "anchor_factor"),
)
SE_RULES = ("binomial", "upper_bound", "unknown")
TRUE_FALSE = {
    "true": True,
    "yes": True,
    "1": True,
    "1.0": True,
    "false": False,
    "no": False,
    "0": False,
    "0.0": False,
}
PROPORTION = re.compile(r"\b(acc|accuracy|exact[ _]match|em|pass@1|solve[ _]rate)\b", re.IGNORECASE)


def is_model_column(name: str) -> bool:
    """True for a name that the models table reserves (family, params_b, tokens_b_ja, ...)."""
    return name in MODEL_TEXT or bool(MODEL_NUMBERS.fullmatch(name) or MODEL_STATUS.fullmatch(name))


def check_models(frame: pd.DataFrame | None, scored: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Models table indexed by model, scored models first in the order of the scores, and notes.

    Raises
    ------
    InputError
        A model twice, a count that is no number or negative, an unknown status, a broken lineage.
    """
    notes: list[str] = []
    if frame is None:
        return pd.DataFrame(index=_name_index(list(scored), "model")), notes
    table = _indexed(frame, "model", "models table")
    for column in table.columns:
        if MODEL_NUMBERS.fullmatch(column):
            table[column] = _numbers(table, column, "models table", positive=column.startswith("params"))
        elif MODEL_STATUS.fullmatch(column):
            _check_status(table, column)
        elif column in MODEL_TEXT:
            table[column] = _texts(table[column])
    undeclared = [m for m in scored if m not in table.index]
    if undeclared:
        notes.append(
            f"{len(undeclared)} of {len(scored)} models are not in the models table: {listed(undeclared)}."
        )
    table = table.reindex([*scored, *(m for m in table.index if m not in set(scored))])
    table.index = _name_index(list(table.index), "model")
    build_lineage(table)
    return table, notes


def check_benchmarks(frame: pd.DataFrame | None, scored: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Benchmarks table for the scored benchmarks, with all of `BENCHMARK_COLUMNS`, and notes.

    Raises
    ------
    InputError
        A benchmark twice, a bound or chance level that makes no sense, an unknown standard-error rule.
    """
    notes: list[str] = []
    names = list(scored)
    if frame is None:
        table = pd.DataFrame(index=_name_index(names, "benchmark"))
    else:
        table = _indexed(frame, "benchmark", "benchmarks table")
        undeclared = [b for b in names if b not in table.index]
        if undeclared:
            notes.append(
                f"{len(undeclared)} of {len(names)} benchmarks are not in the benchmarks table: "
                f"{listed(undeclared)}."
            )
        table = table.reindex(names)
        table.index = _name_index(names, "benchmark")
    for column in BENCHMARK_NUMBERS:
        table[column] = (
            _numbers(table, column, "benchmarks table", signed=True) if column in table else np.nan
        )
    for column in BENCHMARK_TEXT:
        table[column] = (
            _texts(table[column])
            if column in table
            else pd.Series([None] * len(table), table.index, dtype=object)
        )
    table["higher_is_better"] = _flags(table)
    _check_bounds(table)
    more = [c for c in table.columns if c not in BENCHMARK_COLUMNS]
    return table[[*BENCHMARK_COLUMNS, *more]], notes


def se_rule(benchmarks: pd.DataFrame) -> np.ndarray:
    """Rule for the standard error from n: (benchmark,) of "binomial", "upper_bound" or "unknown".

    The declared ``se_rule``; undeclared, "binomial" where the metric is a mean of right and wrong
    answers. Of any other mean of scores between two bounds the binomial variance is an upper bound.
    """
    rules = []
    for declared, metric in zip(benchmarks["se_rule"], benchmarks["metric"], strict=True):
        proportion = isinstance(metric, str) and PROPORTION.search(metric) is not None
        rules.append(declared if isinstance(declared, str) else "binomial" if proportion else "upper_bound")
    return np.asarray(rules, dtype=object)


def listed(names: Sequence[object], most: int = 6) -> str:
    """Names in quotes, the first ``most`` of them and a count of the rest."""
    text = ", ".join(f"'{name}'" for name in list(names)[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def _name_index(names: list[str], label: str) -> pd.Index:
    return pd.Index(names, dtype=object, name=label)


def _indexed(frame: pd.DataFrame, key: str, label: str) -> pd.DataFrame:
    if key not in frame:
        raise InputError(f"the {label} has no column '{key}'; it has {listed(list(frame.columns))}")
    named = frame[frame[key].notna()]
    names = [format_name(value) for value in named[key]]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise InputError(f"the {label} has {names.count(repeated[0])} rows for '{repeated[0]}'; keep one")
    return named.drop(columns=key).set_axis(_name_index(names, key), axis=0)


def format_name(value: object) -> str:
    """A name as text; a whole number loses its decimal point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _numbers(
    table: pd.DataFrame, column: str, label: str, positive: bool = False, signed: bool = False
) -> pd.Series:
    """The column as float; refuses text, infinity and (unless signed) what is below 0."""
    values = table[column]
    if values.isna().all():
        return pd.Series(np.nan, table.index, dtype=float)
    if not is_number(values):
        position, text = first_text_in(values)
        raise InputError(
            f"{label}: '{column}' of '{table.index[position]}' is '{text}'; give a number or leave it empty"
        )
    values = values.astype(float)
    wrong = np.isinf(values)
    if not signed:
        wrong |= (values <= 0) if positive else (values < 0)
    if wrong.any():
        name = values.index[wrong][0]
        allowed = "finite" if signed else "above 0" if positive else "0 or more"
        raise InputError(
            f"{label}: '{column}' of '{name}' is {values[name]:g}; it must be {allowed}, empty when unknown"
        )
    return values


def _texts(values: pd.Series) -> pd.Series:
    return pd.Series([None if pd.isna(v) else format_name(v) for v in values], values.index, dtype=object)


def _check_status(table: pd.DataFrame, column: str) -> None:
    table[column] = _texts(table[column])
    counts = table.get(column.removesuffix("_status"), pd.Series(np.nan, table.index))
    for name, status, count in zip(table.index, table[column], counts, strict=True):
        if status is not None and status not in STATUSES:
            raise InputError(
                f"models table: '{column}' of '{name}' is '{status}'; allowed are {', '.join(STATUSES)}"
            )
        if status == "none" and pd.notna(count) and float(count) > 0:
            raise InputError(
                f"models table: '{column}' of '{name}' is 'none' but its count is {count}; "
                "'none' means the language was not trained on"
            )


def _flags(table: pd.DataFrame) -> pd.Series:
    if "higher_is_better" not in table:
        return pd.Series(True, table.index, dtype=bool)
    flags = []
    for name, value in table["higher_is_better"].items():
        known = True if pd.isna(value) else TRUE_FALSE.get(str(value).strip().lower())
        if known is None:
            raise InputError(
                f"benchmarks table: 'higher_is_better' of '{name}' is '{value}'; give True or False"
            )
        flags.append(known)
    return pd.Series(flags, table.index, dtype=bool)


def _check_bounds(table: pd.DataFrame) -> None:
    for row in table[["min", "max", "chance", "n_instances", "se_rule"]].itertuples():
        name, low, high, chance, n, rule = row
        if low >= high:
            raise InputError(
                f"benchmarks table: '{name}' has min {low:g} and max {high:g}; min must be below max"
            )
        if chance < low or chance >= high:
            raise InputError(
                f"benchmarks table: '{name}' has chance {chance:g}, outside its range {low:g} to {high:g}; "
                "give chance, min and max in one unit"
            )
        if n <= 0:
            raise InputError(
                f"benchmarks table: '{name}' has n_instances {n:g}; it must be above 0, empty when unknown"
            )
        if rule is not None and rule not in SE_RULES:
            raise InputError(
                f"benchmarks table: 'se_rule' of '{name}' is '{rule}'; allowed are {', '.join(SE_RULES)}"
            )
