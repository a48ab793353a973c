"""Verbs of the command line that make scores out of logs: ``import`` and ``scores``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from factorlab.errors import InputError

FILE = click.Path(path_type=Path)

LONG = 2_000_000
"""Records from which on averaging takes long enough to show its stages."""

HARNESSES = ("lm-eval", "inspect", "helm", "llm-jp-eval", "every-eval-ever", "py-irt", "table", "results")


def pair(text: str, option: str, form: str, *, last: bool = False) -> tuple[str, str]:
    """Both sides of an option of the form "left=right".

    Parameters
    ----------
    last : bool
        Divide at the last "=": what stands before it may have one too, as HELM's names do.

    Raises
    ------
    InputError
    """
    left, sign, right = text.rpartition("=") if last else text.partition("=")
    if not sign or not left.strip() or not right.strip():
        raise InputError(f"{option} '{text}' is not of the form {form}")
    return left.strip(), right.strip()


ONLY_FOR = {
    "filters": ("--filter", ("lm-eval",)),
    "split": ("--split", ("helm",)),
    "groups": ("--groups", ("lm-eval", "helm", "results")),
    "name_shots": ("--name-shots", ("lm-eval", "results")),
    "shared": ("--shared", tuple(h for h in HARNESSES if h != "results")),
    "cluster_field": ("--cluster-field", tuple(h for h in HARNESSES if h != "results")),
}
"""Options that mean something for some harnesses only."""

SMALL_BYTES = 20_000_000
"""Logs up to this size are read without a progress display."""


@click.command(name="import")
@click.argument("harness", type=click.Choice(HARNESSES))
@click.argument("paths", type=FILE, nargs=-1, required=True)
@click.option(
    "--out", type=FILE, required=True, help="Record folder to append to; 'results' and score tables: a table."
)
@click.option("--model", help="Name of the model, where the logs do not say it, or instead of it.")
@click.option("--benchmark", help="Name of the benchmark, where the logs do not say it, or instead of it.")
@click.option("--revision", help="Revision of the model.")
@click.option("--protocol", help="A name for how the benchmark was run, e.g. paper.")
@click.option("--metric", "metrics", multiple=True, help="Keep this metric; again for more.")
@click.option("--filter", "filters", multiple=True, help="lm-eval: keep this filter; again for more.")
@click.option("--cluster-field", metavar="FIELD", help="Field of an instance that names its cluster.")
@click.option(
    "--shared",
    multiple=True,
    metavar="A+B=FIELD",
    help="Benchmarks A and B share items: those where FIELD (lm-eval: also doc_id) is the same.",
)
@click.option("--groups", is_flag=True, help="A group of tasks is the benchmark, its tasks are clusters.")
@click.option("--name-shots", is_flag=True, help="lm-eval: add the number of shots to the benchmark's name.")
@click.option("--split", help="HELM: which split of the data; default: test where there is one.")
@click.option(
    "--model-from",
    type=click.Choice(["arguments", "folder", "file"]),
    default="arguments",
    show_default=True,
    help="results: where the model's name is.",
)
@click.option("--no-texts", is_flag=True, help="Leave predictions and targets out.")
@click.option("--partial", is_flag=True, help="Use what can be read, and tell what is left out.")
@click.option("--any-version", is_flag=True, help="Read logs of harness versions that were never tried.")
@click.option("--force", is_flag=True, help="results, table: replace a table that is there.")
@click.option("--quiet", is_flag=True, help="No progress display.")
def import_verb(
    harness: str, paths: tuple[Path, ...], out: Path, shared: tuple[str, ...], model_from: str, no_texts: bool,
    quiet: bool, force: bool, metrics: tuple[str, ...], filters: tuple[str, ...], **rest: Any,
) -> None:  # fmt: skip
    """Turn logs of an evaluation harness into records, or results without instances into a score table.

    PATHS are logs or folders of logs. Records are appended to the folder OUT, all of them or none. HARNESS
    'results' reads lm-eval's results files and Every Eval Ever's aggregates; 'table' reads Parquet or CSV, with
    a row an instance (to records) or a score table (to a long score table).
    """
    from factorlab.importers.request import ImportOptions

    given = {"filters": filters, "shared": shared, **rest}
    for name, (option, harnesses) in ONLY_FOR.items():
        if given.get(name) and harness not in harnesses:
            raise InputError(f"{option} means nothing for {harness}; it is for {', '.join(harnesses)}")
    if model_from != "arguments" and harness != "results":
        raise InputError(f"--model-from means nothing for {harness}; it is for results")
    options = ImportOptions(
        metrics=metrics, filters=filters, shared=_shared(shared), texts=not no_texts, **rest
    )
    if harness == "results":
        _check_new(out, force)
        _import_results(paths, out, options, model_from)
    elif harness == "table" and not _has_instances(paths):
        _check_new(out, force)
        _import_table(paths, out)
    else:
        _import_records(harness, paths, out, options, quiet)


def _check_new(out: Path, force: bool) -> None:
    """A table that is there, or covariances beside it, are replaced only on request."""
    for file in (out, out.with_name(f"{out.stem}.cov.parquet")):
        if file.exists() and not force:
            raise InputError(f"'{file}' exists; give --out another name, or --force to replace it")


def _shared(given: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    out: dict[str, tuple[str, str]] = {}
    for text in given:
        names, field = pair(text, "--shared", "A+B=FIELD", last=True)
        benchmarks = [name.strip() for name in names.split("+") if name.strip()]
        if len(benchmarks) < 2:
            raise InputError(f"--shared '{text}' is not of the form A+B=FIELD: it names one benchmark")
        out |= {benchmark: (names, field) for benchmark in benchmarks}
    return out


def _has_instances(paths: tuple[Path, ...]) -> bool:
    from factorlab.importers.tables import has_instances

    return any(path.is_dir() or has_instances(path) for path in paths)


def _import_records(harness: str, paths: tuple[Path, ...], out: Path, options: Any, quiet: bool) -> None:
    from factorlab.importers.jobs import import_records
    from factorlab.progress import Display

    files = [f for path in paths for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file()]
    with Display(quiet or sum(f.stat().st_size for f in files) < SMALL_BYTES) as display:
        done = import_records(
            harness, paths, out, options, lambda name, i, n: display("reading logs", i, n, name)
        )
    for note in done.notes:
        click.echo(f"Note: {note}", err=True)
    click.echo(
        f"Wrote {done.rows} records of {_several(done.models, 'model')} on "
        f"{_several(done.benchmarks, 'benchmark')} to {out}/ ({done.files} logs read). Next: factorlab scores {out}"
    )


def _several(names: tuple[str, ...], what: str) -> str:
    return f"1 {what} ({names[0]})" if len(names) == 1 else f"{len(names)} {what}s"


def _import_results(paths: tuple[Path, ...], out: Path, options: Any, model_from: str) -> None:
    from factorlab.importers.jobs import import_results

    frame, notes = import_results(paths, out, options, model_from)
    for note in notes:
        click.echo(f"Note: {note}", err=True)
    click.echo(
        f"Wrote {len(frame)} scores of {frame['model'].nunique()} models on {frame['benchmark'].nunique()} "
        f"benchmarks to {out}; {int(frame['se'].isna().sum())} without a standard error. Next: factorlab check {out}"
    )


def _import_table(paths: tuple[Path, ...], out: Path) -> None:
    from factorlab.importers.tables import score_table
    from factorlab.written_scores import check_target, write_scores

    if len(paths) != 1:
        raise InputError(f"{len(paths)} score tables are given; give one")
    check_target(out)
    frame = score_table(paths[0])
    write_scores(frame, None, out)
    click.echo(f"Wrote {len(frame)} scores to {out}. Next: factorlab check {out}")


@click.command()
@click.argument("records", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, default=Path("scores.parquet"), show_default=True, help="Table to write.")
@click.option(
    "--items",
    type=click.Choice(["random", "fixed"]),
    default="random",
    show_default=True,
    help="Whether instances are a sample of possible ones; fixed: only trials vary.",
)
@click.option(
    "--cluster",
    "clusters",
    multiple=True,
    metavar="[BENCHMARK=]KIND",
    help="What clusters are: auto (default), none, random (a sample of clusters) or fixed.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="[BENCHMARK=]METRIC",
    help="Which metric, where a benchmark has several.",
)
@click.option("--protocol", help="Which protocol, where a benchmark was run under several.")
@click.option("--split-revisions", is_flag=True, help="Name models MODEL@REVISION.")
@click.option(
    "--resamples", type=int, default=1000, show_default=True, help="Of the bootstrap of BLEU and others."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap.")
@click.option(
    "--figure",
    type=FILE,
    help="Also draw the standard errors: a file without ending (.png and .svg are written).",
)
@click.option("--force", is_flag=True, help="Replace a table that is there.")
@click.option("--quiet", is_flag=True, help="No progress display, no table.")
def scores(
    records: tuple[Path, ...], out: Path, clusters: tuple[str, ...], metrics: tuple[str, ...],
    figure: Path | None, force: bool, quiet: bool, **rest: Any,
) -> None:  # fmt: skip
    """Average records: a score, its standard error and how it was found, for every model and benchmark.

    Writes a long score table, the covariances of its errors beside it (NAME.cov.parquet) and, where there is
    none, a benchmarks table.
    """
    from factorlab.progress import Display
    from factorlab.record_scores import scores_from_records
    from factorlab.records import read_records
    from factorlab.written_scores import check_target

    _check_new(out, force)
    check_target(out)
    read = read_records(*records)
    with Display(quiet or read.n_rows < LONG) as display:
        found = scores_from_records(
            read,
            cluster=_by_benchmark(clusters, "auto", "--cluster"),
            metric=_by_benchmark(metrics, None, "--metric"),
            progress=display,
            **rest,
        )
    drawn = None
    if figure is not None:
        from factorlab.plots import save, standard_errors

        drawn = standard_errors(found.table)
    written = found.write(out)
    if figure is not None and drawn is not None:
        written += save(drawn, figure.with_suffix("") if figure.suffix in (".png", ".svg") else figure)
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if not quiet:
        from rich.console import Console

        from factorlab.console import show_standard_errors

        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 140  # a file or a pipe has no width that numbers must fit into
        show_standard_errors(found.table, console)
    click.echo(f"Wrote {', '.join(str(path) for path in written)}. Next: factorlab fit {out}")


def _by_benchmark(given: tuple[str, ...], default: str | None, option: str) -> Any:
    """A single value, or values by benchmark with "*" for the others.

    The name of a benchmark may hold "=", a metric or kind of clusters may not.
    """
    own = dict(pair(text, option, "[BENCHMARK=]VALUE", last=True) for text in given if "=" in text)
    common = [text for text in given if "=" not in text]
    if len(common) > 1:
        raise InputError(f"'{common[0]}' and '{common[1]}' are both given for all benchmarks; name one")
    value = common[0] if common else default
    if not own:
        return value
    return {**own, **({} if value is None else {"*": value})}
