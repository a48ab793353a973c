"""Data of benchmarks: every format, what is missing or broken in one line, and where it came from."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from types import SimpleNamespace

import pytest

from factorlab.errors import InputError
from factorlab.eval.documents import choose_place, read_documents
from factorlab.eval.formats import read_rows
from factorlab.eval.task import Label, Place, Source


def put(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode("utf-8") if isinstance(text, str) else text
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def rows(folder, name, text, format, **more):
    out = read_rows([put(folder, name, text)], format, **more)
    for row in out:
        row.pop("file")
    return out


def test_json_lines_and_lists(tmp_path):
    assert rows(tmp_path, "a.jsonl", '{"x": "\u2028"}\n\n{"x": 2}\n', "jsonl") == [{"x": "\u2028"}, {"x": 2}]
    assert rows(tmp_path, "a.jsonl.gz", '{"x": 1}', "jsonl") == [{"x": 1}]
    assert rows(tmp_path, "a.json", '[{"x": 1}]', "json") == [{"x": 1}]
    assert rows(tmp_path, "b.json", '{"s": [{"x": 1}], "t": 2}', "json", at="s") == [{"x": 1}]


def test_question_sets(tmp_path):
    question = {"question": "q", "id": "1", "answers": [{"text": "a", "answer_start": 0}, {"text": "b"}]}
    nothing = {"question": "r", "id": "2", "answers": [], "is_impossible": True}
    data = {"data": [{"title": "T", "paragraphs": [{"context": "c", "qas": [question, nothing]}]}]}
    told = rows(tmp_path, "s.json", json.dumps(data), "squad")
    assert [row["answers"] for row in told] == [["a", "b"], []]
    assert told[1] == {
        "title": "T",
        "context": "c",
        "question": "r",
        "id": "2",
        "answers": [],
        "is_impossible": True,
    }
    xml = (
        "<?xml version='1.0' encoding=\"UTF-8\"?>\n<questions><question id='7'><text>何？</text><answers>"
        "<answer>甲</answer><answer></answer><answer>乙</answer></answers></question></questions>"
    )
    assert rows(tmp_path, "n.xml", xml, "niilc") == [{"id": "7", "question": "何？", "answers": ["甲", "乙"]}]


def test_tables(tmp_path):
    told = rows(tmp_path, "a.csv", '\ufeff"q ""x""\nnext",1\n', "csv", columns=("question", "answer"))
    assert told == [{"question": 'q "x"\nnext', "answer": "1"}]
    assert rows(tmp_path, "b.csv", "q,a\n1,2\n", "csv") == [{"q": "1", "a": "2"}]
    told = rows(tmp_path, "c.tsv", 'say "no"\t2,125\n', "tsv", columns=("question", "answer"))
    assert told == [{"question": 'say "no"', "answer": "2,125"}]
    with pytest.raises(InputError, match=r"d.csv', row 2 has 1 columns, not 2 .q, a."):
        rows(tmp_path, "d.csv", "1,2\n3\n", "csv", columns=("q", "a"))


def test_parallel_texts(tmp_path):
    one, two = put(tmp_path, "s.txt", "a \u2028b\nc \n"), put(tmp_path, "r.txt", "x\ny")
    told = read_rows([one, two], "lines", ("src", "ref"))
    assert told == [{"file": "s", "src": "a \u2028b", "ref": "x"}, {"file": "s", "src": "c", "ref": "y"}]
    with pytest.raises(InputError, match=r"different numbers of lines: '.*s.txt' 2, '.*r.txt' 1"):
        read_rows([one, put(tmp_path, "r.txt", "x\n")], "lines", ("src", "ref"))


def test_folders_of_examples(tmp_path):
    canary = "DATA SHOULD NEVER ... canary GUID 1\n-----\n"
    text = canary + "Do it.\n\nTwice.\n\nQ: 1?\nA: Let's.\nSo 1.\n\nQ: 2?\nA: 2."
    told = rows(tmp_path, "add.txt", text, "exemplars")
    assert [row["text"] for row in told] == ["Q: 1?\nA: Let's.\nSo 1.", "Q: 2?\nA: 2."]
    assert {row["description"] for row in told} == {"Do it.\n\nTwice."}
    assert {row["task"] for row in told} == {"add"}
    examples = {"canary": "x", "examples": [{"input": "1", "target": "2"}]}
    told = rows(tmp_path, "add.json", json.dumps(examples), "examples")
    assert told == [{"task": "add", "input": "1", "target": "2"}]
    assert rows(tmp_path, "b.txt", "one\nline\n\n\ntwo\n", "blocks") == [
        {"text": "one\nline"},
        {"text": "two"},
    ]


@pytest.mark.parametrize(
    ("name", "text", "format", "message"),
    [
        ("a.jsonl", '{"x": 1}\n{"x"', "jsonl", "a.jsonl', line 2 is no JSON"),
        ("a.jsonl", "[1]", "jsonl", "line 1 is no JSON object"),
        ("a.json", "{}", "json", "holds no list of JSON objects"),
        ("a.json", "[]x", "json", "a.json' is no JSON"),
        ("a.json", "{}", "squad", "is not of format 'squad': KeyError: 'data'"),
        ("a.xml", "<a>", "niilc", "is not of format 'niilc'"),
        ("a.txt", "nothing", "exemplars", "holds no worked example"),
        ("a.jsonl", b"\xff\xfe", "jsonl", "is not UTF-8"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, text, format, message):
    with pytest.raises(InputError, match=message):
        rows(tmp_path, name, text, format)


def test_a_broken_archive_is_named(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"cannot be read"):
        read_rows([tmp_path / "a.jsonl.gz"], "jsonl")


def test_fields_positions_and_origin(tmp_path):
    path = put(tmp_path, "x/a.jsonl", '{"q": "one", "n": 1}\n{"q": "-", "n": 2}\n{"q": "three", "n": 3}\n')
    place = Place(
        files=("x/a.jsonl",),
        format="jsonl",
        fields={"question": "q|upper", "pair": "[n, index]", "from": "file"},
        keep="question != '-'",
    )
    told = read_documents(place, "items of X", tmp_path)
    assert told.rows == (
        {"question": "ONE", "pair": [1, 0], "from": "a"},
        {"question": "THREE", "pair": [3, 2], "from": "a"},
    )
    assert told.positions == (0, 2)
    assert told.origin == {"files": {"x/a.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()}}


def test_a_file_may_be_packed_or_not(tmp_path):
    put(tmp_path, "a.jsonl.gz", '{"q": 1}')
    put(tmp_path, "b.jsonl", '{"q": 2}')
    for name, number in (("a.jsonl", 1), ("b.jsonl.gz", 2)):
        place = choose_place(Source(None, (Place(files=(name,), format="jsonl"),)), "items", tmp_path)
        assert read_documents(place, "items", tmp_path).rows[0]["q"] == number


def test_a_label_from_other_files(tmp_path):
    put(tmp_path, "a.jsonl", '{"q": "one"}\n')
    put(tmp_path, "csv/math.csv", "one,A\ntwo,B\n")
    put(tmp_path, "csv/art.csv", "three,A\n")
    label = Label("subject", ("csv/*.csv",), "csv", ("q", "a"), key="q", match=r"q", value="file")
    place = Place(files=("a.jsonl",), format="jsonl", fields={"q": "q", "subject": "subject"}, label=label)
    told = read_documents(place, "items", tmp_path)
    assert told.rows == ({"q": "one", "subject": "math"},)
    assert sorted(told.origin["files"]) == ["a.jsonl", "csv/art.csv", "csv/math.csv"]
    put(tmp_path, "a.jsonl", '{"q": "four"}\n')
    with pytest.raises(InputError, match=r"item 1: no 'subject' for 'four' in 'csv/\*.csv'"):
        read_documents(place, "items", tmp_path)


def test_what_is_missing_is_named(tmp_path):
    place = Place(files=("x/a.jsonl",), format="jsonl", fields={"question": "question"})
    other = Place(files=("x/b.jsonl",), format="jsonl")
    with pytest.raises(
        InputError, match=r"has no file 'x/a.jsonl' or 'x/b.jsonl', which items of X are read from"
    ):
        choose_place(Source(None, (place, other)), "items of X", tmp_path)
    with pytest.raises(InputError, match=r"no such data folder: '.*nothing' .--data-dir"):
        choose_place(Source(None, (place,)), "items of X", tmp_path / "nothing")
    with pytest.raises(InputError, match=r"items of X are not on the hub; give --data-dir.* x/a.jsonl"):
        choose_place(Source(None, (place,)), "items of X", None)
    put(tmp_path, "x/b.jsonl", "")
    assert choose_place(Source(None, (place, other)), "items of X", tmp_path) is other
    with pytest.raises(InputError, match=r"'x/b.jsonl' holds no items .items of X"):
        read_documents(other, "items of X", tmp_path)
    put(tmp_path, "x/a.jsonl", '{"question": "a"}\n{"quest": "b"}\n')
    with pytest.raises(
        InputError, match=r"'x/a.jsonl', item 2, field 'question'.*undefined; the fields are quest"
    ):
        read_documents(place, "items of X", tmp_path)


HUB = Place(hub="a/b", configs=("c", "d"), revision="v1", split="test", fields={"q": "q", "part": "config"})


def test_the_hub(monkeypatch):
    asked = []

    def load_dataset(name, config, split, revision):
        asked.append((name, config, split, revision))
        return [{"q": f"{config}{i}"} for i in range(2)]

    class HfApi:
        def dataset_info(self, name, revision, timeout):
            return SimpleNamespace(sha=f"sha of {revision}")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=HfApi))
    told = read_documents(choose_place(Source(HUB, ()), "items", None), "items")
    assert told.rows[2] == {"q": "d0", "part": "d"}
    assert asked == [("a/b", "c", "test", "sha of v1"), ("a/b", "d", "test", "sha of v1")]
    assert told.origin == {
        "hub": "a/b",
        "config": ["c", "d"],
        "split": "test",
        "revision": "v1",
        "resolved": "sha of v1",
    }


def test_the_hub_out_of_reach(monkeypatch, tmp_path):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'a/b' on the Hub\nmore")

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(
        InputError, match=r"'a/b' .items. cannot be loaded from the hub: Couldn't.*--data-dir"
    ) as e:
        read_documents(HUB, "items")
    assert "\n" not in str(e.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs the package 'datasets', which is not installed.*--data-dir"):
        read_documents(HUB, "items")
    with pytest.raises(InputError, match=r"items can be read from the hub only; leave --data-dir out"):
        choose_place(Source(HUB, ()), "items", tmp_path)
