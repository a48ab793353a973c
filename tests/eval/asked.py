"""Requests that the tests of copies and of clusters ask, and how their answers are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from factorlab.eval.instance import Decoding
from factorlab.eval.language_model import ChoiceRequest, LanguageModel, TextRequest

HEAD = "home ba=fu\nhome be=ju\n"


def choices(count: int, *, longer: int = 1) -> list[ChoiceRequest]:
    """Choices of different lengths, some after contexts of their own, some in kana."""
    out = []
    for i in range(count):
        context = HEAD * longer + f"いえ {i}=" if i % 3 else HEAD * longer + f"home {i}="
        contexts = (context,) if i % 5 else (context, context + " ", "x")
        out.append(ChoiceRequest(contexts, ("fu", "かな", f"ju{i}"), bos=bool(i % 7)))
    return out


def texts(count: int, *, tokens: int = 12, samples: int = 2) -> list[TextRequest]:
    """Greedy and drawn texts; drawn ones have several samples."""
    drawn = Decoding(tokens, stops=("\n",), temperature=1.0, top_p=0.95, samples=samples, seed=3)
    greedy = Decoding(tokens, stops=("=",))
    return [TextRequest(f"{HEAD}town {i}=", drawn if i % 2 else greedy, key=i) for i in range(count)]


def scored(model: LanguageModel, requests: Sequence[ChoiceRequest]) -> dict[int, Any]:
    """Answers by index, each once."""
    answers: list[Any] = []
    model.score(requests, answers.extend)
    assert Counter(i for i, _ in answers) == Counter(range(len(requests)))
    return dict(answers)


def written(model: LanguageModel, requests: Sequence[TextRequest]) -> dict[tuple[int, int], str]:
    """Texts by index and sample, each once."""
    answers: list[Any] = []
    model.write(requests, answers.extend)
    wanted = [(i, k) for i, r in enumerate(requests) for k in range(r.decoding.samples)]
    assert Counter((i, k) for i, k, _ in answers) == Counter(wanted)
    return {(i, k): text for i, k, text in answers}


def assert_same_choices(found: dict[int, Any], known: dict[int, Any]) -> None:
    """Log-likelihoods within 1e-5, the same numbers of tokens."""
    for i, answer in known.items():
        assert found[i].tokens == answer.tokens
        np.testing.assert_allclose(found[i].log_likelihoods, answer.log_likelihoods, rtol=1e-6, atol=2e-5)
