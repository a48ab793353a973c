"""Scores of answers: the study's vectors, the field's libraries, and programs that are run."""

from __future__ import annotations

import builtins
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorlab.errors import InputError
from factorlab.eval.answer_scores import (
    METRICS,
    Scored,
    character_f1,
    program,
    score_answer,
    score_instances,
)
from factorlab.eval.instance import ChoiceAnswer, Instance, TextAnswer
from factorlab.eval.sandbox import Run, Sandbox
from factorlab.eval.task import Metric, load_task
from factorlab.eval.words import mecab_words, nagisa_words, normalise
from factorlab.metrics import bleu, check_range, find_metric
from factorlab.text_metrics import char_f1

SHARED = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared with the benchmarks is not there")


def asked(gold: object, choices: tuple[str, ...] = (), query: str = "Q") -> Instance:
    return Instance("i", "", (), (query,), gold, str(gold), choices)


def one(metric: Metric, gold: object, text: str, **more) -> float | None:
    (scored,) = score_answer(metric, asked(gold), TextAnswer((text,)), **more)
    return scored.score


def chosen(values: tuple[float, ...], choices: tuple[str, ...], gold: int = 0) -> dict[str, Scored]:
    answer = ChoiceAnswer(values, (1,) * len(values))
    return {s.metric: s for s in score_answer(Metric("acc"), asked(gold, choices), answer)}


# Choices.


def test_the_largest_sum_is_the_choice():
    scored = chosen((-3.0, -2.0), (" yes", " no"), gold=1)
    assert list(scored) == ["acc", "acc_norm", "acc_bytes"]
    assert scored["acc"] == Scored("acc", 0, 1.0, None, "no", "1")


def test_the_sentence_is_the_answer_where_it_differs():
    instance = Instance("i", "", (), ("The cup", "The box"), 0, "cup", (" was full.", " was full."))
    scored = score_answer(Metric("acc"), instance, ChoiceAnswer((-2.0, -1.0), (3, 3)))
    assert [(s.score, s.prediction) for s in scored] == [(0.0, "The box was full.")] * 3


def test_normalised_by_characters_and_bytes_without_the_space_in_front():
    # Per character -2, -1.85 and -2.9; with the space counted -1.5, -1.48 and -1.45, so that the third would win.
    scored = chosen((-6.0, -7.4, -2.9), (" yes", " nope", " x"))
    assert [scored[name].prediction for name in ("acc", "acc_norm")] == ["x", "nope"]
    scored = chosen((-6.0, -5.0), (" ああ", " abcd"), gold=0)
    assert scored["acc_norm"].prediction == "abcd"  # -3 against -1.25 per character
    assert scored["acc_bytes"].prediction == "ああ"  # -1 against -1.25 per byte
    assert scored["acc_bytes"].score == 1.0


def test_the_first_wins_ties():
    assert chosen((-1.0, -1.0), ("a", "b"))["acc"].score == 1.0
    assert chosen((-1.0, -1.0), ("a", "b"), gold=1)["acc"].score == 0.0
    assert chosen((-math.inf, -math.inf), ("a", "b"))["acc"].score == 1.0


def test_a_choice_without_a_character_has_a_score():
    assert chosen((-1.0, -2.0), (" ", " b"))["acc_norm"].score == 1.0


@pytest.mark.parametrize(
    ("instance", "answer", "message"),
    [
        (asked(2, ("a", "b")), ChoiceAnswer((0.0, 0.0), (1, 1)), "is 2; the metric 'acc' takes the index"),
        (
            asked("a", ("a", "b")),
            ChoiceAnswer((0.0, 0.0), (1, 1)),
            "is 'a'; the metric 'acc' takes the index",
        ),
        (asked(0, ("a", "b")), ChoiceAnswer((0.0,), (1,)), "has 1 log-likelihoods"),
        (asked(0), TextAnswer(("a",)), "takes log-likelihoods of choices; instance i has 1 texts"),
        (asked(0, ("a", "b")), ChoiceAnswer((0.0, math.nan), (1, 1)), r"no number \(NaN\)"),
    ],
)
def test_wrong_choices_are_one_line(instance, answer, message):
    with pytest.raises(InputError, match=message):
        score_answer(Metric("acc"), instance, answer)


# Texts.


@pytest.mark.parametrize(
    ("text", "gold", "score"),
    [
        ("カリフォルニア州クパチーノ", "クパチーノ", 0.56),
        ("YES", "yes", 1.0),
        ("", "", 1.0),
        ("", "東京", 0.0),
        ("東京、大阪", "大阪,東京", 1.0),
        ("\n0", "0", 1.0),
        ("。", "!", 1.0),
    ],
)
def test_char_f1_of_the_study(text, gold, score):
    assert char_f1(text, gold) == score
    assert one(Metric("char_f1"), gold, text) == score


def test_char_f1_of_the_study_with_its_steps():
    for name in ("jemhopqa", "niilc", "jsquad"):
        metric = load_task(name).metric
        assert one(metric, "クパチーノ", "カリフォルニア州クパチーノ\n\n### 指示") == 0.56
        assert one(metric, "東京", "\n\n東京") == 0.0
        assert one(load_task(name, "fixed").metric, ["東京", "江戸"], "\n\n東京") == 1.0


@pytest.mark.parametrize(
    ("text", "gold", "score"),
    [
        ("東京都", "京都", 0.8),
        ("都京", "京都", 1.0),
        ("ああ", "あ", 2 / 3),
        ("東 京", "東京", 1.0),
        ("", "", 1.0),
        ("", "x", 0.0),
        ("abc", "xyz", 0.0),
    ],
)
def test_character_f1_counts_characters(text, gold, score):
    assert character_f1(text, gold) == pytest.approx(score)
    assert one(Metric("character_f1"), [gold, "qqqqqqqq"], text) == pytest.approx(score)


@given(st.text(), st.text())
def test_character_f1_is_symmetric_and_in_range(a, b):
    assert character_f1(a, b) == character_f1(b, a)
    assert 0 <= character_f1(a, b) <= 1
    assert character_f1(a, a) == 1


def test_any_gold_counts():
    metric = Metric("exact_match", extract=({"step": "strip"}, {"step": "lower"}), gold=({"step": "lower"},))
    assert one(metric, ["Tokyo", "Edo"], " EDO ") == 1.0
    assert one(metric, ["Tokyo", "Edo"], "Kyoto") == 0.0
    assert one(metric, "Tokyo", "tokyo") == 1.0


def test_each_sample_is_a_trial_and_keeps_its_own_text():
    metric = Metric("exact_match", extract=({"step": "strip"},))
    scored = score_answer(metric, asked("a"), TextAnswer((" a", "b")))
    assert scored == [
        Scored("exact_match", 0, 1.0, None, " a", "a"),
        Scored("exact_match", 1, 0.0, None, "b", "a"),
    ]


@pytest.mark.parametrize(
    ("gold", "answer", "message"),
    [
        (3, TextAnswer(("a",)), "gold of instance i is 3; the metric 'exact_match' takes a text"),
        ([], TextAnswer(("a",)), r"gold of instance i is \[\]"),
        ("a", TextAnswer(()), "takes texts; instance i has 0 texts"),
        ("a", ChoiceAnswer((0.0,), (1,)), "takes texts; instance i has 1 log-likelihoods"),
    ],
)
def test_wrong_texts_are_one_line(gold, answer, message):
    with pytest.raises(InputError, match=message):
        score_answer(Metric("exact_match"), asked(gold), answer)


def test_unknown_metrics_words_and_lengths():
    with pytest.raises(InputError, match="no metric 'em'; there are acc, acc_norm"):
        score_answer(Metric("em"), asked("a"), TextAnswer(("a",)))
    with pytest.raises(InputError, match="words of rouge2 are '13a'; they must be one of model, mecab, char"):
        one(Metric("rouge2", words="13a"), "a", "a")
    with pytest.raises(InputError, match="words of bleu are 'model'"):
        one(Metric("bleu", words="model"), "a", "a")
    with pytest.raises(InputError, match="needs its tokenizer"):
        one(Metric("rouge2", words="model"), "a", "a")
    with pytest.raises(ValueError, match="1 instances and 0 answers"):
        score_instances(Metric("acc"), [asked(0)], [])


def test_every_metric_has_a_range():
    for name in METRICS:
        assert find_metric(name) is not None
    assert check_range("character_f1", np.array([0.0, 1.0])) is None
    assert check_range("character_f1", np.array([1.1])) is not None


# ROUGE and BLEU.

PAIR = ("日本の首相は東京で会見を開いた。", "首相は東京で記者会見を開き、説明した。")


class Cut:
    def __init__(self, function):
        self.tokenize = function


@pytest.mark.parametrize(
    ("words", "encode", "cut"),
    [
        ("model", lambda text: list(text.encode()), lambda text: [str(b) for b in text.encode()]),
        ("mecab", None, mecab_words),
        ("char", None, list),
    ],
)
def test_rouge_is_rouge_score_over_the_words(words, encode, cut):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge2"], tokenizer=Cut(cut))
    if words == "mecab":
        pytest.importorskip("fugashi")
    expected = scorer.score(*PAIR)["rouge2"].fmeasure
    assert one(Metric("rouge2", words=words), PAIR[0], PAIR[1], encode=encode) == pytest.approx(expected)
    assert 0.1 < expected < 0.9


def test_rouge_by_hand():
    pytest.importorskip("rouge_score")
    # Bigrams ab, bc, cd and ab, bx, xc, cd: 2 in common, F = 2 * 2 / (3 + 4).
    assert one(Metric("rouge2", words="char"), "abcd", "abxcd") == pytest.approx(4 / 7)
    assert one(Metric("rouge2", words="char"), "abcd", "") == 0.0


def test_words_of_mecab_do_not_depend_on_width():
    pytest.importorskip("fugashi")
    assert mecab_words("ＡＢＣをｶﾞで😀") == mecab_words("ABCをガで")
    assert mecab_words("東京都に住む。") == ["東京", "都", "に", "住む", "。"]
    assert normalise("すごーーーい　です\n〜") == "すごーい です"
    assert mecab_words("") == []


SEGMENTS = [
    ("The cat sat on the mat.", "The cat is on the mat, sitting."),
    ("A dog, of 1,000 kinds!", "A dog of 1,000 kinds."),
    ("", "Nothing was written here"),
    ("x", "One word against many"),
    ("Exactly the same sentence here.", "Exactly the same sentence here."),
]
JAPANESE = [
    ("今日は天気がとても良いです。", "今日は天気が良いので散歩した。"),
    (" 首相は東京で会見を開いた。", "首相は東京で記者会見を開いた。 "),
    ("", "何もない"),
]


@pytest.mark.parametrize(
    ("words", "segments", "before", "tokenizer"),
    [
        ("13a", SEGMENTS, lambda text: text, "13a"),
        ("nagisa+13a", JAPANESE, lambda text: " ".join(nagisa_words(text)), "13a"),
        ("mecab", JAPANESE, lambda text: " ".join(mecab_words(text)), "none"),
        ("char", JAPANESE, lambda text: text, "char"),
    ],
)
def test_sums_of_counts_are_sacrebleu(words, segments, before, tokenizer):
    sacrebleu = pytest.importorskip("sacrebleu")
    for package in {"nagisa+13a": ["nagisa"], "mecab": ["fugashi", "unidic_lite"]}.get(words, []):
        pytest.importorskip(package)
    instances = [asked(gold) for _, gold in segments]
    answers = [TextAnswer((text,)) for text, _ in segments]
    scored = score_instances(Metric("bleu", words=words), instances, answers)
    assert all(s.score is None and s.stats is not None and len(s.stats) == 10 for (s,) in scored)
    sums = np.sum([s.stats for (s,) in scored], axis=0)
    texts, golds = ([before(segment[i]) for segment in segments] for i in (0, 1))
    expected = sacrebleu.corpus_bleu(texts, [golds], tokenize=tokenizer)
    assert list(sums) == [expected.sys_len, expected.ref_len, *expected.counts, *expected.totals]
    assert float(bleu(sums)) == pytest.approx(expected.score, abs=1e-9)


@pytest.mark.parametrize("name", ["wmt20_en_ja", "wmt20_ja_en"])
def test_tasks_of_translation_have_counts(name):
    pytest.importorskip("sacrebleu")
    pytest.importorskip("nagisa")
    for protocol in ("paper", "fixed"):
        metric = load_task(name, protocol).metric
        (scored,) = score_answer(metric, asked("今日は良い天気だ。"), TextAnswer((" 今日は良い天気だ。",)))
        assert scored.stats is not None
        assert float(bleu(np.array(scored.stats))) == pytest.approx(100.0 if "en_ja" in name else 0.0)


@pytest.mark.parametrize(
    ("metric", "package", "message"),
    [
        (
            Metric("bleu", words="13a"),
            "sacrebleu",
            "the metric 'bleu' needs sacrebleu: pip install 'factorlab",
        ),
        (Metric("rouge2", words="char"), "rouge_score", "needs rouge-score: pip install"),
    ],
)
def test_a_missing_package_is_named_with_its_cure(monkeypatch, metric, package, message):
    load = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=message):
        one(metric, "a", "a")


# Programs.


class Recorded(Sandbox):
    """Says what it was given, and passes what has no "wrong"."""

    def run_many(self, programs, **options):
        self.given.append((list(programs), options))  # type: ignore[attr-defined]
        return [Run("failed" if "wrong" in text else "passed", "", 0.0) for text in programs]


def test_programs_are_prompt_answer_tests_and_call():
    problem = asked({"test": "def check(f): pass", "entry_point": "f"}, query="def f():\n")
    assert program(problem, "    return 1") == "def f():\n    return 1\ndef check(f): pass\ncheck(f)"
    box = Recorded("none")
    object.__setattr__(box, "given", given := [])
    answers = [TextAnswer(("    return 1", "wrong")), TextAnswer(("wrong", "wrong"))]
    metric = Metric("pass@1", timeout=2.0)
    scored = score_instances(metric, [problem, problem], answers, sandbox=box)
    assert [[(s.trial, s.score) for s in rows] for rows in scored] == [
        [(0, 1.0), (1, 0.0)],
        [(0, 0.0), (1, 0.0)],
    ]
    assert scored[0][1].prediction == "wrong"
    assert given[0][1]["timeout"] == 2.0
    assert len(given[0][0]) == 4
    with pytest.raises(InputError, match="'pass@1' takes a mapping with the texts test and entry_point"):
        score_instances(metric, [asked("x")], [TextAnswer(("y",))], sandbox=box)


@real
@pytest.mark.shared
@pytest.mark.parametrize(("name", "file"), [("humaneval", "HumanEval"), ("jhumaneval", "jhuman-eval")])
def test_reference_solutions_have_pass_at_1_and_others_have_not(name, file):
    try:
        box = Sandbox.find()
    except InputError as error:
        pytest.skip(str(error))  # the machine has no sandbox that holds; programs are not run without one
    with gzip.open(SHARED / name / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        problems = [json.loads(line) for line in lines][58:68]
    instances = [asked({k: p[k] for k in ("test", "entry_point")}, query=p["prompt"]) for p in problems]
    answers = [TextAnswer((p["canonical_solution"], "    pass", "    exit()")) for p in problems]
    told: list[tuple[str, int, int]] = []
    scored = score_instances(
        load_task(name).metric, instances, answers, sandbox=box, progress=lambda *t: told.append(t)
    )
    passed = np.array([[s.score for s in rows] for rows in scored])
    assert passed[:, 1:].max() == 0
    assert passed[:, 0].sum() == (10 if name == "humaneval" else 9)
    assert told[-1][1:] == (30, 30)
