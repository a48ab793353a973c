"""What the runner asks of a language model, whatever runs it.

An engine is anything with these members: `factorlab.eval.hf` (transformers) and `factorlab.eval.vllm_engine`
are two, a table of reference solutions is another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from factorlab.eval.instance import ChoiceAnswer, Decoding


@dataclass(frozen=True)
class ChoiceRequest:
    """Choices to be scored.

    Attributes
    ----------
    contexts : tuple of str
        One for all choices, or one for each.
    choices : tuple of str
    bos : bool
        Whether the tokenizer's own special tokens (a token that begins a text) are put before the context.
    """

    contexts: tuple[str, ...]
    choices: tuple[str, ...]
    bos: bool = True


@dataclass(frozen=True)
class TextRequest:
    """A prompt to be continued.

    Attributes
    ----------
    prompt : str
    decoding : Decoding
    key : int
        Decides the random numbers of sampling, with the decoding's seed: the same request is answered the
        same, whatever it is answered beside.
    bos : bool
    only : tuple of int
        Numbers of the samples that are wanted; empty for all. The others are the same without them.
    """

    prompt: str
    decoding: Decoding
    key: int = 0
    bos: bool = True
    only: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """What is written beside a model's results, and what names them in the cache.

    Attributes
    ----------
    revision : str
        Commit of the hub, or a digest of the weights, the configuration and the tokenizer.
    engine, dtype, device : str
    context : int
        Most tokens of prompt and answer.
    parameters : int, optional
    versions : mapping
        Of the libraries.
    notes : tuple of str
        What the user should know: which path is taken, and why.
    """

    revision: str
    engine: str
    dtype: str
    device: str
    context: int
    parameters: int | None = None
    versions: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


TakeChoices = Callable[[Sequence[tuple[int, ChoiceAnswer]]], None]
"""Called with (index of the request, answer) of the requests of a batch."""

TakeTexts = Callable[[Sequence[tuple[int, int, str]]], None]
"""Called with (index of the request, number of the sample, text)."""


class LanguageModel(Protocol):
    """A causal language model."""

    @property
    def facts(self) -> ModelFacts:
        """What is known of it; read again after a run for its notes."""
        ...

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Tokens of a text."""
        ...

    def chat(self, text: str) -> str:
        """A user's message in the model's chat template, up to where the answer begins.

        Raises
        ------
        InputError
            The model has no chat template.
        """
        ...

    def score(self, requests: Sequence[ChoiceRequest], take: TakeChoices) -> None:
        """Log-likelihoods of choices, handed on a batch at a time as they are known."""
        ...

    def write(self, requests: Sequence[TextRequest], take: TakeTexts) -> None:
        """Texts, handed on as they are over."""
        ...

    def begin_of_text(self, tokens: Sequence[int]) -> int | None:
        """How many tokens that begin a text stand before a prompt; None where the model has no such token."""
        ...


def describe(facts: ModelFacts) -> dict[str, Any]:
    """Facts as a mapping for JSON."""
    return {
        "revision": facts.revision,
        "engine": facts.engine,
        "dtype": facts.dtype,
        "device": facts.device,
        "context": facts.context,
        "parameters": facts.parameters,
        "versions": dict(facts.versions or {}),
        "notes": list(facts.notes),
    }
