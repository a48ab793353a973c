"""The verb ``validate``: how well hidden scores of a table are predicted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factorlab.errors import InputError
from factorlab.verbs.table_options import FILE, READING, read_table, table_options

if TYPE_CHECKING:
    from factorlab.inference.predict.validation import Validation

INTERRUPTED_EXIT = 130


@click.command(name="validate")
@click.argument("table", type=FILE)
@table_options
@click.option(
    "--scheme",
    "schemes",
    type=click.Choice(["cells", "lineage", "siblings", "compute"]),
    multiple=True,
    help="What is hidden: cells; a lineage's scores; all of a lineage but its smallest model's; the half with "
    "more compute. Again for more; default: cells, and lineage and compute where the table allows.",
)
@click.option("--folds", type=int, default=5, show_default=True, help="Folds of held-out cells.")
@click.option("--level", type=float, default=0.9, show_default=True, help="Probability of the intervals.")
@click.option(
    "--factors", default="auto", show_default=True, metavar="auto|K,K,...", help="Members of the mixture."
)
@click.option(
    "--covariate", "covariates", multiple=True, metavar="COLUMN", help="A further column of the models table."
)
@click.option(
    "--likelihood",
    type=click.Choice(["student", "beta-binomial", "binomial"]),
    default="student",
    show_default=True,
    help="Of a score given its expectation.",
)
@click.option(
    "--draws", type=int, default=150, show_default=True, help="Of each of two chains; as many warm up."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--workers", type=int, help="Fits at once; default: the machine's cores, or all of a cluster.")
@click.option("--cluster", metavar="URL", help="Where the fits run: dask://host:port or ray://host:port.")
@click.option("--out", type=FILE, help="Folder; default: <table name>.validation here.")
@click.option(
    "--force", is_flag=True, help="Replace a folder of a validation; its finished fits are used again."
)
@click.option("--json", "as_json", is_flag=True, help="Print validation.json instead of a table.")
@click.option(
    "--quick",
    is_flag=True,
    help="Little work, to try a table: 2 folds, one member, short chains, raw weights.",
)
@click.option("--quiet", is_flag=True, help="No progress display.")
@click.pass_context
def validate_verb(
    ctx: click.Context,
    table: Path,
    schemes: tuple[str, ...],
    factors: str,
    covariates: tuple[str, ...],
    draws: int,
    out: Path | None,
    force: bool,
    as_json: bool,
    quick: bool,
    quiet: bool,
    **rest: Any,
) -> None:
    """Hide scores of TABLE that are known, predict them, and write how good the predictions were.

    The prediction mixture stands beside a Gaussian factor model, PCA with a log-linear regression on budgets,
    and benchmark mean plus model mean; all see the same cells. The folder holds methods.csv, cells.csv,
    factors.csv, figures, and every finished fit: an interrupted call goes on where it stopped.
    """
    reading = {name: rest.pop(name) for name in READING}
    from factorlab.inference.predict.validation_options import FITS, ValidationOptions
    from factorlab.inference.predict.validation_options import quick as shortened
    from factorlab.refit_folder import partial_folder
    from factorlab.validation_folder import MARK, validate_into

    if draws < 4:
        raise InputError(f"--draws is {draws}; give 4 or more, such as 150")
    options = ValidationOptions(
        schemes=schemes,  # type: ignore[arg-type]
        factors=_factors(factors),
        covariates=covariates,
        effort=FITS._replace(draws=draws, tune=draws),
        **rest,
    )
    scores = read_table(table, **reading)
    target = out if out is not None else Path(f"{scores.name}.validation")
    from factorlab.progress import Display

    try:
        with Display(silent=quiet) as progress:
            found = validate_into(
                scores, shortened(options) if quick else options, target, force=force, progress=progress
            )
    except KeyboardInterrupt:
        kept = partial_folder(target)
        what = f"finished fits are kept in {kept}; the same command goes on from there"
        click.echo(f"Interrupted: {what if kept.is_dir() else 'nothing was written'}.", err=True)
        ctx.exit(INTERRUPTED_EXIT)
    if as_json:
        click.echo((target / MARK).read_text(encoding="utf-8"), nl=False)
        return
    _show(found)
    click.echo(f"Wrote {target}/")


def _factors(text: str) -> Any:
    if text == "auto":
        return "auto"
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise InputError(f"--factors '{text}' is no list of numbers; give auto, or 2,4,6")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _show(found: Validation) -> None:
    """Print a line a scheme and method, and the numbers of factors."""
    from rich.console import Console

    from factorlab.console import show_validation

    show_validation(found, Console(highlight=False))
