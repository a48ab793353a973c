"""The journal keeps every answer, drops what was half-written, and never serves one question's for another."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from fake_model import FACTS

from factorlab.errors import InputError
from factorlab.eval.instance import ChoiceAnswer, Decoding
from factorlab.eval.journal import Journal, journal_path, request_key
from factorlab.eval.language_model import ChoiceRequest, TextRequest


def test_answers_come_back_as_they_were(tmp_path):
    path = tmp_path / "a" / "b.jsonl"
    odd = "half \ud83d a pair\x00\n\u2028'\"漢"
    likely = ChoiceAnswer((-1.25, -1e-300, float("-inf")), (1, 2, 3))
    with Journal(path) as journal:
        journal.add_choices([("c", likely)])
        journal.add_texts([("t", 0, odd), ("t", 1, "")])
        assert (journal.choices, journal.texts) == ({"c": likely}, {("t", 0): odd, ("t", 1): ""})
    path.read_text("ascii")
    with Journal(path) as journal:
        assert (journal.choices, journal.texts) == ({"c": likely}, {("t", 0): odd, ("t", 1): ""})
        assert journal.dropped == 0


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_half_written_line_is_dropped_and_the_file_goes_on(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.add_texts([("one", 0, "1"), ("two", 0, "漢字" * 20)])
    path.write_bytes(path.read_bytes()[:-cut])
    for _ in range(2):
        with Journal(path) as journal:
            assert journal.texts == {("one", 0): "1"}
            assert journal.dropped in (1, 0)
    with Journal(path) as journal:
        journal.add_texts([("three", 0, "3")])
    with Journal(path) as journal:
        assert journal.texts == {("one", 0): "1", ("three", 0): "3"}
        assert journal.dropped == 0


def test_broken_lines_are_left_aside(tmp_path):
    path = tmp_path / "j.jsonl"
    good = json.dumps({"k": "a", "s": 0, "text": "x"})
    broken = ["", "5", "[]", "null", "{}", '{"k": "b"', '{"k": "b", "ll": 5, "n": [1]}', "\x00\x00\x00"]
    broken += [
        '{"k": "b", "ll": [null], "n": [1]}',
        '{"k": ["b"], "s": 0, "text": "x"}',
        '{"k": "b", "s": "x"}',
    ]
    path.write_text("\n".join([*broken, good]) + "\n", "utf-8")
    with Journal(path) as journal:
        assert (journal.texts, journal.choices) == ({("a", 0): "x"}, {})
        assert journal.dropped == len(broken)
        journal.add_texts([("b", 0, "y")])
    with Journal(path) as journal:
        assert journal.texts == {("a", 0): "x", ("b", 0): "y"}


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.add_texts([("a", 0, "x")])
        with (
            pytest.raises(InputError, match=r"is being written by another run; wait for it, or give another"),
            Journal(path),
        ):
            pass
        journal.add_texts([("b", 0, "y")])
    with Journal(path) as journal:
        assert len(journal.texts) == 2


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"cannot write '.*file/j.jsonl': .*; give another --out"),
        Journal(tmp_path / "file" / "j.jsonl"),
    ):
        pass


def test_a_full_disk_keeps_what_was_written(tmp_path, monkeypatch):
    """The device takes half of a line and no more."""
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.add_texts([("a", 0, "x")])
        file = journal._file

        class Full:
            def write(self, content):
                file.write(content[:10])
                raise OSError(28, "No space left on device")

            def close(self):
                file.close()

        journal._file = Full()
        with pytest.raises(OSError, match="No space"):
            journal.add_texts([("b", 0, "y" * 100)])
        assert ("b", 0) not in journal.texts
    with Journal(path) as journal:
        assert (journal.texts, journal.dropped) == ({("a", 0): "x"}, 1)


def test_the_file_is_that_of_model_task_and_protocol():
    """All that shapes an answer is in its path, what does not is not."""

    def path(facts=FACTS, model="org/m", task="t", protocol="paper", digest="0" * 64) -> Path:
        return journal_path(Path("x"), model, facts, task, protocol, digest)

    other = [
        path(),
        *(
            path(replace(FACTS, **change))
            for change in ({"revision": "r2"}, {"dtype": "bfloat16"}, {"engine": "vllm"})
        ),
        path(model="org/n"),
        path(task="u"),
        path(protocol="paper+chat"),
        path(digest="1" * 64),
    ]
    assert len(set(other)) == len(other)
    assert (
        path(replace(FACTS, device="cuda:0", context=5, parameters=7, versions=None, notes=("n",))) == path()
    )
    for name in ("../../etc", "a b/ｃ：d", "..", "/", "日本語"):
        made = path(model=name)
        assert made.parts[0] == "x"
        assert len(made.parts) == 3
        assert ".." not in made.parts


def test_a_request_is_named_by_all_of_it():
    text = TextRequest("p", Decoding())
    texts = [text, replace(text, prompt="q"), replace(text, key=1), replace(text, bos=False)]
    changes = {
        "max_new_tokens": 9,
        "max_length": 9,
        "stops": ("x",),
        "temperature": 0.5,
        "top_p": 0.5,
        "samples": 2,
        "seed": 1,
    }
    assert set(changes) == set(vars(Decoding()))
    texts += [replace(text, decoding=replace(Decoding(), **{name: value})) for name, value in changes.items()]
    choice = ChoiceRequest(("p",), ("a", "b"))
    choices = [
        choice,
        replace(choice, contexts=("q",)),
        replace(choice, contexts=("p", "p")),
        replace(choice, bos=False),
    ]
    choices += [replace(choice, choices=told) for told in (("b", "a"), ("a",), ("ab",), ("a", "b", ""))]
    keys = [request_key(request) for request in [*texts, *choices]]
    assert all(one != other for one, other in combinations(keys, 2))
    assert request_key(TextRequest("p", Decoding(stops=()))) == keys[0]
    request_key(TextRequest("\ud83d", Decoding()))
