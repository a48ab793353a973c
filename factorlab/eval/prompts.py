"""From a task and its data to instances: the exact text that a model is asked, and what is right."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.documents import Documents, choose_place, read_documents
from factorlab.eval.expressions import evaluate, render
from factorlab.eval.instance import Instance
from factorlab.eval.shots import draw_shots
from factorlab.eval.task import Task
from factorlab.records import instance_id

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Questions:
    """Instances of a task in the official order.

    Attributes
    ----------
    instances : tuple of Instance
    notes : tuple of str
        What differs from the official data: substitutes for worked examples, items held out, doublets.
    sources : tuple of mapping
        What was read: role ("items" or "shots"), files with SHA-256, or data set and revision.
    n_documents : int
        Items that the data has, before some are held out and before the limit.
    n_held_out : int
        Items that are worked examples and not scored.
    """

    instances: tuple[Instance, ...]
    notes: tuple[str, ...]
    sources: tuple[Mapping[str, Any], ...]
    n_documents: int
    n_held_out: int


@dataclass(frozen=True)
class _Pool:
    """Worked examples: rows, the template of one where the task's own does not serve, their origin."""

    rows: Sequence[Row]
    shot: str | None
    notes: tuple[str, ...]
    sources: tuple[Mapping[str, Any], ...]
    held_out: frozenset[int] = frozenset()


def build_instances(
    task: Task,
    data_dir: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int | None = None,
) -> Questions:
    """Read a task's data, draw worked examples, and write every prompt.

    Parameters
    ----------
    task : Task
    data_dir : path, optional
        Folder with the files that the task names; without one the data comes from the hub.
    limit : int, optional
        Only the first so many. Their worked examples are those that they have in the full list.
    seed : int, optional
        Of the draw of worked examples, instead of the task's.

    Raises
    ------
    InputError
        When data is missing, broken or empty, lacks a field, or has too few worked examples.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; it must be 1 or more")
    what = f"items of {task.benchmark}"
    items = read_documents(choose_place(task.data, what, data_dir), what, data_dir)
    pool = _pool(task, items, data_dir)
    kept = [i for i in range(len(items.rows)) if i not in pool.held_out]
    if not kept:
        raise InputError(f"{task.benchmark}: all {len(items.rows)} items are held out for worked examples")
    rows = [items.rows[i] for i in kept]
    drawn = _drawn(task, rows, pool.rows, seed)
    texts = _ShotTexts(task, pool)
    seen: dict[str, int] = {}
    instances = []
    for place, shots in list(zip(range(len(rows)), drawn, strict=True))[:limit]:
        row, position = rows[place], items.positions[kept[place]]
        instances.append(_instance(task, row, position, tuple(texts[i] for i in shots), seen))
    doublets = sum(count - 1 for count in seen.values())
    notes = (items.place.note, *pool.notes, _doublets(task, doublets))
    return Questions(
        instances=tuple(instances),
        notes=tuple(note for note in notes if note),
        sources=({"role": "items", **items.origin}, *pool.sources),
        n_documents=len(items.rows),
        n_held_out=len(pool.held_out),
    )


def _doublets(task: Task, count: int) -> str | None:
    if not count:
        return None
    return f"{task.benchmark}: {count} of its items are there more than once; each is an instance of its own"


def _pool(task: Task, items: Documents, data_dir: str | os.PathLike[str] | None) -> _Pool:
    if task.shots is None:
        return _Pool((), None, (), ())
    what = f"worked examples of {task.benchmark}"
    place = choose_place(task.shots.source, what, data_dir)
    notes = (place.note,) if place.note else ()
    if place.from_items:
        return _Pool(items.rows, place.shot, notes, ())
    if place.held_out is not None:
        held = _held_out(task, place.held_out, items)
        note = f"{task.benchmark}: {len(held)} of {len(items.rows)} items are held out for worked examples"
        rows = [items.rows[i] for i in sorted(held)]
        return _Pool(rows, place.shot, (*notes, note), (), held)
    read = read_documents(place, what, data_dir)
    return _Pool(read.rows, place.shot, notes, ({"role": "shots", **read.origin},))


def _held_out(task: Task, rule: Mapping[str, Any], items: Documents) -> frozenset[int]:
    """Places of the items that are worked examples: the first n, or the smallest group that is enough."""
    assert task.shots is not None
    if "first" in rule:
        return frozenset(range(min(rule["first"], len(items.rows))))
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(items.rows):
        name = evaluate(rule["smallest_group"], row, f"{task.benchmark}, item {i + 1}, smallest_group")
        groups.setdefault(name, []).append(i)
    least = task.shots.count + task.shots.extra
    enough = [places for places in groups.values() if len(places) >= least]
    if not enough:
        raise InputError(
            f"{task.benchmark}: no group by '{rule['smallest_group']}' has {least} items to hold out"
        )
    return frozenset(sorted(enough, key=len)[0])


def _drawn(
    task: Task, rows: Sequence[Row], pool: Sequence[Row], seed: int | None
) -> Sequence[tuple[int, ...]]:
    shots = task.shots
    if shots is None:
        return [()] * len(rows)
    groups: tuple[list[Any], list[Any]] = ([], [])
    if shots.by is not None:
        where = f"{task.benchmark}, shots.by"
        groups = (
            [evaluate(shots.by, row, where) for row in rows],
            [evaluate(shots.by, p, where) for p in pool],
        )
    try:
        return draw_shots(shots, rows, pool, *groups, seed=seed)
    except InputError as error:
        raise InputError(f"{task.benchmark}: {error}") from None


class _ShotTexts(dict[int, str]):
    """Text of the worked example at each place of a pool, made when it is first asked for."""

    def __init__(self, task: Task, pool: _Pool) -> None:
        super().__init__()
        self.task, self.pool = task, pool

    def __missing__(self, place: int) -> str:
        task, row = self.task, self.pool.rows[place]
        where, prompt = f"{task.benchmark}, worked example {place + 1}", task.prompt
        if self.pool.shot is not None:
            text = render(self.pool.shot, row, where)
        elif task.scoring == "choices":
            choices, gold = _choices(task, row, where)
            query = prompt.queries[gold if len(prompt.queries) > 1 else 0]
            text = render(query, row, where) + choices[gold]
        else:
            query = render(prompt.queries[0], row, where)
            text = query + prompt.delimiter + render(prompt.target or "", row, where)
        self[place] = text + prompt.separator
        return self[place]


def _choices(task: Task, row: Row, where: str) -> tuple[tuple[str, ...], int]:
    """Continuations of an item, and which is right."""
    choices = evaluate(str(task.prompt.choices), row, f"{where}, prompt.choices")
    if not isinstance(choices, list | tuple) or len(choices) < 2:
        raise InputError(f"{where}: prompt.choices gives {choices!r}; it must be a list of two texts or more")
    gold = evaluate(task.gold, row, f"{where}, gold")
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(choices):
        raise InputError(
            f"{where}: gold gives {gold!r}; it must be the place of the right choice, 0 to {len(choices) - 1}"
        )
    return tuple(task.prompt.delimiter + str(choice) for choice in choices), gold


def _instance(task: Task, row: Row, position: int, shots: tuple[str, ...], seen: dict[str, int]) -> Instance:
    where = f"{task.benchmark}, item {position + 1}"
    names = {**row, "index": position}
    choices: tuple[str, ...] = ()
    gold: Any
    if task.scoring == "choices":
        choices, gold = _choices(task, row, where)
        if len(task.prompt.queries) not in (1, len(choices)):
            raise InputError(
                f"{where}: there are {len(task.prompt.queries)} prompt.queries for {len(choices)} choices"
            )
    else:
        gold = _gold(task, row, where)
    content = instance_id(dict(row))
    seen[content] = seen.get(content, 0) + 1
    if seen[content] > 1:
        content = instance_id({**row, "occurrence": seen[content]})
    return Instance(
        instance_id=content,
        head=render(task.prompt.head, row, f"{where}, prompt.head"),
        shots=shots,
        queries=tuple(render(query, row, f"{where}, prompt.query") for query in task.prompt.queries),
        gold=gold,
        target=_gold_text(task, row, gold, choices, where),
        choices=choices,
        document=dict(row),
        cluster=None if task.cluster is None else render(task.cluster, names, f"{where}, cluster"),
        shared_item_id=_shared(task, names, where),
    )


def _gold(task: Task, row: Row, where: str) -> Any:
    """What an answer is compared with: a text, texts of which any is right, or tests of a program."""
    gold = evaluate(task.gold, row, f"{where}, gold")
    if task.scoring == "code":
        if not isinstance(gold, Mapping) or not {"test", "entry_point"} <= set(gold):
            raise InputError(f"{where}: gold gives {gold!r}; it must be a mapping with test and entry_point")
        return dict(gold)
    texts = [gold] if isinstance(gold, str) else gold
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where}: gold gives {gold!r}; it must be a text or a list of texts")
    return gold


def _gold_text(task: Task, row: Row, gold: Any, choices: Sequence[str], where: str) -> str:
    if task.gold_text is not None:
        return render(task.gold_text, row, f"{where}, gold_text")
    if choices:
        return choices[gold].removeprefix(task.prompt.delimiter)
    if isinstance(gold, list | tuple):
        return str(gold[0]) if gold else ""
    return str(gold)


def _shared(task: Task, names: Row, where: str) -> str | None:
    if task.shared is None:
        return None
    group, item = task.shared
    return f"{group}:{evaluate(item, names, f'{where}, shared.item')}"
