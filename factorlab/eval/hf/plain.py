"""The plain way: a model called as it is, in batches of texts of the same length or padded on the right.

For architectures whose tokens cannot be packed (state-space models, ALiBi, attention with extra terms).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from factorlab.eval.hf.budget import Budget
from factorlab.eval.hf.generation import Prompt, Writing, choose_tokens
from factorlab.eval.hf.head import Head
from factorlab.eval.hf.scoring import Item, token_log_probabilities

DROPPED = 0.5
"""Rows that are over are dropped from the cache once no more than this share of a batch goes on."""


def score_plain(
    model: torch.nn.Module, head: Head, items: Sequence[Item], budget: Budget, *, narrow: bool = False
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """As `factorlab.eval.hf.scoring.score_items`: every choice with its whole context, longest first.

    `narrow`: the output head sees only the tokens whose probabilities are read (`find_way` knows whether it can).
    """
    order = sorted(range(len(items)), key=lambda i: -max(len(c.tokens) for c in items[i]))
    while order:
        lengths = [sum(len(choice.tokens) for choice in items[i]) for i in order]
        count = budget.take(lengths)
        batch = order[:count]
        try:
            found = _score_padded(model, head, [c for i in batch for c in items[i]], narrow)
        except torch.OutOfMemoryError:
            if count > 1:
                budget.halve(count, sum(lengths[:count]))
                continue
            found = _score_one_by_one(model, head, items[batch[0]], budget, narrow)
        order = order[count:]
        ends = np.cumsum([len(items[i]) for i in batch])[:-1]
        yield list(zip(batch, np.split(found, ends), strict=True))


def _score_one_by_one(
    model: torch.nn.Module, head: Head, choices: Item, budget: Budget, narrow: bool
) -> np.ndarray:
    """Log-likelihoods of choices that do not fit side by side."""
    try:
        return np.concatenate([_score_padded(model, head, [choice], narrow) for choice in choices])
    except torch.OutOfMemoryError:
        budget.halve(1)
        raise


@torch.inference_mode()
def _score_padded(model: torch.nn.Module, head: Head, choices: Item, narrow: bool) -> np.ndarray:
    """Log-likelihoods of choices in one batch, padded on the right: later tokens do not change earlier ones."""
    width = max(len(choice.tokens) - 1 for choice in choices)
    tokens = np.zeros((len(choices), width), dtype=np.int64)
    there = np.zeros((len(choices), width), dtype=np.int64)
    for line, choice in enumerate(choices):
        tokens[line, : len(choice.tokens) - 1] = choice.tokens[:-1]
        there[line, : len(choice.tokens) - 1] = 1
    places = np.concatenate(
        [
            line * width + np.arange(choice.begin - 1, len(choice.tokens) - 1)
            for line, choice in enumerate(choices)
        ]
    )
    targets = np.concatenate([choice.tokens[choice.begin :] for choice in choices])
    owners = np.repeat(np.arange(len(choices)), [len(c.tokens) - c.begin for c in choices])
    device = head.device
    read = torch.from_numpy(places).to(device)
    mask = torch.from_numpy(there).to(device) if not there.all() else None
    with head.reading(read if narrow else None):
        logits = model(
            input_ids=torch.from_numpy(tokens).to(device), attention_mask=mask, use_cache=False
        ).logits
    read = logits[0] if narrow else logits.reshape(-1, logits.shape[-1])[read]
    log_p = token_log_probabilities(read, np.arange(len(places)), targets)
    return np.bincount(owners, weights=log_p, minlength=len(choices))


def write_plain(
    model: torch.nn.Module,
    head: Head,
    prompts: Sequence[Prompt],
    ends: frozenset[int],
    slots: Budget,
    *,
    narrow: bool = False,
) -> Iterator[list[tuple[int, int, list[int]]]]:
    """As `factorlab.eval.hf.generation.write_answers`, on the model's own cache.

    Prompts of a batch have the same number of tokens, so that nothing is padded.
    """
    by_length: dict[int, list[tuple[int, int]]] = {}
    for i, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt.tokens), []).extend((i, s) for s in range(len(prompt.uniforms)))
    for length in sorted(by_length, reverse=True):
        waiting = by_length[length]
        while waiting:
            rooms = [length + prompts[i].max_new for i, _ in waiting]
            count = slots.take(rooms)
            try:
                yield _write_batch(model, head, prompts, waiting[:count], ends, narrow)
            except torch.OutOfMemoryError:
                slots.halve(count, sum(rooms[:count]))
                continue
            waiting = waiting[count:]


@torch.inference_mode()
def _write_batch(
    model: torch.nn.Module,
    head: Head,
    prompts: Sequence[Prompt],
    names: Sequence[tuple[int, int]],
    ends: frozenset[int],
    narrow: bool,
) -> list[tuple[int, int, list[int]]]:
    rows = [Writing(i, sample, len(prompts[i].tokens)) for i, sample in names]
    asked = [prompts[i] for i, _ in names]
    tokens = torch.from_numpy(np.stack([p.tokens for p in asked])).to(head.device)
    lines = list(range(len(rows)))  # which row stands in each line of the batch
    live = set(lines)
    state: dict[str, Any] = {}
    while live:
        last = torch.arange(len(lines), device=head.device) * tokens.shape[1] + tokens.shape[1] - 1
        with head.reading(last if narrow else None):
            out = model(input_ids=tokens, use_cache=True, **state)
        for name in ("past_key_values", "cache_params"):
            if getattr(out, name, None) is not None:
                state[name] = getattr(out, name)
        logits = out.logits[0] if narrow else out.logits[:, -1]
        at = [line for line, row in enumerate(lines) if row in live]
        chosen = choose_tokens(logits[at], [asked[lines[k]] for k in at], [rows[lines[k]] for k in at])
        newest = [0] * len(lines)  # a row that is over and still there is computed on, and not read
        for k, token in zip(at, chosen, strict=True):
            row, prompt = rows[lines[k]], asked[lines[k]]
            if token in ends or token in prompt.ends:
                live.discard(lines[k])
                continue
            newest[k] = token
            row.tokens.append(token)
            if len(row.tokens) >= prompt.max_new or prompt.stops.ended(row.tokens):
                live.discard(lines[k])
        kept = [k for k in range(len(lines)) if lines[k] in live]
        if kept and len(kept) <= DROPPED * len(lines) and _keep(state, kept, head.device):
            lines, newest = [lines[k] for k in kept], [newest[k] for k in kept]
        tokens = torch.tensor(newest, device=head.device)[:, None]
    return [(row.prompt, row.sample, row.tokens) for row in rows]


def _keep(state: dict[str, Any], kept: list[int], device: torch.device) -> bool:
    """Drop the other rows from a model's own cache; False where it has no way to do that."""
    cache = state.get("past_key_values")
    if len(state) != 1 or not hasattr(cache, "batch_select_indices"):
        return False
    if not all(hasattr(layer, "batch_select_indices") for layer in getattr(cache, "layers", [])):
        return False
    cache.batch_select_indices(torch.tensor(kept, device=device))  # type: ignore[union-attr]
    return True
