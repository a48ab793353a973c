"""Does the packed way give what the model gives? Tried at the start, on this model, at the length that is needed.

No list of architectures: texts of random tokens are scored both ways. A model whose numbers differ (it
looks back a fixed number of tokens, adds a bias by distance, or has a state instead of attention) is run
the plain way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from factorlab.eval.hf.attention import NAME, Unsupported
from factorlab.eval.hf.budget import Budget
from factorlab.eval.hf.head import Head
from factorlab.eval.hf.plain import score_plain
from factorlab.eval.hf.scoring import Item, score_on_prefix
from factorlab.eval.rows import Continuation

TOLERANCE = {torch.float32: 2e-3, torch.float16: 0.15, torch.bfloat16: 0.6}
"""Most that the log-likelihood of a choice of three tokens may differ: rounding, not another formula."""

SHORT = 48
"""Tokens of the texts that are tried at first."""

LEAST = 16
"""Tokens of the shortest texts that can be tried."""


@dataclass(frozen=True)
class Way:
    """How a model is run.

    Attributes
    ----------
    packed : bool
    fused : bool
        With fused kernels of attention.
    why : str
        Empty, or why the packed way is not taken.
    narrow : bool
        In the plain way: the output head may be given only the tokens whose probabilities are read.
    """

    packed: bool
    fused: bool
    why: str
    narrow: bool = False


def find_way(model: torch.nn.Module, head: Head, vocabulary: int, longest: int) -> Way:
    """The fastest way that gives the model's own numbers.

    Parameters
    ----------
    model : module
        With its own attention set; it has the packed one afterwards where that is the way.
    head : Head
    vocabulary : int
        Tokens to try.
    longest : int
        Tokens of the longest text that will be run.
    """
    own = model.config._attn_implementation  # type: ignore[union-attr]
    if not head.found:
        return Way(False, False, "it has no output head of its own")
    short = min(SHORT, max(longest, LEAST))
    items = [_texts(vocabulary, (short - 3, short), 2, seed=1)]
    if longest > SHORT:
        # One long text is enough to see that length changes nothing, neither for itself nor for a short one beside it.
        items.append(_texts(vocabulary, (short, longest), 1, seed=2))
    expected = [_plain(model, head, item) for item in items]
    tolerance = TOLERANCE.get(head.dtype, 0.6)
    why = ""
    try:
        model.set_attn_implementation(NAME)  # type: ignore[operator]
        if model.config._attn_implementation != NAME:  # type: ignore[union-attr]
            raise Unsupported("its attention cannot be exchanged")
        for fused in (True, False):
            try:
                found = [_packed(model, head, item, fused) for item in items]
            except Unsupported:
                raise
            except (
                RuntimeError
            ) as error:  # torch's for a kernel that this device or size of head does not have
                why = f"its packed pass failed: {' '.join(str(error).split())[:120]}"
                continue
            off = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
            if off <= tolerance:
                return Way(True, fused, "")
            why = "packed texts give no number"
            if math.isfinite(off):
                why = f"packed texts differ by {off:.2g} in log-likelihood"
    except Unsupported as error:
        why = str(error)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        why = f"its attention cannot be exchanged ({' '.join(str(error).split())[:120]})"
    model.set_attn_implementation(own)  # type: ignore[operator]
    return Way(False, False, why, _narrow(model, head, items[0], expected[0], tolerance))


def _narrow(
    model: torch.nn.Module, head: Head, item: list[Item], expected: np.ndarray, tolerance: float
) -> bool:
    """Whether the head gives the same where it sees chosen tokens only."""
    try:
        found = _plain(model, head, item, narrow=True)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    return bool(np.abs(found - expected).max() <= tolerance)


def _texts(vocabulary: int, lengths: tuple[int, int], choices: int, seed: int) -> list[Item]:
    """A question of each length with as many choices of three tokens, on one beginning."""
    rng = np.random.default_rng(seed)
    shared = rng.integers(0, vocabulary, min(lengths) - 8)
    items: list[Item] = []
    for length in lengths:
        question = np.concatenate([shared, rng.integers(0, vocabulary, length - 3 - len(shared))])
        items.append(
            [
                Continuation(np.concatenate([question, rng.integers(0, vocabulary, 3)]), len(question))
                for _ in range(choices)
            ]
        )
    return items


def _plain(model: torch.nn.Module, head: Head, items: list[Item], *, narrow: bool = False) -> np.ndarray:
    # One text at a time: nothing is padded, so that this is what the model says.
    alone: list[Item] = [[choice] for item in items for choice in item]
    found = dict(
        pair for batch in score_plain(model, head, alone, Budget(1), narrow=narrow) for pair in batch
    )
    return np.concatenate([found[i] for i in sorted(found)])


def _packed(model: torch.nn.Module, head: Head, items: list[Item], fused: bool) -> np.ndarray:
    return score_on_prefix(model, head, items, fused=fused)
