"""Stops: where a text ends is found as if everything were decoded after each token."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed: no tokenizer to decode with")
pytest.importorskip("transformers", reason="transformers is not installed: no tokenizer to decode with")

from ladder import byte_tokenizer
from tiny import EMOJI, ENGLISH, JAPANESE, bpe_tokenizer

from factorlab.eval.stops import StopFinder

TOKENIZERS = {"bytes": byte_tokenizer(), "bpe": bpe_tokenizer(400)}
STOPS = ("\n", "\n\n", "。", "。」", "me ", " ", "an", "Q:", "🎉", "\u3000", "ab", "\t")


def decoder(name: str):
    tokenizer = TOKENIZERS[name]

    def decode(tokens):
        return tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    return decode


def first_end(tokens: list[int], finder: StopFinder) -> int | None:
    """After how many tokens the finder says that the text is over."""
    return next((n for n in range(1, len(tokens) + 1) if finder.ended(tokens[:n])), None)


def first_end_decoded(tokens: list[int], stops, decode) -> int | None:
    """The same, everything decoded after each token."""
    return next((n for n in range(1, len(tokens) + 1) if any(s in decode(tokens[:n]) for s in stops)), None)


pieces = st.sampled_from(
    [*STOPS, "a", "b", "は", "」", "money ", "Some years", "\r\n", EMOJI, ENGLISH[:40], JAPANESE[:20]]
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(
    st.lists(pieces, max_size=12), st.lists(st.sampled_from(STOPS), min_size=1, max_size=3), st.integers(0, 5)
)
def test_a_text_ends_where_decoding_everything_ends_it(name, parts, stops, cut):
    decode = decoder(name)
    tokens = TOKENIZERS[name].encode("".join(parts), add_special_tokens=False)[cut:]
    assert first_end(tokens, StopFinder(stops, decode)) == first_end_decoded(tokens, stops, decode)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_tokens_at_random_end_where_decoding_everything_ends_them(name, data):
    # Random bytes are broken characters in most places; tokens of stops are frequent among them.
    tokenizer, decode = TOKENIZERS[name], decoder(name)
    stops = data.draw(st.lists(st.sampled_from(STOPS), min_size=1, max_size=3))
    parts = [t for stop in stops for t in tokenizer.encode(stop, add_special_tokens=False)]
    some = st.one_of(st.sampled_from(parts), st.integers(3, len(tokenizer) - 1))
    tokens = data.draw(st.lists(some, max_size=40))
    assert first_end(tokens, StopFinder(stops, decode)) == first_end_decoded(tokens, stops, decode)


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="ab\n 。", max_size=30),
    st.lists(st.sampled_from(["a\n", "b", "。", "ba", " "]), max_size=3),
)
def test_the_text_is_cut_before_the_stop_that_comes_first(text, stops):
    at = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    assert StopFinder(stops, decoder("bytes")).cut(text) == text[:at]


def test_stops_that_overlap_do_not_depend_on_their_order():
    for stops in (("a\n", "ba"), ("ba", "a\n")):
        assert StopFinder(stops, decoder("bytes")).cut("xba\n") == "x"


def test_a_stop_inside_a_token_ends_the_text():
    tokenizer, decode = TOKENIZERS["bpe"], decoder("bpe")
    (token,) = tokenizer.encode("ing", add_special_tokens=False)
    for stop in ("i", "n", "in", "ng"):
        assert StopFinder([stop], decode).ended([token])
    assert not StopFinder(["gi"], decode).ended([token])
    assert StopFinder(["gi"], decode).ended([token, token])


def test_text_is_decoded_only_after_tokens_that_can_end_a_stop():
    asked = []

    def decode(tokens):
        asked.append(len(tokens))
        return decoder("bytes")(tokens)

    finder = StopFinder(["\n\n"], decode)
    tokens = TOKENIZERS["bytes"].encode(
        "many words without an end of line, as long as this one", add_special_tokens=False
    )
    assert first_end(tokens, finder) is None
    assert set(asked) == {1}, "each byte once, alone, and never the text"
    assert len(asked) == len(set(tokens))


def test_no_stops_and_empty_stops_end_nothing():
    for stops in ((), ("",), ("", "")):
        finder = StopFinder(stops, decoder("bytes"))
        assert not finder.ended([13])
        assert finder.cut("a\nb") == "a\nb"
