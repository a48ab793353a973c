"""Splicing: tokens of texts that begin alike are those of the whole texts, and cost less."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: no tokenizer to encode with")
pytest.importorskip("transformers", reason="transformers is not installed: no tokenizer to encode with")

from hypothesis import given, settings
from hypothesis import strategies as st
from ladder import byte_tokenizer
from tiny import EMOJI, ENGLISH, JAPANESE, bpe_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from factorlab.eval.hf.splicing import TRIED, Splicer, _common
from factorlab.eval.hf.tokens import Tokens

CORPUS = [ENGLISH, JAPANESE, EMOJI, "Question: 12 + 345 = 357\nAnswer: A"]


def unigram(scheme: str = "first") -> PreTrainedTokenizerFast:
    """As SentencePiece makes it: no words cut but at spaces, which are ▁; NFKC before."""
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    inner.train_from_iterator(
        CORPUS * 20,
        trainers.UnigramTrainer(
            vocab_size=300, special_tokens=["<s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<unk>")


def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """As of Llama 2: the whole text is one word, ▁ before it and for its spaces; bytes of what is unknown."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    trained.train_from_iterator(
        CORPUS * 5,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *letters], show_progress=False
        ),
    )
    model = json.loads(trained.to_str())["model"]
    inner = Tokenizer(
        models.BPE(
            vocab=model["vocab"],
            merges=[tuple(pair) for pair in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def wordpiece() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.train_from_iterator(
        CORPUS * 5, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")


def whitespace() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.train_from_iterator(
        CORPUS, trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")


TOKENIZERS = {
    "byte-level BPE": bpe_tokenizer(600),
    "bytes": byte_tokenizer(),
    "Unigram": unigram(),
    "Unigram, ▁ always": unigram("always"),
    "BPE of SentencePiece": sentencepiece_bpe(),
    "WordPiece": wordpiece(),
    "words": whitespace(),
}


def whole(tokenizer: Any, text: str, special: bool = True) -> list[int]:
    return tokenizer(text, add_special_tokens=special)["input_ids"]


def worked(language: str, rng: np.random.Generator, count: int = 400) -> str:
    """Worked examples of about so many characters."""
    if language == "en":
        parts = [f"Question: {' '.join(rng.choice(ENGLISH.split(), 12))}?\nAnswer: A\n\n" for _ in range(40)]
    elif language == "ja":
        pieces = JAPANESE.split("。")
        parts = [f"質問:{'、'.join(rng.choice(pieces, 3))}\n回答:B\n\n" for _ in range(40)]
    else:
        parts = [
            f"{' '.join(rng.choice([*EMOJI, *EMOJI.split()], 6))}👍🏽 = {rng.integers(10**6)}\n"
            for _ in range(99)
        ]
    out = ""
    for part in parts:
        out += part
        if len(out) > count:
            break
    return out


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("language", ["en", "ja", "signs"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_spliced_tokens_are_those_of_whole_texts(name, language, special):
    tokenizer, rng = TOKENIZERS[name], np.random.default_rng(3)
    shots = worked(language, rng, 700)
    texts = []
    for k in range(70):
        query = worked(language, rng, int(rng.integers(1, 200)))[: int(rng.integers(1, 200))]
        texts += [shots + query, shots + query.rstrip(), shots + query + [" A", "B", "。", "\n", "猫"][k % 5]]
    splicer = Splicer(tokenizer, special)
    for text, found in zip(texts, splicer.encode(texts), strict=True):
        assert found.dtype == np.int64
        assert found.tolist() == whole(tokenizer, text, special)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_on_long_worked_examples_are_spliced(name):
    tokenizer, rng = TOKENIZERS[name], np.random.default_rng(0)
    shots = worked("en", rng, 3000)
    texts = [shots + worked("en", rng, 60) for _ in range(200)]
    seen: list[int] = []

    class Counted:
        is_fast = True

        def __call__(self, text, **rest):
            seen.append(len(text))
            return tokenizer(text, **rest)

    splicer = Splicer(Counted(), True)
    found = splicer.encode(texts)
    assert all(a.tolist() == whole(tokenizer, text) for a, text in zip(found, texts, strict=True))
    assert splicer.spliced >= 190
    assert splicer.whole <= TRIED + 10
    assert sum(seen) < 0.4 * sum(map(len, texts)), "characters that a tokenizer reads"


piece = st.one_of(
    st.sampled_from(
        [" ", "\n", "  ", "\u3000", "=", "====", "0", "12", "、", "が", "か\u3099", "👍🏽", "ab", "Ishmael"]
    ),
    st.sampled_from(ENGLISH.split()),
    st.sampled_from(list(JAPANESE)),
    st.text(max_size=4),
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_texts_are_encoded_right(name, data):
    # One character over and over, words without spaces, what is not normal: where splicing could slip.
    pieces = data.draw(st.lists(piece, min_size=1, max_size=6))
    beginning = "".join(pieces) * data.draw(st.integers(1, 60))
    ends = data.draw(st.lists(st.lists(piece, max_size=6).map("".join), min_size=2, max_size=5))
    cuts = data.draw(st.lists(st.integers(0, 30), min_size=len(ends), max_size=len(ends)))
    tokenizer = TOKENIZERS[name]
    splicer = Splicer(tokenizer, True)
    splicer.spliced = TRIED  # trusted from the start: nothing but the agreement of each text protects it
    for end, cut in zip(ends, cuts, strict=True):
        text = beginning[: len(beginning) - cut] + end
        (found,) = splicer.encode([text])
        assert found.tolist() == whole(tokenizer, text)


class Odd:
    """A tokenizer of characters whose first token tells the whole text's length: the end changes the beginning."""

    is_fast = True

    def __call__(self, text, add_special_tokens=True, return_offsets_mapping=False):
        ids = [10**6 + len(text), *map(ord, text[1:])]
        return {"input_ids": ids, "offset_mapping": [(i, i + 1) for i in range(len(ids))]}


def test_a_tokenizer_that_is_not_local_is_found_out():
    rng = np.random.default_rng(0)
    shots = worked("en", rng, 1000)
    texts = [shots + "x" * (k % 7) for k in range(60)]
    tokenizer = Odd()
    splicer = Splicer(tokenizer, True)
    found = splicer.encode(texts)
    assert all(a.tolist() == whole(tokenizer, text) for a, text in zip(found, texts, strict=True))
    assert splicer.spliced <= 1
    assert not splicer._usable


def test_a_tokenizer_that_closes_its_texts_is_used_as_it_is():
    tokenizer = bpe_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 0)]
    )
    rng = np.random.default_rng(0)
    shots = worked("en", rng, 1000)
    texts = [shots + worked("en", rng, 20) for _ in range(40)]
    splicer = Splicer(tokenizer, True)
    found = splicer.encode(texts)
    assert all(
        a.tolist() == whole(tokenizer, text) and a[-1] == 0 for a, text in zip(found, texts, strict=True)
    )
    assert (splicer.spliced, splicer.whole) == (0, 40)


def test_a_slow_tokenizer_is_used_as_it_is():
    class Slow:
        is_fast = False

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [1, *map(ord, text)][not add_special_tokens :]}

    texts = ["a" * 1000 + str(k) for k in range(50)]
    splicer = Splicer(Slow(), True)
    assert [len(tokens) for tokens in splicer.encode(texts)] == [1 + len(text) for text in texts]
    assert splicer.spliced == 0


@given(st.text("ab", max_size=40), st.text("ab", max_size=40))
def test_the_common_beginning(a, b):
    n = _common(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


# Contexts and continuations, by lm-eval's rule.


def encode_pair(tokenizer: Any, context: str, choice: str) -> tuple[list[int], list[int]]:
    """`lm_eval.api.model.TemplateLM._encode_pair`, 0.4.13, for causal models."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        choice, context = context[-spaces:] + choice, context[:-spaces]
    before = whole(tokenizer, context)
    return before, whole(tokenizer, context + choice)[len(before) :]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_spaces_at_the_end_of_a_context_go_to_the_choice(name):
    tokenizer = TOKENIZERS[name]
    tokens = Tokens(tokenizer, 4096)
    rng = np.random.default_rng(0)
    pairs = [
        (shots + end, choice)
        for shots in ("", worked("en", rng, 500), worked("ja", rng, 500))
        for end in ("Answer:", "Answer: ", "Answer:\n\n", "回答:\u3000", "It is")
        for choice in (" money", "money", "猫である", "A", " B", "\nC")
    ]
    found = tokens.continuations([c for c, _ in pairs], [c for _, c in pairs], True)
    for (context, choice), continuation in zip(pairs, found, strict=True):
        before, after = encode_pair(tokenizer, context, choice)
        if after:  # else the tokens of context and choice are fewer than those of the context
            assert continuation.tokens.tolist() == before + after
            assert continuation.begin == len(before)


def test_a_choice_without_a_context_is_read_from_the_token_that_begins_or_ends_a_text():
    for tokenizer, first in ((TOKENIZERS["bytes"], 1), (TOKENIZERS["byte-level BPE"], 0)):
        for bos in (True, False):
            (found,) = Tokens(tokenizer, 100).continuations([""], ["cat"], bos)
            assert (found.tokens[0], found.begin) == (first, 1)
            assert found.tokens[1:].tolist() == whole(tokenizer, "cat", special=False)


def test_tokens_that_begin_a_text_are_counted():
    tokens = Tokens(TOKENIZERS["bytes"], 100)
    assert [tokens.begin_of_text(t) for t in ([1, 5], [1, 1, 5], [5, 1], [])] == [1, 2, 0, 0]
    assert Tokens(TOKENIZERS["byte-level BPE"], 100).begin_of_text([0, 1]) is None
