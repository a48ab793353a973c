"""What a reviewer broke: answers of tokenizers that take off a first space, stops that are tokens, memory, notes."""

from __future__ import annotations

import fcntl
import gc
import weakref
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the evaluation needs torch")
transformers = pytest.importorskip("transformers", reason="the evaluation needs transformers")

from fake_model import FACTS, FakeModel  # noqa: E402
from tokenizers import Tokenizer, decoders, models, normalizers  # noqa: E402
from transformers import (  # noqa: E402
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from factorlab.errors import InputError  # noqa: E402
from factorlab.eval.asking import ask  # noqa: E402
from factorlab.eval.hf.model import HFModel  # noqa: E402
from factorlab.eval.hf.tokens import Tokens  # noqa: E402
from factorlab.eval.instance import Decoding, Instance  # noqa: E402
from factorlab.eval.journal import Journal  # noqa: E402
from factorlab.eval.language_model import ChoiceRequest, TextRequest  # noqa: E402
from factorlab.eval.model_spec import ModelSpec, forget, open_model  # noqa: E402

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def llama_like(extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Characters with "▁" for a space and bytes for the rest, a space put before a text and taken off again."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *map(chr, range(33, 127))]
    tokenizer = Tokenizer(
        models.BPE({w: i for i, w in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.add_special_tokens({"additional_special_tokens": list(extra)})
    return fast


def saved(folder, tokenizer, config):
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    kind = MistralForCausalLM if isinstance(config, MistralConfig) else LlamaForCausalLM
    kind(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("text", ["    return x\n", " 0", "0", "\n0", "　全角", "é ", ""])
@pytest.mark.parametrize("prompt", ["def f(x):\n", "質問：\n", "a"])
def test_an_answer_keeps_its_first_spaces(prompt, text):
    tokens = Tokens(llama_like(), 100)
    before = tokens.encode([prompt], False)[0].tolist()
    whole = tokens.encode([prompt + text], False)[0].tolist()
    assert whole[: len(before)] == before
    assert tokens.decode_after(before, whole[len(before) :]) == text


def test_an_answer_alone_would_lose_a_space():
    """The trap itself: without the prompt the indentation of a program is one short."""
    tokens = Tokens(llama_like(), 100)
    whole = tokens.encode(["a    b"], False)[0].tolist()
    assert tokens.decode(whole[2:]) == "   b"


def test_a_stop_that_is_a_special_token_ends_an_answer(tmp_path):
    tokenizer = llama_like(("<file_sep>",))
    end = tokenizer.convert_tokens_to_ids("<file_sep>")
    path = saved(tmp_path, tokenizer, LlamaConfig(vocab_size=len(tokenizer), **SIZES))
    model = HFModel(path, device="cpu")
    with torch.no_grad():  # whatever it reads, it writes that token
        model.model.lm_head.weight.zero_()
        model.model.lm_head.weight[end] = model.model.model.norm.weight.new_ones(32)
        model.model.model.norm.weight.copy_(torch.ones(32))
        model.model.model.embed_tokens.weight.fill_(0.5)
    found: list[tuple[int, int, str]] = []
    for stops in (("<file_sep>",), ("x",)):
        asked = [TextRequest("a b", Decoding(max_new_tokens=4, stops=stops))]
        model.write(asked, found.extend)
    assert model._tokens.tokens_of(("<file_sep>", "x")) == {end}
    assert [text for _, _, text in found] == ["", ""]  # special tokens are no text either way
    calls = []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    model.write([TextRequest("a b", Decoding(max_new_tokens=4, stops=("<file_sep>",)))], found.extend)
    assert len(calls) == 1
    model.write([TextRequest("a b", Decoding(max_new_tokens=4, stops=("x",)))], found.extend)
    assert len(calls) == 1 + 4


def test_a_tokenizer_with_more_tokens_than_the_model_is_tried_with_those_it_has(tmp_path):
    tokenizer = llama_like(tuple(f"<extra{i}>" for i in range(200)))
    path = saved(tmp_path, tokenizer, LlamaConfig(vocab_size=len(tokenizer) - 200, **SIZES))
    model = HFModel(path, device="cpu")
    assert model.way(60).packed


def test_a_model_that_is_done_with_is_given_back(tmp_path):
    tokenizer = llama_like()
    path = saved(tmp_path, tokenizer, LlamaConfig(vocab_size=len(tokenizer), **SIZES))
    gc.disable()
    try:
        model = HFModel(path, device="cpu")
        model.score([ChoiceRequest(("a",), ("b", "c"))], lambda _: None)
        held = weakref.ref(model.model)
        del model
        forget()
        assert held() is None
    finally:
        gc.enable()


def test_copies_say_that_they_took_the_plain_way(tmp_path):
    tokenizer = llama_like()
    config = MistralConfig(vocab_size=len(tokenizer), num_key_value_heads=2, sliding_window=20, **SIZES)
    path = saved(tmp_path, tokenizer, config)
    model = open_model(ModelSpec("m", path, device="cpu,cpu"))
    try:
        model.score([ChoiceRequest(("a" * 30,), (" b", " c"))] * 4, lambda _: None)
        assert any("plain batches" in note for note in model.facts.notes)
    finally:
        model.close()


def test_only_the_samples_that_are_missing_are_written_and_they_are_the_same(tmp_path):
    tokenizer = llama_like()
    path = saved(tmp_path, tokenizer, LlamaConfig(vocab_size=len(tokenizer), **SIZES))
    model = HFModel(path, device="cpu")
    decoding = Decoding(max_new_tokens=6, temperature=1.0, samples=5)
    all_of_them: list = []
    some: list = []
    model.write([TextRequest("a b", decoding, 7)], all_of_them.extend)
    model.write([TextRequest("a b", decoding, 7, only=(1, 4))], some.extend)
    assert sorted(some) == sorted(answer for answer in all_of_them if answer[1] in (1, 4))
    assert len(some) == 2


def test_a_context_with_no_room_beside_the_answer_is_refused(tmp_path):
    class Short:
        scoring = "text"
        benchmark = "Long"
        decoding = Decoding(max_new_tokens=64)

    instance = Instance("1", "", (), ("q",), "g", "g")
    with pytest.raises(InputError, match="takes 64 tokens, too few for answers of 64 to Long"):
        ask(Short(), [instance], FakeModel(facts=replace(FACTS, context=64)))  # type: ignore[arg-type]


def test_a_file_system_without_locks_is_no_other_run(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refused)
    with Journal(tmp_path / "a.jsonl") as journal:
        journal.add_texts([("k", 0, "t")])
    with Journal(tmp_path / "a.jsonl") as journal:
        assert journal.texts == {("k", 0): "t"}
