"""Log-likelihoods of choices: rows packed without padding, on shared prefixes, probabilities read where needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from factorlab.eval.hf.attention import Pass, Prefix, during
from factorlab.eval.hf.budget import Budget
from factorlab.eval.hf.head import Head
from factorlab.eval.hf.packing import pack
from factorlab.eval.rows import (
    Continuation,
    Group,
    Reading,
    Row,
    build_row,
    common_length,
    group_by_prefix,
    shareable,
)

Item = Sequence[Continuation]


def score_items(
    model: torch.nn.Module, head: Head, items: Sequence[Item], budget: Budget, *, fused: bool = True
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Log-likelihood of every choice of every item, batch by batch.

    Parameters
    ----------
    model : module
        With the packed attention set.
    head : Head
    items : sequence of sequences of Continuation
    budget : Budget
        Tokens of a batch; halved when memory runs out.
    fused : bool
        Use fused attention kernels.

    Yields
    ------
    list of (int, ndarray)
        Index of an item and the log-likelihoods (natural) of its choices.
    """
    for group in group_by_prefix([shareable(item) for item in items]):
        yield from _score_group(model, head, items, group, budget, fused)


def score_on_prefix(
    model: torch.nn.Module, head: Head, items: Sequence[Item], *, fused: bool = True
) -> np.ndarray:
    """Log-likelihoods of the choices of items that stand on what they share, but the last tokens, one after another."""
    texts = [shareable(item) for item in items]
    group = Group(texts[0][: common_length(texts) - 2], tuple(range(len(items))))
    found = dict(
        pair for batch in _score_group(model, head, items, group, Budget(2**20), fused) for pair in batch
    )
    return np.concatenate([found[i] for i in range(len(items))])


def _score_group(
    model: torch.nn.Module, head: Head, items: Sequence[Item], group: Group, budget: Budget, fused: bool
) -> Iterator[list[tuple[int, np.ndarray]]]:
    n = len(group.prefix)
    rows = {i: build_row(items[i], n) for i in group.members}
    waiting = sorted(group.members, key=lambda i: rows[i].length, reverse=True)
    prefix = prefix_of(model, head, group, budget, fused)
    while waiting:
        count = budget.take([rows[i].length for i in waiting])
        batch, rest = waiting[:count], waiting[count:]
        try:
            found = _score_batch(model, head, [rows[i] for i in batch], prefix, n, fused)
        except torch.OutOfMemoryError:
            budget.halve(count, sum(rows[i].length for i in batch))
            continue
        waiting = rest
        counts = [len(items[i]) for i in batch]
        yield [(i, values) for i, values in zip(batch, _by_item(found, counts), strict=True)]


def _by_item(values: np.ndarray, counts: list[int]) -> list[np.ndarray]:
    return np.split(values, np.cumsum(counts)[:-1])


def prefix_of(model: torch.nn.Module, head: Head, group: Group, budget: Budget, fused: bool) -> Prefix | None:
    """What the rows of a group stand on; None where they share nothing.

    Raises
    ------
    InputError
        It does not fit into the memory, and neither would a whole text.
    """
    try:
        return compute_prefix(model, head, group.prefix, fused=fused) if len(group.prefix) else None
    except torch.OutOfMemoryError:
        budget.halve(1)
        raise


@torch.inference_mode()
def compute_prefix(model: torch.nn.Module, head: Head, tokens: np.ndarray, *, fused: bool = True) -> Prefix:
    """Keys and values of tokens that many rows share."""
    prefix = Prefix(len(tokens))
    run_packed(model, head, [straight_row(tokens)], None, np.zeros(0, dtype=np.int64), fused, prefix.layers)
    # The pack's tensors are views of larger ones; what stays is copied once, in order.
    prefix.layers = {i: (k.contiguous(), v.contiguous()) for i, (k, v) in prefix.layers.items()}
    return prefix


def straight_row(tokens: np.ndarray) -> Row:
    """A text as a row without branches, from which nothing is read."""
    none = np.zeros(0, dtype=np.int64)
    return Row(
        tokens, np.arange(len(tokens)), np.zeros(len(tokens), dtype=np.int64), 0, Reading(none, none, none)
    )


def run_packed(
    model: torch.nn.Module,
    head: Head,
    rows: Sequence[Row],
    prefix: Prefix | None,
    read: np.ndarray,
    fused: bool,
    kept: dict | None = None,
) -> torch.Tensor:
    """One pass over rows side by side; logits at the tokens `read` of the pack, (n, vocabulary)."""
    device, dtype = head.device, head.dtype
    offset = prefix.length if prefix else 0
    packed = pack(rows, offset, device, dtype)
    now = Pass(
        prefix, packed.grid, kept=kept, longest=offset + max(int(row.positions[-1]) + 1 for row in rows)
    )
    with during(now, fused=fused), head.reading(torch.from_numpy(read).to(device)):
        return model(input_ids=packed.tokens, position_ids=packed.positions, use_cache=False).logits[0]


@torch.inference_mode()
def _score_batch(
    model: torch.nn.Module, head: Head, rows: Sequence[Row], prefix: Prefix | None, offset: int, fused: bool
) -> np.ndarray:
    """Log-likelihoods of the choices of rows, one after another."""
    starts = np.concatenate([[0], np.cumsum([row.length for row in rows])[:-1]])
    places = np.concatenate([row.reading.places + start for row, start in zip(rows, starts, strict=True)])
    targets = np.concatenate([row.reading.targets for row in rows])
    many = [int(row.reading.choices.max()) + 1 for row in rows]
    firsts = np.concatenate([[0], np.cumsum(many)[:-1]])
    owners = np.concatenate([row.reading.choices + first for row, first in zip(rows, firsts, strict=True)])
    read, which = np.unique(places, return_inverse=True)
    logits = run_packed(model, head, rows, prefix, read, fused)
    log_p = token_log_probabilities(logits, which, targets)
    return np.bincount(owners, weights=log_p, minlength=sum(many))


def token_log_probabilities(logits: torch.Tensor, which: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """log p of `targets` (m,) at lines `which` (m,) of logits (n, vocabulary), in fp32; (m,) float64."""
    device = logits.device
    line = torch.from_numpy(np.ascontiguousarray(which)).to(device)
    total = _denominators(logits)
    picked = logits[line, torch.from_numpy(np.ascontiguousarray(targets)).to(device)].float()
    return (picked - total[line]).double().cpu().numpy()


def _denominators(logits: torch.Tensor) -> torch.Tensor:
    """Logarithm of the softmax's denominator of each line in fp32, a stretch at a time."""
    step = max(1, 2**26 // logits.shape[-1])
    return torch.cat([part.float().logsumexp(-1) for part in logits.split(step)])
