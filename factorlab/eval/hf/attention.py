"""Attention over packed rows: many texts of any length in one forward pass, on top of one shared prefix.

transformers lets a function stand in for a model's attention. Ours gets the queries, keys and values of all
tokens of a batch side by side, without padding, and gives each token what it may see:

* the shared prefix P, whose keys and values were computed once: one product for the tokens of all rows;
* its own row: a trunk, and branches (the choices of a question) that see the trunk and themselves.

Both parts come with the logarithm of their softmax's denominator, so that they add up exactly
(Juravsky et al. 2024, arXiv 2402.05099; the online softmax of Milakov & Gimelshein 2018, arXiv 1805.02867).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

NAME = "factorlab_packed"
"""Under which transformers knows this attention."""

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of a layer, each (rows, heads of keys, tokens, size of a head)."""

MANUAL_BYTES = 2**28
"""Most bytes of scores held at once where no fused kernel gives the denominator."""

FOREIGN = ("softcap", "s_aux", "position_bias", "alibi", "cross_attention_states")
"""Arguments that change attention in ways this function does not know."""


class Unsupported(Exception):
    """This model's attention does something else; plain batches are used."""


@dataclass
class Prefix:
    """Keys and values of tokens that rows share, by layer; `length` tokens."""

    length: int
    layers: dict[int, KeyValue] = field(default_factory=dict)


@dataclass
class Grid:
    """Rows of one pass: `cells` (rows, width) says which token of the pack stands where, `places` the reverse.

    `mask` is None where each token sees those before it in its row, else (rows, 1, width, width), added to the scores.
    """

    cells: Tensor
    places: Tensor
    mask: Tensor | None
    straight: bool
    """Cells and tokens are in the same order: no gathering is needed."""


@dataclass
class Slots:
    """Keys and values of rows that are being written, by layer: (slots, heads, room, size).

    `columns` (rows,) is where the next token of each row goes; `mask` (rows, 1, 1, width) hides what is not there yet.
    """

    room: int
    width: int
    columns: Tensor
    mask: Tensor | None
    layers: dict[int, KeyValue]


@dataclass
class Pass:
    """What one forward pass is about."""

    prefix: Prefix | None = None
    grid: Grid | None = None
    slots: Slots | None = None
    kept: dict[int, KeyValue] | None = None
    """Filled with the keys and values of all tokens, (1, heads, tokens, size), where it is a dictionary."""
    longest: int = 0
    """Tokens of the longest text, prefix included."""


class _Current:
    """The pass that is going on; None: the model's own attention."""

    value: Pass | None = None
    fused: bool = True


@contextmanager
def during(now: Pass, *, fused: bool = True) -> Iterator[None]:
    """Run forward passes of the packed attention as `now` says."""
    _Current.value, _Current.fused = now, fused
    try:
        yield
    finally:
        _Current.value = None


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention of all tokens of a pack, in the form that transformers calls.

    Parameters
    ----------
    query : Tensor, (1, heads, tokens, size)
    key, value : Tensor, (1, heads of keys, tokens, size)
    attention_mask : ignored; `Pass` knows what each token sees
    scaling : float, optional

    Returns
    -------
    Tensor, (1, tokens, heads, size)
    None

    Raises
    ------
    Unsupported
        No pass is going on, or the model asks for something that is not done here.
    """
    now = _Current.value
    if now is None:
        raise Unsupported("no packed pass is going on")
    _check(module, query, key, value, now, rest)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = _layer(module)
    if now.kept is not None:
        now.kept[layer] = (key, value)
    if now.slots is not None:
        out, total = _written(now.slots, layer, query, key, value, scale)
    else:
        assert now.grid is not None
        out, total = _within_rows(now.grid, query, key, value, scale)
    if now.prefix is not None and now.prefix.length:
        shared, weight = _over_prefix(now.prefix.layers[layer], query, scale)
        both = torch.logaddexp(total, weight)
        out = out * (total - both).exp().unsqueeze(-1).to(out.dtype)
        out = out + shared * (weight - both).exp().unsqueeze(-1).to(out.dtype)
    return out.unsqueeze(0), None


def _check(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, now: Pass, rest: dict[str, Any]
) -> None:
    for name in FOREIGN:
        if rest.get(name) is not None:
            raise Unsupported(f"its attention has '{name}'")
    window = rest.get("sliding_window") or getattr(module, "sliding_window", None)
    if isinstance(window, int) and now.longest > window:
        raise Unsupported(f"its attention sees {window} tokens, the longest text has {now.longest}")
    if query.shape[0] != 1 or key.shape[2] != query.shape[2] or value.shape[-1] != query.shape[-1]:
        raise Unsupported("its queries, keys and values have other shapes")
    if getattr(module, "is_causal", True) is False:
        raise Unsupported("it attends to later tokens")


def _layer(module: torch.nn.Module) -> int:
    layer = getattr(module, "layer_idx", None)
    return id(module) if layer is None else int(layer)


def _over_prefix(prefix: KeyValue, query: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """All tokens with all of the prefix: (tokens, heads, size) and denominators (tokens, heads)."""
    key, value = prefix
    heads, tokens, size = query.shape[1:]
    groups = heads // key.shape[1]
    folded = query.reshape(1, key.shape[1], groups * tokens, size)
    out, total = attend(folded, key, value, scale)
    out = out.reshape(heads, tokens, size).transpose(0, 1)
    return out, total.reshape(heads, tokens).transpose(0, 1)


def _within_rows(
    grid: Grid, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Each token with those of its row that it may see."""
    rows, width = grid.cells.shape
    heads = query.shape[1]
    groups = heads // key.shape[1]

    def spread(states: Tensor) -> Tensor:
        flat = states[0].transpose(0, 1)  # tokens, heads, size
        if not grid.straight:
            flat = flat.index_select(0, grid.cells.reshape(-1))
        return flat.reshape(rows, width, *flat.shape[1:]).transpose(1, 2)

    q, k, v = spread(query), spread(key), spread(value)
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    out, total = attend(q, k, v, scale, mask=grid.mask, causal=grid.mask is None)
    out = out.transpose(1, 2).reshape(rows * width, heads, -1)
    total = total.transpose(1, 2).reshape(rows * width, heads)
    if grid.straight:
        return out, total
    return out.index_select(0, grid.places), total.index_select(0, grid.places)


def _written(
    slots: Slots, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """One new token for each row that is being written: store its key and value, see the row so far."""
    rows = query.shape[2]
    heads, kv_heads, size = query.shape[1], key.shape[1], query.shape[-1]
    keys, values = slots.layers[layer]
    at = torch.arange(rows, device=query.device)
    keys[at, :, slots.columns] = key[0].transpose(0, 1)
    values[at, :, slots.columns] = value[0].transpose(0, 1)
    k, v = keys[:rows, :, : slots.width], values[:rows, :, : slots.width]
    q = query[0].transpose(0, 1).reshape(rows, kv_heads, heads // kv_heads, size)
    out, total = _plain_product(q, k, v, scale, slots.mask)
    return out.reshape(rows, heads, size), total.reshape(rows, heads)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Softmax attention, and the logarithm of the denominator of its softmax.

    Parameters
    ----------
    query : Tensor, (rows, heads, queries, size)
    key, value : Tensor, (rows, heads, keys, size)
    scale : float
    mask : Tensor, (rows, 1, queries, keys), optional
        Added to the scores.
    causal : bool
        Query i sees keys 0 to i.

    Returns
    -------
    Tensor, (rows, heads, queries, size)
    Tensor, (rows, heads, queries), fp32
    """
    if _Current.fused:
        kind = query.device.type
        if kind == "cpu":
            out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, causal, attn_mask=mask, scale=scale
            )
            return out, total.float()
        if kind == "cuda":
            return _on_cuda(query, key, value, scale, mask, causal)
    return _by_hand(query, key, value, scale, mask, causal)


def _on_cuda(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    aten = torch.ops.aten
    if mask is None and query.dtype in (torch.float16, torch.bfloat16):
        found = aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, False, scale=scale)
    else:
        if mask is not None:
            mask = mask.to(query.dtype).expand(-1, query.shape[1], -1, -1)
        found = aten._scaled_dot_product_efficient_attention(
            query, key, value, mask, True, 0.0, causal, scale=scale
        )
    return found[0], found[1][..., : query.shape[2]].float()


def _by_hand(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """The same in plain products, a stretch of queries at a time."""
    rows, heads, queries, _ = query.shape
    step = max(1, MANUAL_BYTES // max(1, 4 * rows * heads * key.shape[2]))
    if causal:
        seen = torch.ones(queries, key.shape[2], dtype=torch.bool, device=query.device).tril()
        mask = torch.zeros(seen.shape, device=query.device).masked_fill(~seen, float("-inf"))[None, None]
    parts = [
        _plain_product(
            query[:, :, i : i + step],
            key,
            value,
            scale,
            None if mask is None else mask[:, :, i : i + step],
        )
        for i in range(0, queries, step)
    ]
    return torch.cat([p[0] for p in parts], 2), torch.cat([p[1] for p in parts], 2)


def _plain_product(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    scores = torch.matmul(query * scale, key.transpose(2, 3)).float()
    if mask is not None:
        scores += mask
    total = scores.logsumexp(-1)
    weights = scores.sub_(total.unsqueeze(-1)).exp_().to(value.dtype)
    return torch.matmul(weights, value), total
