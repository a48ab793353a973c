"""Prompts fit the context, what is missing is asked and nothing else, in whatever order answers come."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_model import BOS, FACTS, FakeModel, write_choices, write_task

from factorlab.errors import InputError
from factorlab.eval.asking import ask, collect
from factorlab.eval.findings import prompt_findings
from factorlab.eval.instance import ChoiceAnswer, TextAnswer
from factorlab.eval.journal import Journal, request_key
from factorlab.eval.language_model import TextRequest
from factorlab.eval.prompts import build_instances
from factorlab.eval.task import load_task


@pytest.fixture
def make(tmp_path):
    """A task and its instances."""

    def made(write=write_task, **changes):
        task = load_task(write(tmp_path, **changes))
        return task, build_instances(task, tmp_path / "data").instances

    return made


def small(context: int) -> FakeModel:
    return FakeModel(facts=replace(FACTS, context=context))


def test_all_examples_are_there_where_they_fit(make):
    task, instances = make()
    asked = ask(task, instances, FakeModel())
    assert asked.fit.dropped_shots == {}
    assert asked.fit.truncated == ()
    assert set(asked.fit.begins) == {1}
    assert [r.prompt for r in asked.requests] == list(asked.prompts) == [i.prompts()[0] for i in instances]
    assert all(prompt.count("\n") == 2 for prompt in asked.prompts)


def test_examples_are_dropped_from_the_front_until_the_prompt_fits(make):
    """An example has 8 bytes, a query 4 or 5; 8 tokens are for the answer, one begins the text."""
    task, instances = make(items=12)
    for context, kept in ((8 + 1 + 16 + 5, 2), (8 + 1 + 8 + 5, 1), (8 + 1 + 5, 0)):
        model = small(context)
        asked = ask(task, instances, model)
        assert asked.fit.truncated == ()
        for instance, prompt in zip(instances, asked.prompts, strict=True):
            fitting = [k for k in range(3) if len(model.encode(instance.prompts(k)[0])) + 8 <= context]
            assert prompt == instance.prompts(max(fitting))[0]
            assert prompt == "".join(instance.shots[2 - max(fitting) :]) + instance.queries[0]
            assert asked.fit.dropped_shots.get(instance.instance_id, 0) == 2 - max(fitting)
        assert min(p.count("\n") for p in asked.prompts) == kept
    told = prompt_findings(ask(task, instances, small(8 + 1 + 16 + 4)).fit)
    assert told == ["2 of 12 prompts lost worked examples (up to 1) to fit into the model's context"]


def test_truncation_is_told_where_not_even_the_question_fits(make):
    task, instances = make(items=12)
    asked = ask(task, instances, small(8 + 1 + 4))
    assert set(asked.fit.truncated) == {i.instance_id for i in instances if len(i.queries[0]) == 5}
    assert set(asked.fit.dropped_shots.values()) == {2}
    assert len(ask(task, instances, small(8 + 1)).fit.truncated) == 12
    with pytest.raises(InputError, match="the model takes 4 tokens, too few for answers of 8 to Sums"):
        ask(task, instances, small(4))


def test_the_longest_choice_has_room(make):
    """The last token of a choice is not read by the model."""
    task, instances = make(write_choices, items=3)
    longest = max(len(p) for i in instances for p in i.prompts())
    assert not ask(task, instances, small(longest + 1 + 2)).fit.dropped_shots
    assert ask(task, instances, small(longest + 1 + 1)).fit.dropped_shots


def test_the_chat_template_holds_the_prompt_and_begins_once(make):
    task, instances = make()
    for template, bos in (("<s>[{}]", False), ("<user>{}</user>", True)):
        model = FakeModel(template=template)
        asked = ask(task, instances, model, chat=True)
        assert [r.prompt for r in asked.requests] == [template.format(i.prompts()[0]) for i in instances]
        assert {r.bos for r in asked.requests} == {bos}
        assert set(asked.fit.begins) == {1}
        for request in asked.requests:
            assert model.encode(request.prompt, request.bos)[:2].count(BOS) == 1
    assert not prompt_findings(asked.fit)
    with pytest.raises(InputError, match="has no chat template"):
        ask(task, instances, FakeModel(), chat=True)


def test_a_protocol_without_the_beginning_token_has_none(make):
    prompt = {"query": "{{ q }}=", "target": "{{ a }}", "separator": "\n", "bos": False}
    task, instances = make(prompt=prompt)
    for model, chat in ((FakeModel(), False), (FakeModel(template="[{}]"), True)):
        asked = ask(task, instances, model, chat=chat)
        assert {r.bos for r in asked.requests} == {False}
        assert set(asked.fit.begins) == {0}
    assert ask(task, instances, FakeModel(has_bos=False)).fit.begins == ()


def test_only_what_is_missing_is_asked(make, tmp_path):
    task, instances = make(write_choices)
    model = FakeModel(likes=lambda r: [-float(len(r.contexts[0])), -1.0, -2.0])
    asked = ask(task, instances, model)
    keys = [request_key(r) for r in asked.requests]
    kept = ChoiceAnswer((-9.0, -8.0, -7.0), (1, 2, 3))
    seen = []
    with Journal(tmp_path / "j") as journal:
        journal.add_choices([(keys[3], kept), (keys[7], kept)])
        answers, reused = collect(asked, model, journal, 1, lambda *told: seen.append(told))
        assert reused == 2
        assert answers[3] == answers[7] == kept
        assert {request_key(r) for r in model.asked} == set(keys) - {keys[3], keys[7]}
        assert len(model.asked) == 10
        for i in set(range(12)) - {3, 7}:
            assert answers[i].log_likelihoods[0] == -len(asked.prompts[i])
        assert seen == [(n, 12) for n in range(2, 13, 2)]
        again, reused = collect(asked, model, journal, 1)
        assert (again, reused, len(model.asked)) == (answers, 12, 10)
    assert len((tmp_path / "j").read_bytes().splitlines()) == 12


def test_samples_of_an_instance_that_is_partly_there(make, tmp_path):
    """Its request is asked again; the texts that were there stay."""
    decoding = {"max_new_tokens": 8, "temperature": 1.0, "samples": 3}
    task, instances = make(decoding=decoding, items=4)
    model = FakeModel(text=lambda r, s: f"{r.key % 97}:{s}")
    asked = ask(task, instances, model)
    assert len({r.key for r in asked.requests}) == 4
    keys = [request_key(r) for r in asked.requests]
    seen = []
    with Journal(tmp_path / "j") as journal:
        journal.add_texts([(keys[0], s, f"old {s}") for s in range(3)] + [(keys[1], 1, "old")])
        answers, reused = collect(asked, model, journal, 3, lambda *told: seen.append(told))
    assert reused == 4
    assert answers[0] == TextAnswer(("old 0", "old 1", "old 2"))
    k = asked.requests[1].key % 97
    assert answers[1] == TextAnswer((f"{k}:0", "old", f"{k}:2"))
    assert {request_key(r) for r in model.asked} == set(keys[1:])
    assert seen[0] == (4, 12)
    assert seen[-1] == (12, 12)
    assert len((tmp_path / "j").read_bytes().splitlines()) == 12


@pytest.mark.parametrize("write", [write_task, write_choices])
def test_the_same_question_is_asked_once(make, tmp_path, write):
    """Items that differ in what is right alone have one prompt."""
    task, instances = make(write, items=3)
    instances = (*instances, replace(instances[1], instance_id="other"))
    model = FakeModel(
        text=lambda r, s: r.prompt[-3:], likes=lambda r: [-float(len(r.contexts[0])), -1.0, -2.0]
    )
    asked = ask(task, instances, model)
    with Journal(tmp_path / "j") as journal:
        answers, reused = collect(asked, model, journal, 1)
    assert (len(model.asked), reused, len(answers)) == (3, 0, 4)
    assert answers[1] == answers[3]
    assert answers[0] != answers[1]


def test_a_model_that_dies_loses_nothing_that_it_answered(make, tmp_path):
    task, instances = make()
    model = FakeModel(text=lambda r, s: r.prompt[-4:], dies=6)
    asked = ask(task, instances, model)
    with Journal(tmp_path / "j") as journal, pytest.raises(InputError, match="has died"):
        collect(asked, model, journal, 1)
    first, model.asked, model.dies = list(model.asked), [], None
    with Journal(tmp_path / "j") as journal:
        answers, reused = collect(asked, model, journal, 1)
    assert reused == 6
    assert not {request_key(r) for r in first} & {request_key(r) for r in model.asked}
    assert [a.texts[0] for a in answers] == [p[-4:] for p in asked.prompts]


def test_greedy_requests_have_no_random_numbers(make):
    task, instances = make()
    for request in ask(task, instances, FakeModel()).requests:
        assert isinstance(request, TextRequest)
        assert request.key == 0
