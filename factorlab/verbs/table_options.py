"""Options of the command line that say how a score table is read; every verb of a table has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from factorlab.verbs.records import pair

if TYPE_CHECKING:
    from factorlab.scores import ScoreTable

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)

_TABLE_OPTIONS = (
    click.option("--models", type=FILE, help="Models table; default: models.* beside TABLE."),
    click.option("--benchmarks", type=FILE, help="Benchmarks table; default: benchmarks.* beside TABLE."),
    click.option("--model-column", help="Wide tables: the column with the models' names."),
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="OURS=THEIRS",
        help="Long tables with other column names, e.g. score=performance.",
    ),
    click.option(
        "--ignore", multiple=True, metavar="COLUMN", help="Wide tables: a column that is no benchmark."
    ),
    click.option("--drop", multiple=True, metavar="BENCHMARK", help="Leave a benchmark out."),
    click.option(
        "--duplicates",
        type=click.Choice(["error", "mean", "first", "last"]),
        default="error",
        show_default=True,
        help="What to do with repeated (model, benchmark) rows.",
    ),
    click.option("--require-se", is_flag=True, help="Refuse a table with an unknown standard error."),
    click.option(
        "--models-where", metavar="EXPR", help="Keep models by a query, e.g. \"construction == 'PT'\"."
    ),
)


def table_options(function: F) -> F:
    """The options that say how to read a score table."""
    for option in reversed(_TABLE_OPTIONS):
        function = option(function)
    return function


def read_table(
    path: Path,
    *,
    models: Path | None,
    benchmarks: Path | None,
    model_column: str | None,
    columns: tuple[str, ...],
    ignore: tuple[str, ...],
    drop: tuple[str, ...],
    duplicates: str,
    require_se: bool,
    models_where: str | None,
) -> ScoreTable:
    """The table that the options describe.

    Raises
    ------
    InputError
    """
    from factorlab.scores import read_scores

    table = read_scores(
        path,
        models=models,
        benchmarks=benchmarks,
        model_column=model_column,
        columns=dict(pair(text, "--column", "OURS=THEIRS") for text in columns) or None,
        ignore=ignore,
        drop=drop,
        duplicates=duplicates,
        require_se=require_se,
    )
    return table.select(where=models_where) if models_where else table


READING = (
    "models", "benchmarks", "model_column", "columns", "ignore", "drop", "duplicates", "require_se",
    "models_where",
)  # fmt: skip
"""Names of those options, as `read_table` takes them."""
