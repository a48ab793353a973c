"""Rows: every choice is found again in the row it shares, and sharing never costs more than it saves."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from factorlab.eval.rows import (
    GROUP_TOKENS,
    Continuation,
    Row,
    build_row,
    common_length,
    group_by_prefix,
    shareable,
)

few = st.integers(0, 2)
"""Tokens of a small vocabulary: texts share beginnings, and branches are the same in places."""


@st.composite
def continuations(draw, contexts: bool) -> list[Continuation]:
    """Choices of one question: of one context, or of several (partial evaluation)."""
    one = draw(st.lists(few, min_size=1, max_size=8))
    out = []
    for _ in range(draw(st.integers(1, 5))):
        context = draw(st.lists(few, min_size=1, max_size=8)) if contexts else one
        choice = draw(st.lists(few, min_size=1, max_size=5))
        out.append(Continuation(np.array(context + choice), len(context)))
    return out


items = st.booleans().flatmap(lambda contexts: continuations(contexts=contexts))


def seen_from(row: Row, place: int) -> list[int]:
    """Tokens on the way from the first one of a row to that at `place`, as the mask lets it see them."""
    at = np.arange(row.length)
    own = row.branch_of[place]
    visible = np.flatnonzero(((row.branch_of == 0) | (row.branch_of == own)) & (at <= place))
    assert row.positions[visible].tolist() == list(range(len(visible)))
    return row.tokens[visible].tolist()


def prefixes_of(item: list[Continuation]) -> range:
    return range(len(shareable(item)) + 1)


@settings(max_examples=300, deadline=None)
@given(items, st.data())
def test_what_a_read_place_sees_is_the_text_before_its_target(item, data):
    prefix = data.draw(st.sampled_from(prefixes_of(item)))
    row = build_row(item, prefix)
    reading = row.reading
    assert len(reading.places) == len(reading.targets) == len(reading.choices)
    for j, choice in enumerate(item):
        own = np.flatnonzero(reading.choices == j)
        assert len(own) == len(choice.tokens) - choice.begin
        for k, read in zip(range(choice.begin, len(choice.tokens)), own, strict=True):
            assert seen_from(row, reading.places[read]) == choice.tokens[prefix:k].tolist()
            assert reading.targets[read] == choice.tokens[k]


@settings(max_examples=300, deadline=None)
@given(items, st.data())
def test_a_row_holds_what_all_choices_share_once_and_the_rest_once_a_choice(item, data):
    prefix = data.draw(st.sampled_from(prefixes_of(item)))
    row = build_row(item, prefix)
    fed = [choice.tokens[prefix:-1] for choice in item]
    trunk = common_length(fed)
    assert row.length == trunk + sum(len(text) - trunk for text in fed)
    assert len(row.positions) == len(row.branch_of) == row.length
    assert set(row.branch_of.tolist()) - {0} == set(range(1, row.branches + 1))
    assert row.branches != 1, "one branch alone is trunk"


@settings(max_examples=200, deadline=None)
@given(items)
def test_a_shared_beginning_is_of_every_choice_and_nothing_is_read_in_it(item):
    shared = shareable(item)
    for choice in item:
        assert np.array_equal(choice.tokens[: len(shared)], shared)
        assert len(shared) < choice.begin, "the first token of a choice is read from the end of its context"
    # One token more would not be shared, or would be read from.
    more = len(shared) + 1
    tight = any(choice.begin <= more or len(choice.tokens) <= more for choice in item)
    differ = len({tuple(choice.tokens[:more]) for choice in item}) > 1
    assert tight or differ


def test_choices_of_one_token_need_no_branch():
    context = np.arange(9)
    row = build_row([Continuation(np.append(context, t), 9) for t in (50, 51, 52, 50)], 4)
    assert row.tokens.tolist() == [4, 5, 6, 7, 8]
    assert row.branches == 0
    assert row.reading.places.tolist() == [4, 4, 4, 4]
    assert row.reading.targets.tolist() == [50, 51, 52, 50]
    assert row.reading.choices.tolist() == [0, 1, 2, 3]


def test_equal_choices_are_one_text():
    choice = Continuation(np.array([7, 1, 2, 3, 4]), 2)
    row = build_row([choice, choice], 1)
    assert row.tokens.tolist() == [1, 2, 3]
    assert row.reading.places.tolist() == [0, 1, 2] * 2


def test_partial_evaluation_shares_what_its_contexts_share():
    first = Continuation(np.array([1, 2, 3, 4, 9, 9]), 4)
    second = Continuation(np.array([1, 2, 5, 9, 9]), 3)
    assert shareable([first, second]).tolist() == [1, 2]
    row = build_row([first, second], 2)
    assert row.branches == 2
    assert row.tokens.tolist() == [3, 4, 9, 5, 9]
    assert row.positions.tolist() == [0, 1, 2, 0, 1]
    assert row.reading.places.tolist() == [1, 2, 3, 4]


@st.composite
def beginnings(draw) -> list[np.ndarray]:
    """Texts that share long pieces: built of few blocks, so that a group pays."""
    blocks = [np.arange(100 * b, 100 * b + draw(st.integers(1, 90))) for b in range(4)]
    out = []
    for _ in range(draw(st.integers(1, 12))):
        chosen = draw(st.lists(st.integers(0, 3), max_size=4))
        out.append(np.concatenate([np.zeros(0, dtype=np.int64), *[blocks[b] for b in chosen]]))
    return out


def cost(texts: list[np.ndarray], groups: list) -> int:
    """Tokens to compute, and what each prefix costs besides."""
    out = 0
    for group in groups:
        n = len(group.prefix)
        out += (n + GROUP_TOKENS if n else 0) + sum(len(texts[i]) - n for i in group.members)
    return out


@settings(max_examples=300, deadline=None)
@given(beginnings())
def test_groups_divide_all_items_stand_on_true_beginnings_and_save(texts):
    groups = group_by_prefix(texts)
    assert sorted(i for group in groups for i in group.members) == list(range(len(texts)))
    for group in groups:
        assert group.members
        for i in group.members:
            assert np.array_equal(texts[i][: len(group.prefix)], group.prefix)
    assert sum(len(group.prefix) == 0 for group in groups) <= 1
    assert cost(texts, groups) <= sum(map(len, texts))


def best_cost(texts: list[np.ndarray]) -> int:
    """The least cost of all groupings by nodes of the tree of beginnings: each node, together or divided."""

    def divide(members: list[int], depth: int) -> int:
        """Least cost of members that share `depth` tokens."""
        shared = common_length([texts[i] for i in members])
        alone = sum(len(texts[i]) for i in members)
        together = shared + GROUP_TOKENS + sum(len(texts[i]) - shared for i in members)
        if len(members) == 1:
            return alone
        children: dict[int, list[int]] = {}
        ended = [i for i in members if len(texts[i]) == shared]
        for i in members:
            if len(texts[i]) > shared:
                children.setdefault(int(texts[i][shared]), []).append(i)
        below = sum(divide(c, shared) for c in children.values()) + sum(len(texts[i]) for i in ended)
        return min(below, together if shared else below)

    return divide(list(range(len(texts))), 0)


@settings(max_examples=200, deadline=None)
@given(beginnings())
def test_no_other_division_of_the_tree_of_beginnings_costs_less(texts):
    assert cost(texts, group_by_prefix(texts)) == best_cost(texts)


def test_items_that_share_little_are_computed_together():
    texts = [np.array([1, 2, 3]), np.array([1, 2, 4]), np.array([5])]
    (group,) = group_by_prefix(texts)
    assert len(group.prefix) == 0
    assert sorted(group.members) == [0, 1, 2]


def test_two_benchmarks_have_a_prefix_each():
    one, other = np.arange(400), np.arange(1000, 1300)
    texts = [np.append(block, i) for i in range(20) for block in (one, other)]
    groups = group_by_prefix(texts)
    assert sorted(len(group.prefix) for group in groups) == [300, 400]
    assert {tuple(sorted(i % 2 for i in group.members)) for group in groups} == {(0,) * 20, (1,) * 20}


def test_equal_items_stand_on_all_they_have():
    text = np.arange(300)
    (group,) = group_by_prefix([text] * 3)
    assert np.array_equal(group.prefix, text)


def test_a_single_item_and_an_empty_beginning_have_no_prefix():
    for texts in ([np.arange(5000)], [np.zeros(0, dtype=np.int64)] * 9):
        (group,) = group_by_prefix(texts)
        assert len(group.prefix) == 0
    assert group_by_prefix([]) == []
