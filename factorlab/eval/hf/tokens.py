"""Texts to tokens and back, as the harnesses do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from factorlab.errors import InputError
from factorlab.eval.hf.splicing import Splicer
from factorlab.eval.rows import Continuation

BEFORE = 16
"""Tokens of a prompt that are decoded with its answer."""


class Tokens:
    """A tokenizer of transformers.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    context : int
        Most tokens that the model takes.
    commit : str
        Of the hub, or empty.
    """

    def __init__(self, tokenizer: Any, context: int, commit: str = "") -> None:
        self.tokenizer, self.commit = tokenizer, commit
        self.context = context
        self.bos = tokenizer.bos_token_id
        self._splicers = {bos: Splicer(tokenizer, bos) for bos in (True, False)}

    def encode(self, texts: Sequence[str], bos: bool) -> list[np.ndarray]:
        """Tokens of each text."""
        return self._splicers[bos].encode(texts)

    def continuations(self, contexts: Sequence[str], choices: Sequence[str], bos: bool) -> list[Continuation]:
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

    def begin_of_text(self, tokens: Sequence[int]) -> int | None:
        """How many tokens that begin a text stand before a prompt; None where the model has no such token."""
        if self.bos is None:
            return None
        count = 0
        while count < len(tokens) and tokens[count] == self.bos:
            count += 1
        return count

    def chat(self, text: str) -> str:
        """A user's message in the model's chat template, up to where the answer begins.

        Raises
        ------
        InputError
            The model has no chat template.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise InputError("--chat: this model's tokenizer has no chat template; leave --chat away")
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )

    def decode_after(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """Text that tokens add to a prompt.

        Decoded alone, an answer would lose its first space where a tokenizer takes one off the beginning of
        every text (SentencePiece), and Python code its indentation.
        """
        tail = list(prompt[-BEFORE:])
        before, whole = self.decode(tail), self.decode([*tail, *tokens])
        return whole[len(before) :] if whole.startswith(before) else self.decode(tokens)

    def tokens_of(self, texts: Sequence[str]) -> frozenset[int]:
        """Those of the texts that are tokens of their own (special ones, say), by number."""
        own = self.tokenizer.get_added_vocab()
        return frozenset(int(own[text]) for text in texts if text in own)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        return self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
