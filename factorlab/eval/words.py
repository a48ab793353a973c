"""Words of ROUGE and BLEU: how a text is cut before its n-grams are counted.

Japanese has no spaces, so the score depends on who cuts: the evaluated model's own tokenizer (as the study
did for XL-Sum), MeCab's dictionary, nagisa's, or single characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from factorlab.errors import InputError

Encode = Callable[[str], Sequence[int]]
"""A text to the evaluated model's tokens, without special ones."""

ROUGE_WORDS = ("model", "mecab", "char")
BLEU_WORDS = {
    "13a": "13a",
    "nagisa+13a": "13a",
    "nagisa": "13a",
    "mecab": "none",
    "char": "char",
    "intl": "intl",
    "ja-mecab": "ja-mecab",
}
"""Words of BLEU -> sacrebleu's own tokenizer, after the text was cut where that is done first."""


def needed(package: str, what: str, extra: str = "eval") -> InputError:
    """The error for a package that is not installed."""
    return InputError(f"{what} needs {package}: pip install 'factorlab[{extra}]'")


class Words:
    """A tokenizer in the form that rouge-score takes."""

    def __init__(self, cut: Callable[[str], list[str]]) -> None:
        self._cut = cut

    def tokenize(self, text: str) -> list[str]:
        return self._cut(text)


def rouge_words(name: str | None, encode: Encode | None) -> Words:
    """The tokenizer of ROUGE for `words` of a task.

    Parameters
    ----------
    name : str
        One of `ROUGE_WORDS`.
    encode : callable, optional
        Text to token numbers of the evaluated model, for "model".

    Raises
    ------
    InputError
        For an unknown name, a package that is missing, or "model" without `encode`.
    """
    if name == "model":
        if encode is None:
            raise InputError("ROUGE over the model's own tokens needs its tokenizer, and there is none here")
        return Words(lambda text: [str(token) for token in encode(text)])
    if name == "mecab":
        _tagger()  # a missing package is told at once
        return Words(mecab_words)
    if name == "char":
        return Words(lambda text: [c for c in unicodedata.normalize("NFKC", text) if not c.isspace()])
    raise InputError(f"words of rouge2 are '{name}'; they must be one of {', '.join(ROUGE_WORDS)}")


def bleu_words(name: str | None) -> tuple[Callable[[str], str], str]:
    """What is done to a text before sacrebleu sees it, and sacrebleu's tokenizer, for `words` of a task.

    Raises
    ------
    InputError
        For an unknown name or a package that is missing.
    """
    name = name or "13a"
    if name not in BLEU_WORDS:
        raise InputError(f"words of bleu are '{name}'; they must be one of {', '.join(BLEU_WORDS)}")
    if name.startswith("nagisa"):
        _nagisa()
        return lambda text: " ".join(nagisa_words(text)), BLEU_WORDS[name]
    if name == "mecab":
        _tagger()
        return lambda text: " ".join(mecab_words(text)), BLEU_WORDS[name]
    return lambda text: text, BLEU_WORDS[name]


def mecab_words(text: str) -> list[str]:
    """Surface forms of MeCab with UniDic Lite, after `normalise`."""
    return [word.surface for word in _tagger()(normalise(text))]


def nagisa_words(text: str) -> list[str]:
    """nagisa's words of the stripped text, as the study cut WMT20's Japanese."""
    text = text.strip()
    return list(_nagisa().tagging(text).words) if text else []


def normalise(text: str) -> str:
    """One width and one long-vowel mark, no emoji, single spaces: near to what neologdn does."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c for c in text if unicodedata.category(c) not in ("So", "Cs", "Co", "Cn"))
    text = re.sub("[~∼∾〜〰]", "", re.sub("ー+", "ー", text))
    return " ".join(text.split())


@cache
def _tagger() -> Any:
    try:
        import fugashi
        import unidic_lite
    except ModuleNotFoundError:
        raise needed("fugashi and unidic-lite", "cutting Japanese into words with MeCab") from None
    return fugashi.Tagger(f"-d {unidic_lite.DICDIR}")


@cache
def _nagisa() -> Any:
    try:
        import nagisa
    except ModuleNotFoundError:
        raise needed("nagisa", "cutting Japanese into words as the study did") from None
    return nagisa
