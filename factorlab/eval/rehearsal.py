"""A rehearsal: what a run would ask, how long it might take, and what already looks wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from factorlab.eval.asking import ask
from factorlab.eval.findings import prompt_findings, text_findings
from factorlab.eval.instance import Instance
from factorlab.eval.language_model import LanguageModel, TextRequest
from factorlab.eval.prompts import build_instances
from factorlab.eval.run import Settings
from factorlab.eval.sandbox import Sandbox
from factorlab.eval.task import Task

SAMPLE = 32
"""Instances that are asked to estimate the time: a batch that is not too small."""

COUNTED = 200
"""Prompts whose tokens are counted, spread over the list."""

MOST_NEW = 64
"""Tokens that are written of an answer; the rest of the time is reckoned from them."""


@dataclass(frozen=True)
class Rehearsal:
    """What a task would be for a model.

    Attributes
    ----------
    model, benchmark, protocol : str
    instances : int
    prompt : str
        The first one, as the model reads it.
    choices : tuple of str
        Of the first instance.
    target : str
        Its gold answer.
    tokens_mean, tokens_max : float, int
        Of prompts.
    answers : tuple of str
        Beginnings of what the model writes to some instances.
    seconds : float
        Estimated from a few instances; larger batches are faster, long answers slower.
    findings, notes : tuple of str
    """

    model: str
    benchmark: str
    protocol: str
    instances: int
    prompt: str
    choices: tuple[str, ...]
    target: str
    tokens_mean: float
    tokens_max: int
    answers: tuple[str, ...]
    seconds: float
    findings: tuple[str, ...]
    notes: tuple[str, ...]


def rehearse(name: str, model: LanguageModel, task: Task, settings: Settings) -> Rehearsal:
    """Ask a few instances of a task.

    Parameters
    ----------
    name : str
    model : LanguageModel
    task : Task
    settings : Settings

    Raises
    ------
    InputError
        As `factorlab.eval.run.evaluate` would tell it.
    """
    if task.scoring == "code":
        Sandbox.find(unsafe=settings.unsafe_code)
    questions = build_instances(task, settings.data_dir, settings.limit, settings.seed)
    instances = questions.instances
    asked = ask(task, instances, model, chat=settings.chat)
    places = np.unique(np.linspace(0, len(instances) - 1, COUNTED).astype(int))
    counts = [len(model.encode(asked.prompts[i], task.prompt.bos)) for i in places]
    texts, seconds = _try(task, model, instances, asked.requests)
    return Rehearsal(
        model=name,
        benchmark=task.benchmark,
        protocol=settings.protocol(task),
        instances=len(instances),
        prompt=asked.prompts[0],
        choices=instances[0].choices,
        target=instances[0].target,
        tokens_mean=float(np.mean(counts)),
        tokens_max=int(np.max(counts)),
        answers=tuple(texts),
        seconds=seconds,
        findings=tuple(prompt_findings(asked.fit) + text_findings(texts)),
        notes=questions.notes,
    )


def _try(
    task: Task, model: LanguageModel, instances: Sequence[Instance], requests: Sequence[object]
) -> tuple[list[str], float]:
    """What the model writes to a few instances, and the seconds that all would take at this pace."""
    places = np.unique(np.linspace(0, len(requests) - 1, SAMPLE).astype(int))
    sample = [requests[i] for i in places]
    began = time.monotonic()
    if task.scoring == "choices":
        model.score(sample, lambda _: None)
        began = time.monotonic()  # the first call also tried which way the model can be run
        model.score(sample, lambda _: None)
        return [], (time.monotonic() - began) / len(sample) * len(instances)
    texts: dict[int, str] = {}
    lengths: list[int] = []
    short = [_shortened(request) for request in sample]

    def take(answers: Sequence[tuple[int, int, str]]) -> None:
        texts.update({i: text for i, _, text in answers})

    model.write(short[:1], take)
    began = time.monotonic()
    model.write(short, take)
    pace = (time.monotonic() - began) / len(sample)
    lengths = [len(model.encode(text, False)) for text in texts.values()]
    decoding = task.decoding
    prompts = float(np.mean([len(model.encode(request.prompt, request.bos)) for request in short]))
    most = float(decoding.max_new_tokens or 0) or max(1.0, (decoding.max_length or prompts + 256) - prompts)
    # Answers that were cut short here go on; those that ended by themselves did not need more.
    cut = float(np.mean([length >= MOST_NEW - 1 for length in lengths]))
    longer = 1 + cut * max(0, most / MOST_NEW - 1)
    return [texts[i] for i in sorted(texts)], pace * longer * len(instances) * decoding.samples


def _shortened(request: object) -> TextRequest:
    assert isinstance(request, TextRequest)
    decoding = request.decoding
    most = min(decoding.max_new_tokens or MOST_NEW, MOST_NEW)
    return replace(request, decoding=replace(decoding, max_new_tokens=most, samples=1))
