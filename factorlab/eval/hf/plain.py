"""The plain way: a model called as it is, in batches of texts of the same length or padded on the right.

For architectures whose tokens cannot be packed (state-space models, ALiBi, attention with extra terms).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from factorlab.eval.hf.budget import Budget
from factorlab.eval.hf.generation import Prompt, Writing, choose_tokens
from factorlab.eval.hf.scoring import Item, token_log_probabilities


def score_plain(
    model: torch.nn.Module, device: torch.device, items: Sequence[Item], budget: Budget
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """As `factorlab.eval.hf.scoring.score_items`: every choice with its whole context, longest first."""
    order = sorted(range(len(items)), key=lambda i: -max(len(c.tokens) for c in items[i]))
    while order:
        lengths = [sum(len(choice.tokens) for choice in items[i]) for i in order]
        count = budget.take(lengths)
        batch = order[:count]
        try:
            found = _score_padded(model, device, [c for i in batch for c in items[i]])
        except torch.OutOfMemoryError:
            if count > 1:
                budget.halve(count, sum(lengths[:count]))
                continue
            found = _score_one_by_one(model, device, items[batch[0]], budget)
        order = order[count:]
        ends = np.cumsum([len(items[i]) for i in batch])[:-1]
        yield list(zip(batch, np.split(found, ends), strict=True))


def _score_one_by_one(
    model: torch.nn.Module, device: torch.device, choices: Item, budget: Budget
) -> np.ndarray:
    """Log-likelihoods of choices that do not fit side by side."""
    try:
        return np.concatenate([_score_padded(model, device, [choice]) for choice in choices])
    except torch.OutOfMemoryError:
        budget.halve(1)
        raise


@torch.inference_mode()
def _score_padded(model: torch.nn.Module, device: torch.device, choices: Item) -> np.ndarray:
    """Log-likelihoods of choices in one batch, padded on the right: later tokens do not change earlier ones."""
    width = max(len(choice.tokens) - 1 for choice in choices)
    tokens = np.zeros((len(choices), width), dtype=np.int64)
    there = np.zeros((len(choices), width), dtype=np.int64)
    for line, choice in enumerate(choices):
        tokens[line, : len(choice.tokens) - 1] = choice.tokens[:-1]
        there[line, : len(choice.tokens) - 1] = 1
    mask = torch.from_numpy(there).to(device) if not there.all() else None
    logits = model(input_ids=torch.from_numpy(tokens).to(device), attention_mask=mask, use_cache=False).logits
    places = np.concatenate(
        [
            line * width + np.arange(choice.begin - 1, len(choice.tokens) - 1)
            for line, choice in enumerate(choices)
        ]
    )
    targets = np.concatenate([choice.tokens[choice.begin :] for choice in choices])
    owners = np.repeat(np.arange(len(choices)), [len(c.tokens) - c.begin for c in choices])
    read = logits.reshape(-1, logits.shape[-1])[torch.from_numpy(places).to(device)]
    log_p = token_log_probabilities(read, np.arange(len(places)), targets)
    return np.bincount(owners, weights=log_p, minlength=len(choices))


def write_plain(
    model: torch.nn.Module,
    device: torch.device,
    prompts: Sequence[Prompt],
    ends: frozenset[int],
    slots: Budget,
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
                yield _write_batch(model, device, prompts, waiting[:count], ends)
            except torch.OutOfMemoryError:
                slots.halve(count, sum(rooms[:count]))
                continue
            waiting = waiting[count:]


@torch.inference_mode()
def _write_batch(
    model: torch.nn.Module,
    device: torch.device,
    prompts: Sequence[Prompt],
    names: Sequence[tuple[int, int]],
    ends: frozenset[int],
) -> list[tuple[int, int, list[int]]]:
    rows = [Writing(i, sample, len(prompts[i].tokens)) for i, sample in names]
    asked = [prompts[i] for i, _ in names]
    over = [False] * len(rows)
    tokens = torch.from_numpy(np.stack([p.tokens for p in asked])).to(device)
    state: dict[str, object] = {}
    while not all(over):
        out = model(input_ids=tokens, use_cache=True, **state)
        for name in ("past_key_values", "cache_params"):
            if getattr(out, name, None) is not None:
                state[name] = getattr(out, name)
        live = [k for k, done in enumerate(over) if not done]
        chosen = choose_tokens(out.logits[live, -1], [asked[k] for k in live], [rows[k] for k in live])
        newest = [0] * len(rows)  # a row that is over is computed on, and not read
        for k, token in zip(live, chosen, strict=True):
            if token in ends:
                over[k] = True
                continue
            newest[k] = token
            rows[k].tokens.append(token)
            over[k] = len(rows[k].tokens) >= asked[k].max_new or asked[k].stops.ended(rows[k].tokens)
        tokens = torch.tensor(newest, device=device)[:, None]
    return [(row.prompt, row.sample, row.tokens) for row in rows]
