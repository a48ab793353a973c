"""Task files: every shipped one is sound, a mistake is told in one line, names select what they should."""

from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from factorlab.errors import InputError
from factorlab.eval.expressions import evaluate, render
from factorlab.eval.task import load_task, select_tasks, shipped_tasks

ROOT = Path(__file__).resolve().parents[2]

SMALL = {
    "benchmark": "Capitals",
    "language": "en",
    "chance": 0.0,
    "data": {"local": {"files": ["test.jsonl"], "format": "jsonl"}},
    "shots": {"count": 2, "draw": "lm_eval", "local": {"files": ["train.jsonl"], "format": "jsonl"}},
    "prompt": {"query": "Question: {{ question }}\nAnswer:", "delimiter": " ", "target": "{{ answer }}"},
    "gold": "answer",
    "scoring": "text",
    "decoding": {"max_new_tokens": 8, "stops": ["\n"]},
    "metric": {"name": "exact_match", "extract": [{"step": "strip"}]},
}


def written(folder: Path, changes: dict | None = None, drop: str | None = None) -> Path:
    """A task file in a folder: `SMALL` with keys "a.b" changed or one left out."""
    told = yaml.safe_load(yaml.safe_dump(SMALL))
    for key, value in (changes or {}).items():
        *above, last = key.split(".")
        place = told
        for part in above:
            place = place[part]
        place[last] = value
    if drop:
        *above, last = drop.split(".")
        place = told
        for part in above:
            place = place[part]
        del place[last]
    path = folder / "capitals.yaml"
    path.write_text(yaml.safe_dump(told, allow_unicode=True), encoding="utf-8")
    return path


def test_all_19_benchmarks_are_shipped():
    with (ROOT / "data" / "benchmarks.csv").open(encoding="utf-8") as file:
        rows = {row["benchmark"]: row for row in csv.DictReader(file)}
    tasks = [load_task(name) for name in shipped_tasks()]
    assert sorted(task.benchmark for task in tasks) == sorted(rows)
    for task in tasks:
        assert task.chance == float(rows[task.benchmark]["chance"])
        assert task.language == rows[task.benchmark]["language"]
        group = rows[task.benchmark]["shared_items_group"]
        if task.shared:
            assert task.shared[0] == group


@pytest.mark.parametrize("name", shipped_tasks())
def test_shipped_task_is_complete(name):
    paper, fixed = load_task(name), load_task(name, "fixed")
    assert paper.name == fixed.name == name
    assert (paper.protocol, fixed.protocol) == ("paper", "fixed")
    assert not paper.differences
    assert paper.digest != fixed.digest
    assert len(paper.digest) == 64
    assert paper.licence
    assert paper.reference
    assert paper.origin
    for difference in fixed.differences:
        assert difference.why
        assert difference.study != difference.here
    assert load_task(name).digest == paper.digest


@pytest.mark.parametrize("name", shipped_tasks())
def test_every_trap_that_can_be_mended_is(name):
    unmended = {"openbookqa", "hellaswag", "mmlu"}  # sums of log probabilities are the study's definition
    keys = {difference.key for difference in load_task(name, "fixed").differences}
    assert bool(keys - {"prompt.bos"}) == (name not in unmended)


def test_a_description_does_not_change_the_digest(tmp_path):
    before = load_task(written(tmp_path)).digest
    assert load_task(written(tmp_path, {"note": "found later"})).digest == before
    assert load_task(written(tmp_path, {"decoding.max_new_tokens": 9})).digest != before


def test_names_select():
    assert select_tasks("all") == shipped_tasks()
    assert select_tasks("MMLU") == ["mmlu"]
    assert select_tasks("mm*, GSM8K,mmlu") == ["mmlu", "gsm8k"]
    assert select_tasks("wmt20-*") == ["wmt20_en_ja", "wmt20_ja_en"]
    assert select_tasks("xl-sum") == ["xlsum"]
    assert select_tasks("own/x.yaml,bbh") == ["own/x.yaml", "bbh"]
    assert load_task("WMT20-en-ja").name == "wmt20_en_ja"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gsm8", "no task 'gsm8' .did you mean 'gsm8k'"),
        ("zz*", "no task 'zz.'; there are bbh, gsm8k"),
        (" , ", "no task is named"),
    ],
)
def test_unknown_names(text, message):
    with pytest.raises(InputError, match=message):
        select_tasks(text)


def test_unknown_task_protocol_and_file(tmp_path):
    with pytest.raises(InputError, match=r"no task 'hella_swag' .did you mean 'hellaswag'"):
        load_task("hella_swag")
    with pytest.raises(
        InputError, match=r"'mmlu.yaml' has no protocol 'papr' .did you mean 'paper'.*paper, fixed"
    ):
        load_task("mmlu", "papr")
    with pytest.raises(InputError, match=r"no such task file: '.*absent.yaml'"):
        load_task(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match=r"has no protocol 'fixed'.*it has paper"):
        load_task(written(tmp_path), "fixed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shot": {}}, r"capitals.yaml': shot is no known key .did you mean 'shots'"),
        ({"decoding.max_tokens": 3}, r"decoding.max_tokens is no known key .did you mean 'max_new_tokens'"),
        ({"decoding.max_new_tokens": "8"}, r"decoding.max_new_tokens is '8'; it must be a whole number"),
        ({"decoding.max_new_tokens": 0}, r"decoding.max_new_tokens is 0; it must be 1 or more"),
        ({"decoding.stops": [""]}, r"decoding.stops has an empty text"),
        ({"decoding.stops": 3}, r"decoding.stops is 3; it must be a list of texts"),
        ({"decoding.samples": 3}, r"decoding.samples is 3 at temperature 0"),
        ({"scoring": "choice"}, r"scoring is 'choice' .did you mean 'choices'.*choices, text, code"),
        ({"scoring": "choices"}, r"prompt.choices is missing, but scoring is 'choices'"),
        ({"prompt.choices": "[1]"}, r"prompt.choices is there, but scoring is 'text'"),
        ({"prompt.query": "{{ question"}, r"prompt.query is no Jinja template"),
        ({"prompt.queries": ["a", "b"]}, r"prompt.query: there must be either query or queries"),
        ({"gold": "answer ~"}, r"gold is no Jinja expression"),
        ({"metric.name": "exact"}, r"metric.name is 'exact' .did you mean 'exact_match'"),
        ({"metric.name": "acc"}, r"metric.name is 'acc', but scoring is 'text'"),
        ({"metric.name": "bleu"}, r"metric.words goes with rouge2 and bleu"),
        (
            {"metric.extract": [{"step": "stripp"}]},
            r"capitals.yaml': metric.extract\[0\]: no step 'stripp'; there are strip",
        ),
        ({"metric.extract": [{"step": "cut"}]}, r"metric.extract\[0\]: the step 'cut' lacks 'at'"),
        (
            {"metric.extract": [{"step": "regex", "pattern": "("}]},
            r"metric.extract\[0\]: '\(' is no regular expression",
        ),
        (
            {"metric.extract": [{"step": "lower", "at": "x"}]},
            r"metric.extract\[0\]: the step 'lower' has no 'at'",
        ),
        ({"metric.extract": ["strip"]}, r"metric.extract is \['strip'\]; it must be a list of steps"),
        ({"shots.draw": "random"}, r"shots.draw is 'random'; it can be first, first_by"),
        ({"shots.draw": "first_by"}, r"shots.by goes with draw 'first_by'"),
        ({"shots.count": True}, r"shots.count is True; it must be a whole number"),
        ({"data.local.format": "parquet"}, r"data.local\[0\].format is 'parquet'; it can be jsonl"),
        ({"data.local": None}, r"data.local is missing; name local files, a data set of the hub"),
        ({"data.local.held_out": {"first": 2}}, r"data.local\[0\].held_out is no known key"),
        ({"chance": 1.5}, r"chance is 1.5; it must be from 0 to 1"),
        ({"protocols": {"fixed": [{"set": "gold", "to": "x"}]}}, r"protocols.fixed\[0\].why is missing"),
        ({"protocols": {"fixed": [{"set": "gold", "why": "x"}]}}, r"protocols.fixed\[0\].to is missing"),
        (
            {"protocols": {"fixed": [{"set": "gold.x", "to": 1, "why": "x"}]}},
            r"fixed\[0\].set is 'gold.x', which is inside no mapping",
        ),
        (
            {"protocols": {"fixed": [{"set": "scorin", "to": "text", "why": "x"}]}},
            r"scorin is no known key .did you mean 'scoring'",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_mistake_is_one_line(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as told:
        load_task(written(tmp_path, changes))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "key", ["benchmark", "data", "prompt", "gold", "scoring", "metric", "chance", "decoding"]
)
def test_a_missing_key_is_named(tmp_path, key):
    with pytest.raises(InputError, match=f"capitals.yaml': {key} is missing; it must be"):
        load_task(written(tmp_path, drop=key))


def test_broken_yaml(tmp_path):
    path = tmp_path / "x.yaml"
    for text, message in [
        ("a: [", "is no YAML .line 1"),
        ("- 1", "a task file is a mapping"),
        ("gold: a\ngold: b", "key 'gold' is there twice"),
        ("", "is empty; a task file is a mapping"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load_task(path)


def test_changes_of_a_protocol(tmp_path):
    change = [
        {"set": "decoding.stops", "to": None, "why": "none"},
        {"set": "metric.gold", "to": [{"step": "lower"}], "why": "case"},
    ]
    path = written(tmp_path, {"protocols": {"loose": change}})
    loose = load_task(path, "loose")
    assert loose.decoding.stops == ()
    assert loose.metric.gold == ({"step": "lower"},)
    assert [(d.key, d.study, d.here) for d in loose.differences] == [
        ("decoding.stops", ["\n"], None),
        ("metric.gold", None, [{"step": "lower"}]),
    ]
    assert load_task(path).decoding.stops == ("\n",)


def test_templates_do_not_reach_python():
    with pytest.raises(InputError, match=r"cannot be read"):
        render("{{ ''.__class__.__mro__[1].__subclasses__() }}", {}, "x")
    with pytest.raises(InputError, match=r"x: 'a.b' cannot be read.*the fields are a"):
        evaluate("a.b", {"a": {}}, "x")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_field_stands_in_a_prompt_as_it_is(text):
    assert render("[{{ a }}]\n", {"a": text}, "x") == f"[{text}]\n"


def test_the_page_of_benchmarks_is_up_to_date():
    page = runpy.run_path(str(ROOT / "docs" / "make_eval_benchmarks.py"))["page"]()
    assert (ROOT / "docs" / "eval_benchmarks.md").read_text(encoding="utf-8") == page, (
        "run python docs/make_eval_benchmarks.py"
    )


def test_every_key_format_draw_and_step_is_documented():
    from factorlab.eval import answer_scores, extraction, place_reading, task_reading

    page = (ROOT / "docs" / "eval_tasks.md").read_text(encoding="utf-8")
    names = [
        *place_reading.FORMATS,
        *place_reading.DRAWS,
        *extraction.STEPS,
        *answer_scores.METRICS,
        *(words for allowed in task_reading.WORDS.values() for words in allowed),
        *(parameter for step in extraction.STEPS.values() for parameter in (*step.needed, *step.allowed)),
        *SMALL,
        "redraw",
        "extra",
        "smallest_group",
    ]
    assert [name for name in names if f"`{name}`" not in page and f"`{name}:" not in page] == []


def test_the_example_of_the_page_is_a_task(tmp_path):
    page = (ROOT / "docs" / "eval_tasks.md").read_text(encoding="utf-8")
    (tmp_path / "capitals.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert load_task(tmp_path / "capitals.yaml").benchmark == "Capitals"


def read(name, protocol, answer):
    """The text that the first regular expression of a task takes from an answer; None where it takes none."""
    step = next(s for s in load_task(name, protocol).metric.extract if s["step"] == "regex")
    found = list(re.finditer(step["pattern"], answer))
    if not found:
        return None
    match = found[0 if step["which"] == "first" else -1]
    return match.group(1) if match.re.groups else match.group()


@pytest.mark.parametrize(
    ("name", "answer", "paper", "fixed"),
    [
        ("bbh", "So the answer is (B).", "(B)", "(B)"),
        ("bbh", "So the answer is (B)", "(B", "(B)"),
        ("bbh", "So the answer is (B). It is so.", "(B). It is so", "(B)"),
        ("bbh", "So the answer is 7.\n\nQ: x", "7", "7"),
        ("bbh", "The answer is 7.", None, "7"),
        ("bbh", "so the answer is -3.5", "-3.", "-3.5"),
        ("bbh", "the answer is } ] >.", "} ] >", "} ] >"),
        ("bbh", "the answer is apple pear.", "apple pear", "apple pear"),
        ("gsm8k", "x\n#### 1,234.", "1,234.", "1,234"),
        ("gsm8k", "#### $18", None, "18"),
        ("gsm8k", "####18", None, "18"),
        ("gsm8k", "#### -5 and #### 6", "-5", "-5"),
        ("gsm8k", "no number", None, None),
    ],
)
def test_traps_of_regular_expressions(name, answer, paper, fixed):
    assert (read(name, "paper", answer), read(name, "fixed", answer)) == (paper, fixed)


@pytest.mark.parametrize(
    ("answer", "number"),
    [("答えは11です。", "11"), ("18 ,", "18"), ("1,234.", "1,234"), ("5.0", "5.0"), ("-2", "-2")],
)
def test_numbers_of_mgsm_fixed(answer, number):
    assert read("mgsm", "fixed", answer) == number
