"""What every engine with a tokenizer of transformers does the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factorlab.eval.hf.tokens import Tokens


class Tokenized:
    """Tokens, their beginning and the chat template of a `LanguageModel`, from its `_tokens`."""

    _tokens: Tokens

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Tokens of a text."""
        return self._tokens.encode([text], bos)[0].tolist()

    def begin_of_text(self, tokens: Sequence[int]) -> int | None:
        """How many tokens that begin a text stand before a prompt; None where the model has no such token."""
        return self._tokens.begin_of_text(tokens)

    def chat(self, text: str) -> str:
        """A user's message in the model's chat template, up to where the answer begins.

        Raises
        ------
        InputError
            The model has no chat template.
        """
        return self._tokens.chat(text)
