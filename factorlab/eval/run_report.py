"""The report of a call of `factorlab eval`: what was asked of whom, with what, and what came of it."""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factorlab import __version__
from factorlab.errors import InputError
from factorlab.eval.task import Task

if TYPE_CHECKING:
    from factorlab.eval.run import Settings, TaskResult

PACKAGES = (
    "torch", "transformers", "tokenizers", "datasets", "vllm", "sacrebleu", "rouge-score", "fugashi",
    "unidic-lite", "nagisa", "rapidfuzz",
)  # fmt: skip


class RunReport:
    """A JSON file in ``OUT/runs``, written anew after each task and renamed into place.

    Parameters
    ----------
    folder : path
        OUT; made when it is not there.
    settings : Settings
    tasks : sequence of Task
    facts : mapping

    Raises
    ------
    InputError
        A folder that cannot be written to.
    """

    def __init__(
        self, folder: Path, settings: Settings, tasks: Sequence[Task], facts: Mapping[str, Any]
    ) -> None:
        stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        self.path = folder / "runs" / f"{stamp}.json"
        self._content: dict[str, Any] = {
            "format": "factorlab evaluation",
            "version": 1,
            "began": _now(),
            "ended": None,
            "settings": {**vars(settings), "data_dir": str(settings.data_dir) if settings.data_dir else None},
            **facts,
            "factorlab": __version__,
            "python": platform.python_version(),
            "machine": {
                "system": platform.platform(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
            },
            "packages": {name: found for name in PACKAGES if (found := _version(name))},
            "tasks": {
                task.name: {
                    "benchmark": task.benchmark,
                    "protocol": task.protocol,
                    "digest": task.digest,
                    "resolved": task.resolved,
                }
                for task in tasks
            },
            "models": {},
            "results": [],
            "failures": [],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write to '{folder}': {error.strerror or error}; give another --out"
            ) from None
        self._write()

    def opened(self, model: str, facts: Mapping[str, Any]) -> None:
        """A model was loaded."""
        self._content["models"][model] = dict(facts)
        self._write()

    def ended(self, model: str, task: Task, result: TaskResult, about: Mapping[str, Any]) -> None:
        """A task ended."""
        self._content["results"].append({"task": task.name, **vars(result), **about})
        self._write()

    def failed(self, model: str, task: Task | None, why: str) -> None:
        """A model or a task failed."""
        self._content["failures"].append({"model": model, "task": task.name if task else None, "why": why})
        self._write()

    def fault(self, model: str, task: Task | None, trace: str) -> Path:
        """Keep the traceback of an error that nobody expected; where it is."""
        path = self.path.with_suffix(f".{len(self._content['failures']) + 1}.error.txt")
        self._save(path, f"{model}, {task.name if task else 'loading it'}\n{trace}")
        return path

    def _write(self) -> None:
        self._content["ended"] = _now()
        self._save(self.path, json.dumps(self._content, indent=1, ensure_ascii=False, default=str) + "\n")

    @staticmethod
    def _save(path: Path, text: str) -> None:
        """Write a file whole, or not at all and say so."""
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_bytes(text.encode("utf-8", "backslashreplace"))
            os.replace(partial, path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise InputError(
                f"cannot write '{path}': {error.strerror or error}; what was answered is kept, the same command "
                "goes on from there (or give another --out)"
            ) from None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
