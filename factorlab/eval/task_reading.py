"""From the mapping of a task file to a `Task`: every key known, every value of its type, every template sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.answer_scores import CHOICE_METRICS, METRICS, TEXT_METRICS
from factorlab.eval.expressions import check_template
from factorlab.eval.extraction import steps_function
from factorlab.eval.instance import Decoding
from factorlab.eval.keys import Keys, shown
from factorlab.eval.place_reading import expression, read_shots, read_source, template
from factorlab.eval.task import Difference, Metric, Prompt, Task
from factorlab.eval.words import BLEU_WORDS, ROUGE_WORDS

BY_SCORING = {
    "choices": tuple(CHOICE_METRICS),
    "text": (*TEXT_METRICS, "rouge2", "bleu"),
    "code": ("pass@1",),
}
"""Way of scoring -> its metrics."""

WORDS = {"rouge2": ROUGE_WORDS, "bleu": tuple(BLEU_WORDS)}
"""Metric -> words that it can count."""


def read_task(
    name: str,
    file: str,
    protocol: str,
    protocols: tuple[str, ...],
    raw: Mapping[str, Any],
    differences: tuple[Difference, ...],
) -> Task:
    """A task from its file's mapping.

    Parameters
    ----------
    name, file : str
        Of the task, and of its file for messages.
    protocol : str
        Whose changes `raw` has, of all `protocols`.
    raw : mapping
    differences : tuple of Difference

    Raises
    ------
    InputError
        One line with file, key, value and what is allowed.
    """
    keys = Keys(file, "", raw)
    scoring = keys.one_of("scoring", ("choices", "text", "code"))
    data = Keys(file, "data", keys.get("data", dict))
    shots = Keys(file, "shots", keys.get("shots", dict)) if keys.has("shots") else None
    task = Task(
        name=name,
        benchmark=keys.get("benchmark", str),
        protocol=protocol,
        language=keys.get("language", str),
        licence=keys.get("licence", str, ""),
        reference=keys.get("reference", str, ""),
        origin=keys.get("origin", str, ""),
        chance=_chance(keys),
        traps=keys.texts("traps", ()),
        note=keys.texts("note", ()),
        data=read_source(data, of_shots=False),
        shots=None if shots is None else read_shots(shots),
        prompt=_prompt(Keys(file, "prompt", keys.get("prompt", dict)), scoring, shots is not None),
        gold=expression(keys, "gold"),
        gold_text=template(keys, "gold_text", None),
        scoring=scoring,
        decoding=_decoding(keys, scoring),
        metric=_metric(Keys(file, "metric", keys.get("metric", dict)), scoring),
        cluster=template(keys, "cluster", None),
        shared=_shared(keys),
        protocols=protocols,
        differences=differences,
        resolved=dict(raw),
    )
    data.done()
    if shots is not None:
        shots.done()
    else:
        keys.known.append("shots")
    keys.known.append("protocols")
    keys.done()
    return task


def _chance(keys: Keys) -> float:
    chance: float = keys.get("chance", float)
    if not 0 <= chance <= 1:
        raise InputError(f"{keys.where('chance')} is {chance}; it must be from 0 to 1")
    return chance


def _shared(keys: Keys) -> tuple[str, str] | None:
    if not keys.has("shared"):
        keys.known.append("shared")
        return None
    inner = Keys(keys.file, "shared", keys.get("shared", dict))
    out = inner.get("group", str), expression(inner, "item")
    inner.done()
    return out


def _prompt(keys: Keys, scoring: str, has_shots: bool) -> Prompt:
    if keys.has("query") == keys.has("queries"):
        raise InputError(f"{keys.where('query')}: there must be either query or queries, and not both")
    single = template(keys, "query", None)
    queries = keys.texts("queries", ()) if single is None else (single,)
    keys.known.append("queries")
    for text in queries:
        check_template(text, keys.where("queries"))
    out = Prompt(
        queries=queries,
        head=template(keys, "head", ""),
        delimiter=keys.get("delimiter", str, ""),
        target=template(keys, "target", None),
        choices=expression(keys, "choices", None),
        separator=keys.get("separator", str, "\n\n"),
        bos=keys.get("bos", bool, True),
    )
    keys.done()
    if (scoring == "choices") != (out.choices is not None):
        told = "is missing" if out.choices is None else "is there"
        raise InputError(
            f"{keys.where('choices')} {told}, but scoring is '{scoring}'; choices go with choices"
        )
    if scoring != "choices" and has_shots and out.target is None:
        raise InputError(f"{keys.where('target')} is missing; worked examples need it")
    if scoring != "choices" and len(queries) != 1:
        raise InputError(
            f"{keys.where('queries')} go with scoring 'choices', not '{scoring}'; give one query"
        )
    return out


def _decoding(keys: Keys, scoring: str) -> Decoding:
    if scoring == "choices":
        if keys.has("decoding"):
            raise InputError(f"{keys.where('decoding')} is there, but scoring is 'choices'; leave it out")
        keys.known.append("decoding")
        return Decoding()
    inner = Keys(keys.file, "decoding", keys.get("decoding", dict))
    out = Decoding(
        max_new_tokens=inner.at_least("max_new_tokens", 1, None),
        max_length=inner.at_least("max_length", 1, None),
        stops=inner.texts("stops", ()),
        temperature=inner.get("temperature", float, 0.0),
        top_p=inner.get("top_p", float, 1.0),
        samples=inner.at_least("samples", 1, 1),
        seed=inner.at_least("seed", 0, 0),
    )
    inner.done()
    if out.max_new_tokens is None and out.max_length is None:
        raise InputError(f"{inner.where('max_new_tokens')} is missing; give it or max_length")
    if "" in out.stops:
        raise InputError(f"{inner.where('stops')} has an empty text, which would stop every answer")
    if out.temperature < 0 or not 0 < out.top_p <= 1:
        raise InputError(
            f"{inner.where('temperature')} is {out.temperature:g} and top_p {out.top_p:g}; "
            "they must be 0 or more, and above 0 up to 1"
        )
    if out.samples > 1 and out.temperature == 0:
        raise InputError(f"{inner.where('samples')} is {out.samples} at temperature 0: all would be the same")
    return out


def _metric(keys: Keys, scoring: str) -> Metric:
    name = keys.one_of("name", METRICS)
    allowed = BY_SCORING[scoring]
    if name not in allowed:
        raise InputError(
            f"{keys.where('name')} is '{name}', but scoring is '{scoring}'; it can be {', '.join(allowed)}"
        )
    if (name in WORDS) != keys.has("words"):
        raise InputError(
            f"{keys.where('words')} goes with {' and '.join(WORDS)}, which need it; name is '{name}'"
        )
    out = Metric(
        name=name,
        extract=_steps(keys, "extract"),
        gold=_steps(keys, "gold"),
        words=keys.one_of("words", WORDS.get(name, ()), None),
        timeout=keys.get("timeout", float, None),
    )
    keys.done()
    return out


def _steps(keys: Keys, key: str) -> tuple[dict[str, Any], ...]:
    """A list of steps, as `factorlab.eval.extraction` knows them."""
    keys.known.append(key)
    steps = keys.mapping.get(key) or []
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InputError(f"{keys.where(key)} is {shown(steps)}; it must be a list of steps, each a mapping")
    steps_function(steps, keys.where(key))
    return tuple(dict(step) for step in steps)
