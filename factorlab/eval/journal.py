"""The journal of a run: every answer on disk as soon as its batch is done.

One file of JSON lines for a model and a task. A line that a killed process left half-written is dropped;
everything before it is used again. The file's name holds a digest of all that shapes an answer: weights,
precision, engine, task; each line that of its request. An answer is never served to another question.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.instance import ChoiceAnswer
from factorlab.eval.language_model import ChoiceRequest, ModelFacts, TextRequest


def digest(content: Any) -> str:
    """SHA-256 of anything that JSON has, as canonical JSON; 64 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def request_key(request: ChoiceRequest | TextRequest) -> str:
    """What names a request: all of it, 32 hexadecimal digits."""
    if isinstance(request, ChoiceRequest):
        content: Any = ["choices", request.contexts, request.choices, request.bos]
    else:
        decoding = dict(vars(request.decoding))
        content = ["text", request.prompt, decoding, request.key, request.bos]
    return digest(content)[:32]


def model_key(facts: ModelFacts) -> str:
    """What names a model as it was run: revision or digest of the weights, precision and engine."""
    return digest([facts.revision, facts.dtype, facts.engine])[:12]


def journal_path(
    folder: Path, model: str, facts: ModelFacts, task: str, protocol: str, task_digest: str
) -> Path:
    """Where the answers of a model to a task are kept."""
    safe = re.sub(r"[^\w.-]+", "_", model).strip("_") or "model"
    return folder / f"{safe}-{model_key(facts)}" / f"{task}.{protocol}-{task_digest[:12]}.jsonl"


class Journal:
    """Answers of one model to one task; used as a context.

    Parameters
    ----------
    path : path
        Made when it is not there.

    Attributes
    ----------
    choices : dict
        Key of a request to its `ChoiceAnswer`.
    texts : dict
        Key of a request and number of the sample to its text.
    dropped : int
        Lines that were half-written.

    Raises
    ------
    InputError
        Another process writes to the file; a folder that cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.choices: dict[str, ChoiceAnswer] = {}
        self.texts: dict[tuple[str, int], str] = {}
        self.dropped = 0
        self._file: Any = None

    def __enter__(self) -> Journal:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b", buffering=0)  # what a full disk refused is not tried again
        except OSError as error:
            raise InputError(
                f"cannot write '{self.path}': {error.strerror or error}; give another --out"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(
                f"'{self.path}' is being written by another run; wait for it, or give another --out"
            ) from None
        except OSError:
            pass  # a file system without locks: two runs of one model and task there are the user's to avoid
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()  # gives the lock back, too

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for line in io.BufferedReader(io.FileIO(self._file.fileno(), closefd=False)):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                self.dropped += 1
        self._file.seek(0, os.SEEK_END)
        if self._file.tell() > whole:
            self.dropped += 1
            self._file.truncate(whole)
            self._file.seek(whole)

    def _take(self, line: Mapping[str, Any]) -> None:
        if "ll" in line:
            self.choices[line["k"]] = ChoiceAnswer(tuple(map(float, line["ll"])), tuple(map(int, line["n"])))
        else:
            self.texts[line["k"], int(line["s"])] = str(line["text"])

    def add_choices(self, answers: Iterable[tuple[str, ChoiceAnswer]]) -> None:
        """Write answers, by the keys of their requests."""
        self._add([{"k": key, "ll": answer.log_likelihoods, "n": answer.tokens} for key, answer in answers])

    def add_texts(self, answers: Iterable[tuple[str, int, str]]) -> None:
        """Write texts: key of the request, number of the sample, text."""
        self._add([{"k": key, "s": sample, "text": text} for key, sample, text in answers])

    def _add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        # Escaped to ASCII: half a pair of surrogates, which a byte-level model can write, is kept as it is.
        rest = memoryview(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        while rest:
            rest = rest[self._file.write(rest) :]
        for line in lines:
            self._take(line)
