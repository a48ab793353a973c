"""From the mappings of a task file to places that rows come from."""

from __future__ import annotations

from typing import Any

from factorlab.errors import InputError
from factorlab.eval.expressions import check_expression, check_template
from factorlab.eval.keys import MISSING, Keys
from factorlab.eval.task import Label, Place, Shots, Source

FORMATS = ("jsonl", "json", "squad", "niilc", "csv", "tsv", "lines", "examples", "exemplars", "blocks")
DRAWS = ("first", "first_by", "shuffled", "lm_eval", "jp_harness")
SEEDS = {"jp_harness": 42, "shuffled": 42, "lm_eval": 1234}
"""Of the harness that draws in this way."""


def read_shots(keys: Keys) -> Shots:
    """What a task file says of worked examples.

    Raises
    ------
    InputError
        When a key is unknown, missing or of another type.
    """
    draw = keys.one_of("draw", DRAWS)
    out = Shots(
        count=keys.at_least("count", 1),
        draw=draw,
        source=read_source(keys, of_shots=True),
        by=expression(keys, "by", None),
        extra=keys.at_least("extra", 0, 0),
        redraw=keys.get("redraw", bool, False),
        seed=keys.at_least("seed", 0, SEEDS.get(draw, 0)),
    )
    if (draw == "first_by") != (out.by is not None):
        raise InputError(f"{keys.where('by')} goes with draw 'first_by', which needs it; draw is '{draw}'")
    return out


def read_source(keys: Keys, of_shots: bool) -> Source:
    """Where rows come from: the keys hub, local, fields and keep.

    Raises
    ------
    InputError
        When a key is unknown, missing or of another type.
    """
    fields, keep = _fields(keys), expression(keys, "keep", None)
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
    return {name: expression(inner, name) for name in inner.mapping}


def _place(keys: Keys, fields: dict[str, str], keep: str | None, of_shots: bool, kind: str) -> Place:
    own = _fields(keys)
    told: dict[str, Any] = {
        "fields": {**fields, **own},
        "keep": expression(keys, "keep", keep),
        "note": keys.get("note", str, None),
    }
    if of_shots:
        told["from_items"] = keys.get("from_items", bool, False)
        told["held_out"] = _held_out(keys)
        told["shot"] = template(keys, "shot", None)
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
        key=expression(inner, "key"),
        match=expression(inner, "match"),
        value=expression(inner, "value"),
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


def template(keys: Keys, key: str, default: Any = MISSING) -> Any:
    """A key whose value is a template; its errors as of `Keys.get` and `check_template`."""
    text = keys.get(key, str, default)
    if text is not None:
        check_template(text, keys.where(key))
    return text


def expression(keys: Keys, key: str, default: Any = MISSING) -> Any:
    """A key whose value is an expression; its errors as of `Keys.get` and `check_expression`."""
    text = keys.get(key, str, default)
    if text is not None:
        check_expression(text, keys.where(key))
    return text
