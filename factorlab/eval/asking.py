"""Instances of a task asked of a model: prompts that fit its context, answers from the journal or anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.answer_scores import Answer
from factorlab.eval.findings import PromptFit
from factorlab.eval.instance import Decoding, Instance, TextAnswer
from factorlab.eval.journal import Journal, request_key
from factorlab.eval.language_model import ChoiceRequest, LanguageModel, TextRequest
from factorlab.eval.task import Task

LOOKED_AT = 20
"""Prompts whose beginning is looked at for begin-of-text tokens."""

Request = ChoiceRequest | TextRequest
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Asked:
    """Requests of a task to a model.

    Attributes
    ----------
    requests : tuple
        One for each instance.
    prompts : tuple of str
        Text of each, the first one where choices have contexts of their own.
    fit : PromptFit
    """

    requests: tuple[Request, ...]
    prompts: tuple[str, ...]
    fit: PromptFit


def ask(task: Task, instances: Sequence[Instance], model: LanguageModel, *, chat: bool = False) -> Asked:
    """Turn instances into requests, without worked examples that do not fit.

    Parameters
    ----------
    task : Task
    instances : sequence of Instance
    model : LanguageModel
    chat : bool
        Put each prompt into the model's chat template, as a user's message.

    Raises
    ------
    InputError
        `chat` with a model that has no template; a context with no room for a prompt beside the answer.
    """
    requests: list[Request] = []
    prompts: list[str] = []
    dropped: dict[str, int] = {}
    truncated: list[str] = []
    begins: list[int] = []
    fitter = _Fitter(task, model, chat)
    for instance in instances:
        texts, keep, fits, bos = fitter.fit(instance)
        if keep < len(instance.shots):
            dropped[instance.instance_id] = len(instance.shots) - keep
        if not fits:
            truncated.append(instance.instance_id)
        prompts.append(texts[0])
        requests.append(_request(task, instance, texts, bos))
        if len(prompts) <= LOOKED_AT:
            count = model.begin_of_text(model.encode(texts[0], bos))
            begins += [] if count is None else [count]
    fit = PromptFit(len(instances), dropped, tuple(truncated), tuple(begins), task.prompt.bos)
    return Asked(tuple(requests), tuple(prompts), fit)


def _request(task: Task, instance: Instance, texts: tuple[str, ...], bos: bool) -> Request:
    if task.scoring == "choices":
        return ChoiceRequest(texts, instance.choices, bos)
    return TextRequest(
        texts[0], task.decoding, _number(instance.instance_id) if _drawn(task.decoding) else 0, bos
    )


def _drawn(decoding: Decoding) -> bool:
    return decoding.temperature > 0


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


class _Fitter:
    """Finds how many worked examples fit."""

    def __init__(self, task: Task, model: LanguageModel, chat: bool) -> None:
        self._task, self._model, self._chat = task, model, chat
        self._context = model.facts.context
        self._lengths: dict[str, int] = {}
        most = task.decoding.max_new_tokens if task.scoring != "choices" else None
        if most is not None and most >= self._context:
            raise InputError(
                f"the model takes {self._context} tokens, too few for answers of {most} to {task.benchmark}; leave "
                "this task away, or copy its file with fewer max_new_tokens"
            )

    def fit(self, instance: Instance) -> tuple[tuple[str, ...], int, bool, bool]:
        """Texts of the prompts, examples kept, whether they fit, and whether special tokens are added."""
        keep = len(instance.shots)
        while True:
            texts = instance.prompts(keep)
            bos = self._task.prompt.bos
            if self._chat:
                texts = tuple(self._model.chat(text) for text in texts)
                # A template that writes the token that begins a text itself gets no second one.
                bos = bos and not self._model.begin_of_text(self._model.encode(texts[0], False))
            fits = self._fits(texts, instance, bos)
            if fits or keep == 0:
                return texts, keep, fits, bos
            keep -= 1

    def _fits(self, texts: tuple[str, ...], instance: Instance, bos: bool) -> bool:
        room = self._context - self._answer_room(instance)
        for text in texts:
            # A token has at least one byte, so that a short text needs no counting.
            if (
                len(text.encode("utf-8", "surrogatepass")) + 2 > room
                and len(self._model.encode(text, bos)) > room
            ):
                return False
        return True

    def _answer_room(self, instance: Instance) -> int:
        """Tokens that the answer needs."""
        if self._task.scoring == "choices":
            longest = max(instance.choices, key=len)
            if longest not in self._lengths:
                self._lengths[longest] = len(self._model.encode(longest, False)) - 1
            return self._lengths[longest]
        decoding = self._task.decoding
        return decoding.max_new_tokens or (1 if decoding.max_length else 256)


def collect(
    asked: Asked, model: LanguageModel, journal: Journal, samples: int, progress: Progress | None = None
) -> tuple[list[Answer], int]:
    """Answers to all requests, and how many were in the journal already.

    Parameters
    ----------
    asked : Asked
    model : LanguageModel
    journal : Journal
        Open; new answers are written to it as they come.
    samples : int
        Answers to each instance.
    progress : callable, optional
        Called with (done, total) answers.

    Raises
    ------
    InputError
        The disk is full.
    """
    keys = [request_key(request) for request in asked.requests]
    texts = bool(asked.requests) and isinstance(asked.requests[0], TextRequest)
    names: list[Any] = [(key, s) for key in keys for s in range(samples)] if texts else list(keys)
    there = journal.texts if texts else journal.choices
    reused = sum(name in there for name in names)
    wanted = len(set(names))  # the same question is asked once, however often it is there
    done = wanted - sum(name not in there for name in set(names))

    def told(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, wanted)

    told(0)
    if texts:
        _write(asked, keys, model, journal, samples, told)
    else:
        missing = [i for key, i in _first(keys).items() if key not in journal.choices]

        def take(answers: Any) -> None:
            _kept(journal.add_choices, [(keys[missing[i]], answer) for i, answer in answers])
            told(len(answers))

        model.score([asked.requests[i] for i in missing], take)  # type: ignore[misc]
    if texts:
        return [TextAnswer(tuple(journal.texts[k, s] for s in range(samples))) for k in keys], reused
    return [journal.choices[k] for k in keys], reused


def _first(keys: Sequence[str]) -> dict[str, int]:
    """Key -> its first place, in the order of the places."""
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    return first


def _write(
    asked: Asked,
    keys: Sequence[str],
    model: LanguageModel,
    journal: Journal,
    samples: int,
    told: Callable[[int], None],
) -> None:
    """Ask for the texts that are not there; of an instance with samples missing, for those alone."""
    lacking = {
        i: tuple(s for s in range(samples) if (key, s) not in journal.texts)
        for key, i in _first(keys).items()
    }
    missing = [i for i, numbers in lacking.items() if numbers]

    def take(answers: Any) -> None:
        new = [
            (keys[missing[i]], s, text)
            for i, s, text in answers
            if (keys[missing[i]], s) not in journal.texts
        ]
        _kept(journal.add_texts, new)
        told(len(new))

    model.write([replace(asked.requests[i], only=lacking[i]) for i in missing], take)  # type: ignore[arg-type, misc]


def _kept(add: Callable[[Any], None], lines: Any) -> None:
    try:
        add(lines)
    except OSError as error:
        raise InputError(
            f"answers cannot be written: {error.strerror or error}; what was written before is kept, "
            "the same command goes on from there"
        ) from None
