"""From what a model writes to its answer: named steps, each from one text to one text (docs/eval_tasks.md).

A task file lists them, ``{step: regex, pattern: "#### (.*)", which: first}``; `steps_function` checks the list once
and gives the function that is then applied to every answer.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from factorlab.errors import InputError

INVALID = "[invalid]"
"""The answer where none was found, as in lm-eval."""

PUNCTUATION = str.maketrans("", "", string.punctuation)
"""The 32 ASCII characters; Japanese marks are not among them."""

NUMBER = re.compile(r"([+-]?)\s*[$¥€£]?\s*([+-]?(?:\d[\d,]*(?:\.\d*)?|\.\d+))")
"""A number as people write it: sign, currency, separators of thousands, decimals."""


@dataclass(frozen=True)
class Step:
    """One line of `STEPS`.

    Attributes
    ----------
    make : callable
        The parameters -> a function of a text.
    needed, allowed : mapping of str to type
        Parameters that must and that may be given.
    """

    make: Callable[..., Callable[[str], str]]
    needed: Mapping[str, type]
    allowed: Mapping[str, type]


def steps_function(steps: Sequence[Mapping[str, Any]], where: str = "metric.extract") -> Callable[[str], str]:
    """The function of a list of steps, one after the other.

    Parameters
    ----------
    steps : sequence of mapping
        Each with ``step``, its name, and its parameters.
    where : str
        The key they stand under, for messages.

    Raises
    ------
    InputError
        For an unknown step or parameter, one that is missing or of another type, a wrong pattern.
    """
    functions = [_function(dict(step), f"{where}[{i}]") for i, step in enumerate(steps)]

    def apply(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return apply


def extract(text: str, steps: Sequence[Mapping[str, Any]]) -> str:
    """One text through a list of steps."""
    return steps_function(steps)(text)


def _function(given: dict[str, Any], where: str) -> Callable[[str], str]:
    name = given.pop("step", None)
    if not isinstance(name, str) or name not in STEPS:
        raise InputError(f"{where}: no step '{name}'; there are {', '.join(STEPS)}")
    step = STEPS[name]
    known = {**step.needed, **step.allowed}
    for key, value in given.items():
        if key not in known:
            raise InputError(
                f"{where}: the step '{name}' has no '{key}'; it takes {', '.join(known) or 'nothing'}"
            )
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise InputError(
                f"{where}: '{key}' of the step '{name}' is {value!r}; it must be of type {known[key].__name__}"
            )
    for key in step.needed:
        if key not in given:
            raise InputError(f"{where}: the step '{name}' lacks '{key}'")
    # "from" is a word of Python's own.
    arguments = {key + "_" if key == "from" else key: value for key, value in given.items()}
    try:
        return step.make(**arguments)
    except re.error as error:
        raise InputError(f"{where}: {given.get('pattern')!r} is no regular expression: {error}") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _regex(pattern: str, which: str = "first", fallback: str = INVALID) -> Callable[[str], str]:
    if which not in ("first", "last"):
        raise ValueError(f"which is '{which}'; it must be first or last")
    compiled = re.compile(pattern)
    place = 0 if which == "first" else -1

    def find(text: str) -> str:
        found = list(compiled.finditer(text)) if place else [compiled.search(text)]
        match = found[place] if found else None
        if match is None:
            return fallback
        # The first group that matched, without whitespace around it, as lm-eval's filter.
        groups = [group for group in match.groups() if group] if compiled.groups else [match.group()]
        return groups[0].strip() if groups else ""

    return find


def _remove(pattern: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)
    return lambda text: compiled.sub("", text)


def _cut(at: str) -> Callable[[str], str]:
    if not at:
        raise ValueError("'at' of the step 'cut' is empty; it must be the text to cut before")
    return lambda text: text.split(at, 1)[0]


def _map(from_: str, to: str) -> Callable[[str], str]:
    return lambda text: to if text == from_ else text


def number_ja(text: str) -> str:
    """MGSM's answer as the study read it (JP harness, tasks/ja/mgsm.py).

    The last match of ``(\\-?[0-9\\.\\,]+)``, "." off its ends and "," deleted, as a float; integers only.
    """
    found = re.findall(r"\-?[0-9\.\,]+", text)
    try:
        value = float(found[-1].strip(".").replace(",", "")) if found else float("nan")
    except ValueError:
        return INVALID
    return str(int(value)) if value.is_integer() else INVALID


def number(text: str) -> str:
    """A number in one form: digits where it is an integer, else as Python writes it; other texts unchanged."""
    match = NUMBER.fullmatch(text.strip().removesuffix("."))
    if match is None:
        return text
    try:
        value = Decimal("".join(match.groups()).replace(",", ""))
    except InvalidOperation:
        return text
    return str(int(value)) if value == value.to_integral_value() else repr(float(value))


def squad_normalise(text: str) -> str:
    """``normalize_answer`` of the official SQuAD script (Rajpurkar et al. 2016)."""
    text = re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION))
    return " ".join(text.split())


def _plain(function: Callable[[str], str]) -> Step:
    """A step without parameters."""
    return Step(lambda: function, {}, {})


STEPS: dict[str, Step] = {
    "strip": _plain(str.strip),
    "strip_one": _plain(lambda text: text.removeprefix(" ")),
    "nfkc": _plain(lambda text: unicodedata.normalize("NFKC", text)),
    "lower": _plain(str.lower),
    "cut": Step(_cut, {"at": str}, {}),
    "head": Step(lambda characters: lambda text: text[:characters], {"characters": int}, {}),
    "remove": Step(_remove, {"pattern": str}, {}),
    "remove_punctuation": _plain(lambda text: text.translate(PUNCTUATION)),
    "strip_chars": Step(lambda chars: lambda text: text.strip(chars), {"chars": str}, {}),
    "regex": Step(_regex, {"pattern": str}, {"which": str, "fallback": str}),
    "number_ja": _plain(number_ja),
    "number": _plain(number),
    "squad_normalise": _plain(squad_normalise),
    "map": Step(_map, {"from": str, "to": str}, {}),
}
"""Steps by name."""
