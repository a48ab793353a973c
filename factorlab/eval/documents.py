"""Items of a benchmark and its worked examples: from a local folder, or from Hugging Face's hub."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.expressions import evaluate
from factorlab.eval.formats import read_rows
from factorlab.eval.task import Label, Place, Source

Row = dict[str, Any]


@dataclass(frozen=True)
class Documents:
    """What was read.

    Attributes
    ----------
    rows : tuple of dict
        Fields of each item, as the task file names them.
    positions : tuple of int
        Place of each item in the source, from 0; rows that are not kept have one too.
    place : Place
        Where they were read from.
    origin : mapping
        For the record: {"files": {path: SHA-256}} or {"hub", "config", "split", "revision", "resolved"}.
    """

    rows: tuple[Row, ...]
    positions: tuple[int, ...]
    place: Place
    origin: Mapping[str, Any]


def choose_place(source: Source, what: str, data_dir: str | os.PathLike[str] | None) -> Place:
    """Where rows are to be read from: local files when a data folder is given, else the hub.

    Parameters
    ----------
    source : Source
    what : str
        "items of JSQuAD", for messages.
    data_dir : path, optional

    Raises
    ------
    InputError
        When there is no such folder or file, or the hub does not have the data.
    """
    if data_dir is None:
        if source.hub is None:
            files = ", ".join(source.local[0].files) if source.local else "none"
            raise InputError(f"{what} are not on the hub; give --data-dir, a folder that has {files}")
        return source.hub
    folder = Path(data_dir)
    if not folder.is_dir():
        raise InputError(f"no such data folder: '{folder}' (--data-dir)")
    if not source.local:
        raise InputError(f"{what} can be read from the hub only; leave --data-dir out for this task")
    missing = [_missing(place, folder) for place in source.local]
    for place, lack in zip(source.local, missing, strict=True):
        if lack is None:
            return place
    told = " or ".join(f"'{name}'" for name in dict.fromkeys(missing) if name)
    raise InputError(
        f"'{folder}' has no file {told}, which {what} are read from; put it there, or leave --data-dir out "
        "to read from the hub"
    )


def read_documents(place: Place, what: str, data_dir: str | os.PathLike[str] | None = None) -> Documents:
    """Rows of a place with their fields.

    Parameters
    ----------
    place : Place
        Files or a data set of the hub.
    what : str
        "items of JSQuAD", for messages.
    data_dir : path, optional
        Folder that the place's files are in.

    Raises
    ------
    InputError
        When files are missing or broken, a field is not there, or nothing is left.
    """
    if place.hub is not None:
        rows, origin = _from_hub(place, what)
        source = f"data set '{place.hub}'"
    else:
        rows, origin = _from_files(place.files, place.format, place.columns, place.at, Path(data_dir or "."))
        source = f"'{place.files[0]}'"
    label = None
    if place.label is not None:
        label, labels = _labels(place.label, Path(data_dir or "."))
        origin = {"files": {**origin["files"], **labels["files"]}}
    kept, positions = [], []
    for i, row in enumerate(rows):
        where = f"{source}, item {i + 1}"
        names: Row = {**row, "index": i, "row": row}
        if place.label is not None and label is not None:
            names[place.label.name] = _labelled(place.label, label, names, where)
        fields = {
            name: evaluate(text, names, f"{where}, field '{name}'") for name, text in place.fields.items()
        }
        if not place.fields:
            fields = dict(row)
        if place.keep is None or evaluate(place.keep, {**names, **fields}, f"{where}, keep"):
            kept.append(fields)
            positions.append(i)
    if not kept:
        raise InputError(f"{source} holds no items ({what}); the file is empty or nothing in it is kept")
    return Documents(tuple(kept), tuple(positions), place, origin)


def _missing(place: Place, folder: Path) -> str | None:
    """The first file of a place that is not there."""
    wanted = [*place.files, *(place.label.files if place.label else ())]
    return next((name for name in wanted if not _found(folder, name)), None)


def _found(folder: Path, name: str) -> list[Path]:
    """Files of a name or glob, in order of the alphabet; with ".gz" or without, whichever is there."""
    other = name.removesuffix(".gz") if name.endswith(".gz") else name + ".gz"
    for wanted in (name, other):
        if any(sign in wanted for sign in "*?["):
            found = sorted(folder.glob(wanted))
        else:
            found = [folder / wanted] if (folder / wanted).is_file() else []
        if found:
            return found
    return []


def _from_files(
    files: Sequence[str], format: str, columns: Sequence[str], at: str | None, folder: Path
) -> tuple[list[Row], dict[str, Any]]:
    paths = []
    for name in files:
        found = _found(folder, name)
        if not found:
            raise InputError(f"no such data file: '{folder / name}'")
        paths += found
    rows = read_rows(paths, format, columns, at)
    return rows, {"files": {str(path.relative_to(folder)): _sha256(path) for path in paths}}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _labels(label: Label, folder: Path) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Key -> value of all rows of a label's files (the last one wins), and where they are from."""
    rows, origin = _from_files(label.files, label.format, label.columns, None, folder)
    out = {}
    for i, row in enumerate(rows):
        where = f"'{label.files[0]}', row {i + 1}"
        out[evaluate(label.key, row, where)] = evaluate(label.value, row, where)
    return out, origin


def _labelled(label: Label, values: Mapping[Any, Any], names: Row, where: str) -> Any:
    key = evaluate(label.match, names, where)
    if key not in values:
        raise InputError(
            f"{where}: no '{label.name}' for {str(key)[:60]!r} in '{label.files[0]}'; the files do not belong together"
        )
    return values[key]


def _from_hub(place: Place, what: str) -> tuple[list[Row], dict[str, Any]]:
    """Rows of a data set of the hub, with the revision that its name stands for now."""
    name = f"'{place.hub}' ({what})"
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(
            f"data set {name} needs the package 'datasets', which is not installed; "
            "pip install datasets, or give --data-dir"
        ) from None
    resolved = _resolved(place)
    rows: list[Row] = []
    for config in place.configs or (None,):
        try:
            part = load_dataset(place.hub, config, split=place.split, revision=resolved or place.revision)
        except Exception as error:  # of many kinds: network, no such data set, gated, a script
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"data set {name} cannot be loaded from the hub: {reason[:200]}; give --data-dir, "
                "a folder with the files (docs/eval_tasks.md), where there is no network"
            ) from None
        rows += [{"config": config, **row} for row in part]
    return rows, {
        "hub": place.hub,
        "config": list(place.configs),
        "split": place.split,
        "revision": place.revision,
        "resolved": resolved,
    }


def _resolved(place: Place) -> str | None:
    """Commit that a revision stands for; None where the hub does not say."""
    try:
        from huggingface_hub import HfApi

        return HfApi().dataset_info(str(place.hub), revision=place.revision, timeout=10).sha
    except Exception:  # no network: `load_dataset` may have a copy
        return None
