"""Answers as plain text for a terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

from factorlab.questions.answer import Answer, text_table

WIDTH = 100


def answer_lines(answers: Sequence[Answer]) -> list[str]:
    """Lines of text: each question, its verdict, what more there is, its table."""
    out: list[str] = []
    for number, answer in enumerate(answers, start=1):
        out += [
            f"{number}. {answer.question}",
            *_wrapped(answer.verdict or f"No answer: {answer.cannot}", "   "),
        ]
        for sentence in answer.sentences:
            out += _wrapped(sentence, "   - ")
        if answer.table is not None and len(answer.table):
            out += ["", *_aligned(answer)]
        out.append("")
    return out[:-1]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _aligned(answer: Answer) -> Iterator[str]:
    """Rows with columns as wide as their widest cell; wide (East Asian) characters count twice."""
    assert answer.table is not None
    frame = text_table(answer.table)
    columns = [[str(name), *map(str, frame[name])] for name in frame]
    widths = [max(map(_width, cells)) for cells in columns]
    for row in zip(*columns, strict=True):
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        yield "     " + "  ".join(cells).rstrip()


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
