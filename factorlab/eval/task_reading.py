"""From the mapping of a task file to a `Task`: every key known, every value of its type, every template sound."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.expressions import check_expression, check_template
from factorlab.eval.instance import Decoding
from factorlab.eval.keys import MISSING, Keys, like, shown
from factorlab.eval.task import Difference, Label, Metric, Place, Prompt, Shots, Source, Task

FORMATS = ("jsonl", "json", "squad", "niilc", "csv", "tsv", "lines", "examples", "exemplars", "blocks")
DRAWS = ("first", "first_by", "shuffled", "lm_eval", "jp_harness")
METRICS = ("acc", "exact_match", "char_f1", "f1", "rouge2", "bleu", "pass@1")
WORDS = ("model", "mecab", "nagisa+13a", "13a")
SCORED_BY = {"choices": ("acc",), "code": ("pass@1",)}
"""Metrics of a way of scoring; text has the others."""

STEPS: dict[str, dict[str, type | None]] = {
    "strip": {},
    "strip_one": {},
    "nfkc": {},
    "lower": {},
    "cut": {"at": str},
    "head": {"characters": int},
    "remove": {"pattern": str},
    "remove_punctuation": {},
    "strip_chars": {"chars": str},
    "regex": {"pattern": str, "which": None, "fallback": None},
    "number_ja": {},
    "number": {},
    "squad_normalise": {},
    "map": {"from": str, "to": str},
}
"""Steps of extraction -> their parameters; those of type None have a default."""


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
        data=_source(data, of_shots=False),
        shots=None if shots is None else _shots(shots),
        prompt=_prompt(Keys(file, "prompt", keys.get("prompt", dict)), scoring, shots is not None),
        gold=_expression(keys, "gold"),
        gold_text=_template(keys, "gold_text", None),
        scoring=scoring,
        decoding=_decoding(keys, scoring),
        metric=_metric(Keys(file, "metric", keys.get("metric", dict)), scoring),
        cluster=_template(keys, "cluster", None),
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


def _template(keys: Keys, key: str, default: Any = MISSING) -> Any:
    text = keys.get(key, str, default)
    if text is not None:
        check_template(text, keys.where(key))
    return text


def _expression(keys: Keys, key: str, default: Any = MISSING) -> Any:
    text = keys.get(key, str, default)
    if text is not None:
        check_expression(text, keys.where(key))
    return text


def _shared(keys: Keys) -> tuple[str, str] | None:
    if not keys.has("shared"):
        keys.known.append("shared")
        return None
    inner = Keys(keys.file, "shared", keys.get("shared", dict))
    out = inner.get("group", str), _expression(inner, "item")
    inner.done()
    return out


def _prompt(keys: Keys, scoring: str, has_shots: bool) -> Prompt:
    if keys.has("query") == keys.has("queries"):
        raise InputError(f"{keys.where('query')}: there must be either query or queries, and not both")
    single = _template(keys, "query", None)
    queries = keys.texts("queries", ()) if single is None else (single,)
    keys.known.append("queries")
    for text in queries:
        check_template(text, keys.where("queries"))
    out = Prompt(
        queries=queries,
        head=_template(keys, "head", ""),
        delimiter=keys.get("delimiter", str, ""),
        target=_template(keys, "target", None),
        choices=_expression(keys, "choices", None),
        separator=keys.get("separator", str, "\n\n"),
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
    allowed = SCORED_BY.get(scoring) or tuple(m for m in METRICS if m not in ("acc", "pass@1"))
    if name not in allowed:
        raise InputError(
            f"{keys.where('name')} is '{name}', but scoring is '{scoring}'; it can be {', '.join(allowed)}"
        )
    out = Metric(
        name=name,
        extract=_steps(keys, "extract"),
        gold=_steps(keys, "gold"),
        words=keys.one_of("words", WORDS, None),
        timeout=keys.get("timeout", float, None),
    )
    keys.done()
    if (name in ("rouge2", "bleu")) != (out.words is not None):
        raise InputError(
            f"{keys.where('words')} goes with rouge2 and bleu, and they need it; name is '{name}'"
        )
    return out


def _steps(keys: Keys, key: str) -> tuple[dict[str, Any], ...]:
    keys.known.append(key)
    steps = keys.mapping.get(key) or []
    if not isinstance(steps, list):
        raise InputError(f"{keys.where(key)} is {shown(steps)}; it must be a list of steps")
    out = []
    for i, step in enumerate(steps):
        inner = Keys(keys.file, f"{keys.name(key)}[{i}]", step)
        name = inner.get("step", str)
        if name not in STEPS:
            raise InputError(
                f"{inner.where('step')} is '{name}'{like(name, list(STEPS))}; it can be {', '.join(STEPS)}"
            )
        told = {"step": name}
        for parameter, kind in STEPS[name].items():
            if kind is not None:
                told[parameter] = inner.get(parameter, kind)
        if name == "regex":
            told["which"] = inner.one_of("which", ("first", "last"), "first")
            told["fallback"] = inner.get("fallback", str, "[invalid]")
        inner.done()
        if "pattern" in told:
            try:
                re.compile(told["pattern"])
            except re.error as error:
                raise InputError(
                    f"{inner.where('pattern')} is '{told['pattern']}', no regular expression: {error}"
                ) from None
        out.append(told)
    return tuple(out)


def _shots(keys: Keys) -> Shots:
    draw = keys.one_of("draw", DRAWS)
    out = Shots(
        count=keys.at_least("count", 1),
        draw=draw,
        source=_source(keys, of_shots=True),
        by=_expression(keys, "by", None),
        extra=keys.at_least("extra", 0, 0),
        redraw=keys.get("redraw", bool, False),
        seed=keys.at_least("seed", 0, {"jp_harness": 42, "shuffled": 42}.get(draw, 1234)),
    )
    if (draw == "first_by") != (out.by is not None):
        raise InputError(f"{keys.where('by')} goes with draw 'first_by', which needs it; draw is '{draw}'")
    return out


def _source(keys: Keys, of_shots: bool) -> Source:
    fields, keep = _fields(keys), _expression(keys, "keep", None)
    hub = local = None
    if keys.has("hub"):
        hub = _place(Keys(keys.file, keys.name("hub"), keys.get("hub", dict)), fields, keep, of_shots, "hub")
    keys.known += ["hub", "local"]
    if keys.has("local"):
        places = keys.mapping["local"]
        places = places if isinstance(places, list) else [places]
        inner = [Keys(keys.file, f"{keys.name('local')}[{i}]", place) for i, place in enumerate(places)]
        local = tuple(_place(one, fields, keep, of_shots, "local") for one in inner)
    if hub is None and not local:
        raise InputError(
            f"{keys.where('local')} is missing; name local files, a data set of the hub, or both"
        )
    return Source(hub, local or ())


def _fields(keys: Keys) -> dict[str, str]:
    fields = keys.get("fields", dict, {})
    inner = Keys(keys.file, keys.name("fields"), fields)
    return {name: _expression(inner, name) for name in inner.mapping}


def _place(keys: Keys, fields: dict[str, str], keep: str | None, of_shots: bool, kind: str) -> Place:
    own = _fields(keys)
    told: dict[str, Any] = {
        "fields": {**fields, **own},
        "keep": _expression(keys, "keep", keep),
        "note": keys.get("note", str, None),
    }
    if of_shots:
        told["from_items"] = keys.get("from_items", bool, False)
        told["held_out"] = _held_out(keys)
        told["shot"] = _template(keys, "shot", None)
    if told.get("from_items") or told.get("held_out"):
        keys.done()
        return Place(**told)
    if kind == "hub":
        told["hub"] = keys.get("id", str)
        told["configs"] = keys.texts("config", ())
        told["revision"] = keys.get("revision", str, "main")
        told["split"] = keys.get("split", str)
    else:
        told |= _files(keys)
        told["label"] = _label(keys)
    keys.done()
    return Place(**told)


def _files(keys: Keys) -> dict[str, Any]:
    out = {
        "files": keys.texts("files"),
        "format": keys.one_of("format", FORMATS),
        "columns": keys.texts("columns", ()),
    }
    if out["format"] == "lines" and len(out["columns"]) != len(out["files"]):
        raise InputError(
            f"{keys.where('columns')} has {len(out['columns'])} names for {len(out['files'])} files of format "
            "lines; each file is a column"
        )
    if out["format"] == "json":
        out["at"] = keys.get("at", str, None)
    return out


def _label(keys: Keys) -> Label | None:
    if not keys.has("label"):
        keys.known.append("label")
        return None
    inner = Keys(keys.file, keys.name("label"), keys.get("label", dict))
    out = Label(
        name=inner.get("name", str),
        key=_expression(inner, "key"),
        match=_expression(inner, "match"),
        value=_expression(inner, "value"),
        **{key: value for key, value in _files(inner).items() if key != "at"},
    )
    inner.done()
    return out


def _held_out(keys: Keys) -> dict[str, Any] | None:
    if not keys.has("held_out"):
        keys.known.append("held_out")
        return None
    inner = Keys(keys.file, keys.name("held_out"), keys.get("held_out", dict))
    first, group = inner.at_least("first", 1, None), inner.get("smallest_group", str, None)
    inner.done()
    if (first is None) == (group is None):
        raise InputError(f"{keys.where('held_out')} must have either first or smallest_group")
    return {"first": first} if group is None else {"smallest_group": group}
