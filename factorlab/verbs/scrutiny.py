"""Verbs that look twice at a result: `outliers` and `tornado`; parse, call the library, write, echo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from factorlab.errors import InputError
from factorlab.verbs.table_options import FILE, READING, read_table, table_options

STRICT_EXIT = 3
INTERRUPTED_EXIT = 130


@click.command()
@click.argument("run", type=FILE)
@click.option(
    "--leave",
    type=click.Choice(["group", "cell"]),
    default="group",
    show_default=True,
    help="Leave benchmarks that share items out together, or each score alone.",
)
@click.option("--level", type=float, default=0.94, show_default=True, help="Probability of the intervals.")
@click.option(
    "--fdr", type=float, default=0.05, show_default=True, help="Share of false ones among the flagged."
)
@click.option("--draws", type=int, default=2000, show_default=True, help="Posterior draws used at most.")
@click.option("--most", type=int, default=15, show_default=True, help="Scores printed.")
@click.option("--out", type=FILE, help="Also write every score to this CSV file.")
@click.option("--figure", type=FILE, metavar="STEM", help="Also draw STEM.png and STEM.svg.")
@click.option("--strict", is_flag=True, help="Exit with 3 when a score or a model is flagged.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def outliers(
    ctx: click.Context,
    run: Path,
    leave: str,
    level: float,
    fdr: float,
    draws: int,
    most: int,
    out: Path | None,
    figure: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Name scores and models of RUN that do not fit what everything else says of them.

    Each score is predicted from the model's other scores, its budgets and its family, by the posterior of
    RUN; each model from budgets and family alone. A score above its prediction may be contaminated, one below it
    may come from a broken prompt or a failed evaluation.
    """
    if most < 1:
        raise InputError(f"--most is {most}; give 1 or more")
    for path, option in ((out, "--out"), (figure, "--figure")):
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"no such folder for {option}: '{path.parent}'; make it first")
    from factorlab.inference.outliers import find_outliers
    from factorlab.runs import load_run
    from factorlab.scrutiny_text import outlier_lines
    from factorlab.summary import clean

    analysis = load_run(run)
    if analysis.bayes is None:
        raise InputError(f"run '{run}' has no posterior; fit with --method bayes or all")
    found = find_outliers(
        analysis.table,
        analysis.bayes,
        leave=leave,  # type: ignore[arg-type]
        level=level,
        fdr=fdr,
        draws=draws,
    )
    if as_json:
        click.echo(json.dumps(clean(found.to_dict()), ensure_ascii=False, indent=1))
    else:
        click.echo("\n".join(outlier_lines(found, most)))
    if out is not None:
        from factorlab.tabular import write_atomically

        write_atomically(out, lambda path: found.to_dataframe().to_csv(path, index=False))
        click.echo(f"Wrote {out}", err=as_json)
    if figure is not None:
        from factorlab import plots

        for path in plots.save(plots.outlier_scores(found, analysis.table), figure):
            click.echo(f"Wrote {path}", err=as_json)
    if strict and (found.cells["flagged"].any() or found.models["flagged"].any()):
        ctx.exit(STRICT_EXIT)


@click.command()
@click.argument("table", type=FILE)
@table_options
@click.option(
    "--method",
    type=click.Choice(["bayes", "pca"]),
    default="bayes",
    show_default=True,
    help="Sample every posterior again, with two-step PCA beside it; or PCA alone, in seconds.",
)
@click.option("--factors", type=int, default=4, show_default=True, metavar="K", help="Number of factors.")
@click.option(
    "--quick", is_flag=True, help="Token counts of all families together only; at most 500 draws a chain."
)
@click.option("--out", type=FILE, help="Folder; default: <table name>.tornado here.")
@click.option("--force", is_flag=True, help="Replace a tornado's folder; its finished fits are used again.")
@click.option(
    "--budget",
    type=click.Choice(["separate", "product"]),
    default="separate",
    show_default=True,
    help="Budgets as they are: log N and log D of each language, or log(N D).",
)
@click.option(
    "--pairs/--no-pairs", default=True, show_default=True, help="A factor for benchmarks that share items."
)
@click.option(
    "--missing",
    type=click.Choice(["em", "complete"]),
    default="em",
    show_default=True,
    help="Missing cells in PCA: estimated by EM, or complete models only.",
)
@click.option("--level", type=float, default=0.94, show_default=True, help="Probability of the intervals.")
@click.option("--priors", type=FILE, help="TOML file of priors.")
@click.option(
    "--draws",
    type=int,
    default=500,
    show_default=True,
    help="Draws of each chain before convergence is first checked; more follow until it holds.",
)
@click.option("--tune", type=int, default=300, show_default=True, help="Warm-up draws of each chain.")
@click.option("--max-draws", type=int, default=2000, show_default=True, help="Draws of each chain at most.")
@click.option("--chains", type=int, default=4, show_default=True, help="Chains.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--workers", type=int, help="Fits at once; default: the machine's cores, or all of a cluster.")
@click.option("--cluster", metavar="URL", help="Where the fits run: dask://host:port or ray://host:port.")
@click.option("--strict", is_flag=True, help="Exit with 3 when a fit failed or did not converge.")
@click.option("--json", "as_json", is_flag=True, help="Print tornado.json instead of text.")
@click.option("--quiet", is_flag=True, help="No progress display.")
@click.pass_context
def tornado(
    ctx: click.Context,
    table: Path,
    quick: bool,
    out: Path | None,
    force: bool,
    priors: Path | None,
    strict: bool,
    as_json: bool,
    quiet: bool,
    **rest: Any,
) -> None:
    """Fit TABLE again under one change at a time; show which headline numbers it moves, and how far.

    Changes: assumed token counts halved and doubled (all of a language, then a family at a time), each lineage
    left out, models trained from scratch only, zeros as missing, pair factors, the form of the budgets, one
    factor less or more. The folder holds tornado.csv, tornado.json, a figure for every headline and
    every finished fit: an interrupted call goes on where it stopped.
    """
    reading = {name: rest.pop(name) for name in READING}
    from factorlab.inference.priors import Priors, read_priors
    from factorlab.options import FitOptions
    from factorlab.refit_folder import check_free, partial_folder
    from factorlab.tornado_folder import MARK, tornado_into

    if quick:
        rest["max_draws"] = min(rest["max_draws"], 500)
        rest["draws"] = min(rest["draws"], 500)
    options = FitOptions(priors=read_priors(priors) if priors is not None else Priors(), **rest)
    scores = read_table(table, **reading)
    target = out if out is not None else Path(f"{scores.name}.tornado")
    check_free(target, force, MARK, "a tornado")
    from factorlab.progress import Display
    from factorlab.scrutiny_text import tornado_lines

    try:
        with Display(silent=quiet) as progress:
            found = tornado_into(scores, options, target, families=not quick, force=force, progress=progress)
    except KeyboardInterrupt:
        kept = partial_folder(target)
        what = f"finished fits are kept in {kept}; the same command goes on from there"
        click.echo(f"Interrupted: {what if kept.is_dir() else 'nothing was written'}.", err=True)
        ctx.exit(INTERRUPTED_EXIT)
    if as_json:
        click.echo((target / MARK).read_text(encoding="utf-8"), nl=False)
    else:
        click.echo("\n".join(tornado_lines(found)))
        click.echo(f"Wrote {target}/")
    if strict and found.problems:
        ctx.exit(STRICT_EXIT)
