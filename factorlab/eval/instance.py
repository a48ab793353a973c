"""Instances: what a model is asked, without a word of how it is asked.

A task file and its documents become a list of these (`factorlab.eval.prompts`); the runner turns them into
requests of text for a language model and its answers into records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Decoding:
    """How text is generated.

    Attributes
    ----------
    max_new_tokens : int, optional
        Most tokens of an answer.
    max_length : int, optional
        Most tokens of prompt and answer together.
    stops : tuple of str
        The answer ends before the first of these.
    temperature : float
        0: the most probable token at each step.
    top_p : float
        Sampling keeps the most probable tokens that hold this share.
    samples : int
        Answers to each instance; they are its trials.
    seed : int
        Of sampling.
    """

    max_new_tokens: int | None = 256
    max_length: int | None = None
    stops: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Instance:
    """One item of a benchmark, ready to be asked.

    Attributes
    ----------
    instance_id : str
        From the content of the item (`factorlab.records.instance_id`).
    head : str
        Text before the worked examples.
    shots : tuple of str
        Worked examples, each with the separator that follows or precedes it: they can be left out from
        the front where the context of a model is too small.
    queries : tuple of str
        The item itself: one text, or one for each choice (partial evaluation, as of XWINO).
    choices : tuple of str
        Continuations to be scored; empty where text is generated.
    gold : object
        Index of the right choice, or what the task's metric compares the answer with.
    target : str
        The gold answer as text, for the record.
    document : mapping
        The fields of the item.
    cluster, shared_item_id : str, optional
        As in the records.
    """

    instance_id: str
    head: str
    shots: tuple[str, ...]
    queries: tuple[str, ...]
    gold: Any
    target: str
    choices: tuple[str, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)
    cluster: str | None = None
    shared_item_id: str | None = None

    def prompts(self, keep: int | None = None) -> tuple[str, ...]:
        """The texts before the answer, with the last `keep` worked examples (all when not given)."""
        shots = self.shots if keep is None else self.shots[len(self.shots) - keep :]
        before = self.head + "".join(shots)
        return tuple(before + query for query in self.queries)


@dataclass(frozen=True)
class ChoiceAnswer:
    """What a model makes of the choices of an instance.

    Attributes
    ----------
    log_likelihoods : tuple of float
        Sum of the log probabilities (natural) of each choice's tokens.
    tokens : tuple of int
        Tokens of each choice.
    """

    log_likelihoods: tuple[float, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class TextAnswer:
    """What a model writes.

    Attributes
    ----------
    texts : tuple of str
        One for each sample, cut before the first stop.
    """

    texts: tuple[str, ...]
