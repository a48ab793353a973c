"""Files to data frames: CSV or Parquet, every cell's meaning made explicit, nothing guessed.

Knows nothing of models and benchmarks; `factorlab.scores` gives the frames their meaning.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from factorlab.errors import InputError

SUFFIXES = (".parquet", ".csv", ".tsv")
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "-", "--", "–", "—", "?", "missing"})

NAME_COLUMNS = frozenset({"model", "benchmark"})
REFERENCE_COLUMNS = frozenset({"base_model", "family"})
# Also 64.3% and 0,65, which people write and we refuse by name instead of taking the column for text.
WRITTEN_NUMBER = r"[-+]?\d*[.,]?\d+([eE][-+]?\d+)?\s*%?"


def read_frame(path: str | os.PathLike[str]) -> pd.DataFrame:
    """One table from a Parquet, CSV or TSV file; missing markers become NaN, all-number columns float.

    CSV is read as UTF-8 with or without a byte-order mark. A column becomes numeric when every cell
    that is not a missing marker reads as a number; otherwise it stays text.

    Raises
    ------
    InputError
        No such file, an unknown ending, an empty file, a damaged file, two columns of one name.
    """
    source = Path(path)
    if source.is_dir():
        raise InputError(f"'{source}' is a folder; give a table in it, ending in {', '.join(SUFFIXES)}")
    if not source.is_file():
        raise InputError(f"no such file: '{source}'; give a table ending in {', '.join(SUFFIXES)}")
    if source.suffix.lower() not in SUFFIXES:
        raise InputError(f"'{source}' ends in '{source.suffix}'; tables end in {', '.join(SUFFIXES)}")
    if source.stat().st_size == 0:
        raise InputError(f"'{source}' is empty; a table has a header line and at least one row")
    frame = _read_parquet(source) if source.suffix.lower() == ".parquet" else _read_text(source)
    return tidy_frame(frame, str(source))


def tidy_frame(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    """A copy with clean column names, missing markers as NaN and all-number columns as float.

    Raises
    ------
    InputError
        No row, no column, or two columns of one name.
    """
    frame = frame.copy()
    frame.columns = pd.Index([str(c).strip() for c in frame.columns], dtype=object)
    repeated = [name for name, count in Counter(frame.columns).items() if count > 1]
    if repeated:
        raise InputError(
            f"'{label}' has {Counter(frame.columns)[repeated[0]]} columns named '{repeated[0]}'; "
            "every column needs a name of its own"
        )
    if frame.empty:
        raise InputError(f"'{label}' has no rows; a table has a header line and at least one row")
    columns = {name: _tidy_column(frame[name], *_reading(name)) for name in frame.columns}
    return pd.DataFrame(columns, columns=frame.columns).reset_index(drop=True)


def is_number(column: pd.Series) -> bool:
    """True for a float or integer column (not for True/False)."""
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))


def mostly_numbers(column: pd.Series) -> bool:
    """True for a text column in which at least half of the given cells read as numbers."""
    if is_number(column) or column.notna().sum() == 0:
        return False
    return bool(column.dropna().astype(str).str.fullmatch(WRITTEN_NUMBER).mean() >= 0.5)


def first_text_in(column: pd.Series) -> tuple[int, str]:
    """Position and value of the first cell that is neither missing nor a number."""
    wrong = column.notna() & pd.to_numeric(column, errors="coerce").isna()
    position = int(np.flatnonzero(wrong.to_numpy())[0])
    return position, str(column.iloc[position])


def write_atomically(target: Path, write: Callable[[str], object]) -> None:
    """Call ``write(name)`` with a temporary name beside ``target``, then rename it into place."""
    name = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        write(str(name))
        os.replace(name, target)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def _reading(name: str) -> tuple[frozenset[str], bool]:
    """Missing markers of a column, and whether its cells may be numbers."""
    if name in NAME_COLUMNS:  # a model may be called 7 or NA
        return frozenset({""}), False
    if name.endswith("_status"):  # a status says "none" and means it
        return MISSING - {"none"}, False
    return MISSING, name not in REFERENCE_COLUMNS


def _tidy_column(column: pd.Series, missing: frozenset[str], may_be_numbers: bool) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if is_number(column):
        return column.astype(float)
    if not (pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)):
        return column
    text = column.map(lambda v: v.strip() if isinstance(v, str) else v).astype(object)
    text = text.mask(text.isna() | text.map(lambda v: isinstance(v, str) and v.lower() in missing), np.nan)
    if may_be_numbers and text.notna().any() and not text.map(lambda v: isinstance(v, bool)).any():
        numbers = text.map(_number).astype(float)
        if (numbers.notna() == text.notna()).all():
            return numbers
    return text


def _number(cell: object) -> float:
    """A cell as a float, correctly rounded (pandas.to_numeric may be off by a bit); NaN for other text."""
    if isinstance(cell, str) and "_" in cell:  # float() reads 1_000
        return np.nan
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan


def _read_parquet(source: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(source)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"'{source}' cannot be read as Parquet ({reason}); write the file again") from None
    if frame.index.name is not None or not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    return frame


def _read_text(source: Path) -> pd.DataFrame:
    separator = "\t" if source.suffix.lower() == ".tsv" else ","
    try:
        with open(source, encoding="utf-8-sig", newline="") as stream:
            rows = [
                row for row in csv.reader(stream, delimiter=separator) if any(cell.strip() for cell in row)
            ]
    except UnicodeDecodeError as error:
        raise InputError(f"'{source}' is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise InputError(f"'{source}' cannot be read as CSV ({error}); check its quotes") from None
    if not rows:
        raise InputError(f"'{source}' is empty; a table has a header line and at least one row")
    header = rows[0]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InputError(
                f"'{source}' row {number} has {len(row)} cells, the header has {len(header)}; "
                "quote names that contain the separator"
            )
    return pd.DataFrame(rows[1:], columns=pd.Index(header, dtype=object), dtype=object)
