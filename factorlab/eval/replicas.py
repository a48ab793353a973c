"""One model on several devices: a copy in a process of its own on each, requests dealt out in stretches.

A copy whose process ends gives its stretch back to the others.
"""

from __future__ import annotations

import multiprocessing
import queue
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.language_model import ChoiceRequest, ModelFacts, TakeChoices, TakeTexts, TextRequest
from factorlab.eval.model_spec import ModelSpec, open_here

STRETCHES = 4
"""Stretches of requests for each copy: few, as each computes its prefixes anew; more than one, to even out."""

LEAST = 8
"""Requests of a stretch, at least."""


class Replicas:
    """A language model whose requests are shared out to copies.

    Parameters
    ----------
    spec : ModelSpec
    devices : sequence of str
        One for each copy.

    Raises
    ------
    InputError
        See `factorlab.eval.model_spec.open_model`.
    """

    def __init__(self, spec: ModelSpec, devices: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._answers: Any = context.Queue()
        self._copies: dict[int, Any] = {}
        self._inboxes: dict[int, Any] = {}
        self._busy: dict[int, tuple[int, int]] = {}
        for i, device in enumerate(devices):
            inbox = context.Queue()
            process = context.Process(target=_serve, args=(i, spec, device, inbox, self._answers), daemon=True)
            process.start()
            self._copies[i], self._inboxes[i] = process, inbox
        self.facts = self._wait_for_all(len(devices))
        self._small = _Small(spec)

    def _wait_for_all(self, count: int) -> ModelFacts:
        facts: ModelFacts | None = None
        ready = 0
        while ready < count:
            kind, i, content = self._next()
            if kind == "ready":
                facts, ready = content, ready + 1
            elif kind == "mistake":
                self.close()
                raise InputError(content)
            else:
                self.close()
                raise RuntimeError(f"the copy of the model on device {i} failed: {content}")
        assert facts is not None
        return replace(facts, device=f"{count} x {facts.device}")

    def _next(self) -> tuple[str, int, Any]:
        """The next message, or that a copy has died."""
        while True:
            try:
                return self._answers.get(timeout=0.5)
            except queue.Empty:
                for i, process in list(self._copies.items()):
                    if not process.is_alive():
                        return "died", i, f"its process ended with exit code {process.exitcode}"

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Tokens of a text."""
        return self._small.tokens.encode([text], bos)[0].tolist()

    def begin_of_text(self, tokens: Sequence[int]) -> int | None:
        """How many tokens that begin a text stand before a prompt."""
        return self._small.tokens.begin_of_text(tokens)

    def chat(self, text: str) -> str:
        """A user's message in the model's chat template."""
        return self._small.tokens.chat(text)

    def score(self, requests: Sequence[ChoiceRequest], take: TakeChoices) -> None:
        """Log-likelihoods of choices, handed on as they come from any copy."""
        self._deal("score", requests, lambda first, batch: take([(first + i, answer) for i, answer in batch]))

    def write(self, requests: Sequence[TextRequest], take: TakeTexts) -> None:
        """Texts, handed on as they come from any copy."""
        self._deal("write", requests, lambda first, batch: take([(first + i, k, text) for i, k, text in batch]))

    def _deal(self, what: str, requests: Sequence[Any], take: Callable[[int, Any], None]) -> None:
        size = max(LEAST, -(-len(requests) // (STRETCHES * len(self._copies))))
        waiting = deque((i, min(i + size, len(requests))) for i in range(0, len(requests), size))
        self._busy = {}

        def send(i: int) -> None:
            if waiting:
                self._busy[i] = waiting.popleft()
                low, high = self._busy[i]
                self._inboxes[i].put((what, low, list(requests[low:high])))

        for i in list(self._copies):
            send(i)
        while self._busy:
            kind, i, content = self._next()
            if kind == "batch":
                take(*content)
            elif kind == "done":
                self._busy.pop(i, None)
                send(i)
            elif kind == "mistake":
                raise InputError(content)
            elif kind == "failed":
                raise RuntimeError(content)
            elif kind == "died":
                del self._copies[i], self._inboxes[i]
                if i in self._busy:
                    waiting.appendleft(self._busy.pop(i))
                if not self._copies:
                    raise InputError(f"every copy of the model has ended ({content}); the same command goes on from there")
                for other in [c for c in self._copies if c not in self._busy]:
                    send(other)

    def close(self) -> None:
        """End the copies."""
        for process in self._copies.values():
            process.terminate()
        for process in self._copies.values():
            process.join(5)
        self._copies = {}


class _Small:
    """The tokenizer alone, here."""

    def __init__(self, spec: ModelSpec) -> None:
        from factorlab.eval.hf.weights import load_tokens

        self.tokens = load_tokens(spec.source, spec.revision, spec.trust_remote_code)


def _serve(i: int, spec: ModelSpec, device: str, inbox: Any, answers: Any) -> None:
    """A copy: load, then answer stretches until the process is ended."""
    try:
        model = open_here(spec, device)
    except InputError as error:
        answers.put(("mistake", i, str(error)))
        return
    answers.put(("ready", i, model.facts))
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        try:
            what, first, requests = inbox.get(timeout=2)
        except queue.Empty:
            continue
        try:
            getattr(model, what)(requests, lambda batch, first=first: answers.put(("batch", i, (first, list(batch)))))
        except InputError as error:
            answers.put(("mistake", i, str(error)))
        except Exception:
            answers.put(("failed", i, traceback.format_exc()))
        else:
            answers.put(("done", i, None))
