"""Numbers as they are written on the page, and tables of finished text."""

from __future__ import annotations

from dataclasses import dataclass

from factorlab.wording import (
    MINUS,
    NOTHING,
    count,
    listed,
    number,
    percent,
    plural,
    probability,
    significant,
    with_interval,
)

__all__ = [
    "MINUS", "NOTHING", "PageTable", "count", "listed", "number", "percent", "plural", "probability",
    "significant", "with_interval",
]  # fmt: skip


@dataclass(frozen=True)
class PageTable:
    """A table of finished text.

    Attributes
    ----------
    title : str
    head : tuple of str
    rows : tuple of tuple of str
    note : str
        Below the table.
    marked : frozenset of int
        Rows to set off, e.g. factors that are not identified.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    marked: frozenset[int] = frozenset()

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Columns that hold numbers, set to the right."""
        first = set("0123456789<>=±×" + MINUS)
        columns = ([row[c] for row in self.rows] for c in range(len(self.head)))
        return tuple(
            any(cells) and all(cell[:1] in first for cell in cells if cell not in ("", NOTHING))
            for cells in columns
        )
