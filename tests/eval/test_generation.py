"""Generation: the text of a loop that computes everything anew for each token, however rows are batched."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: no model can be run")
pytest.importorskip("transformers", reason="transformers is not installed: no model can be run")

import tiny
import torch
from scipy.stats import chisquare
from tiny import VOCABULARY, logits_of
from transformers import AttentionInterface

from factorlab.errors import InputError
from factorlab.eval.hf import generation
from factorlab.eval.hf.attention import NAME, packed_attention
from factorlab.eval.hf.budget import Budget
from factorlab.eval.hf.check import find_way
from factorlab.eval.hf.generation import Prompt, Writing, choose_tokens, write_answers
from factorlab.eval.hf.head import Head
from factorlab.eval.hf.model import HFModel
from factorlab.eval.hf.plain import write_plain
from factorlab.eval.instance import Decoding
from factorlab.eval.language_model import TextRequest
from factorlab.eval.rows import group_by_prefix
from factorlab.eval.stops import StopFinder

ENDS = frozenset(range(200, 215))
"""Tokens that end a text: enough for some rows to be over early."""

NEW = 24
SLOT = 64
"""Tokens of one slot's room here (`generation.ROOM_STEP`)."""

PACKED = ("llama, grouped queries", "gpt2", "gpt-neox", "qwen3", "mixtral")
PLAIN = ("mistral, short window", "gemma2", "bloom", "mamba")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tests share two cores."""
    AttentionInterface.register(NAME, packed_attention)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def decode(tokens: Any) -> str:
    """Texts of numbers: every token is a word of its own."""
    return "".join(f"<{t}>" for t in tokens)


def prompts(seed: int = 0, new: int = NEW, stops: tuple[str, ...] = (), **decoding: Any) -> list[Prompt]:
    """Prompts of many lengths, most on worked examples, some alone, two of them equal; `samples` of each."""
    rng = np.random.default_rng(seed)
    samples = decoding.pop("samples", 1)
    shots = rng.integers(0, VOCABULARY, 70)
    finder = StopFinder(stops, decode)
    texts = [np.concatenate([shots, rng.integers(0, VOCABULARY, n)]) for n in (1, 3, 30, 12, 12, 7, 25)]
    texts += [rng.integers(0, VOCABULARY, n) for n in (1, 2, 33)]
    texts += [texts[2], shots]

    def numbers(k: int, n: int) -> np.ndarray:
        drawn = decoding.get("temperature", 0) > 0
        return np.random.default_rng([seed, k]).random((samples, n if drawn else 0))

    many = [max(1, new - (k % 3) * 5) for k in range(len(texts))]
    return [
        Prompt(t, n, numbers(k, n), finder, **decoding)
        for k, (t, n) in enumerate(zip(texts, many, strict=True))
    ]


def chosen(logits: torch.Tensor, prompt: Prompt, sample: int, step: int) -> int:
    """The next token by definition: the most probable, or where the number falls among the sorted shares."""
    if not prompt.temperature:
        return int(logits.argmax())
    p = (logits.double() / prompt.temperature).softmax(-1).numpy()
    order = np.argsort(-p, kind="stable")
    kept = order[np.concatenate([[0], np.cumsum(p[order])[:-1]]) < prompt.top_p]
    share = np.cumsum(p[kept]) / p[kept].sum()
    return int(kept[np.searchsorted(share, prompt.uniforms[sample, step])])


def one_by_one(model: Any, asked: list[Prompt]) -> dict[tuple[int, int], list[int]]:
    """Each answer alone, with a whole pass for each token, as the model is."""
    out = {}
    for i, prompt in enumerate(asked):
        for sample in range(len(prompt.uniforms)):
            answer: list[int] = []
            while len(answer) < prompt.max_new:
                logits = logits_of(model, np.concatenate([prompt.tokens, np.array(answer, dtype=np.int64)]))[
                    -1
                ]
                token = chosen(logits, prompt, sample, len(answer))
                if token in ENDS:
                    break
                answer.append(token)
                if any(stop in decode(answer) for stop in prompt.stops.stops):
                    break
            out[i, sample] = answer
    return out


def collected(batches: Any) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for batch in batches:
        for i, sample, tokens in batch:
            assert (i, sample) not in found, "an answer was handed on twice"
            found[i, sample] = list(tokens)
    return found


@pytest.fixture(scope="module")
def ready():
    kept: dict[str, tuple[Any, Any, Head]] = {}

    def of(kind: str) -> tuple[Any, Any, Head]:
        """The model as it is; a copy with the packed attention; its head."""
        if kind not in kept:
            own = tiny.tiny(kind)
            packed = copy.deepcopy(own)
            head = Head(packed)
            assert find_way(packed, head, VOCABULARY, 140).packed
            kept[kind] = own, packed, head
        return kept[kind]

    return of


@pytest.fixture(scope="module")
def greedy(ready):
    kept: dict[str, dict[tuple[int, int], list[int]]] = {}

    def of(kind: str) -> dict[tuple[int, int], list[int]]:
        if kind not in kept:
            kept[kind] = one_by_one(ready(kind)[0], prompts())
        return kept[kind]

    return of


def test_the_prompts_have_early_ends_and_stand_on_a_prefix(greedy):
    lengths = [len(answer) for answer in greedy("llama, grouped queries").values()]
    assert len(set(lengths)) > 3
    assert max(lengths) == NEW
    groups = group_by_prefix([prompt.tokens[:-1] for prompt in prompts()])
    assert sorted(len(group.prefix) > 0 for group in groups) == [False, True]


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "by hand"])
@pytest.mark.parametrize("kind", PACKED)
def test_greedy_text_is_that_of_whole_passes(kind, fused, ready, greedy):
    _, model, head = ready(kind)
    for budget, slots in ((2**20, 2**20), (40, 3 * 128), (1, 1)):
        found = write_answers(model, head, prompts(), ENDS, Budget(budget), Budget(slots), fused=fused)
        assert collected(found) == greedy(kind), (budget, slots)


@pytest.mark.parametrize("kind", PLAIN)
def test_greedy_text_of_the_plain_way_is_that_of_whole_passes(kind):
    model = tiny.tiny(kind)
    expected = one_by_one(model, prompts())
    for slots in (2**20, 200):
        assert collected(write_plain(model, Head(model), prompts(), ENDS, Budget(slots))) == expected


@pytest.mark.parametrize("kind", ["llama, grouped queries", "gpt2"])
def test_greedy_text_is_that_of_transformers_generate(kind, ready):
    own, model, head = ready(kind)
    asked = prompts()
    found = collected(write_answers(model, head, asked, ENDS, Budget(100), Budget(5 * 64)))
    for i, prompt in enumerate(asked):
        text = torch.from_numpy(prompt.tokens)[None]
        whole = own.generate(
            text,
            attention_mask=torch.ones_like(text),
            do_sample=False,
            max_new_tokens=prompt.max_new,
            eos_token_id=sorted(ENDS),
            pad_token_id=0,
        )[0, len(prompt.tokens) :].tolist()
        if whole[-1] in ENDS:
            whole.pop()
        assert found[i, 0] == whole


@pytest.mark.parametrize("way", ["packed", "plain"])
def test_text_is_over_at_its_stop(way, ready, greedy):
    own, model, head = ready("llama, grouped queries")
    # Tokens of the middle of answers without stops: each stops at least its own.
    whole = list(greedy("llama, grouped queries").values())
    stops = tuple(decode(answer[5:7]) for answer in whole if len(answer) > 8)[:4]
    asked = prompts(stops=stops)
    expected = one_by_one(own, asked)
    assert sum(len(a) < len(b) for a, b in zip(expected.values(), whole, strict=True)) >= 4
    if way == "packed":
        found = write_answers(model, head, asked, ENDS, Budget(100), Budget(5 * 64))
    else:
        found = write_plain(own, Head(own), asked, ENDS, Budget(300))
    assert collected(found) == expected


def test_an_answer_may_be_of_one_token_or_none(ready):
    own, model, head = ready("llama, grouped queries")
    asked = prompts(new=1)
    expected = one_by_one(own, asked)
    assert {len(answer) for answer in expected.values()} <= {0, 1}
    assert collected(write_answers(model, head, asked, ENDS, Budget(50), Budget(50))) == expected
    every = frozenset(range(VOCABULARY))
    found = collected(write_answers(model, head, asked, every, Budget(50), Budget(50)))
    assert found == {(i, 0): [] for i in range(len(asked))}


SAMPLED = {"temperature": 0.8, "top_p": 0.9, "samples": 3, "new": 12}


@pytest.mark.parametrize("kind", ["llama, grouped queries", "gpt2"])
def test_sampled_text_does_not_depend_on_what_is_written_beside_it(kind, ready):
    own, model, head = ready(kind)
    asked = prompts(**SAMPLED)
    expected = one_by_one(own, asked)
    assert len({tuple(answer) for answer in expected.values()}) > len(asked)
    for budget, slots in ((2**20, 2**20), (60, 4 * 64), (1, 1)):
        assert collected(write_answers(model, head, asked, ENDS, Budget(budget), Budget(slots))) == expected
    assert collected(write_plain(own, Head(own), asked, ENDS, Budget(400))) == expected
    order = np.random.default_rng(1).permutation(len(asked))
    found = collected(write_answers(model, head, [asked[i] for i in order], ENDS, Budget(99), Budget(320)))
    assert {(int(order[i]), sample): answer for (i, sample), answer in found.items()} == expected
    for i in (0, 4):
        alone = collected(write_answers(model, head, [asked[i]], ENDS, Budget(99), Budget(320)))
        assert all(alone[0, sample] == expected[i, sample] for sample in range(3))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.5, 0.7), (1.0, 0.01)])
def test_sampled_tokens_have_the_frequencies_of_the_softmax(temperature, top_p, ready):
    own, model, head = ready("llama, grouped queries")
    text = np.random.default_rng(4).integers(0, VOCABULARY, 20)
    count = 6000
    uniforms = np.random.default_rng(8).random((count, 1))
    asked = Prompt(text, 1, uniforms, StopFinder((), decode), temperature, top_p)
    found = collected(write_answers(model, head, [asked], frozenset(), Budget(10**6), Budget(10**7)))
    drawn = np.bincount([tokens[0] for tokens in found.values()], minlength=VOCABULARY)
    assert drawn.sum() == count
    p = (logits_of(own, text)[-1].double() / temperature).softmax(-1).numpy()
    order = np.argsort(-p)
    # The nucleus: the fewest of the most probable tokens whose share is at least top_p (Holtzman et al. 2020).
    size = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1 if top_p < 1 else VOCABULARY
    nucleus = order[:size]
    assert drawn[order[size:]].sum() == 0
    expected = count * p[nucleus] / p[nucleus].sum()
    if size == 1:
        assert drawn[nucleus[0]] == count
        return
    # Rare tokens together: a chi-square needs five of each.
    rare = expected < 5
    observed = np.append(drawn[nucleus][~rare], drawn[nucleus][rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    some = wanted > 0
    # A fixed seed: a right sampler fails once in a thousand seeds, and this is not one of them.
    assert chisquare(observed[some], wanted[some]).pvalue > 1e-3


def test_every_number_takes_a_token_and_the_most_probable_is_always_kept():
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]]))
    rows = [Writing(0, 0, 0)]

    def token(number: float, top_p: float) -> int:
        prompt = Prompt(np.array([1]), 1, np.array([[number]]), StopFinder((), decode), 1.0, top_p)
        return choose_tokens(logits, [prompt], rows)[0]

    for number in (0.0, 1e-12, 0.5, 1 - 2**-53):
        for top_p in (0.0, 1e-9, 0.4):
            assert token(number, top_p) == 1
    assert [token(u, 1.0) for u in (0.0, 0.49, 0.51, 0.79, 0.81, 1 - 2**-53)] == [1, 1, 2, 2, 0, 0]
    assert [token(u, 0.6) for u in (0.0, 0.62, 0.63, 1 - 2**-53)] == [1, 1, 2, 2]  # 0.5 of 0.8, then 0.3


def limited(monkeypatch, model: Any, fails: Any) -> list[int]:
    """Memory runs out in the passes that `fails(number of the pass, tokens)` names; those that failed."""
    forward, calls, failed = model.forward, [0], []

    def run(*args, **kwargs):
        calls[0] += 1
        if fails(calls[0], kwargs["input_ids"].numel()):
            failed.append(calls[0])
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", run)
    return failed


@pytest.mark.parametrize("decoding", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("at", [{2}, {6}, {2, 9, 11}, {16}])
def test_memory_that_runs_out_on_the_way_loses_nothing_and_doubles_nothing(at, decoding, ready, monkeypatch):
    _, model, head = ready("llama, grouped queries")
    asked = prompts(**decoding)
    expected = collected(write_answers(model, head, asked, ENDS, Budget(1000), Budget(8 * SLOT)))
    failed = limited(monkeypatch, model, lambda call, tokens: call in at)
    slots = Budget(8 * SLOT)
    assert collected(write_answers(model, head, asked, ENDS, Budget(1000), slots)) == expected
    assert set(failed) == at
    assert slots.halved == len(at)


def test_slots_are_halved_until_rows_fit(ready, monkeypatch):
    _, model, head = ready("llama, grouped queries")
    asked = prompts()
    expected = collected(write_answers(model, head, asked, ENDS, Budget(10**6), Budget(10**6)))
    most = 75  # the shared beginning fits, two prompts with it do not
    limited(monkeypatch, model, lambda call, tokens: tokens > most)
    slots = Budget(10**6)
    assert collected(write_answers(model, head, asked, ENDS, Budget(10**6), slots)) == expected
    assert 1 <= slots.halved <= 4


@pytest.mark.parametrize("way", ["packed", "plain"])
def test_memory_that_is_too_small_for_one_row_is_one_clear_line(way, ready, monkeypatch):
    own, model, head = ready("llama, grouped queries")
    run = model if way == "packed" else own
    limited(monkeypatch, run, lambda call, tokens: tokens > 20)
    found = (
        write_answers(model, head, prompts(), ENDS, Budget(100), Budget(500))
        if way == "packed"
        else write_plain(own, Head(own), prompts(), ENDS, Budget(500))
    )
    with pytest.raises(InputError, match="a single text does not fit into the device's memory"):
        collected(found)


def test_the_plain_way_halves_too(ready, monkeypatch):
    own, _, _ = ready("llama, grouped queries")
    asked = prompts(**SAMPLED)
    expected = collected(write_plain(own, Head(own), asked, ENDS, Budget(10**6)))
    limited(monkeypatch, own, lambda call, tokens: tokens > 110)
    slots = Budget(10**6)
    assert collected(write_plain(own, Head(own), asked, ENDS, slots)) == expected
    assert slots.halved >= 1


def test_a_row_that_is_over_gives_its_slot_to_the_next_and_costs_nothing_more(ready, greedy, monkeypatch):
    _, model, head = ready("llama, grouped queries")
    steps: list[int] = []
    step = generation._Desk._step

    def counted(desk):
        steps.append(len(desk.live))
        return step(desk)

    monkeypatch.setattr(generation._Desk, "_step", counted)
    found = collected(write_answers(model, head, prompts(), ENDS, Budget(1000), Budget(4 * 64)))
    asked = prompts()
    # A token is computed in a step where it is not the first of its answer; so is the one that ends it.
    fed = sum(len(a) - (len(a) == asked[i].max_new) for (i, _), a in found.items())
    assert sum(steps) == fed


# Through texts.


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return HFModel(str(tiny.save(tmp_path_factory.mktemp("model"))), dtype="fp32", device="cpu")


def ask(model: HFModel, requests: list[TextRequest]) -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}

    def take(answers):
        for i, sample, text in answers:
            assert (i, sample) not in found
            found[i, sample] = text

    model.write(requests, take)
    return found


def test_texts_end_before_their_stop(loaded):
    asked = [" ".join(tiny.ENGLISH.split()[k:]) for k in range(5)]
    free = ask(loaded, [TextRequest(text, Decoding(40)) for text in asked])
    assert [len(loaded.encode(text)) > 10 for text in free.values()] == [True] * 5
    for stop in ("e", "a", "\ufffd", free[0, 0][7:9]):
        found = ask(loaded, [TextRequest(text, Decoding(40, stops=(stop,))) for text in asked])
        assert {k: text.split(stop)[0] for k, text in free.items()} == found


def test_prompts_are_cut_on_the_left_to_leave_room_for_the_answer(loaded):
    context = loaded.facts.context
    words = np.random.default_rng(0).choice(tiny.ENGLISH.split(), 500)
    tokens = np.array(loaded.encode(" ".join(words)))
    assert len(tokens) > context
    prompt = loaded._prompt(TextRequest(" ".join(words), Decoding(100)), {})
    assert np.array_equal(prompt.tokens, tokens[-(context - 100) :])  # as lm-eval: max_length - max_gen_toks
    assert prompt.max_new == 100


def test_most_tokens_of_prompt_and_answer_together(loaded):
    text = " ".join(tiny.ENGLISH.split()[:20])
    length = len(loaded.encode(text))
    for decoding, new in (
        (Decoding(None, max_length=length + 30), 30),
        (Decoding(10, max_length=length + 30), 10),
        (Decoding(50, max_length=length + 30), 30),
        (Decoding(50, max_length=3), 1),
    ):
        prompt = loaded._prompt(TextRequest(text, decoding), {})
        assert prompt.max_new == new
        assert len(prompt.tokens) == length, "nothing is cut where it fits"


def test_without_a_limit_an_answer_has_the_room_that_the_prompt_leaves(loaded):
    text = " ".join(tiny.ENGLISH.split()[:20])
    length = len(loaded.encode(text))
    prompt = loaded._prompt(TextRequest(text, Decoding(None)), {})
    assert (len(prompt.tokens), prompt.max_new) == (length, loaded.facts.context - length)


def test_samples_are_those_of_the_seed_and_the_key(loaded):
    text = " ".join(tiny.ENGLISH.split()[:20])
    drawn = {"max_new_tokens": 10, "temperature": 1.0, "samples": 4}

    def texts(key: int, seed: int) -> list[str]:
        found = ask(loaded, [TextRequest(text, Decoding(**drawn, seed=seed), key)])
        return [found[0, k] for k in range(4)]

    assert texts(1, 0) == texts(1, 0)
    assert len({*texts(1, 0), *texts(2, 0), *texts(1, 1)}) == 12
    both = ask(loaded, [TextRequest(text, Decoding(**drawn), key) for key in (2, 1)])
    assert [both[1, k] for k in range(4)] == texts(1, 0)


def test_an_empty_prompt_is_continued(loaded):
    assert set(ask(loaded, [TextRequest("", Decoding(5))])) == {(0, 0)}
