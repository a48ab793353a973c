"""PlannedModel: a model that is to be trained, as a row of a table and the tokens it starts with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from factorlab.errors import InputError
from factorlab.inference.predict.new_models import add_models
from factorlab.inference.predict.predictors import (
    DATE,
    Predictors,
    known_tokens,
    read_predictors,
    token_floors,
    token_predictor,
)
from factorlab.lineage import build_lineage, token_sources
from factorlab.score_table import ScoreTable

BEYOND = 10.0
"""Further tokens are looked at up to this many times the largest count of the language."""


class PlannedModel(NamedTuple):
    """A model that is to be trained.

    Attributes
    ----------
    name : str
    base : str or None
    params_b : float
        Billions of active parameters; NaN where the base's are unknown.
    language : str
        Whose further tokens are planned.
    table : ScoreTable
        With the model as its last row, without scores.
    row : int
    predictor : int
        Of the language's tokens.
    start : ndarray, (predictor,)
        Tokens, d0 with them, before the plan; NaN where they are the base's, with their error.
    fixed : ndarray, (predictor,)
        Tokens of other languages that are added whatever the plan says.
    seen : float
        Most tokens of the language of any scored model.
    most_stage : float
        Most tokens of the language that a scored model added to its base; NaN without one.
    """

    name: str
    base: str | None
    params_b: float
    language: str
    table: ScoreTable
    row: int
    predictor: int
    start: np.ndarray
    fixed: np.ndarray
    seen: float
    most_stage: float


def plan_model(
    table: ScoreTable,
    *,
    base: str | None,
    params_b: float | None,
    language: str,
    tokens: Mapping[str, float] | None = None,
) -> PlannedModel:
    """The model that a plan is for.

    Parameters
    ----------
    table : ScoreTable
    base : str, optional
        Continual pre-training of this model; it needs no scores.
    params_b : float, optional
        Instead: a new model of this many billions of parameters, trained from scratch.
    language : str
    tokens : mapping of str to float, optional
        Billions of tokens of languages: of a new model those it has in any case, of a base those that are
        added whatever the plan says.

    Raises
    ------
    InputError
        Both or neither of base and size; an unknown base or language; a size or count that is no positive
        number; a language whose count is needed.
    """
    if (base is None) == (params_b is None):
        raise InputError("give either --base MODEL (to train on) or --params N (a new model), one of the two")
    given = dict(tokens or {})
    x = read_predictors(table)
    floors = {k: v for k, v in token_floors(table).items() if token_predictor(k) in x.names}
    for name in (language, *given):
        _check_language(table, floors, name)
    for name, count in given.items():
        if not (np.isfinite(count) and count >= 0):
            raise InputError(f"--tokens {name}={count:g} is no count; give billions of tokens, 0 or more")
    seen = float(np.nanmax(known_tokens(x, language, floors[language])))
    if base is not None:
        return _continued(table, x, base, language, given, seen)
    return _new(table, x, params_b, language, given, seen)


def _check_language(table: ScoreTable, floors: Mapping[str, float], language: str) -> None:
    if language in floors:
        return
    if language in table.languages:
        raise InputError(
            f"tokens of '{language}' are no predictor: fewer than 3 scored models of table '{table.name}' publish "
            f"different counts; languages that are: {', '.join(floors) or 'none'}"
        )
    raise InputError(
        f"'{language}' is no language with a tokens_b column in the models table of '{table.name}'; "
        f"it has {', '.join(table.languages) or 'none: add columns tokens_b_<language>'}"
    )


def _continued(
    table: ScoreTable, x: Predictors, base: str, language: str, given: Mapping[str, float], seen: float
) -> PlannedModel:
    if base not in table.models.index:
        raise InputError(
            f"base '{base}' is no model of table '{table.name}'; it has {list(map(str, table.models.index))}"
        )
    params = np.nan
    if "params_b" in table.models:
        params = float(table.models["params_b"].to_numpy(dtype=float, na_value=np.nan)[_place(table, base)])
    name = _free(table, f"{base} + {language}")
    row: dict[str, Any] = {"model": name, "base_model": base, **_newest(table)}
    if np.isfinite(params):
        row["params_b"] = params
    larger = _with_base_column(table)
    planned = add_models(larger, [row])
    start = np.full(len(x.names), np.nan)
    return _placed(planned, x, name, base, params, language, start, given, seen)


def _place(table: ScoreTable, model: str) -> int:
    """Row of a model in the models table."""
    return [str(name) for name in table.models.index].index(model)


def _new(
    table: ScoreTable, x: Predictors, params_b: float | None, language: str, given: Mapping[str, float],
    seen: float,
) -> PlannedModel:  # fmt: skip
    if params_b is None or not (np.isfinite(params_b) and params_b > 0):
        raise InputError(
            f"--params {params_b} is no size; give the number of parameters, such as 8e9 (in Python: params_b=8)"
        )
    if "log10 N" not in x.names:
        raise InputError(
            f"table '{table.name}' cannot say what sizes go with: fewer than 3 models have different params_b"
        )
    floors = token_floors(table)
    needed = [k for k in floors if k not in given and k != language]
    if needed:
        raise InputError(
            f"a new model needs its tokens of '{needed[0]}' too; add --tokens {needed[0]}=BILLIONS (0 for none)"
        )
    name = _free(table, f"new {params_b:g}B model")
    # None of the planned language would bring in a d0; the row stands at the most that was seen, start says where
    # the plan begins.
    counts = {k: given.get(k, 0.0) for k in floors}
    counts[language] = counts[language] or seen
    row: dict[str, Any] = {"model": name, "params_b": params_b, **_newest(table)}
    row |= {f"tokens_b_{k}": v for k, v in counts.items()}
    row |= {f"tokens_b_{k}_status": "official" for k in floors if f"tokens_b_{k}_status" in table.models}
    planned = add_models(table, [row])
    floors = token_floors(planned)
    start = np.full(len(x.names), np.nan)
    for k, d0 in floors.items():
        start[x.names.index(token_predictor(k))] = given.get(k, 0.0) + d0
    return _placed(planned, x, name, None, params_b, language, start, {}, seen)


def _placed(
    planned: ScoreTable, x: Predictors, name: str, base: str | None, params: float, language: str,
    start: np.ndarray, added: Mapping[str, float], seen: float,
) -> PlannedModel:  # fmt: skip
    fixed = np.zeros(len(x.names))
    for k, count in added.items():
        fixed[x.names.index(token_predictor(k))] = count
    at = x.names.index(token_predictor(language))
    stages = stage_tokens(planned, language)
    most_stage = float(max(stages.values())) if stages else np.nan
    row = planned.model_names.index(name)
    return PlannedModel(name, base, params, language, planned, row, at, start, fixed, seen, most_stage)


def stage_tokens(table: ScoreTable, language: str) -> dict[str, float]:
    """Billions of tokens of a language that scored models added to their base, where known and positive."""
    lineage = build_lineage(table.models)
    own = token_sources(table.models, lineage, language).own_tokens_b
    scored = np.isfinite(table.scores).any(axis=1)
    return {
        name: float(own[i])
        for i, name in enumerate(table.model_names)
        if scored[i] and lineage.parent[i] >= 0 and np.isfinite(own[i]) and own[i] > 0
    }


def _free(table: ScoreTable, name: str) -> str:
    """The name, or the same with a mark behind it where a model has it already."""
    while name in table.models.index:
        name += "*"
    return name


def _newest(table: ScoreTable) -> dict[str, Any]:
    """A planned model is taken to be as new as the newest scored one, where dates are known."""
    if DATE not in table.models:
        return {}
    dates = table.models[DATE].dropna().astype(str)
    return {DATE: max(dates)} if len(dates) else {}


def _with_base_column(table: ScoreTable) -> ScoreTable:
    """The table with a column base_model, which a table of roots alone may lack."""
    if "base_model" in table.models:
        return table
    return replace(table, models=table.models.assign(base_model=None))
