"""Kept results: each finished task of a batch in a file of its own, found again by what it was asked.

A result without arrays is a JSON file, one with arrays an ``.npz`` that numpy opens; neither holds
pickled objects. A file's name and head carry a digest of the task and of the settings of its batch,
so that a result is never taken for that of another question.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from factorlab.tabular import write_atomically

FORMAT = 1

_HEAD = "head"
"""Name of the JSON text in an ``.npz``; no array of a result may have it."""


class Kept:
    """Results of one batch in a folder.

    Parameters
    ----------
    folder : path
        Made when absent.
    function : str
        Name of the function that is run.
    settings : mapping
        JSON-able; all that shapes a result and is the same for every task.
    """

    def __init__(self, folder: str | os.PathLike[str], function: str, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._batch = {"format": FORMAT, "function": function, "settings": dict(settings)}

    def digest(self, key: str, arguments: Mapping[str, Any]) -> str:
        """First 16 hex digits of the SHA-256 of the function, its settings, the key and the arguments."""
        asked = {**self._batch, "key": key, "arguments": dict(arguments)}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def read(self, key: str, arguments: Mapping[str, Any]) -> tuple[bool, Any]:
        """Whether there is a result, and the result; a file that cannot be read counts as none."""
        digest = self.digest(key, arguments)
        for path in self._paths(key, digest):
            if not path.is_file():
                continue
            try:
                head, arrays = _load(path)
                if head["digest"] == digest and head["key"] == key:
                    result = head["result"]
                    return True, {**result, **arrays} if arrays else result
            except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
                continue
        return False, None

    def write(self, key: str, arguments: Mapping[str, Any], result: Any) -> Any:
        """Keep a result; gives it back as `read` would.

        Raises
        ------
        TypeError, ValueError
            A result that is neither JSON-able nor a dictionary of JSON-able values and arrays.
        """
        digest = self.digest(key, arguments)
        arrays = {}
        plain = result
        if isinstance(result, dict):
            arrays = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
            plain = {name: value for name, value in result.items() if name not in arrays}
        wrong = [name for name, value in arrays.items() if value.dtype == object or name == _HEAD]
        if wrong:
            raise TypeError(f"array '{wrong[0]}' of task '{key}' cannot be kept: objects, or named '{_HEAD}'")
        text = json.dumps(
            {"digest": digest, "key": key, "result": plain}, ensure_ascii=False, allow_nan=False
        )
        as_json, as_arrays = self._paths(key, digest)
        if arrays:
            write_atomically(as_arrays, lambda name: _save(name, text, arrays))
        else:
            write_atomically(as_json, lambda name: Path(name).write_text(text + "\n", encoding="utf-8"))
        return self.read(key, arguments)[1]

    def prune(self, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        """Delete every file in the folder that is not the result of one of these tasks."""
        wanted = {path for key, asked in tasks.items() for path in self._paths(key, self.digest(key, asked))}
        for path in self.folder.iterdir():
            if path.is_file() and path not in wanted:
                path.unlink()

    def _paths(self, key: str, digest: str) -> tuple[Path, Path]:
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", key).strip("_.")[:60]
        stem = f"{name}-{digest}".removeprefix("-")
        return self.folder / f"{stem}.json", self.folder / f"{stem}.npz"


def _save(name: str, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    with open(name, "wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **{_HEAD: np.asarray(text)}, **arrays)


def _load(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8")), {}
    with np.load(path, allow_pickle=False) as stored:
        return json.loads(str(stored[_HEAD])), {name: stored[name] for name in stored.files if name != _HEAD}
