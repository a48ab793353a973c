"""Which worked examples each item has: always drawn for the full list of items in its order.

Draws repeat those of the harnesses that the reference study used, number for number (Python's
`random.Random`), but for a full list: neither a limit nor the division of work changes them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from random import Random
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.task import Shots

TRAIN_SHARE = 0.9
"""llm-jp-eval 1.3.0 takes worked examples from the first 90% of the shuffled source."""


def draw_shots(
    shots: Shots,
    items: Sequence[Mapping[str, Any]],
    pool: Sequence[Mapping[str, Any]],
    item_groups: Sequence[Hashable] = (),
    pool_groups: Sequence[Hashable] = (),
    seed: int | None = None,
) -> list[tuple[int, ...]]:
    """Places in `pool` of the worked examples of each item; the item itself is never among them.

    Parameters
    ----------
    shots : Shots
        How many and how drawn.
    items, pool : sequence of mapping
        All items in order, and what worked examples are taken from.
    item_groups, pool_groups : sequence
        For draw "first_by": the group of each.
    seed : int, optional
        Instead of that of `shots`.

    Returns
    -------
    list of tuple of int
        One for each item.

    Raises
    ------
    InputError
        When the pool is too small.
    """
    seed = shots.seed if seed is None else seed
    if shots.draw == "first":
        return [_first(shots, item, pool, range(len(pool))) for item in items]
    if shots.draw == "shuffled":
        order = list(range(len(pool)))
        Random(seed).shuffle(order)
        order = order[: max(int(len(order) * TRAIN_SHARE), min(shots.count, len(order)))]
        return [_first(shots, item, pool, order) for item in items]
    if shots.draw == "first_by":
        groups: dict[Hashable, list[int]] = {}
        for place, group in enumerate(pool_groups):
            groups.setdefault(group, []).append(place)
        return [
            _first(shots, item, pool, groups.get(group, ()), f" of '{group}'")
            for item, group in zip(items, item_groups, strict=True)
        ]
    return _redrawn(shots, items, pool, seed)


def _first(
    shots: Shots,
    item: Mapping[str, Any],
    pool: Sequence[Mapping[str, Any]],
    order: Sequence[int],
    which: str = "",
) -> tuple[int, ...]:
    """The first `count` places of an order that do not hold the item."""
    out: list[int] = []
    for place in order:
        if len(out) == shots.count:
            break
        if pool[place] != item:
            out.append(place)
    if len(out) < shots.count:
        raise InputError(
            f"there are {len(out)} worked examples{which}, fewer than the {shots.count} of shots.count"
        )
    return tuple(out)


def _redrawn(
    shots: Shots, items: Sequence[Mapping[str, Any]], pool: Sequence[Mapping[str, Any]], seed: int
) -> list[tuple[int, ...]]:
    """Drawn anew for each item from one generator.

    lm-eval 0.4.2 (`ContextSampler.get_context`): for each item in order `sample(pool, n)`, items equal to it
    taken out, the first `count` kept. The JP harness (`evaluator.evaluate`, `Task.fewshot_context`) does the
    same after its generator has shuffled the items.
    """
    n = shots.count + shots.extra
    least = n + 1 if shots.redraw else n
    if len(pool) < least:
        raise InputError(
            f"there are {len(pool)} worked examples, fewer than the {least} that are drawn from "
            "(shots.count and shots.extra)"
        )
    random, order = Random(seed), list(range(len(items)))
    if shots.draw == "jp_harness":
        random.shuffle(order)
    out: list[tuple[int, ...]] = [()] * len(items)
    places = range(len(pool))
    for i in order:
        drawn = [place for place in random.sample(places, n) if pool[place] != items[i]]
        while shots.redraw and len(drawn) < shots.count:
            more = random.randrange(len(pool))
            if more not in drawn and pool[more] != items[i]:
                drawn.append(more)
        out[i] = tuple(drawn[: shots.count])
    return out
