"""The verb ``predict``: scores that are not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from factorlab.errors import InputError
from factorlab.verbs.records import pair
from factorlab.verbs.table_options import FILE, READING, read_table, table_options

MANY = 40
"""Cells that are printed at most; all of them are in the file."""


@click.command(name="predict")
@click.argument("table", type=FILE)
@table_options
@click.option(
    "--new",
    "new",
    multiple=True,
    metavar="NAME",
    help="A model that is not in the table; the --set and --score that name it describe it.",
)
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="NAME:COLUMN=VALUE",
    help="A column of the models table for a new model: params_b, tokens_b_ja, base_model, cpt_tokens_b_ja, ...",
)
@click.option(
    "--score",
    "scored",
    multiple=True,
    metavar="NAME:BENCHMARK=SCORE",
    help="A score that a new model has already.",
)
@click.option("--model", "wanted", multiple=True, metavar="NAME", help="Predict this model only.")
@click.option(
    "--benchmark", "columns_wanted", multiple=True, metavar="NAME", help="Predict this benchmark only."
)
@click.option("--beats", metavar="MODEL", help="Add the probability of a higher score than this model's.")
@click.option(
    "--likelihood",
    type=click.Choice(["student", "beta-binomial", "binomial"]),
    default="student",
    show_default=True,
    help="Noise of scores; counts where the number of instances is known.",
)
@click.option(
    "--factors",
    default="auto",
    show_default=True,
    metavar="K,K|auto",
    help="Numbers of factors of the mixture, weighed by held-out cells; auto: 2, 4 and 6.",
)
@click.option(
    "--covariate",
    "covariates",
    multiple=True,
    metavar="COLUMN",
    help="A further predictor of the models table.",
)
@click.option("--level", type=float, default=0.9, show_default=True, help="Probability of the intervals.")
@click.option(
    "--splits",
    type=int,
    default=3,
    show_default=True,
    help="Held-out splits that weigh members and recalibrate intervals; 0: neither.",
)
@click.option(
    "--draws", type=int, default=250, show_default=True, help="Draws of each chain, and warm-up draws."
)
@click.option("--chains", type=int, default=2, show_default=True, help="Chains of each fit.")
@click.option(
    "--max-depth", type=int, default=7, show_default=True, help="Trajectories have 2^depth steps at most."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--workers", type=int, help="Fits at once; default: the machine's cores.")
@click.option("--cluster", metavar="URL", help="Where they run: dask://host:port or ray://host:port.")
@click.option("--out", type=FILE, help="CSV or Parquet file of the predictions.")
@click.option("--figure", type=FILE, help="Figure (PNG and SVG), file name without ending.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", is_flag=True, help="No progress display.")
def predict_verb(
    table: Path,
    new: tuple[str, ...],
    given: tuple[str, ...],
    scored: tuple[str, ...],
    wanted: tuple[str, ...],
    columns_wanted: tuple[str, ...],
    beats: str | None,
    workers: int | None,
    cluster: str | None,
    out: Path | None,
    figure: Path | None,
    as_json: bool,
    quiet: bool,
    **rest: Any,
) -> None:
    """Predict the scores that TABLE does not have: missing cells, and new models from their budgets.

    TABLE is a score table or a run folder. Each prediction is a median with an interval, recalibrated on held-out
    cells of the table itself, and is marked where it goes beyond what was seen.

    \b
    factorlab predict scores.parquet --new "My 8B" --set "My 8B:base_model=Llama 3 8B" \\
        --set "My 8B:params_b=8" --set "My 8B:cpt_tokens_b_ja=200" --beats "Llama 3 70B"
    """
    reading = {name: rest.pop(name) for name in READING}
    from factorlab.inference.predict.new_models import add_models
    from factorlab.inference.predict.prediction import predict
    from factorlab.progress import Display

    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise InputError(f"--out '{out}' has no ending .csv or .parquet; give one")
    scores = read_table(
        table / "table" / "scores.parquet" if (table / "run.json").is_file() else table, **reading
    )
    if new or given or scored:
        scores = add_models(scores, _rows(new, given), _scores(scored))
    if beats is not None and beats not in scores.model_names:
        raise InputError(f"--beats '{beats}' is no model of the table; it has {scores.model_names}")
    settings = _settings(scores, **rest)
    only = list(wanted) or (list(new) if new else None)
    with Display(silent=quiet) as progress:
        found = predict(
            scores, settings, models=only, benchmarks=list(columns_wanted) or None, workers=workers,
            cluster=cluster, progress=progress,
        )  # fmt: skip
    frame = found.to_dataframe()
    if beats is not None:
        frame[f"beats {beats}"] = found.beats(beats)["probability"].to_numpy()
    if out is not None:
        from factorlab.tabular import write_atomically

        write_atomically(
            out,
            lambda path: (
                frame.to_csv(path, index=False)
                if out.suffix == ".csv"
                else frame.to_parquet(path, index=False)
            ),
        )
    if figure is not None:
        from factorlab.plots import save
        from factorlab.plots.predictions import predictions_figure

        for path in save(predictions_figure(found), figure):
            click.echo(str(path), err=as_json)
    if as_json:
        from factorlab.summary import clean

        told = found.to_dict() | {"cells": frame.to_dict(orient="records")}
        click.echo(json.dumps(clean(told), ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    from factorlab.console import show_prediction

    show_prediction(found, frame, Console(highlight=False), MANY)
    if out is not None:
        click.echo(f"Wrote {out}")


def _settings(
    scores: Any, *, likelihood: Any, factors: str, covariates: tuple[str, ...], level: float, splits: int,
    draws: int, chains: int, max_depth: int, seed: int,
) -> Any:  # fmt: skip
    """`PredictionSettings` of the options; models without a score ask for their like to be held out."""
    from factorlab.inference.predict.member_fit import Effort
    from factorlab.inference.predict.mixture import PredictionSettings
    from factorlab.inference.predict.new_models import without_kin
    from factorlab.inference.predict.specification import DEFAULT_MEMBERS, Member

    members: tuple[Member, ...] = DEFAULT_MEMBERS
    if factors != "auto":
        counts = [part.strip() for part in factors.split(",")]
        if not all(part.isdigit() for part in counts):
            raise InputError(
                f"--factors '{factors}' is no list of numbers; give 1, 2, ... such as 2,4 or auto"
            )
        members = tuple(Member(int(part)) for part in counts)
    for name, value, least in (
        ("--draws", draws, 20),
        ("--chains", chains, 1),
        ("--max-depth", max_depth, 1),
    ):
        if value < least:
            raise InputError(f"{name} {value} is too few; give {least} or more")
    whole_models, whole_lineages = without_kin(scores)
    return PredictionSettings(
        likelihood=likelihood,
        members=members,
        covariates=covariates,
        splits=splits,
        whole_models=whole_models,
        whole_lineages=whole_lineages,
        level=level,
        effort=Effort(draws, draws, chains, max_depth),
        seed=seed,
    )


def _rows(new: tuple[str, ...], given: tuple[str, ...]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {name: {"model": name} for name in new}
    for text in given:
        left, value = pair(text, "--set", "NAME:COLUMN=VALUE")
        name, _, column = left.rpartition(":")
        if name not in rows:
            raise InputError(f"--set '{text}' names '{name}', which no --new does; new are {list(rows)}")
        rows[name][column.strip()] = _value(value)
    return list(rows.values())


def _value(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _scores(scored: tuple[str, ...]) -> dict[tuple[str, str], float]:
    out = {}
    for text in scored:
        left, value = pair(text, "--score", "NAME:BENCHMARK=SCORE", last=True)
        name, _, benchmark = left.partition(":")
        try:
            out[name.strip(), benchmark.strip()] = float(value)
        except ValueError:
            raise InputError(f"--score '{text}' is not of the form NAME:BENCHMARK=SCORE") from None
    return out
