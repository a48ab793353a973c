"""Parity with lm-evaluation-harness: the same log-likelihoods, choices and texts on the same model in fp32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: no model can be run")
pytest.importorskip("transformers", reason="transformers is not installed: no model can be run")
pytest.importorskip("lm_eval", reason="lm_eval is not installed: nothing to compare with")

import tiny
import torch

from factorlab.eval.hf.model import HFModel
from factorlab.eval.instance import Decoding
from factorlab.eval.language_model import ChoiceRequest, TextRequest

CONTEXT = 512


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tests share two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["no token at the beginning", "a token at the beginning"])
def folder(request, tmp_path_factory):
    out = tiny.save(tmp_path_factory.mktemp("model"), max_position_embeddings=CONTEXT)
    if request.param == "a token at the beginning":
        from tokenizers import processors

        tokenizer = tiny.bpe_tokenizer(bos_token="<eos>")
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<eos> $A", special_tokens=[("<eos>", 0)]
        )
        tokenizer.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def ours(folder):
    return HFModel(str(folder), dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def theirs(folder):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)


def asked(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, a, 0, metadata=("x", i, 1)) for i, a in enumerate(arguments)]


def text(rng: np.random.Generator, language: str, count: int) -> str:
    if language == "en":
        return " ".join(rng.choice(tiny.ENGLISH.split(), count))
    return "".join(rng.choice(list(tiny.JAPANESE), count))


def questions() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Contexts (one, or one for each choice) and four choices."""
    rng = np.random.default_rng(0)
    vocabulary = sorted(tiny.bpe_tokenizer().get_vocab())
    letters = tuple(" " + token[1:] for token in vocabulary if token.startswith("Ġ") and len(token) == 2)[:4]
    out: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for language in ("en", "ja"):
        question, answer = {"en": ("Question", "Answer"), "ja": ("質問", "回答")}[language]
        shots = "".join(
            f"{question}: {text(rng, language, 12)}\n{answer}: {text(rng, language, 3)}\n\n" for _ in range(3)
        )
        for k in range(32):
            before = shots if k % 8 else ""
            context = f"{before}{question}: {text(rng, language, int(rng.integers(4, 14)))}\n{answer}:"
            kind = k % 4
            if kind == 0:  # texts after a space
                out.append(
                    ((context,), tuple(f" {text(rng, language, int(rng.integers(1, 6)))}" for _ in range(4)))
                )
            elif kind == 1:  # a context that ends in spaces
                ends = context + [" ", "  ", "\n", "\u3000"][k // 4 % 4]
                out.append(((ends,), tuple(text(rng, language, int(rng.integers(1, 6))) for _ in range(4))))
            elif kind == 2:  # one token
                out.append(((context,), letters))
            else:  # partial evaluation
                ends = text(rng, language, 4)
                contexts = tuple(f"{context} {text(rng, language, n)}" for n in (1, 2, 3, 4))
                out.append((contexts, (" " + ends,) * 4))
    long = text(rng, "en", 400)  # longer than the model's context
    out += [((long + "\nAnswer:",), tuple(" " + text(rng, "en", n) for n in (1, 3, 5, 7))) for _ in range(3)]
    out.append((("",), ("money", "never mind", "猫である", "A")))
    return out


def test_log_likelihoods_and_choices_are_those_of_lm_eval(ours, theirs):
    items = questions()
    assert len(items) >= 60
    lengths = [len(ours.encode(c[0])) for c, _ in items]
    assert max(lengths) > CONTEXT
    assert any(all(len(ours.encode(choice, bos=False)) == 1 for choice in choices) for _, choices in items)
    pairs = [(c[k % len(c)], choice) for c, choices in items for k, choice in enumerate(choices)]
    peer = theirs.loglikelihood(asked("loglikelihood", pairs), disable_tqdm=True)
    wanted = np.array([value for value, _ in peer]).reshape(-1, 4)
    found = np.zeros_like(wanted)

    def take(answers: Any) -> None:
        for i, answer in answers:
            found[i] = answer.log_likelihoods

    ours.score([ChoiceRequest(c, choices) for c, choices in items], take)
    assert ours.way(100).packed
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    assert np.array_equal(found.argmax(1), wanted.argmax(1))
    assert np.median(np.ptp(wanted, axis=1)) > 1, "choices that are all alike would prove nothing"


@pytest.mark.parametrize(
    "stops", [(), ("e",), ("\n", "は", " p", "ing")], ids=["to the end", "a letter", "several"]
)
def test_greedy_texts_are_those_of_lm_eval(stops, ours, theirs):
    rng = np.random.default_rng(1)
    shots = text(rng, "en", 50) + "\n\n" + text(rng, "ja", 20) + "\n\n"
    prompts = [shots + text(rng, "en", int(rng.integers(1, 12))) for _ in range(12)]
    prompts += [text(rng, "ja", int(rng.integers(3, 30))) for _ in range(6)]
    prompts += [text(rng, "en", 400)]  # cut on the left
    settings = {"until": list(stops), "max_gen_toks": 32, "do_sample": False}
    peer = theirs.generate_until(asked("generate_until", [(p, settings) for p in prompts]), disable_tqdm=True)
    found: dict[int, str] = {}
    ours.write(
        [TextRequest(p, Decoding(32, stops=stops)) for p in prompts],
        lambda answers: found.update({i: text for i, _, text in answers}),
    )
    assert [found[i] for i in range(len(prompts))] == peer
    assert len(set(peer)) > len(prompts) // 2
