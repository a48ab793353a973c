"""The command line: parse, call the library, write, echo.

Libraries are imported inside the verbs, so that ``factorlab --help`` answers at once.
The verbs that fit, compare and show runs are in one file, as they share the options that say how a model is
fitted. Others are in the room `factorlab.verbs`: logs to tables, language models to records, predictions, plans,
validation, designs, scrutiny.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factorlab import __version__
from factorlab.collector import end_unsearched, seldom_collected
from factorlab.errors import InputError
from factorlab.verbs.design import factor_number, next_verb, parse_rho, power_verb
from factorlab.verbs.evaluate import eval_verb
from factorlab.verbs.plan import plan_verb
from factorlab.verbs.predict import predict_verb
from factorlab.verbs.records import import_verb, pair, scores
from factorlab.verbs.scrutiny import outliers, tornado
from factorlab.verbs.table_options import FILE, READING, F, read_table, table_options
from factorlab.verbs.validate import validate_verb

if TYPE_CHECKING:
    from factorlab.inference.budgets import BudgetRegression
    from factorlab.inference.solution import FactorSolution

STRICT_EXIT = 3
INTERRUPTED_EXIT = 130
BROKEN_PIPE_EXIT = 141
"""What a shell says of a program whose reader has gone."""


class Verbs(click.Group):
    """Turns a user's mistake into one line and exit code 1, an interruption into one line and 130."""

    def invoke(self, ctx: click.Context) -> Any:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: cleaned up
        try:
            with seldom_collected():
                return super().invoke(ctx)
        except InputError as error:
            raise click.ClickException(" ".join(str(error).split())) from None
        except BrokenPipeError:  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE_EXIT)
        except OSError as error:
            name = f" '{error.filename}'" if error.filename else ""
            raise click.ClickException(f"cannot read or write{name}: {error.strerror or error}") from None
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted: nothing was written.", err=True)
            ctx.exit(INTERRUPTED_EXIT)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="factorlab")
def main() -> None:
    """What large language models are able to do, measured with honest uncertainty.

    A table of benchmark scores in; ability factors, their uncertainty and their associations with
    training budgets out.
    """


main.add_command(eval_verb)
main.add_command(import_verb)
main.add_command(predict_verb)
main.add_command(scores)
main.add_command(next_verb)
main.add_command(power_verb)
main.add_command(plan_verb)
main.add_command(outliers)
main.add_command(tornado)
main.add_command(validate_verb)


@main.command()
@click.argument("table", type=FILE)
@table_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--strict", is_flag=True, help="Exit with 3 when anything is flagged.")
def check(table: Path, as_json: bool, strict: bool, **reading: Any) -> None:
    """Print a health report of TABLE: shape, noise, suspect cells, gaps, budgets."""
    from factorlab.health import check as examine
    from factorlab.health_text import report_lines
    from factorlab.summary import clean

    report = examine(read_table(table, **reading))
    if as_json:
        click.echo(json.dumps(clean(report.to_dict()), ensure_ascii=False, indent=1))
    else:
        click.echo("\n".join(report_lines(report)))
    if strict and report.flags:
        sys.exit(STRICT_EXIT)


_MODEL_OPTIONS = (
    click.option(
        "--budget",
        type=click.Choice(["separate", "product", "none"]),
        default="separate",
        show_default=True,
        help="Regression on log N and log D of each language, on log(N D), or none.",
    ),
    click.option(
        "--orient",
        type=click.Choice(["procrustes", "principal", "varimax", "promax"]),
        default="procrustes",
        show_default=True,
        help="Axes of the posterior draws.",
    ),
    click.option(
        "--rotation",
        type=click.Choice(["none", "varimax", "promax"]),
        default="none",
        show_default=True,
        help="Rotation of the maximum-likelihood solution.",
    ),
    click.option(
        "--convention",
        type=click.Choice(["psych", "stats"]),
        default="psych",
        show_default=True,
        help="Which of the two rotations called promax.",
    ),
    click.option(
        "--missing",
        type=click.Choice(["em", "complete"]),
        default="em",
        show_default=True,
        help="Missing cells in PCA and ML: estimated by EM, or complete models only.",
    ),
    click.option(
        "--pairs/--no-pairs",
        default=True,
        show_default=True,
        help="A factor for benchmarks that share items.",
    ),
    click.option(
        "--level", type=float, default=0.94, show_default=True, help="Probability of the intervals."
    ),
    click.option("--priors", type=FILE, help="TOML file of priors."),
    click.option(
        "--draws",
        type=int,
        default=500,
        show_default=True,
        help="Draws of each chain before convergence is first checked; more follow until it holds.",
    ),
    click.option("--tune", type=int, default=300, show_default=True, help="Warm-up draws of each chain."),
    click.option(
        "--max-draws", type=int, default=10_000, show_default=True, help="Draws of each chain at most."
    ),
    click.option("--max-seconds", type=float, help="Seconds of sampling at most."),
    click.option(
        "--sampler",
        type=click.Choice(["auto", "nuts", "laplace"]),
        default="auto",
        show_default=True,
        help="Exact sampling, or a normal approximation at the mode for very large tables.",
    ),
    click.option(
        "--chain-weights",
        type=click.Choice(["none", "stacking", "posterior"]),
        default="none",
        show_default=True,
        help="Chains that found different solutions: tell only, or weight them by prediction or mass.",
    ),
    click.option("--chains", type=int, default=4, show_default=True, help="Chains."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers."),
)


def model_options(function: F) -> F:
    """The options of the models themselves."""
    for option in reversed(_MODEL_OPTIONS):
        function = option(function)
    return function


@main.command()
@click.argument("table", type=FILE)
@table_options
@click.option("--out", type=FILE, help="Run folder; default: <table name>.fit here.")
@click.option("--force", is_flag=True, help="Replace a run folder that is there.")
@click.option("--factors", default="4", show_default=True, metavar="K|auto", help="Number of factors.")
@click.option(
    "--method",
    type=click.Choice(["pca", "ml", "bayes", "all"]),
    default="all",
    show_default=True,
    help="What to fit.",
)
@model_options
@click.option(
    "--anchor", multiple=True, metavar="PCk=BENCHMARK", help="Benchmark that is positive on a factor."
)
@click.option("--cores", type=int, help="Chains at once; default: the machine's cores.")
@click.option("--workers", type=int, help="Fits at once with --factors auto; default: the machine's cores.")
@click.option("--cluster", metavar="URL", help="Where those run: dask://host:port or ray://host:port.")
@click.option("--resamples", type=int, default=500, show_default=True, help="Bootstrap draws of PCA.")
@click.option(
    "--page/--no-page", default=True, show_default=True, help="Draw the figures and write report.html."
)
@click.option("--strict", is_flag=True, help="Exit with 3 when the posterior did not converge.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of tables.")
@click.option("--quiet", is_flag=True, help="No progress display.")
def fit(
    table: Path,
    out: Path | None,
    force: bool,
    factors: str,
    orient: str,
    priors: Path | None,
    anchor: tuple[str, ...],
    page: bool,
    strict: bool,
    as_json: bool,
    quiet: bool,
    **rest: Any,
) -> None:
    """Fit PCA, maximum-likelihood factor analysis and the Bayesian model to TABLE; write a run folder.

    The folder holds summary.json, the solutions as netCDF (they open in ArviZ), tables as CSV,
    figures and report.html.
    """
    reading = {name: rest.pop(name) for name in READING}
    if factors != "auto" and not factors.isdigit():
        raise InputError(f"--factors '{factors}' is no number; give 1, 2, ... or auto")
    atexit.register(end_unsearched)
    from factorlab.painter import Painter

    painter = click.get_current_context().with_resource(Painter(rest["cores"] if page else 1))
    from factorlab.analysis import analyse, with_anchors
    from factorlab.inference.priors import Priors, read_priors
    from factorlab.options import FitOptions
    from factorlab.runs import check_free, write_run

    options = FitOptions(
        factors="auto" if factors == "auto" else int(factors),
        orientation=orient,  # type: ignore[arg-type]
        priors=read_priors(priors) if priors is not None else Priors(),
        **rest,
    )
    scores = read_table(table, **reading)
    target = check_free(out if out is not None else Path(f"{scores.name}.fit"), force)
    if anchor:
        pairs = [pair(text, "--anchor", "PCk=BENCHMARK") for text in anchor]
        chosen = {factor_number(k, "--anchor"): name for k, name in pairs}
        scores = with_anchors(scores, chosen, options.factors)
    from factorlab.console import show
    from factorlab.progress import Display

    with Display(silent=quiet) as progress:
        analysis = analyse(scores, options, progress, painter.begin_early)
        write_run(analysis, target, force=force, page=page, progress=progress, painter=painter)
    if as_json:
        click.echo((target / "summary.json").read_text(encoding="utf-8"), nl=False)
    else:
        from rich.console import Console

        show(analysis, Console(highlight=False))
        click.echo(f"Wrote {target}/" + (f" (open {target / 'report.html'})" if page else ""))
    if analysis.bayes is not None and analysis.bayes.extra.get("stopped") == "interrupted":
        click.echo("Interrupted while sampling: what was drawn until then is in the folder.", err=True)
        sys.exit(INTERRUPTED_EXIT)
    if strict and analysis.problems:
        sys.exit(STRICT_EXIT)


@main.command(name="refit")
@click.argument("table", type=FILE)
@table_options
@click.option(
    "--scheme",
    type=click.Choice(["leave-one-model-out", "leave-one-lineage-out", "bootstrap", "kfold"]),
    default="leave-one-model-out",
    show_default=True,
    help="Whom each refit leaves out, or draws again.",
)
@click.option(
    "--method",
    type=click.Choice(["pca", "ml", "bayes"]),
    default="pca",
    show_default=True,
    help="What to fit again.",
)
@click.option("--factors", type=int, default=4, show_default=True, metavar="K", help="Number of factors.")
@click.option("--fits", type=int, help="Bootstrap samples (default 200) or folds (default 10).")
@click.option("--workers", type=int, help="Fits at once; default: the machine's cores, or all of a cluster.")
@click.option("--cluster", metavar="URL", help="Where the fits run: dask://host:port or ray://host:port.")
@click.option("--out", type=FILE, help="Folder; default: <table name>.refit here.")
@click.option("--force", is_flag=True, help="Replace a folder of refits; its finished fits are used again.")
@model_options
@click.option("--strict", is_flag=True, help="Exit with 3 when a refit failed or did not converge.")
@click.option("--json", "as_json", is_flag=True, help="Print refit.json instead of a table.")
@click.option("--quiet", is_flag=True, help="No progress display.")
@click.pass_context
def refit_verb(
    ctx: click.Context,
    table: Path,
    scheme: str,
    fits: int | None,
    out: Path | None,
    force: bool,
    orient: str,
    priors: Path | None,
    strict: bool,
    as_json: bool,
    quiet: bool,
    **rest: Any,
) -> None:
    """Fit one method again with models left out or drawn again; write how far its results move.

    The folder holds summary.csv (a row a refit and factor), headlines.csv (a row a number), refits.nc,
    a figure, and every finished fit: an interrupted or failed call goes on where it stopped.
    """
    reading = {name: rest.pop(name) for name in READING}
    from factorlab.inference.priors import Priors, read_priors
    from factorlab.options import FitOptions
    from factorlab.refit_folder import MARK, partial_folder, refit_into

    options = FitOptions(
        orientation=orient,  # type: ignore[arg-type]
        priors=read_priors(priors) if priors is not None else Priors(),
        **rest,
    )
    scores = read_table(table, **reading)
    target = out if out is not None else Path(f"{scores.name}.refit")
    from factorlab.console import show_refits
    from factorlab.progress import Display

    try:
        with Display(silent=quiet) as progress:
            refits = refit_into(
                scores,
                scheme,  # type: ignore[arg-type]
                options,
                target,
                fits=fits,
                force=force,
                progress=progress,
            )
    except KeyboardInterrupt:
        kept = partial_folder(target)
        what = f"finished fits are kept in {kept}; the same command goes on from there"
        click.echo(f"Interrupted: {what if kept.is_dir() else 'nothing was written'}.", err=True)
        ctx.exit(INTERRUPTED_EXIT)
    if as_json:
        click.echo((target / MARK).read_text(encoding="utf-8"), nl=False)
    else:
        from rich.console import Console

        show_refits(refits, Console(highlight=False))
        click.echo(f"Wrote {target}/")
    if strict and refits.problems:
        sys.exit(STRICT_EXIT)


@main.command()
@click.argument("run", type=FILE)
@click.argument("other", type=FILE, required=False)
@click.option(
    "--solution",
    type=click.Choice(["pca", "ml", "bayes"]),
    help="Of two runs: which solution; default bayes, else pca.",
)
@click.option(
    "--align",
    type=click.Choice(["match", "procrustes"]),
    default="match",
    show_default=True,
    help="Bring the second to the first by order and signs, or by rotation.",
)
@click.option("--level", type=float, default=0.94, show_default=True, help="Probability of the intervals.")
@click.option("--out", type=FILE, help="Also write the comparison as a CSV file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    run: Path,
    other: Path | None,
    solution: str | None,
    align: str,
    level: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare PCA with the Bayesian solution of RUN, or RUN with OTHER.

    RUN and OTHER are run folders or .nc files (such as the truth that `factorlab simulate` writes).
    """
    from factorlab.console import show_comparison
    from factorlab.inference.compare import compare as measure
    from factorlab.summary import clean

    first, second, budgets = _sides(run, other, solution)
    result = measure(first, second, level=level, budgets=budgets, align=align)  # type: ignore[arg-type]
    if out is not None:
        from factorlab.tabular import write_atomically

        write_atomically(out, lambda path: result.to_dataframe().to_csv(path, index=False))
    if as_json:
        click.echo(json.dumps(clean(result.to_dict()), ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    show_comparison(result, Console(highlight=False))


def _sides(
    run: Path, other: Path | None, name: str | None
) -> tuple[FactorSolution, FactorSolution, tuple[Any, Any]]:
    """The two solutions to compare, and their budget regressions where known."""
    from factorlab.inference.solution import load_solution
    from factorlab.runs import load_run

    if other is None:
        analysis = load_run(run)
        if analysis.pca is None or analysis.bayes is None:
            raise InputError(f"run '{run}' lacks PCA or Bayes; fit with --method all, or give a second run")
        return analysis.pca, analysis.bayes, (analysis.pca_budgets, analysis.bayes_budgets)
    sides: list[FactorSolution] = []
    budgets: list[BudgetRegression | None] = []
    for path in (run, other):
        if path.suffix == ".nc":
            sides.append(load_solution(path))
            budgets.append(None)
            continue
        analysis = load_run(path)
        wanted = [name] if name is not None else ["bayes", "pca", "ml"]
        found = next((n for n in wanted if getattr(analysis, n) is not None), None)
        if found is None:
            raise InputError(
                f"run '{path}' has no {' or '.join(wanted)} solution; fit with --method {wanted[0]}"
            )
        sides.append(getattr(analysis, found))
        budgets.append(
            analysis.bayes_budgets if found == "bayes" else analysis.pca_budgets if found == "pca" else None
        )
    return sides[0], sides[1], (budgets[0], budgets[1])


@main.command()
@click.argument("run", type=FILE)
@click.argument("name", required=False)
@click.option("--out", type=FILE, help="File without ending; default: RUN/figures/NAME.")
def plot(run: Path, name: str | None, out: Path | None) -> None:
    """Draw figure NAME of RUN as PNG and SVG; without NAME, list the figures."""
    from factorlab.gallery import figure, figures
    from factorlab.plots import save
    from factorlab.runs import load_run

    analysis = load_run(run)
    if name is None:
        for key, drawing in figures(analysis, every=True).items():
            click.echo(f"{key:24} {drawing.title}")
        return
    drawn = figure(analysis, name)
    stem = out if out is not None else run / "figures" / name
    stem.parent.mkdir(parents=True, exist_ok=True)
    for path in save(drawn, stem):
        click.echo(str(path))


@main.command()
@click.argument("run", type=FILE)
@click.option("--text", is_flag=True, help="Print the answers as plain text; draw and write nothing.")
@click.option("--quiet", is_flag=True, help="No progress display.")
def report(run: Path, text: bool, quiet: bool) -> None:
    """Rebuild figures and report.html of RUN, or print its answers."""
    if text:
        from factorlab.questions.text import answer_lines
        from factorlab.runs import load_run

        click.echo("\n".join(answer_lines(load_run(run).answers)))
        return
    from factorlab.painter import Painter

    painter = click.get_current_context().with_resource(Painter())
    from factorlab.progress import Display
    from factorlab.runs import load_run, write_page

    with Display(silent=quiet) as progress:
        path = write_page(load_run(run), run, progress, painter)
    click.echo(f"Wrote {path}")


@main.command()
@click.option("--out", type=FILE, required=True, help="Folder for the table and truth.nc.")
@click.option(
    "--like",
    type=FILE,
    help="Take models, budgets, benchmarks and PCA loadings of a table.",
)
@click.option("--models", type=int, default=35, show_default=True, help="Number of models (without --like).")
@click.option(
    "--benchmarks", type=int, default=19, show_default=True, help="Number of benchmarks (without --like)."
)
@click.option("--factors", type=int, default=3, show_default=True, help="Number of factors.")
@click.option(
    "--languages", default="en,ja", show_default=True, help="Languages with a budget (without --like)."
)
@click.option(
    "--rho", multiple=True, metavar="PCk:LANG=R", help="Population correlation of a factor and a log budget."
)
@click.option(
    "--token-log-sd", type=float, default=0.0, show_default=True, help="Error of the published token counts."
)
@click.option(
    "--family-share",
    type=float,
    default=0.0,
    show_default=True,
    help="Share of residual variance of families.",
)
@click.option("--missing", type=float, default=0.0, show_default=True, help="Share of cells taken out.")
@click.option("--instances", type=int, default=1000, show_default=True, help="Instances of a benchmark.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--force", is_flag=True, help="Replace the folder if an earlier simulate wrote it.")
def simulate(
    out: Path,
    like: Path | None,
    models: int,
    benchmarks: int,
    factors: int,
    languages: str,
    rho: tuple[str, ...],
    instances: int,
    force: bool,
    **rest: Any,
) -> None:
    """Simulate a score table with known factors: scores.parquet, models.csv, benchmarks.csv, truth.nc."""
    from factorlab.inference.pca import fit_pca
    from factorlab.runs import new_folder
    from factorlab.scores import read_scores
    from factorlab.simulation import simulate as draw

    if out.exists() and not (force and (out / "truth.nc").is_file()):
        raise InputError(
            f"'{out}' exists; give --out another folder, or --force to replace an earlier simulation"
        )
    source = read_scores(like) if like is not None else None
    simulated = draw(
        models=models,
        benchmarks=benchmarks,
        factors=factors,
        languages=tuple(name.strip() for name in languages.split(",") if name.strip()),
        like=source,
        loading=fit_pca(source, factors, missing="em").loading_mean().to_numpy()
        if source is not None
        else None,
        rho=dict(parse_rho(text) for text in rho) or None,
        n_instances=instances,
        **rest,
    )
    with new_folder(out) as work:
        simulated.table.write(work)
        simulated.truth.save(work / "truth.nc")
        simulated.budget.rename_axis("model").to_csv(work / "true_budgets.csv")
    click.echo(
        f"Wrote {out}/ ({len(simulated.table.model_names)} models x "
        f"{len(simulated.table.benchmark_names)} benchmarks)"
    )


if __name__ == "__main__":
    main()
