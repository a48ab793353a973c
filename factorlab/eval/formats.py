"""Files of benchmarks to rows: JSON, nested question sets, XML, tables, parallel texts, folders of examples."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from factorlab.errors import InputError

Row = dict[str, Any]

csv.field_size_limit(1 << 30)


def stem(path: Path) -> str:
    """Name of a file without its endings: "dev" of "dev.json.gz"."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def read_rows(
    paths: Sequence[Path], format: str, columns: Sequence[str] = (), at: str | None = None
) -> list[Row]:
    """All rows of some files, in order; each has the name of its file as ``file``.

    Parameters
    ----------
    paths : sequence of Path
        Plain or ending in ".gz".
    format : str
        One of docs/eval_tasks.md.
    columns : sequence of str
        Names of columns where the files have no header line.
    at : str, optional
        Key of the list in a JSON file.

    Raises
    ------
    InputError
        When a file cannot be read or is not of the format.
    """
    if format == "lines":
        return _lines(paths, columns)
    out: list[Row] = []
    for path in paths:
        text = _text(path)
        try:
            if format in ("csv", "tsv"):
                rows = _table(path, text, columns, "\t" if format == "tsv" else ",")
            elif format == "json":
                rows = _json(path, text, at)
            else:
                rows = _READERS[format](path, text)
        except (ElementTree.ParseError, csv.Error, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"'{path}' is not of format '{format}': {type(error).__name__}: {error}"
            ) from None
        out += [{"file": stem(path), **row} for row in rows]
    return out


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"'{path}' cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not UTF-8 (byte {error.start}); write it again as UTF-8") from None


def _loads(path: Path, text: str, line: int = 0) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        where = f", line {line}" if line else ""
        raise InputError(f"'{path}'{where} is no JSON: {error}") from None


def _jsonl(path: Path, text: str) -> list[Row]:
    out = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row = _loads(path, line, number)
            if not isinstance(row, dict):
                raise InputError(f"'{path}', line {number} is no JSON object; each line must be one")
            out.append(row)
    return out


def _json(path: Path, text: str, at: str | None) -> list[Row]:
    value = _loads(path, text)
    if at is not None:
        if not isinstance(value, dict) or at not in value:
            raise InputError(f"'{path}' has no key '{at}', where its items should be")
        value = value[at]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"'{path}' holds no list of JSON objects; each item must be one")
    return value


def _squad(path: Path, text: str) -> list[Row]:
    """A row a question: title, context, question, id, texts of its answers, is_impossible."""
    return [
        {
            "title": article.get("title", ""),
            "context": paragraph["context"],
            "question": question["question"],
            "id": question["id"],
            "answers": [answer["text"] for answer in question["answers"]],
            "is_impossible": bool(question.get("is_impossible", False)),
        }
        for article in _loads(path, text)["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def _niilc(path: Path, text: str) -> list[Row]:
    """A row a question: id, question, texts of its answers (empty ones left out)."""
    out = []
    for question in ElementTree.fromstring(text.encode("utf-8")).iter("question"):
        answers = [answer.text for answer in question.iterfind("answers/answer") if answer.text]
        told = {"id": question.get("id"), "question": question.findtext("text"), "answers": answers}
        out.append(told)
    return out


def _table(path: Path, text: str, columns: Sequence[str], delimiter: str) -> list[Row]:
    stream = io.StringIO(text, newline="")
    if delimiter == "\t":
        reader = csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(stream, delimiter=delimiter)
    lines = [line for line in reader if line]
    names = list(columns) or (lines.pop(0) if lines else [])
    for number, line in enumerate(lines, 1):
        if len(line) != len(names):
            raise InputError(
                f"'{path}', row {number} has {len(line)} columns, not {len(names)} ({', '.join(names)})"
            )
    return [dict(zip(names, line, strict=True)) for line in lines]


def _lines(paths: Sequence[Path], columns: Sequence[str]) -> list[Row]:
    """Parallel texts, a file each; whitespace off the ends of lines, as sacrebleu's reader has it."""
    texts = []
    for path in paths:
        lines = _text(path).split("\n")
        texts.append([line.rstrip() for line in (lines[:-1] if lines[-1] == "" else lines)])
    if len({len(lines) for lines in texts}) > 1:
        told = ", ".join(f"'{path}' {len(lines)}" for path, lines in zip(paths, texts, strict=True))
        raise InputError(f"parallel files have different numbers of lines: {told}")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*texts, strict=True)]
    return [{"file": stem(paths[0]), **row} for row in rows]


def _examples(path: Path, text: str) -> list[Row]:
    return [{"task": stem(path), **row} for row in _json(path, text, "examples")]


def _exemplars(path: Path, text: str) -> list[Row]:
    """Worked examples in a text: a canary line, a line of dashes, a description, blocks that begin with "Q:".

    The canary line is left out, so that no prompt holds it.
    """
    body = re.sub(r"\A[^\n]*canary[^\n]*\n-+\n", "", text.replace("\r\n", "\n")).strip("\n")
    description, *blocks = body.split("\n\nQ: ")
    if not blocks:
        raise InputError(f"'{path}' holds no worked example (no block that begins with 'Q: ')")
    return [{"task": stem(path), "description": description, "text": f"Q: {block}"} for block in blocks]


def _blocks(path: Path, text: str) -> list[Row]:
    blocks = re.split(r"\n{2,}", text.replace("\r\n", "\n").strip("\n"))
    return [{"text": block} for block in blocks if block]


_READERS: dict[str, Callable[[Path, str], list[Row]]] = {
    "jsonl": _jsonl,
    "squad": _squad,
    "niilc": _niilc,
    "examples": _examples,
    "exemplars": _exemplars,
    "blocks": _blocks,
}
