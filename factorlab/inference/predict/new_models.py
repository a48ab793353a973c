"""Models that are not in a table: added as rows without a score, to be predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from factorlab.errors import InputError
from factorlab.lineage import build_lineage
from factorlab.metadata import check_models
from factorlab.score_table import ScoreTable


def add_models(
    table: ScoreTable,
    rows: Sequence[Mapping[str, Any]],
    scores: Mapping[tuple[str, str], float] | None = None,
) -> ScoreTable:
    """The table with more models.

    Parameters
    ----------
    table : ScoreTable
    rows : sequence of mapping
        Columns of the models table, ``model`` among them: ``params_b``, ``tokens_b_ja``, ``base_model``, ... A
        model that is in the models table without scores takes what is not given from there.
    scores : mapping of (model, benchmark) to float, optional
        Scores that the new models have already; in the benchmarks' own units, without standard errors.

    Raises
    ------
    InputError
        A model that has scores already, an unknown benchmark or column, a score outside its range.
    """
    names = [str(row["model"]) for row in rows]
    known = set(table.model_names)
    for name in names:
        if name in known:
            raise InputError(
                f"model '{name}' is in table '{table.name}' already; give the new one another name"
            )
    if len(set(names)) < len(names):
        raise InputError(f"new models must differ in name; got {names}")
    columns = set(table.models.columns)
    for row in rows:
        unknown = [c for c in row if c != "model" and c not in columns]
        if unknown:
            raise InputError(
                f"new model '{row['model']}' has '{unknown[0]}', which is no column of the models table; "
                f"it has {sorted(columns)}"
            )
    frame = table.models.astype(object)
    for row in rows:
        given = {str(k): v for k, v in row.items() if k != "model"}
        old = frame.loc[row["model"]].to_dict() if row["model"] in frame.index else {}
        frame.loc[str(row["model"])] = pd.Series({**dict.fromkeys(frame.columns), **old, **given})
    typed = _typed(frame, table.models).rename_axis("model").reset_index()
    models, _ = check_models(typed, [*table.model_names, *names])
    data = _with_rows(table.data, names)
    for (model, benchmark), score in (scores or {}).items():
        _place(table, data, model, benchmark, score, names)
    return replace(table, data=data, models=models)


def without_kin(table: ScoreTable) -> tuple[bool, bool]:
    """What has to be held out to recalibrate the predictions of a table's models without scores.

    Returns
    -------
    whole_models : bool
        Some model has no score.
    whole_lineages : bool
        Some model without a score is of a lineage of which no model has one.
    """
    scored = np.asarray(np.isfinite(table.scores).any(axis=1))
    family = build_lineage(table.models).family_of(table.model_names)
    known = set(family[scored])
    return bool((~scored).any()), any(f not in known for f in family[~scored])


def _with_rows(data: xr.Dataset, names: list[str]) -> xr.Dataset:
    more = data.isel(model=np.zeros(len(names), dtype=int)).copy(deep=True)
    more = more.assign_coords(model=np.asarray(names, dtype=object))
    for name in ("score", "se", "n_instances"):
        more[name][:] = np.nan
    more["se_kind"][:] = "missing"
    joined: xr.Dataset = xr.concat([data, more], dim="model")
    return joined


def _place(
    table: ScoreTable, data: xr.Dataset, model: str, benchmark: str, score: float, names: list[str]
) -> None:
    if model not in names:
        raise InputError(f"a score was given for '{model}', which is no new model; new are {names}")
    if benchmark not in table.benchmark_names:
        raise InputError(f"'{benchmark}' is no benchmark of the table; it has {table.benchmark_names}")
    low, high = table.benchmarks.loc[[benchmark], ["min", "max"]].to_numpy(dtype=float)[0]
    if (np.isfinite(low) and score < low) or (np.isfinite(high) and score > high):
        raise InputError(
            f"score {score:g} of '{model}' on '{benchmark}' is outside its range {low:g} to {high:g}"
        )
    at = {"model": model, "benchmark": benchmark}
    data["score"].loc[at] = score
    data["se_kind"].loc[at] = "unknown"


def _typed(models: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    """Columns with the types that they had."""
    out = models.copy()
    for column in like.columns:
        if pd.api.types.is_numeric_dtype(like[column]) and not pd.api.types.is_bool_dtype(like[column]):
            out[column] = pd.to_numeric(out[column], errors="coerce")
    return out
