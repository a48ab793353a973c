"""Texts to tokens and back, as the harnesses do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from factorlab.eval.hf.splicing import Splicer
from factorlab.eval.rows import Continuation

STRETCH = 512
"""Texts that a tokenizer gets at once."""


class Tokens:
    """A tokenizer of transformers.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    context : int
        Most tokens that the model takes.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.tokenizer = tokenizer
        self.context = context
        self.bos = tokenizer.bos_token_id
        self._splicers = {bos: Splicer(tokenizer, bos) for bos in (True, False)}

    def encode(self, texts: Sequence[str], bos: bool) -> list[np.ndarray]:
        """Tokens of each text."""
        return self._splicers[bos].encode(texts)

    def continuations(
        self, contexts: Sequence[str], choices: Sequence[str], bos: bool
    ) -> list[Continuation]:
        """Each context with its choice, encoded as one text and divided by the length of the context's own tokens.

        As lm-eval does (``_encode_pair``): spaces at the end of the context go to the choice. What does not
        fit into the model's context is cut off on the left.
        """
        stripped = [context.rstrip() for context in contexts]
        befores = self.encode(stripped, bos)
        wholes = self.encode([c + choice for c, choice in zip(contexts, choices, strict=True)], bos)
        out = []
        for before, whole in zip(befores, wholes, strict=True):
            begin = min(len(before), len(whole) - 1)
            if begin < 1:  # nothing to read the first token from
                start = self.bos if self.bos is not None else self.tokenizer.eos_token_id
                whole, begin = np.concatenate([[start or 0], whole]), 1
            extra = max(0, len(whole) - (self.context + 1))
            out.append(Continuation(whole[extra:], max(1, begin - extra)))
        return out

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        return self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
