"""Copies of a model: the same answers as one, each exactly once, whatever becomes of a copy."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

import pytest
from asked import assert_same_choices, choices, scored, texts, written

from factorlab.errors import InputError
from factorlab.eval.model_spec import ModelSpec, open_here
from factorlab.eval.replicas import LEAST, Replicas, cut

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spec(ladder) -> ModelSpec:
    """A small model; batches are small too, so that there are many of them."""
    return ModelSpec("small", str(ladder.models[0]), device="cpu", batch="256")


@pytest.fixture(scope="module")
def one(spec):
    """The model in this process."""
    return open_here(spec, "cpu")


@pytest.fixture(scope="module")
def two(spec):
    """Two copies of it."""
    model = Replicas(spec, ["cpu", "cpu"])
    yield model
    model.close()


def test_two_copies_answer_as_one(one, two):
    asked, prompts = choices(60), texts(24)
    assert_same_choices(scored(two, asked), scored(one, asked))
    assert written(two, prompts) == written(one, prompts)
    scored(two, [])
    written(two, [])
    facts = two.facts
    assert (facts.revision, facts.dtype, facts.context) == (one.facts.revision, one.facts.dtype, 4096)
    assert facts.device == "2 x cpu"
    assert not facts.notes
    assert two.encode("a かな") == one.encode("a かな")
    assert two.begin_of_text(two.encode("a")) == 1


def test_copies_that_are_killed_on_the_way_cost_no_answer(one, spec):
    """Each dies in the middle of a stretch: what it had answered is not taken twice, the rest is asked again."""
    asked, prompts = choices(80, longer=4), texts(60, tokens=30)
    three = Replicas(spec, ["cpu", "cpu", "cpu"])

    def killing(which: list[int], first: int) -> tuple[list[Any], Any]:
        answers: list[Any] = []
        calls: list[int] = []

        def take(batch):
            calls.append(len(batch))
            if len(calls) == first:
                for i in which:
                    os.kill(three._copies[i].process.pid, signal.SIGKILL)
            answers.extend(batch)

        return answers, take

    answers, take = killing([0], first=3)
    three.score(asked, take)
    assert sorted(i for i, _ in answers) == list(range(80))
    assert_same_choices(dict(answers), scored(one, asked))
    assert len(three._copies) == 2
    [note] = three.facts.notes
    assert "exit code -9: killed, often for want of memory" in note

    answers, take = killing([1], first=1)
    three.write(prompts, take)
    assert len(three._copies) == 1
    assert len(answers) == 60 + 30
    assert {(i, k): text for i, k, text in answers} == written(one, prompts)
    assert written(three, prompts) == written(one, prompts)  # the last one goes on alone

    for _ in range(2):  # and the next task is told, too
        answers, take = killing([0], first=1)
        with pytest.raises(InputError, match=r"every copy of the model has ended; .* exit code -9") as error:
            three.score(asked, take)
        assert "\n" not in str(error.value)
    three.close()


def test_answers_of_a_job_that_was_broken_off_do_not_get_into_the_next(one, two):
    def full(batch):
        raise InputError("answers cannot be written: No space left on device")

    with pytest.raises(InputError, match="No space left"):
        two.score(choices(200, longer=3), full)
    asked, prompts = choices(40), texts(10)
    assert_same_choices(scored(two, asked), scored(one, asked))
    with pytest.raises(InputError, match="No space left"):
        two.write(texts(100), full)
    assert written(two, prompts) == written(one, prompts)


def test_what_fails_in_a_copy_is_told_and_the_copy_goes_on(one, two):
    with pytest.raises(RuntimeError, match=r"the copy of the model on 'cpu' failed: \w+: ") as error:
        two.score([None] * 20, lambda batch: None)
    assert "Traceback" in str(error.value.__cause__)
    asked = choices(30)
    assert_same_choices(scored(two, asked), scored(one, asked))


def test_a_model_that_no_copy_can_load_is_one_line(spec, tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json"):
        Replicas(replace(spec, source=str(tmp_path)), ["cpu"])
    with pytest.raises(InputError, match="--dtype 'fp7' is unknown"):
        Replicas(replace(spec, dtype="fp7"), ["cpu"])


def test_stretches_cover_all_requests_once():
    for count, copies, most in [(0, 2, None), (1, 8, None), (7, 1, 3), (1000, 3, None), (5000, 2, 512)]:
        parts = cut(count, copies, most)
        assert [i for part in parts for i in part] == list(range(count))
        assert all(len(part) <= (most or count) for part in parts)
    assert len(cut(1000, 3)) == 12
    assert {len(part) for part in cut(LEAST * 4, 8)} == {LEAST}
