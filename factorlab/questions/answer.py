"""Answer: a question, a verdict of one sentence, the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from factorlab.wording import NOTHING, number, with_interval

LOWER, UPPER = " lower", " upper"
"""Columns "x", "x lower" and "x upper" of a table are one number with its interval."""


@dataclass(frozen=True)
class Answer:
    """What an analysis says to one question; associations, never causes.

    Attributes
    ----------
    key : str
        A short name that does not change: "languages", "tokens", ...
    question : str
    verdict : str
        One sentence with its numbers; empty where there is no answer.
    sentences : tuple of str
        What more there is to say, and how it was computed.
    table : pandas.DataFrame or None
        Numbers, a row a thing; a column with an interval has two more, ``<column> lower`` and
        ``<column> upper``.
    cannot : str
        Why there is no answer, and what would give one; empty where there is one.
    links : tuple of str
        Names of figures, and of sections of the page, that show more.
    """

    key: str
    question: str
    verdict: str = ""
    sentences: tuple[str, ...] = ()
    table: pd.DataFrame | None = None
    cannot: str = ""
    links: tuple[str, ...] = ()

    def to_dataframe(self) -> pd.DataFrame:
        """The table; without rows where there is none."""
        return pd.DataFrame() if self.table is None else self.table

    def to_dict(self) -> dict[str, Any]:
        """JSON-able but for NaN: all fields, the table as a list of rows."""
        rows = [] if self.table is None else self.table.to_dict("records")
        return {
            "key": self.key,
            "question": self.question,
            "verdict": self.verdict,
            "sentences": list(self.sentences),
            "table": [{str(k): v for k, v in row.items()} for row in rows],
            "cannot": self.cannot,
        }


def text_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as text: a number and its interval in one cell, whole numbers without decimals."""
    names = [str(c) for c in frame.columns]
    shown = [n for n in names if not n.endswith((LOWER, UPPER))]
    return pd.DataFrame({name: list(_cells(frame, name)) for name in shown})


def _cells(frame: pd.DataFrame, name: str) -> Iterator[str]:
    column = frame[name]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        yield from (NOTHING if pd.isna(v) else str(v) for v in column)
    elif name + LOWER in frame:
        bounds = zip(column, frame[name + LOWER], frame[name + UPPER], strict=True)
        yield from (with_interval(*three) for three in bounds)
    else:
        digits = 0 if pd.api.types.is_integer_dtype(column) else 2
        yield from (number(v, digits) for v in column)
