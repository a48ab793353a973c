"""The packed way gives the model's own numbers, and a model that it does not suit is found out."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: no model can be run")
pytest.importorskip("transformers", reason="transformers is not installed: no model can be run")

import tiny
import torch
from tiny import PACKED, VOCABULARY, logits_of
from transformers import AttentionInterface

from factorlab.errors import InputError
from factorlab.eval.hf.attention import NAME, packed_attention
from factorlab.eval.hf.budget import Budget
from factorlab.eval.hf.check import find_way
from factorlab.eval.hf.head import Head
from factorlab.eval.hf.model import HFModel
from factorlab.eval.hf.plain import score_plain
from factorlab.eval.hf.scoring import score_items
from factorlab.eval.language_model import ChoiceRequest
from factorlab.eval.rows import Continuation, group_by_prefix, shareable

LONGEST = 170
TINY, LARGE = 16, 2**20


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tests share two cores."""
    AttentionInterface.register(NAME, packed_attention)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def questions(seed: int = 0) -> list[list[Continuation]]:
    """Questions of all kinds: on worked examples and alone; one token, equal, nested and partial choices."""
    rng = np.random.default_rng(seed)

    def some(low: int, high: int | None = None) -> np.ndarray:
        return rng.integers(0, VOCABULARY, low if high is None else rng.integers(low, high))

    shots, out = some(110), []
    for _ in range(4):  # text of several tokens
        before = np.concatenate([shots, some(3, 20)])
        out.append([Continuation(np.concatenate([before, some(1, 9)]), len(before)) for _ in range(4)])
    for _ in range(3):  # letters
        before = np.concatenate([shots, some(3, 20)])
        out.append([Continuation(np.append(before, t), len(before)) for t in some(4)])
    for _ in range(3):  # without worked examples
        before = some(1, 25)
        out.append([Continuation(np.concatenate([before, some(1, 12)]), len(before)) for _ in range(3)])
    ending, one, other = some(6), np.append(shots, some(4)), np.append(shots, some(7))
    out.append([Continuation(np.append(before, ending), len(before)) for before in (one, other)])  # partial
    out.append(
        [Continuation(np.append(other, ending[:n]), len(other)) for n in (6, 2, 6, 3)]
    )  # nested, equal
    out.append([Continuation(some(40), 1)])  # a whole text, alone
    return out


def one_at_a_time(model: Any, items: list[list[Continuation]]) -> list[list[float]]:
    """The log-likelihood of each choice from a pass of its own, as the model is."""

    def value(choice: Continuation) -> float:
        log_p = logits_of(model, choice.tokens[:-1]).log_softmax(-1)[choice.begin - 1 :]
        return float(log_p.gather(1, torch.from_numpy(choice.tokens[choice.begin :])[:, None]).double().sum())

    return [[value(choice) for choice in item] for item in items]


def flat(values: list[list[float]]) -> np.ndarray:
    return np.concatenate([np.asarray(v) for v in values])


def collected(batches: Any, count: int) -> np.ndarray:
    found: dict[int, np.ndarray] = {}
    for batch in batches:
        for i, values in batch:
            assert i not in found, "an item was handed on twice"
            found[i] = values
    assert sorted(found) == list(range(count))
    return np.concatenate([found[i] for i in range(count)])


@dataclass
class Ready:
    """A model that was found out to be packed, and what it gives one text at a time."""

    model: Any
    head: Head
    expected: np.ndarray


ITEMS = questions()


@pytest.fixture(scope="module")
def ready():
    kept: dict[str, Ready] = {}

    def of(kind: str) -> Ready:
        if kind not in kept:
            model = tiny.tiny(kind)
            expected = flat(one_at_a_time(model, ITEMS))
            head = Head(model)
            way = find_way(model, head, VOCABULARY, LONGEST)
            assert (way.packed, way.fused, way.why) == (True, True, "")
            kept[kind] = Ready(model, head, expected)
        return kept[kind]

    return of


def test_the_questions_need_a_prefix_and_go_without_one():
    groups = group_by_prefix([shareable(item) for item in ITEMS])
    assert sorted(len(group.prefix) for group in groups) == [0, 110]
    assert max(len(choice.tokens) for item in ITEMS for choice in item) <= LONGEST


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "by hand"])
@pytest.mark.parametrize("kind", PACKED)
def test_packed_rows_give_what_one_text_at_a_time_gives(kind, fused, ready):
    it = ready(kind)
    assert np.ptp(it.expected) > 10, "numbers that are all alike would prove nothing"
    for budget in (TINY, 200, LARGE):
        found = collected(score_items(it.model, it.head, ITEMS, Budget(budget), fused=fused), len(ITEMS))
        np.testing.assert_allclose(found, it.expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama, grouped queries", "gpt2"])
def test_items_without_anything_in_common_go_without_a_prefix(kind, ready):
    it = ready(kind)
    alone = [[choice] for choice in ITEMS[0]] + [ITEMS[7], ITEMS[8]]
    shuffled = [[Continuation(c.tokens[i:], c.begin - i) for c in item] for i, item in enumerate(alone)]
    expected = flat(one_at_a_time(copy_as_it_was(it.model), shuffled))
    found = collected(score_items(it.model, it.head, shuffled, Budget(LARGE)), len(shuffled))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def copy_as_it_was(model: Any, **kind: Any) -> Any:
    """A copy with the model's own attention."""
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    return other.to(**kind) if kind else other


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "by hand"])
@pytest.mark.parametrize("kind", ["llama, grouped queries", "gpt2"])
def test_in_bf16_packed_rows_are_off_no_more_than_the_model_itself(kind, fused, ready):
    it = ready(kind)
    own = copy_as_it_was(it.model, dtype=torch.bfloat16)
    usual = flat(one_at_a_time(own, ITEMS)) - it.expected
    head = Head(own)
    assert find_way(own, head, VOCABULARY, LONGEST).packed
    packed = collected(score_items(own, head, ITEMS, Budget(200), fused=fused), len(ITEMS)) - it.expected
    size = np.sqrt(np.mean(usual**2))
    assert size > 1e-3, "bf16 rounds"
    assert np.sqrt(np.mean(packed**2)) < 1.5 * size


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("mistral, short window", r"its attention sees 24 tokens, the longest text has \d+"),
        ("gemma2", "its attention has 'softcap'"),
        ("bloom", "its attention cannot be exchanged"),
        ("mpt", "its attention cannot be exchanged"),
        ("mamba", r"packed texts differ by .* in log-likelihood"),
    ],
)
def test_what_cannot_be_packed_is_found_out_and_right_the_plain_way(kind, why):
    model = tiny.tiny(kind)
    expected = flat(one_at_a_time(model, ITEMS))
    head = Head(model)
    way = find_way(model, head, VOCABULARY, LONGEST)
    assert not way.packed
    assert re.fullmatch(why, way.why)
    for budget in (TINY, 1000):
        found = collected(score_plain(model, head, ITEMS, Budget(budget)), len(ITEMS))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama, grouped queries", "gpt2"])
def test_the_plain_way_gives_the_same_of_models_that_can_be_packed(kind, ready):
    it = ready(kind)
    own = copy_as_it_was(it.model)
    found = collected(score_plain(own, Head(own), ITEMS, Budget(600)), len(ITEMS))
    np.testing.assert_allclose(found, it.expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("short", [1, 2, 3])
def test_a_window_that_is_short_by_a_few_tokens_is_found_out_before_the_run(short):
    for longest in (20, 40, 48, 49, 90):
        # Tokens that are fed are one less than those of the longest text.
        model = tiny.tiny("mistral, short window", sliding_window=longest - short)
        way = find_way(model, Head(model), VOCABULARY, longest)
        assert way.packed == (short == 1), (longest, way)


def test_positions_that_depend_on_the_longest_text_of_a_pass_are_found_out():
    # Short texts have other frequencies than long ones: beside a long one they would be given its own.
    half = 64 // 4 // 2
    scaling = {
        "rope_type": "longrope",
        "short_factor": [1.0] * half,
        "long_factor": [4.0] * half,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 64,
    }
    for longest, packed in ((60, True), (150, False)):
        model = tiny.tiny(
            "phi3", rope_parameters=dict(scaling), original_max_position_embeddings=64, pad_token_id=0
        )
        assert find_way(model, Head(model), VOCABULARY, longest).packed == packed


def test_a_context_of_few_tokens_can_be_tried():
    model = tiny.tiny("gpt2", n_positions=20)
    assert find_way(model, Head(model), VOCABULARY, 21).packed


# Through texts: requests, contexts that are too long, memory that runs out.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def loaded(folder):
    return HFModel(str(folder), dtype="fp32", device="cpu")


def ask(model: HFModel, requests: list[ChoiceRequest]) -> list[tuple[float, ...]]:
    found: dict[int, tuple[float, ...]] = {}

    def take(answers):
        for i, answer in answers:
            assert i not in found
            assert len(answer.tokens) == len(answer.log_likelihoods)
            found[i] = answer.log_likelihoods

    model.score(requests, take)
    return [found[i] for i in range(len(requests))]


def requests_of(count: int = 12) -> list[ChoiceRequest]:
    rng = np.random.default_rng(5)
    words = tiny.ENGLISH.split()

    def text(n: int) -> str:
        return " ".join(rng.choice(words, n))

    shots = text(60) + "\n\n"
    return [
        ChoiceRequest((shots + text(int(rng.integers(3, 15))) + ":",), tuple(" " + text(3) for _ in range(4)))
        for _ in range(count)
    ]


def test_a_text_longer_than_the_context_is_cut_on_the_left(loaded):
    rng = np.random.default_rng(0)
    context = " ".join(rng.choice(tiny.ENGLISH.split(), 600))
    choices = (" never mind", " watery part of the world", "。名前")
    (found,) = ask(loaded, [ChoiceRequest((context,), choices)])
    encode = loaded._tokens.tokenizer.encode
    begin = len(encode(context))
    assert begin > loaded.facts.context
    for choice, value in zip(choices, found, strict=True):
        whole = np.array(encode(context + choice))
        count = len(whole) - begin
        fed = whole[
            -(loaded.facts.context + 1) :
        ]  # lm-eval: (context + continuation)[-(max_length + 1):][:-1]
        loaded.model.set_attn_implementation("eager")
        log_p = logits_of(loaded.model, fed[:-1]).log_softmax(-1)[-count:]
        expected = float(log_p.gather(1, torch.from_numpy(fed[-count:])[:, None]).double().sum())
        assert value == pytest.approx(expected, abs=1e-4)


def test_a_choice_longer_than_the_context_is_read_as_far_as_it_goes(loaded):
    choice = " ".join(tiny.ENGLISH.split() * 12)
    found: list[Any] = []
    loaded.score([ChoiceRequest(("Once",), (choice,))], lambda answers: found.extend(answers))
    ((_, answer),) = found
    assert answer.tokens == (loaded.facts.context,)
    assert np.isfinite(answer.log_likelihoods[0])


def forgetful(monkeypatch, model: Any, most: int) -> list[int]:
    """Memory for `most` tokens of a pass; the sizes of those that fitted."""
    forward, sizes = model.forward, []

    def limited(*args, **kwargs):
        count = kwargs["input_ids"].numel()
        if count > most:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {count} tokens")
        sizes.append(count)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", limited)
    return sizes


@pytest.mark.parametrize("plain", [False, True], ids=["packed", "plain"])
def test_when_memory_runs_out_batches_are_halved_and_nothing_is_lost(plain, folder, monkeypatch):
    model = HFModel(str(folder), dtype="fp32", device="cpu", plain=plain)
    requests = requests_of()
    expected = ask(model, requests)
    most = 800 if plain else 300
    model._budget.tokens = 10**6
    sizes = forgetful(monkeypatch, model.model, most)
    found = ask(model, requests)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert model._budget.halved >= 1
    assert most / 4 < model._budget.tokens < 2 * most, (
        "halved from what did not fit, and no further than needed"
    )
    assert max(sizes) <= most


def test_choices_that_do_not_fit_side_by_side_are_run_one_by_one(folder, monkeypatch):
    model = HFModel(str(folder), dtype="fp32", device="cpu", plain=True)
    requests = requests_of(3)
    expected = ask(model, requests)
    lengths = [len(model.encode(r.contexts[0] + c)) for r in requests for c in r.choices]
    sizes = forgetful(monkeypatch, model.model, max(lengths))
    np.testing.assert_allclose(ask(model, requests), expected, rtol=0, atol=1e-4)
    assert len(sizes) == len(lengths)


@pytest.mark.parametrize("most", [10, 120], ids=["shared beginning", "rest of a question"])
@pytest.mark.parametrize("plain", [False, True], ids=["packed", "plain"])
def test_a_single_text_that_does_not_fit_is_one_clear_line(plain, most, folder, monkeypatch):
    model = HFModel(str(folder), dtype="fp32", device="cpu", plain=plain)
    requests = requests_of()
    if most > 100:  # a question that is itself too long
        requests = [ChoiceRequest((" ".join(tiny.ENGLISH.split() * 3),), requests[0].choices)]
    ask(model, requests[:1])
    forgetful(monkeypatch, model.model, most)
    with pytest.raises(InputError, match="a single text does not fit into the device's memory") as raised:
        ask(model, requests)
    assert "\n" not in str(raised.value)


def test_what_is_scored_does_not_depend_on_the_batch(folder, loaded):
    requests = requests_of(6)
    expected = ask(loaded, requests)
    for batch in ("1", "77", "100000"):
        other = HFModel(str(folder), dtype="fp32", device="cpu", batch=batch)
        np.testing.assert_allclose(ask(other, requests), expected, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="--batch 'many' is no number of tokens"):
        HFModel(str(folder), dtype="fp32", device="cpu", batch="many")


def test_longer_texts_are_tried_again_when_they_come(tmp_path):
    folder = tiny.save(tmp_path / "window", "mistral, short window", sliding_window=60)
    model = HFModel(str(folder), dtype="fp32", device="cpu")
    ask(model, [ChoiceRequest(("Call me",), (" Ishmael", " purse"))])
    assert model.way(10).packed
    requests = requests_of(2)
    found = ask(model, requests)
    assert not model.way(200).packed
    plain = HFModel(str(folder), dtype="fp32", device="cpu", plain=True)
    np.testing.assert_allclose(found, ask(plain, requests), rtol=0, atol=1e-4)
