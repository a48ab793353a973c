"""Tokens of texts that begin alike: only the ends that differ are encoded.

Few-shot prompts repeat thousands of characters. A tokenizer's work is local, as it cuts text into words
first, so that the tokens of the common beginning can be taken from the text before, up to a place where
both encodings are seen to agree. Agreement is checked for every text, and the first ones are encoded
both ways; a tokenizer that is not local is used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

OVERLAP = 160
"""Characters of the common beginning that are encoded again, to see both encodings agree."""

MARGIN = 24
"""Characters at its end whose tokens may depend on what follows."""

AGREEING = 8
"""Tokens in a row that have to be the same."""

TRIED = 32
"""Texts that are encoded both ways before this way is trusted."""


class Splicer:
    """Encodes texts of one tokenizer.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    special : bool
        With its special tokens.

    Attributes
    ----------
    spliced, whole : int
        Texts that were encoded each way.
    """

    def __init__(self, tokenizer: Any, special: bool) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._usable = bool(getattr(tokenizer, "is_fast", False))
        self._text = ""
        self._ids = np.zeros(0, dtype=np.int64)
        self._begins = np.zeros(0, dtype=np.int64)
        self.spliced = self.whole = 0

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens of each text, (n,) int64."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> np.ndarray:
        if self._usable:
            common = _common(text, self._text)
            if common > 2 * OVERLAP:
                ids = self._splice(text, common)
                if ids is not None and self.spliced < TRIED:
                    self.spliced += 1
                    full = self._encode_whole(text)
                    self._usable = np.array_equal(ids, full)
                    return full
                if ids is not None:
                    self.spliced += 1
                    return ids
        return self._encode_whole(text)

    def _encode_whole(self, text: str) -> np.ndarray:
        self.whole += 1
        if not self._usable:
            ids = self._tokenizer(text, add_special_tokens=self._special)["input_ids"]
            return np.asarray(ids, dtype=np.int64)
        found = self._tokenizer(text, add_special_tokens=self._special, return_offsets_mapping=True)
        ids = np.asarray(found["input_ids"], dtype=np.int64)
        # Special tokens have the offset 0, whether they begin or end the text: one at the end cannot be spliced.
        begins = np.asarray([begin for begin, _ in found["offset_mapping"]], dtype=np.int64)
        if len(begins) > 1 and (np.diff(begins) < 0).any():
            self._usable = False
            return ids
        if len(text) > 2 * OVERLAP:  # a short one is nothing to go on from
            self._text, self._ids, self._begins = text, ids, begins
        return ids

    def _splice(self, text: str, common: int) -> np.ndarray | None:
        """Tokens of the last whole text up to where both agree, then those of the end; None where they do not agree."""
        cut = common - OVERLAP
        end = self._tokenizer(text[cut:], add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(end["input_ids"], dtype=np.int64)
        begins = np.asarray([begin for begin, _ in end["offset_mapping"]], dtype=np.int64) + cut
        # Tokens of both that begin in the second half of the overlap must be the same, one for one.
        low, high = cut + OVERLAP // 2, common - MARGIN
        ours = np.flatnonzero((begins >= low) & (begins < high))
        theirs = np.flatnonzero((self._begins >= low) & (self._begins < high))
        if len(ours) < AGREEING or len(ours) != len(theirs):
            return None
        if not (
            np.array_equal(ids[ours], self._ids[theirs])
            and np.array_equal(begins[ours], self._begins[theirs])
        ):
            return None
        return np.concatenate([self._ids[: theirs[0]], ids[ours[0] :]])


def _common(a: str, b: str) -> int:
    """How many first characters two texts share."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a.startswith(b[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low
