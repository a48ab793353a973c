"""Templates and expressions of task files: Jinja in a sandbox, where a name that is not there is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, Undefined
from jinja2.sandbox import SandboxedEnvironment

from factorlab.errors import InputError


def _regex_replace(text: str, pattern: str, by: str = "") -> str:
    return re.sub(pattern, by, str(text))


def _split(text: str, at: str) -> list[str]:
    return str(text).split(at)


def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, newline_sequence="\n"
    )
    environment.filters["regex_replace"] = _regex_replace
    environment.filters["split"] = _split
    return environment


_JINJA = _environment()


@lru_cache(maxsize=4096)
def _template(text: str) -> Template:
    return _JINJA.from_string(text)


@lru_cache(maxsize=4096)
def _expression(text: str) -> Callable[..., Any]:
    return _JINJA.compile_expression(text, undefined_to_none=False)


def check_template(text: str, where: str) -> None:
    """Whether a text is a template.

    Raises
    ------
    InputError
        When it is none.
    """
    try:
        _template(text)
    except TemplateError as error:
        raise InputError(f"{where} is no Jinja template: {error}") from None


def check_expression(text: str, where: str) -> None:
    """Whether a text is an expression.

    Raises
    ------
    InputError
        When it is none.
    """
    try:
        _expression(text)
    except TemplateError as error:
        raise InputError(f"{where} is no Jinja expression: {error}") from None


def render(text: str, fields: Mapping[str, Any], where: str) -> str:
    """A template filled in.

    Parameters
    ----------
    text : str
    fields : mapping
        What the names in it stand for.
    where : str
        What is filled in, for messages.

    Raises
    ------
    InputError
        When a name in it is no field, or what is done to a field cannot be.
    """
    if "{" not in text:
        return text
    try:
        return _template(text).render(fields)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, re.error) as error:
        raise _failed(text, fields, where, error) from None


def evaluate(text: str, fields: Mapping[str, Any], where: str) -> Any:
    """Value of an expression, of the type it has (a list stays a list). Arguments as of `render`.

    Raises
    ------
    InputError
        When a name in it is no field, or what is done to a field cannot be.
    """
    try:
        value = _expression(text)(fields)
        if isinstance(value, Undefined):
            str(value)  # StrictUndefined says here which name it is
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, re.error) as error:
        raise _failed(text, fields, where, error) from None
    return value


def _failed(text: str, fields: Mapping[str, Any], where: str, error: Exception) -> InputError:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    there = ", ".join(str(name) for name in fields if name not in ("row", "index", "file"))
    return InputError(f"{where}: '{shown}' cannot be read: {error}; the fields are {there or 'none'}")
