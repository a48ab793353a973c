"""Rows: what a causal model has to compute to score choices, and what of it is the same for many of them.

Choices of one question share its tokens, questions of one benchmark share the worked examples. A row is a
trunk with branches; rows that begin alike stand on one prefix. Nothing here knows of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GROUP_TOKENS = 256
"""What a prefix of its own costs, in tokens: a pass of its own, and less full batches after it."""


@dataclass(frozen=True)
class Continuation:
    """Tokens of a context and its continuation, and where the continuation begins (at least 1)."""

    tokens: np.ndarray
    begin: int


@dataclass(frozen=True)
class Reading:
    """Where probabilities are read: `places` (n,) in the row, `targets` (n,) tokens, `choices` (n,) whose they are."""

    places: np.ndarray
    targets: np.ndarray
    choices: np.ndarray


@dataclass(frozen=True)
class Row:
    """A trunk and its branches, without the prefix it stands on.

    Attributes
    ----------
    tokens, positions, branch_of : ndarray, (n,)
        Tokens of the trunk, then of each branch; their positions after the prefix; 0 for the trunk, 1, 2, ...
    branches : int
    reading : Reading
    """

    tokens: np.ndarray
    positions: np.ndarray
    branch_of: np.ndarray
    branches: int
    reading: Reading

    @property
    def length(self) -> int:
        """Tokens to compute."""
        return len(self.tokens)


@dataclass(frozen=True)
class Group:
    """Items that begin with the same `prefix` tokens; `members` are their indices."""

    prefix: np.ndarray
    members: tuple[int, ...]


def common_length(texts: Sequence[np.ndarray]) -> int:
    """How many first tokens all texts share."""
    first = texts[0]
    n = min(len(text) for text in texts)
    for other in texts[1:]:
        differ = np.flatnonzero(first[:n] != other[:n])
        n = int(differ[0]) if len(differ) else n
    return n


def shareable(item: Sequence[Continuation]) -> np.ndarray:
    """First tokens that all choices of an item have, and from whose end nothing is read.

    Only these can be part of a prefix that other items have, too.
    """
    n = min(choice.begin - 1 for choice in item)
    return item[0].tokens[: min(n, common_length([choice.tokens[:-1] for choice in item]))]


def build_row(item: Sequence[Continuation], prefix: int) -> Row:
    """The row of an item that stands on `prefix` tokens.

    The last token of a choice is predicted, never fed; the first one is read off the end of the trunk.
    """
    fed = [choice.tokens[prefix:-1] for choice in item]
    trunk = common_length(fed)
    # A trunk needs a token to read from; a choice whose feed ends inside the trunk is part of it.
    tokens, positions, branch_of = [fed[0][:trunk]], [np.arange(trunk)], [np.zeros(trunk, dtype=np.int64)]
    at, branches = trunk, 0
    places, targets, choices = [], [], []
    for j, (choice, text) in enumerate(zip(item, fed, strict=True)):
        own = text[trunk:]
        first = choice.begin - 1 - prefix
        place = np.arange(first, len(text))
        place = np.where(place < trunk, place, place - trunk + at)
        if len(own):
            branches += 1
            tokens.append(own)
            positions.append(np.arange(trunk, trunk + len(own)))
            branch_of.append(np.full(len(own), branches, dtype=np.int64))
            at += len(own)
        places.append(place)
        targets.append(choice.tokens[choice.begin :])
        choices.append(np.full(len(place), j))
    if branches == 1:  # one branch alone is the rest of the trunk
        branch_of, branches = [np.zeros(at, dtype=np.int64)], 0
    reading = Reading(np.concatenate(places), np.concatenate(targets), np.concatenate(choices))
    return Row(
        np.concatenate(tokens), np.concatenate(positions), np.concatenate(branch_of), branches, reading
    )


def group_by_prefix(texts: Sequence[np.ndarray]) -> list[Group]:
    """Divide items so that what their beginnings share is computed once, where that is worth a pass.

    Sorted texts form a tree of common beginnings. From the leaves up, a node of n items becomes a group
    where the (n - 1) times its depth that it saves are more than its `GROUP_TOKENS` and what its children
    save; items in no group are computed together, without a prefix.

    Parameters
    ----------
    texts : sequence of ndarray
        The tokens of each item that can be shared (`shareable`).
    """
    order = sorted(range(len(texts)), key=lambda i: texts[i].astype(">u4").tobytes())
    ordered = [texts[i] for i in order]
    depths = [common_length(ordered[i : i + 2]) for i in range(len(ordered) - 1)]
    cuts = _groups_of(depths)
    groups = [Group(ordered[low][:depth], tuple(order[low:high])) for low, high, depth in cuts]
    grouped = {i for group in groups for i in group.members}
    alone = tuple(i for i in order if i not in grouped)
    return [*groups, Group(np.zeros(0, dtype=np.int64), alone)] if alone else groups


class _Node:
    """Sorted items from `begin` on that share `depth` tokens; what groups among them save, and which they are."""

    def __init__(self, depth: int, begin: int, saved: int, groups: list[tuple[int, int, int]]) -> None:
        self.depth, self.begin, self.saved, self.groups = depth, begin, saved, groups

    def close(self, end: int) -> None:
        together = (end - self.begin - 1) * self.depth - GROUP_TOKENS
        if together > self.saved:
            self.saved, self.groups = together, [(self.begin, end, self.depth)]


def _groups_of(depths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Groups (low, high, depth) of sorted items from what each shares with the next one."""
    stack = [_Node(0, 0, 0, [])]
    for i, depth in enumerate([*depths, 0]):
        if depth > stack[-1].depth:
            stack.append(_Node(depth, i, 0, []))
        while stack[-1].depth > depth:
            node = stack.pop()
            node.close(i + 1)
            if stack[-1].depth < depth:
                stack.append(_Node(depth, node.begin, 0, []))
            stack[-1].saved += node.saved
            stack[-1].groups += node.groups
    return stack[0].groups
