"""One model on several devices: a copy in a process of its own on each, requests dealt out in stretches.

A copy whose process ends gives what it had not answered back to the others.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.language_model import (
    ChoiceRequest,
    LanguageModel,
    ModelFacts,
    TakeChoices,
    TakeTexts,
    TextRequest,
)
from factorlab.eval.model_spec import ModelSpec, open_here
from factorlab.eval.tokenized import Tokenized

STRETCHES = 4
"""Stretches of requests for each copy: few, as each computes its prefixes anew; more than one, to even out."""

LEAST = 8
"""Requests of a stretch, at least."""


def cut(count: int, copies: int, most: int | None = None) -> list[range]:
    """Stretches of so many requests for so many copies, each of `most` requests at most."""
    size = max(LEAST, -(-count // (STRETCHES * copies)))
    size = size if most is None else min(size, most)
    return [range(low, min(low + size, count)) for low in range(0, count, size)]


@dataclass
class _Copy:
    """A process with a model.

    Attributes
    ----------
    device : str
    process : Process
    pipe : Connection
        Its own: a queue that several write to stays locked for ever when one of them is killed as it writes.
    job : int
        Of the requests that it is answering; 0 when it waits.
    part : tuple of int
        Their indices.
    """

    device: str
    process: Any
    pipe: Any
    job: int = 0
    part: tuple[int, ...] = ()


class Replicas(Tokenized):
    """A language model whose requests are shared out to copies.

    Parameters
    ----------
    spec : ModelSpec
    devices : sequence of str
        One for each copy.

    Raises
    ------
    InputError
        See `factorlab.eval.model_spec.open_model`; a copy that ends as it loads.
    """

    def __init__(self, spec: ModelSpec, devices: Sequence[str]) -> None:
        from factorlab.eval.hf.weights import load_tokens

        self._tokens = load_tokens(spec.source, spec.revision, spec.trust_remote_code)
        context = get_context("spawn")
        # Copies on the CPU share its cores; each with all of them would wait for the others most of the time.
        threads = max(1, (os.cpu_count() or 1) // max(1, sum(d == "cpu" for d in devices)))
        self._copies: list[_Copy] = []
        self._job = 0
        self._why = "they were closed"
        for device in devices:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(spec, device, threads if device == "cpu" else None, theirs), daemon=True
            )
            process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            self._copies.append(_Copy(device, process, ours))
        try:
            self.facts = self._wait_for_all()
        except BaseException:
            self.close()
            raise

    def _wait_for_all(self) -> ModelFacts:
        found: list[ModelFacts] = []
        count = len(self._copies)
        while len(found) < count:
            for copy, kind, _, content in self._messages():
                if kind == "died":
                    raise InputError(f"a copy of the model ended as it was loaded: {content}")
                _raise_for(kind, copy, content)
                found.append(content)
        return replace(found[0], device=f"{count} x {found[0].device}")

    def score(self, requests: Sequence[ChoiceRequest], take: TakeChoices) -> None:
        """Log-likelihoods of choices, handed on as they come from any copy."""
        self._deal("score", requests, [[(i,)] for i in range(len(requests))], take)

    def write(self, requests: Sequence[TextRequest], take: TakeTexts) -> None:
        """Texts, handed on as they come from any copy."""
        wanted = [[(i, k) for k in r.only or range(r.decoding.samples)] for i, r in enumerate(requests)]
        self._deal("write", requests, wanted, take)

    def _deal(
        self,
        what: str,
        requests: Sequence[Any],
        wanted: Sequence[Sequence[Hashable]],
        take: Callable[[Any], None],
    ) -> None:
        """Have requests answered; `wanted` has what is to come of each, an answer less its last part."""
        self._check_alive()
        self._job += 1
        taken: set[Hashable] = set()
        waiting = deque(tuple(part) for part in cut(len(requests), len(self._copies)))
        try:
            while True:
                self._send(what, requests, waiting)
                if not any(copy.job == self._job for copy in self._copies) and not waiting:
                    return
                for copy, kind, job, content in self._messages():
                    if job != self._job:
                        continue  # of requests that were broken off
                    if kind == "died":
                        rest = [i for i in copy.part if any(key not in taken for key in wanted[i])]
                        waiting.extendleft([tuple(rest)] if rest else [])
                    elif kind == "answers":
                        low = copy.part
                        new = [(low[i], *more) for i, *more in content]
                        new = [answer for answer in new if answer[:-1] not in taken]
                        taken.update(answer[:-1] for answer in new)
                        if new:
                            take(new)
                    elif kind == "done":
                        self._note(content or ())
                    else:
                        _raise_for(kind, copy, content)
                if waiting:
                    self._check_alive()
        except BaseException:
            for copy in self._copies:
                with suppress(OSError):
                    copy.pipe.send(None)
            raise

    def _send(self, what: str, requests: Sequence[Any], waiting: deque[tuple[int, ...]]) -> None:
        """Give each copy that waits a stretch."""
        for copy in self._copies:
            if waiting and not copy.job:
                copy.part, copy.job = waiting.popleft(), self._job
                with suppress(OSError):  # it has died, which is the next message
                    copy.pipe.send((copy.job, what, [requests[i] for i in copy.part]))

    def _messages(self) -> list[tuple[_Copy, str, int, Any]]:
        """Wait; copy, kind, job and content of what it said, or that it has died."""
        out: list[tuple[_Copy, str, int, Any]] = []
        ready = connection.wait([copy.pipe for copy in self._copies])
        for copy in [copy for copy in self._copies if copy.pipe in ready]:
            try:
                kind, job, content = copy.pipe.recv()
            except (EOFError, OSError):
                out.append((copy, "died", copy.job, self._bury(copy)))
                continue
            if kind != "answers":
                copy.job = 0
            out.append((copy, kind, job, content))
        return out

    def _note(self, told: Sequence[str]) -> None:
        """Keep what a copy has to say: that it took the plain way, or that memory ran out."""
        new = [note for note in told if note not in self.facts.notes]
        if new:
            self.facts = replace(self.facts, notes=(*self.facts.notes, *new))

    def _bury(self, copy: _Copy) -> str:
        """Do without a copy from now on; what has become of it."""
        self._copies.remove(copy)
        copy.pipe.close()
        copy.process.join(5)
        code = copy.process.exitcode
        hint = ": killed, often for want of memory" if code == -signal.SIGKILL else ""
        self._why = f"the process on '{copy.device}' had exit code {code}{hint}"
        if self._copies and hasattr(self, "facts"):
            note = f"A copy of the model ended on the way, the others went on: {self._why}."
            self.facts = replace(self.facts, notes=(*self.facts.notes, note))
        return self._why

    def _check_alive(self) -> None:
        if not self._copies:
            raise InputError(
                f"every copy of the model has ended; {self._why}; the same command goes on from there"
            )

    def close(self) -> None:
        """End the copies."""
        for copy in self._copies:
            copy.process.terminate()
        for copy in self._copies:
            copy.process.join(5)
            copy.pipe.close()
        self._copies = []


def _raise_for(kind: str, copy: _Copy, content: Any) -> None:
    """What went wrong in a copy goes wrong here."""
    if kind == "mistake":
        raise InputError(content)
    if kind == "failed":
        line, trace = content
        raise RuntimeError(f"the copy of the model on '{copy.device}' failed: {line}") from RuntimeError(
            trace
        )


class _Stopped(Exception):
    """The answers are no longer wanted."""


def _serve(spec: ModelSpec, device: str, threads: int | None, pipe: Any) -> None:
    """A copy: load, then answer stretches until the process is ended, or the one who asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the asker's
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            if threads is not None:
                from factorlab.eval.hf.devices import use_threads

                use_threads(threads)
            model = open_here(spec, device)
        except InputError as error:
            pipe.send(("mistake", 0, str(error)))
            return
        except Exception as error:
            pipe.send(("failed", 0, _told(error)))
            return
        pipe.send(("ready", 0, model.facts))
        while True:
            message = pipe.recv()
            if message is not None:
                _answer(model, pipe, *message)


def _answer(model: LanguageModel, pipe: Any, job: int, what: str, requests: Sequence[Any]) -> None:
    def take(answers: Sequence[Any]) -> None:
        if pipe.poll():  # nothing is sent meanwhile but that it is over
            raise _Stopped
        pipe.send(("answers", job, list(answers)))

    try:
        getattr(model, what)(requests, take)
    except (_Stopped, BrokenPipeError, ConnectionResetError):
        pipe.send(("done", job, None))
    except InputError as error:
        pipe.send(("mistake", job, str(error)))
    except Exception as error:
        pipe.send(("failed", job, _told(error)))
    else:
        pipe.send(("done", job, model.facts.notes))


def _told(error: Exception) -> tuple[str, str]:
    """An error in one line, and all of it."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}", traceback.format_exc()
