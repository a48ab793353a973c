"""What the race with lm-eval counts and judges, without running it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the evaluation needs torch")
pytest.importorskip("transformers", reason="the evaluation needs transformers")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("eval_speed", "eval_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import eval_speed

    return eval_speed


def rows(job: str, ours: list[float], theirs: dict[str, list[float]], floor: float) -> list[dict]:
    out = [{"job": job, "runner": "factorlab", "batch": "auto", "cpu_seconds": t} for t in ours]
    out += [
        {"job": job, "runner": "lm-eval", "batch": b, "cpu_seconds": t}
        for b, ts in theirs.items()
        for t in ts
    ]
    return [*out, {"job": job, "runner": "floor", "seconds": floor}]


def test_the_peer_is_judged_at_its_best_batch_size_and_we_at_the_median(speed):
    goals = speed.judge(rows("multiple choice", [9.0, 10.0, 30.0], {"1": [130.0, 120.0], "8": [200.0]}, 8.0))
    by_name = {goal["name"]: goal for goal in goals}
    assert by_name["multiple choice: lm-eval / factorlab, CPU seconds"]["value"] == pytest.approx(12.5)
    assert by_name["multiple choice: lm-eval / factorlab, CPU seconds"]["holds"]
    assert by_name["multiple choice: factorlab / floor"]["value"] == pytest.approx(1.25)


def test_one_wrong_answer_or_a_log_likelihood_that_is_off_does_not_hold(speed):
    theirs = [[-1.0, -2.0], [-3.0, -2.5]]
    close = {"factorlab": [[-1.0, -2.0], [-2.4, -2.5]], "lm-eval": theirs}
    goals = speed.judge([{"job": "multiple choice", "runner": "agreement", **speed.agreement(close)}])
    assert [goal["holds"] for goal in goals] == [False, False]
    texts = {"factorlab": ["a", "b"], "lm-eval": ["a", "c"]}
    assert speed.agreement(texts) == {"same": 1, "of": 2}


def test_the_floor_counts_each_token_once(speed, monkeypatch, tmp_path):
    """Linear parts of a model that sees every token once, and nothing else: counted by hand."""
    import eval_models

    monkeypatch.setattr(eval_models, "WORDS", 300)
    model = eval_models.build(tmp_path / "model")
    job = {"questions": 3, "shots": 2, "kind": "choices", "letters": True}
    found = speed.floor_seconds(model, job, None)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [tokenizer(q["context"])["input_ids"] for q in speed.material(job)]
    shared = next(i for i in range(len(texts[0])) if len({text[i] for text in texts}) > 1)
    # A letter is one token, which is predicted and never fed.
    assert found["tokens"] == shared + sum(len(text) - shared for text in texts)
    linear = speed.LAYERS * (4 * speed.HIDDEN**2 + 3 * speed.HIDDEN * speed.INNER)
    assert 1.0 < found["gflops"] * 1e9 / (2 * found["tokens"] * linear) < 1.5
