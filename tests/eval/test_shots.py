"""Worked examples: drawn as the study's harnesses draw them, for the full list, never the item itself."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factorlab.errors import InputError
from factorlab.eval.shots import draw_shots
from factorlab.eval.task import Shots, Source

NOWHERE = Source(None, ())


def shots(count, draw, **more):
    return Shots(count=count, draw=draw, source=NOWHERE, **more)


def documents(n, start=0):
    return [{"id": i, "text": f"t{i}"} for i in range(start, start + n)]


class ContextSampler:
    """lm-eval 0.4.2's sampler, written from its description: one generator a task, a draw an item."""

    def __init__(self, docs, seed, same_split):
        self.docs, self.rnd, self.same_split = docs, random.Random(seed), same_split

    def get(self, doc, k):
        drawn = self.rnd.sample(self.docs, k + 1 if self.same_split else k)
        return [x for x in drawn if x != doc][:k]


@settings(max_examples=40, deadline=None)
@given(st.integers(6, 40), st.integers(1, 30), st.integers(0, 4), st.booleans(), st.integers(0, 9999))
def test_lm_eval(n_pool, n_items, k, same_split, seed):
    k += 1
    pool, items = documents(n_pool), documents(n_items, start=3)  # some items are in the pool
    told = draw_shots(shots(k, "lm_eval", extra=int(same_split)), items, pool, seed=seed)
    sampler = ContextSampler(pool, seed, same_split)
    assert [[pool[i] for i in places] for places in told] == [sampler.get(item, k) for item in items]


@settings(max_examples=40, deadline=None)
@given(st.integers(6, 30), st.integers(1, 4), st.integers(0, 9999))
def test_jp_harness(n, k, seed):
    """Items shuffled, then drawn for in that order from the same generator; k + 1 of the test set."""
    items = documents(n)
    rnd = random.Random()
    rnd.seed(seed)
    order = list(items)
    rnd.shuffle(order)
    expected = {}
    for doc in order:
        expected[doc["id"]] = [x["id"] for x in rnd.sample(items, k + 1) if x != doc][:k]
    told = draw_shots(shots(k, "jp_harness", extra=1), items, items, seed=seed)
    assert {i: list(places) for i, places in enumerate(told)} == expected


def test_jp_harness_draws_from_a_training_part():
    items, pool = documents(5), documents(8, start=100)
    rnd = random.Random(42)
    order = list(range(5))
    rnd.shuffle(order)
    expected = {i: tuple(pool.index(x) for x in rnd.sample(pool, 4)) for i in order}
    told = draw_shots(shots(4, "jp_harness", seed=42), items, pool)
    assert dict(enumerate(told)) == expected


def test_shuffled_is_llm_jp_eval():
    raw = documents(50)
    train = list(raw)
    random.seed(42)
    random.shuffle(train)
    train = train[: int(len(train) * 0.9)]
    told = draw_shots(shots(4, "shuffled", seed=42), documents(3, start=100), raw)
    assert [[raw[i] for i in places] for places in told] == [train[:4]] * 3


def test_first_and_first_by():
    pool = documents(6)
    assert draw_shots(shots(2, "first"), documents(2, start=10), pool) == [(0, 1), (0, 1)]
    told = draw_shots(
        shots(2, "first_by", by="x"), documents(2, start=10), pool, ["b", "a"], ["a", "b", "a", "b", "b", "a"]
    )
    assert told == [(1, 3), (0, 2)]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(7, 25), st.sampled_from(["first", "shuffled", "lm_eval", "jp_harness"]), st.integers(0, 99)
)
def test_never_the_item_itself(n, draw, seed):
    items = documents(n)
    for extra in (0, 1):
        for i, places in enumerate(draw_shots(shots(3, draw, extra=extra), items, items, seed=seed)):
            assert i not in places
            assert len(set(places)) == len(places)
            assert len(places) == 3 or (extra == 0 and draw in ("lm_eval", "jp_harness"))


def test_without_extra_some_have_fewer_and_redraw_mends_it():
    items = documents(12)
    trap = draw_shots(shots(4, "lm_eval"), items, items, seed=1)
    assert {len(places) for places in trap} == {3, 4}
    mended = draw_shots(shots(4, "lm_eval", redraw=True), items, items, seed=1)
    for i, places in enumerate(mended):
        assert len(set(places)) == 4
        assert i not in places
    assert draw_shots(shots(4, "lm_eval", redraw=True), items, items, seed=1) == mended


def test_doublets_of_the_item_are_taken_out():
    pool = [{"t": 1}, {"t": 1}, {"t": 2}, {"t": 3}]
    for places in draw_shots(shots(2, "lm_eval", extra=2), [{"t": 1}] * 5, pool):
        assert sorted(places) == [2, 3]


@pytest.mark.parametrize("draw", ["lm_eval", "jp_harness"])
def test_a_seed_fixes_the_draw(draw):
    items, pool = documents(20), documents(30, start=50)
    one = draw_shots(shots(4, draw, seed=5), items, pool)
    assert draw_shots(shots(4, draw, seed=5), items, pool) == one
    assert draw_shots(shots(4, draw, seed=6), items, pool) != one
    assert draw_shots(shots(4, draw, seed=6), items, pool, seed=5) == one


def test_too_few():
    with pytest.raises(InputError, match=r"there are 2 worked examples, fewer than the 3 of shots.count"):
        draw_shots(shots(3, "first"), documents(1, start=5), documents(2))
    with pytest.raises(InputError, match=r"there are 0 worked examples of 'b', fewer than the 1"):
        draw_shots(shots(1, "first_by", by="x"), documents(1), documents(1, start=1), ["b"], ["a"])
    with pytest.raises(InputError, match=r"there are 4 worked examples, fewer than the 5 that are drawn"):
        draw_shots(shots(4, "lm_eval", extra=1), documents(1), documents(4))
