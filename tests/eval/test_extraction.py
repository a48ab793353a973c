"""From texts to answers: the vectors that were found in the harnesses, and lists of steps as task files give them."""

from __future__ import annotations

import pytest

from factorlab.errors import InputError
from factorlab.eval.extraction import extract, number, number_ja, squad_normalise, steps_function
from factorlab.eval.task import load_task, shipped_tasks


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("答えは11です。", "11"),
        ("11.5", "[invalid]"),
        ("２８", "[invalid]"),
        ("18、", "18"),
        ("18 ,", "[invalid]"),
        ("1,234.", "1234"),
        ("5.0", "5"),
        ("1.2.3", "[invalid]"),
        ("-3", "-3"),
        ("5 - 3 = 2。答えは2", "2"),
        ("", "[invalid]"),
        ("...", "[invalid]"),
        ("9" * 400, "[invalid]"),
    ],
)
def test_mgsm_as_the_study_read_it(text, answer):
    assert number_ja(text) == answer
    assert steps_function(load_task("mgsm").metric.extract)(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("答えは11です。", "11"),
        ("11.5", "11.5"),
        ("２８", "28"),
        ("18 ,", "18"),
        ("1,234.", "1234"),
        ("5.0", "5"),
        ("答えは18.00ドルです", "18"),
        ("", "[invalid]"),
    ],
)
def test_mgsm_mended(text, answer):
    assert steps_function(load_task("mgsm", "fixed").metric.extract)(text) == answer


def right(task: str, protocol: str, text: str, gold: str) -> bool:
    metric = load_task(task, protocol).metric
    return steps_function(metric.extract)(text) == steps_function(metric.gold)(gold)


@pytest.mark.parametrize(
    ("text", "gold", "paper", "fixed"),
    [
        ("9 + 9 = 18\n#### 18", "9 + 9 = <<9+9=18>>18\n#### 18", True, True),
        ("#### 1,234.", "#### 1234", True, True),
        ("#### 1234", "#### 1,234", True, True),
        ("#### $18", "#### 18", False, True),
        ("####18", "#### 18", False, True),
        ("#### 18.00", "#### 18", False, True),
        ("The answer is 18.", "#### 18", False, False),
        ("#### 18\n#### 19", "#### 18", True, True),
        ("#### -5", "#### -5", True, True),
        ("#### １８", "#### 18", False, True),
    ],
)
def test_gsm8k(text, gold, paper, fixed):
    assert right("gsm8k", "paper", text, gold) == paper
    assert right("gsm8k", "fixed", text, gold) == fixed


@pytest.mark.parametrize(
    ("text", "paper", "gold", "fixed"),
    [
        ("So the answer is (B).", "(B)", "(B)", True),
        ("So the answer is (B)", "(B", "(B)", True),
        ("The answer is 7.", "[invalid]", "7", True),
        ("the answer is 7. So the answer is 8.", "7. So the answer is 8", "7", True),
        ("the answer is yes .", "yes", "yes", True),
        ("the answer is Yes.", "Yes", "yes", True),
        ("nothing", "[invalid]", "(B)", False),
        ("so the answer is (B).\nQ: next", "(B)", "(B)", True),
    ],
)
def test_bbh(text, paper, gold, fixed):
    assert steps_function(load_task("bbh").metric.extract)(text) == paper
    assert right("bbh", "fixed", text, gold) == fixed


@pytest.mark.parametrize(
    ("text", "gold", "paper", "fixed"),
    [
        (" Paris", "paris", True, True),
        ("  Paris", "Paris", False, True),
        (" St Louis", "St. Louis", True, True),
        (" The Beatles", "Beatles", False, True),
        (" 「東京」", "東京", False, False),
    ],
)
def test_triviaqa(text, gold, paper, fixed):
    assert right("triviaqa", "paper", text, gold) == paper
    assert right("triviaqa", "fixed", text, gold) == fixed


def test_squad_normalises_as_the_official_script():
    assert squad_normalise(" The  Theatre, an Act!") == "theatre act"
    assert squad_normalise("A.B.C.") == "abc"
    assert squad_normalise("the the") == ""
    assert right("squad2", "paper", "", "")
    assert not right("squad2", "paper", "unanswerable", "")
    assert right("squad2", "fixed", " Unanswerable.", "")


@pytest.mark.parametrize("task", ["jcommonsenseqa", "jmmlu"])
def test_whitespace_in_front_costs_the_answer_in_the_study_only(task):
    assert right(task, "paper", "Ａ", "A")
    assert not right(task, "paper", "\nA", "A")
    assert right(task, "fixed", "\n A", "A")


@pytest.mark.parametrize(
    ("text", "one_form"),
    [
        ("18", "18"),
        ("18.00", "18"),
        ("1,234", "1234"),
        ("$18", "18"),
        ("-$18.50", "-18.5"),
        ("$-3", "-3"),
        ("18.", "18"),
        (" 7 ", "7"),
        (".5", "0.5"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("１８", "18"),
        ("--3", "--3"),
        ("seven", "seven"),
        ("", ""),
    ],
)
def test_numbers_in_one_form(text, one_form):
    assert number(text) == one_form
    assert number(number(text)) == number(text)


def test_steps_do_what_they_say():
    assert extract(" x ", [{"step": "strip_one"}]) == "x "
    assert extract("a\n\nb\n\nc", [{"step": "cut", "at": "\n\n"}]) == "a"
    assert extract("あいう", [{"step": "head", "characters": 2}]) == "あい"
    assert extract("「あ」", [{"step": "strip_chars", "chars": "「」"}]) == "あ"
    assert extract("a1b22", [{"step": "regex", "pattern": r"\d+", "which": "last"}]) == "22"
    assert extract("a1b22", [{"step": "regex", "pattern": r"[a-z](\d+)"}]) == "1"
    assert extract("", [{"step": "regex", "pattern": "x"}]) == "[invalid]"
    assert extract("", [{"step": "regex", "pattern": "x", "fallback": ""}]) == ""
    assert extract("Ｎ，ｏ!", [{"step": "nfkc"}, {"step": "remove_punctuation"}, {"step": "lower"}]) == "no"
    assert extract("no", [{"step": "map", "from": "no", "to": ""}]) == ""
    assert extract("as it is", []) == "as it is"


def test_every_step_of_every_task_is_known():
    for name in shipped_tasks():
        for protocol in load_task(name).protocols:
            metric = load_task(name, protocol).metric
            steps_function(metric.extract)
            steps_function(metric.gold)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"step": "trim"}, r"metric.extract\[0\]: no step 'trim'; there are strip, strip_one"),
        ({}, "no step 'None'"),
        ({"step": "cut"}, "the step 'cut' lacks 'at'"),
        ({"step": "cut", "at": ""}, "'at' of the step 'cut' is empty"),
        ({"step": "cut", "at": 3}, "'at' of the step 'cut' is 3; it must be of type str"),
        ({"step": "strip", "chars": "x"}, "the step 'strip' has no 'chars'; it takes nothing"),
        ({"step": "regex", "pattern": "("}, r"'\(' is no regular expression"),
        ({"step": "regex", "pattern": "x", "which": "all"}, "which is 'all'; it must be first or last"),
        ({"step": "head", "characters": True}, "must be of type int"),
    ],
)
def test_a_wrong_step_is_one_line(step, message):
    with pytest.raises(InputError, match=message):
        steps_function([step])
