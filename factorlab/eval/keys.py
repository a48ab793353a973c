"""Strict reading of the mappings of a task file: each key once, of its type, and no others."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from factorlab.errors import InputError

_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}

MISSING: Any = object()
"""Default of a key that has to be there."""


class Keys:
    """A mapping of a task file, from which known keys are taken; what is left is an error.

    Parameters
    ----------
    file : str
        Name of the file, for messages.
    path : str
        Key of the mapping in the file, "" for the whole.
    mapping : object
        What stands there.

    Raises
    ------
    InputError
        When it is no mapping with text for keys.
    """

    def __init__(self, file: str, path: str, mapping: object) -> None:
        self.file, self.path = file, path
        if not isinstance(mapping, Mapping) or not all(isinstance(key, str) for key in mapping):
            raise InputError(
                f"'{file}': {path or 'the file'} is {shown(mapping)}; it must be a mapping of keys to values"
            )
        self.mapping = dict(mapping)
        self.known: list[str] = []

    def name(self, key: str) -> str:
        """Key with the keys above it: "decoding.stops"."""
        return f"{self.path}.{key}" if self.path else key

    def where(self, key: str) -> str:
        return f"'{self.file}': {self.name(key)}"

    def has(self, key: str) -> bool:
        return self.mapping.get(key) is not None

    def get(self, key: str, kind: type, default: Any = MISSING) -> Any:
        """Value of a key, checked to be of a type; whole numbers are numbers.

        Raises
        ------
        InputError
            When it is not there and has no default, or is of another type.
        """
        self.known.append(key)
        if not self.has(key):
            if default is MISSING:
                raise InputError(f"{self.where(key)} is missing; it must be {_NAMES[kind]}")
            return default
        value = self.mapping[key]
        right = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not right or (kind in (int, float) and isinstance(value, bool)):
            raise InputError(f"{self.where(key)} is {shown(value)}; it must be {_NAMES[kind]}")
        return float(value) if kind is float else value

    def texts(self, key: str, default: Any = MISSING) -> Any:
        """A list of texts; one text stands for a list of one.

        Raises
        ------
        InputError
            When it is not there and has no default, or is no list of texts.
        """
        self.known.append(key)
        if not self.has(key):
            if default is MISSING:
                raise InputError(f"{self.where(key)} is missing; it must be a list of texts")
            return default
        value = self.mapping[key]
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{self.where(key)} is {shown(value)}; it must be a list of texts")
        return tuple(value)

    def one_of(self, key: str, allowed: Sequence[str], default: Any = MISSING) -> Any:
        """One of a few names.

        Raises
        ------
        InputError
            When it is another.
        """
        value = self.get(key, str, default)
        if value is not default and value not in allowed:
            raise InputError(
                f"{self.where(key)} is '{value}'{like(value, allowed)}; it can be {', '.join(allowed)}"
            )
        return value

    def at_least(self, key: str, least: int, default: Any = MISSING) -> Any:
        """A whole number that is not too small.

        Raises
        ------
        InputError
            When it is.
        """
        value = self.get(key, int, default)
        if value is not None and value < least:
            raise InputError(f"{self.where(key)} is {value}; it must be {least} or more")
        return value

    def done(self) -> None:
        """Check that no key is left.

        Raises
        ------
        InputError
            When there is a key that none has asked for.
        """
        for key in self.mapping:
            if key not in self.known:
                raise InputError(
                    f"{self.where(key)} is no known key{like(key, self.known)}; "
                    f"here can be {', '.join(self.known)} (docs/eval_tasks.md)"
                )


def like(name: str, known: Sequence[str]) -> str:
    """ " (did you mean 'x'?)", or nothing where no known name is like it."""
    close = difflib.get_close_matches(name.lower(), {item.lower(): item for item in known}, 1, 0.6)
    found = [item for item in known if close and item.lower() == close[0]]
    return f" (did you mean '{found[0]}'?)" if found else ""


def shown(value: object) -> str:
    """A value in a message, cut where it is long."""
    if value is None:
        return "empty"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
