"""Each finding is told exactly when it should be."""

from __future__ import annotations

import math

import pytest

from factorlab.eval.findings import PromptFit, prompt_findings, score_findings, text_findings


def test_prompts_that_fit_are_not_told():
    assert prompt_findings(PromptFit(10, {}, (), (1, 1))) == []
    assert prompt_findings(PromptFit(10, {}, (), ())) == []  # the model has no such token


@pytest.mark.parametrize(
    ("fit", "told"),
    [
        (PromptFit(10, {"a": 1, "b": 3}), "2 of 10 prompts lost worked examples (up to 3)"),
        (PromptFit(10, {}, ("a",)), "1 of 10 prompts were truncated on the left"),
        (PromptFit(10, {}, (), (1, 2)), "prompts begin with 2 begin-of-text tokens; one is usual"),
        (
            PromptFit(10, {}, (), (0, 0)),
            "prompts have no begin-of-text token, as the model's tokenizer does not",
        ),
        (PromptFit(10, {}, (), (0,), asked_bos=False), "no begin-of-text token, as this protocol asks"),
        (PromptFit(10, {}, (), (2,), asked_bos=False), "prompts begin with 2 begin-of-text tokens"),
    ],
)
def test_each_finding_of_prompts(fit, told):
    found = prompt_findings(fit)
    assert len(found) == 1
    assert told in found[0]


def test_several_at_once():
    assert len(prompt_findings(PromptFit(10, {"a": 1}, ("a",), (2,)))) == 3


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("", "are empty"),
        (" \n\t\u3000", "are empty"),
        ("\nx", "begin with a newline"),
        ("\r\nx", "begin with a newline"),
    ],
)
def test_texts_are_told_from_one_in_twenty_on(bad, told):
    assert text_findings([bad] + ["good"] * 20) == []
    found = text_findings([bad] + ["good"] * 19)
    assert len(found) == 1
    assert found[0].startswith("1 of 20 answers")
    assert told in found[0]


def test_good_texts_are_not_told():
    assert text_findings([]) == []
    assert text_findings([" x", "x\n", "\tx"]) == []


def test_a_text_can_be_both():
    assert len(text_findings(["\n"])) == 2


def test_scores():
    assert score_findings(0.0, 0.01, 0.25, 100) == [
        "the score is exactly 0 on 100 instances; look at the answers before you believe it"
    ]
    assert len(score_findings(0.0, 0.01, 0.0, 100)) == 1
    assert score_findings(0.01, 0.01, 0.0, 100) == []
    error = math.sqrt(0.25 * 0.75 / 400)
    for sign in (1, -1):
        told = score_findings(0.25 + sign * 1.99 * error, 0.0, 0.25, 400)
        assert len(told) == 1
        assert "is at chance (0.25) within 2 standard errors" in told[0]
        assert score_findings(0.25 + sign * 2.01 * error, 0.0, 0.25, 400) == []
    assert len(score_findings(0.35, 0.06, 0.25, 400)) == 1  # the error of clustered answers is larger
    assert score_findings(math.nan, math.nan, 0.25, 10) == []
    assert score_findings(0.0, 0.0, 0.25, 0) == []
