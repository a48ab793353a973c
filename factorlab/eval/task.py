"""Tasks: a benchmark as data, read from YAML (docs/eval_tasks.md) and checked when it is read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.instance import Decoding
from factorlab.eval.keys import Keys, like, shown
from factorlab.eval.task_files import TASKS, read_yaml, select_tasks, shipped_tasks, task_path

__all__ = ["Task", "load_task", "select_tasks", "shipped_tasks"]

DESCRIPTIVE = ("licence", "reference", "origin", "traps", "note", "language", "chance")
"""Keys that change no prompt, answer or score, so they are not in the digest."""


@dataclass(frozen=True)
class Label:
    """A field of an item that stands in other files: the subject of a question.

    Attributes
    ----------
    name : str
        Of the field.
    files, format, columns
        As of `Place`.
    key, match, value : str
        Expressions: over a row of those files, over the item's row, and over the row again.
    """

    name: str
    files: tuple[str, ...]
    format: str
    columns: tuple[str, ...]
    key: str
    match: str
    value: str


@dataclass(frozen=True)
class Place:
    """Where rows come from: a data set of the hub, local files, or the scored items themselves.

    Attributes
    ----------
    hub : str, optional
        Identifier of a Hugging Face data set, with `configs`, `revision` and `split`.
    files : tuple of str
        Local files below the data folder, of a `format`, with `at` (key of the list) and `columns`.
    held_out : mapping, optional
        Worked examples are a part of the items: {"first": n} or {"smallest_group": field}.
    from_items : bool
        Worked examples are items, and these are scored all the same.
    fields : mapping
        Name -> expression over a row.
    keep : str, optional
        Expression; rows for which it is false are dropped.
    label : Label, optional
    note : str, optional
        Told where this place is used.
    shot : str, optional
        Template of a worked example from here.
    """

    hub: str | None = None
    configs: tuple[str, ...] = ()
    revision: str = "main"
    split: str = "test"
    files: tuple[str, ...] = ()
    format: str = ""
    at: str | None = None
    columns: tuple[str, ...] = ()
    held_out: Mapping[str, Any] | None = None
    from_items: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)
    keep: str | None = None
    label: Label | None = None
    note: str | None = None
    shot: str | None = None


@dataclass(frozen=True)
class Source:
    """Where rows come from: the hub, or the first of some local places whose files are there."""

    hub: Place | None
    local: tuple[Place, ...]


@dataclass(frozen=True)
class Shots:
    """Worked examples: how many, from where, how drawn (`factorlab.eval.shots`)."""

    count: int
    draw: str
    source: Source
    by: str | None = None
    extra: int = 0
    redraw: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """Templates of what a model reads: head, worked examples, query.

    A worked example is query + delimiter + target (or the right choice) + separator. `bos`: whether the
    tokenizer's own special tokens (one that begins a text) stand before it all.
    """

    queries: tuple[str, ...]
    head: str = ""
    delimiter: str = ""
    target: str | None = None
    choices: str | None = None
    separator: str = "\n\n"
    bos: bool = True


@dataclass(frozen=True)
class Metric:
    """What is made of an answer.

    Attributes
    ----------
    name : str
    extract, gold : tuple of mapping
        Steps for the answer and for the gold texts: {"step": name, ...parameters}.
    words : str, optional
        Words of ROUGE and BLEU.
    timeout : float, optional
        Seconds for one program.
    """

    name: str
    extract: tuple[Mapping[str, Any], ...] = ()
    gold: tuple[Mapping[str, Any], ...] = ()
    words: str | None = None
    timeout: float | None = None


@dataclass(frozen=True)
class Difference:
    """One thing that a protocol does in another way than the study: key, both values, and why."""

    key: str
    study: Any
    here: Any
    why: str


@dataclass(frozen=True)
class Task:
    """A benchmark under a protocol.

    Attributes
    ----------
    name : str
        Of the file, without its ending.
    benchmark, protocol, language, licence, reference, origin : str
    chance : float
        Score of a guess.
    traps, note : tuple of str
    data : Source
    shots : Shots, optional
    prompt : Prompt
    gold : str
        Expression over the fields of an item.
    gold_text : str, optional
        Template.
    scoring : str
        "choices", "text" or "code".
    decoding : Decoding
    metric : Metric
    cluster : str, optional
        Template.
    shared : tuple of (str, str), optional
        Group, and an expression for the item.
    protocols : tuple of str
        All that the file has.
    differences : tuple of Difference
        Between the study and `protocol`.
    resolved : mapping
        The file with the protocol's changes.
    """

    name: str
    benchmark: str
    protocol: str
    language: str
    licence: str
    reference: str
    origin: str
    chance: float
    traps: tuple[str, ...]
    note: tuple[str, ...]
    data: Source
    shots: Shots | None
    prompt: Prompt
    gold: str
    gold_text: str | None
    scoring: str
    decoding: Decoding
    metric: Metric
    cluster: str | None
    shared: tuple[str, str] | None
    protocols: tuple[str, ...]
    differences: tuple[Difference, ...]
    resolved: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of all that a result depends on, as canonical JSON; 64 hexadecimal digits."""
        told = {key: value for key, value in self.resolved.items() if key not in DESCRIPTIVE}
        text = json.dumps(told | {"protocol": self.protocol}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def load_task(name_or_path: str | os.PathLike[str], protocol: str = "paper") -> Task:
    """Read a task.

    Parameters
    ----------
    name_or_path : str or path
        A shipped task (name of its file or of its benchmark), or a YAML file.
    protocol : str
        "paper": as the study ran it; "fixed": its traps mended; or another that the file has.

    Raises
    ------
    InputError
        When there is no such task or protocol, or the file is not as docs/eval_tasks.md says: one line with
        file, key, value and what is allowed.
    """
    from factorlab.eval.task_reading import read_task

    path = task_path(name_or_path)
    file = str(path) if path.parent != TASKS else path.name
    raw = deepcopy(read_yaml(path, file))
    keys = Keys(file, "protocols", raw.pop("protocols", None) or {})
    changes = {name: keys.mapping[name] for name in keys.mapping}
    changes.setdefault("paper", [])
    if protocol not in changes:
        raise InputError(
            f"'{file}' has no protocol '{protocol}'{like(protocol, list(changes))}; it has {', '.join(changes)}"
        )
    for name, told in changes.items():  # a mistake in one that is not asked for is one all the same
        if name != protocol:
            read_task(path.stem, file, name, tuple(changes), *_changed(raw, told, file, name))
    return read_task(
        path.stem, file, protocol, tuple(changes), *_changed(raw, changes[protocol], file, protocol)
    )


def _changed(
    raw: Mapping[str, Any], changes: object, file: str, protocol: str
) -> tuple[dict[str, Any], tuple[Difference, ...]]:
    """The file with the changes of a protocol, and what they are."""
    out, differences = deepcopy(dict(raw)), []
    where = f"protocols.{protocol}"
    if not isinstance(changes, list):
        raise InputError(
            f"'{file}': {where} is {shown(changes)}; it must be a list of changes (set, to, why)"
        )
    for i, change in enumerate(changes):
        keys = Keys(file, f"{where}[{i}]", change)
        path, why = keys.get("set", str), keys.get("why", str)
        keys.known.append("to")
        if "to" not in keys.mapping:
            raise InputError(f"{keys.where('to')} is missing; null takes the key away")
        keys.done()
        *above, last = path.split(".")
        place: Any = out
        for part in above:
            place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise InputError(f"{keys.where('set')} is '{path}', which is inside no mapping of the file")
        differences.append(Difference(path, deepcopy(place.get(last)), keys.mapping["to"], why))
        if keys.mapping["to"] is None:
            place.pop(last, None)
        else:
            place[last] = deepcopy(keys.mapping["to"])
    return out, tuple(differences)
