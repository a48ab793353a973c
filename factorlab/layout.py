"""Long and wide tables to one matrix of cells; repeated rows and values out of range are settled here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.metadata import format_name, is_model_column, listed
from factorlab.tabular import first_text_in, is_number, mostly_numbers

LONG_COLUMNS = ("model", "benchmark", "score")
CELL_NUMBERS = ("score", "se", "n_instances")
DUPLICATES = ("error", "mean", "first", "last")


class Cells(NamedTuple):
    """A score matrix before its checks.

    Attributes
    ----------
    models, benchmarks : list of str
        In order of first appearance.
    score, se, n_instances : ndarray of float, (model, benchmark)
        NaN where missing or not given.
    se_kind : ndarray of object, (model, benchmark)
        As given, else None.
    metadata : DataFrame or None
        Columns of the models table found in a wide table, with a column ``model``.
    notes : list of str
    """

    models: list[str]
    benchmarks: list[str]
    score: np.ndarray
    se: np.ndarray
    n_instances: np.ndarray
    se_kind: np.ndarray
    metadata: pd.DataFrame | None
    notes: list[str]


def is_long(frame: pd.DataFrame) -> bool:
    """True for a table of one row a cell (columns model and benchmark)."""
    return "model" in frame and "benchmark" in frame


def rename_columns(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Columns of the file under our names: ``columns`` maps our name to the file's.

    A column of the file that already bears one of our names and is not asked for is set aside.

    Raises
    ------
    InputError
        A name that is not a column of the file, or not one of ours.
    """
    ours = (*LONG_COLUMNS, "se", "n_instances", "se_kind")
    for name, theirs in columns.items():
        if name not in ours:
            raise InputError(f"columns: '{name}' is no column of a long table; allowed are {', '.join(ours)}")
        if theirs not in frame:
            raise InputError(
                f"columns: '{theirs}' is no column of the table; it has {listed(list(frame.columns), 20)}"
            )
    taken = [
        name
        for name, theirs in columns.items()
        if name in frame and theirs != name and name not in columns.values()
    ]
    return frame.drop(columns=taken).rename(columns={theirs: name for name, theirs in columns.items()})


def from_long(frame: pd.DataFrame, duplicates: str = "error") -> Cells:
    """Cells of a long table (model, benchmark, score; optional se, n_instances, se_kind).

    Raises
    ------
    InputError
        No score column, a score that is not a number, a row without a name, one cell twice.
    """
    if "score" not in frame:
        numbers = [c for c in frame.columns if is_number(frame[c])]
        raise InputError(
            "the table has columns 'model' and 'benchmark' but no 'score'; rename the column that holds the "
            f"score, or name it with columns={{'score': ...}} (--column score=...); "
            f"its number columns are {listed(numbers, 12)}"
        )
    present = [c for c in CELL_NUMBERS if c in frame]
    for column in present:
        if not is_number(frame[column]) and frame[column].notna().any():
            row, text = first_text_in(frame[column])
            raise InputError(
                f"'{column}' of model '{frame['model'].iloc[row]}' on '{frame['benchmark'].iloc[row]}' "
                f"is '{text}'; give a plain number, or leave the cell empty when it is missing"
            )
    for label in ("model", "benchmark"):
        if frame[label].isna().any():
            row = int(np.flatnonzero(frame[label].isna())[0])
            raise InputError(f"row {row + 1} of the scores has no {label}; every row needs one")
    kinds = ["se_kind"] if "se_kind" in frame else []
    rows = frame[[*LONG_COLUMNS[:2], *present, *kinds]].astype(dict.fromkeys(present, float))
    rows = rows.assign(model=rows["model"].map(format_name), benchmark=rows["benchmark"].map(format_name))
    models, benchmarks = list(dict.fromkeys(rows["model"])), list(dict.fromkeys(rows["benchmark"]))
    rows, notes = _settle_duplicates(rows, ["model", "benchmark"], duplicates)
    matrices = {}
    index = pd.MultiIndex.from_frame(rows[["model", "benchmark"]])
    for column in (*CELL_NUMBERS, "se_kind"):
        if column in rows:
            wide = rows[column].set_axis(index).unstack("benchmark")
            matrices[column] = wide.reindex(index=models, columns=benchmarks).to_numpy()
    shape = (len(models), len(benchmarks))
    return Cells(
        models,
        benchmarks,
        matrices["score"].astype(float),
        matrices.get("se", np.full(shape, np.nan)).astype(float),
        matrices.get("n_instances", np.full(shape, np.nan)).astype(float),
        matrices.get("se_kind", np.full(shape, None)).astype(object),
        None,
        notes,
    )


def from_wide(
    frame: pd.DataFrame,
    model_column: str | None = None,
    ignore: Sequence[str] = (),
    model_table_columns: Sequence[str] = (),
    declared: Sequence[str] | None = None,
    duplicates: str = "error",
) -> Cells:
    """Cells of a wide table: one row a model, one number column a benchmark.

    Columns that the models table has, or that it reserves (family, params_b, tokens_b_<language>, ...),
    never become benchmarks. When a benchmarks table declares some of the number columns, the others are
    left out and named in a note.

    Raises
    ------
    InputError
        No such model column, no number column, a column half numbers and half text, one model twice.
    """
    key = _model_column(frame, model_column)
    unknown = [c for c in ignore if c not in frame]
    if unknown:
        raise InputError(
            f"ignore: '{unknown[0]}' is no column of the table; it has {listed(list(frame.columns), 20)}"
        )
    notes: list[str] = []
    reserved = [c for c in frame.columns if c != key and (c in model_table_columns or is_model_column(c))]
    candidates = [c for c in frame.columns if c != key and c not in ignore and c not in reserved]
    benchmarks, text = [], []
    for column in candidates:
        if is_number(frame[column]):
            benchmarks.append(column)
        elif mostly_numbers(frame[column]):
            row, value = first_text_in(frame[column])
            raise InputError(
                f"column '{column}' has '{value}' (model '{frame[key].iloc[row]}') among its numbers; "
                f"give a plain number, leave the cell empty when it is missing, or ignore the column"
            )
        else:
            text.append(column)
    benchmarks = _without_row_number(frame, benchmarks, notes)
    known = [b for b in benchmarks if declared is not None and b in declared]
    if known and len(known) < len(benchmarks):
        others = [b for b in benchmarks if b not in known]
        notes.append(
            f"Number columns that the benchmarks table does not declare were left out: {listed(others)}."
        )
        benchmarks = known
    if text:
        notes.append(f"Columns without numbers were not read as benchmarks: {listed(text)}.")
    if not benchmarks:
        raise InputError(
            "the table has no number column to read as a benchmark; a wide table has one column a benchmark, "
            "a long one has model, benchmark, score"
        )
    if frame[key].isna().any():
        raise InputError(
            f"row {int(np.flatnonzero(frame[key].isna())[0]) + 1} has no model in column '{key}'"
        )
    rows = frame[[key, *benchmarks]].assign(**{key: frame[key].map(format_name)})
    models = list(dict.fromkeys(rows[key]))
    rows, more = _settle_duplicates(rows, [key], duplicates)
    score = rows.set_index(key).reindex(models)[benchmarks].to_numpy(dtype=float)
    metadata = None
    kept = [c for c in reserved if is_model_column(c)]
    if kept:
        metadata = frame[kept].assign(model=frame[key].map(format_name)).drop_duplicates("model")
    blank = np.full(score.shape, np.nan)
    return Cells(
        models, benchmarks, score, blank, blank.copy(), np.full(score.shape, None), metadata, [*notes, *more]
    )


def check_values(cells: Cells, benchmarks: pd.DataFrame) -> None:
    """Every score finite and inside its declared range, every standard error and n above 0 or missing.

    Raises
    ------
    InputError
        Naming the cell, the value, what is allowed and the cure.
    """
    _refuse(
        np.isinf(cells.score),
        cells,
        cells.score,
        "score",
        "it must be finite; leave the cell empty when it is missing",
    )
    _refuse(cells.se < 0, cells, cells.se, "se", "a standard error is above 0; leave it empty when unknown")
    _refuse(
        np.isinf(cells.se), cells, cells.se, "se", "a standard error is finite; leave it empty when unknown"
    )
    n = cells.n_instances
    _refuse(
        (n <= 0) | np.isinf(n), cells, n, "n_instances", "it must be above 0; leave it empty when unknown"
    )
    low, high = benchmarks["min"].to_numpy(), benchmarks["max"].to_numpy()
    slack = 1e-9 * np.where(np.isfinite(high - low), high - low, 1.0)
    for side, outside, bound in (
        ("above", cells.score > high + slack, high),
        ("below", cells.score < low - slack, low),
    ):
        for j in np.flatnonzero(outside.any(axis=0)):
            i = int(np.flatnonzero(outside[:, j])[0])
            limit = "maximum" if side == "above" else "minimum"
            cure = "correct the score or the declared range"
            if side == "above" and bound[j] == 1 and np.nanmax(cells.score[:, j]) <= 100:
                cure = (
                    "if these are percentages set its max to 100 in the benchmarks table, else give fractions"
                )
            raise InputError(
                f"benchmark '{cells.benchmarks[j]}' has the score {cells.score[i, j]:g} "
                f"(model '{cells.models[i]}') {side} its declared {limit} {bound[j]:g}; {cure}"
            )


def _refuse(wrong: np.ndarray, cells: Cells, values: np.ndarray, what: str, cure: str) -> None:
    if wrong.any():
        i, j = (int(k) for k in np.argwhere(wrong)[0])
        raise InputError(
            f"{what} of model '{cells.models[i]}' on '{cells.benchmarks[j]}' is {values[i, j]:g}; {cure}"
        )


def _model_column(frame: pd.DataFrame, asked: str | None) -> str:
    if asked is not None:
        if asked not in frame:
            raise InputError(
                f"model_column '{asked}' is no column of the table; it has {listed(list(frame.columns), 20)}"
            )
        return asked
    named = [str(c) for c in frame.columns if str(c).lower() == "model"]
    if named:
        return named[0]
    for column in frame.columns:
        if not is_number(frame[column]) and frame[column].notna().any() and not mostly_numbers(frame[column]):
            return str(column)
    raise InputError(
        "the table has no text column to take the models' names from; "
        "name one with model_column (--model-column)"
    )


def _without_row_number(frame: pd.DataFrame, benchmarks: list[str], notes: list[str]) -> list[str]:
    """Leave out a nameless column of row numbers, as pandas writes it."""
    kept = []
    for column in benchmarks:
        nameless = column == "" or column.startswith("Unnamed:") or column == "index"
        whole = frame[column].dropna()
        if nameless and len(whole) == len(frame) and whole.is_unique and (whole % 1 == 0).all():
            notes.append("A nameless column of row numbers was left out.")
        else:
            kept.append(column)
    return kept


def _settle_duplicates(rows: pd.DataFrame, keys: list[str], how: str) -> tuple[pd.DataFrame, list[str]]:
    """One row for each key: refuse, or take the mean, first or last of the repeated ones."""
    if how not in DUPLICATES:
        raise InputError(f"duplicates is '{how}'; allowed are {', '.join(DUPLICATES)}")
    again = rows.duplicated(keys)
    if not again.any():
        return rows, []
    if how == "error":
        where = dict(zip(keys, rows.loc[again, keys].iloc[0], strict=True))
        count = int((rows[keys] == pd.Series(where)).all(axis=1).sum())
        name = " on ".join(f"'{value}'" for value in where.values())
        long = "" if len(keys) > 1 else "; if this is a long table, name its columns with columns"
        raise InputError(
            f"{count} rows for {name} ({int(again.sum())} repeated rows in all); keep one, "
            f"or choose duplicates='mean', 'first' or 'last' (--duplicates mean){long}"
        )
    note = f"{int(again.sum())} repeated rows were settled by taking the {how} of each."
    if how in ("first", "last"):
        return rows.drop_duplicates(keys, keep="first" if how == "first" else "last"), [note]
    numbers = [c for c in rows.columns if c not in keys and is_number(rows[c])]
    grouped = rows.groupby(keys, sort=False)
    settled = grouped[numbers].mean()
    if "se" in settled:  # of the mean of r runs on the same items, an upper bound: the mean of their errors
        note += " Their standard errors were averaged, not reduced: the runs share their items."
    if "se_kind" in rows:
        settled["se_kind"] = grouped["se_kind"].first()
    return settled.reset_index(), [note]
