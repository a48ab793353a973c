"""The verb ``eval``: models and tasks in, records out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factorlab.errors import InputError

if TYPE_CHECKING:
    from factorlab.eval.model_spec import ModelSpec
    from factorlab.eval.rehearsal import Rehearsal
    from factorlab.eval.run import Settings, TaskResult
    from factorlab.eval.task import Task

FILE = click.Path(path_type=Path)

INTERRUPTED_EXIT = 130


@click.command(name="eval")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]PATH_OR_ID[@REVISION]",
    help="A model; again for more.",
)
@click.option(
    "--tasks", default="all", show_default=True, help="all, names, globs, or YAML files, with commas."
)
@click.option("--out", type=FILE, help="Folder for records, answers and reports.")
@click.option("--data-dir", type=FILE, help="Folder with the tasks' data; without it: the Hugging Face hub.")
@click.option(
    "--protocol",
    default="paper",
    show_default=True,
    help="paper: as the study ran it; fixed: its traps mended.",
)
@click.option("--limit", type=int, help="Only the first so many instances of each task.")
@click.option("--seed", type=int, help="Of the draw of worked examples, instead of the tasks'.")
@click.option("--chat", is_flag=True, help="Put prompts into the models' chat templates.")
@click.option("--engine", default="hf", show_default=True, help="hf (transformers) or vllm.")
@click.option("--dtype", default="auto", show_default=True, help="auto, bf16, fp16 or fp32.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (all GPUs, or the CPU), cpu, cuda:0, cuda:0,cuda:1, ...",
)
@click.option(
    "--batch", default="auto", show_default=True, help="Tokens of a batch; halved when memory runs out."
)
@click.option("--plain", is_flag=True, help="Never pack texts of a batch: the slow and simple way.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with a model.")
@click.option("--unsafe-code", is_flag=True, help="Run generated programs without a sandbox.")
@click.option("--all-metrics", is_flag=True, help="Also write normalised accuracies.")
@click.option("--cluster", metavar="URL", help="Workers that answer: ray://host:port or dask://host:port.")
@click.option("--workers", type=int, help="With --cluster: at most so many workers.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show each first prompt, tokens and the time it might take; write nothing.",
)
@click.option("--list", "listed", is_flag=True, help="Show the tasks there are, and end.")
@click.option("--quiet", is_flag=True, help="No progress display, no table.")
def eval_verb(
    models: tuple[str, ...], tasks: str, out: Path | None, protocol: str, engine: str, dtype: str, device: str,
    batch: str, plain: bool, trust_remote_code: bool, cluster: str | None, workers: int | None, dry_run: bool,
    listed: bool, quiet: bool, **asked: Any,
) -> None:  # fmt: skip
    """Evaluate causal language models and write what they answered, instance by instance.

    OUT/records is a record folder for `factorlab scores`. A run that was cut off goes on where it was when
    the same command is given again.
    """
    from factorlab.eval.model_spec import ModelSpec, check_specs, name_models
    from factorlab.eval.run import Settings
    from factorlab.eval.task import load_task, select_tasks

    if listed:
        _show_tasks(protocol)
        return
    chosen = [load_task(name, protocol) for name in select_tasks(tasks)]
    specs = [
        ModelSpec(name, source, revision, engine, dtype, device, batch, trust_remote_code, plain)
        for name, source, revision in name_models(models)
    ]
    settings = Settings(**asked)
    _check(settings, cluster, workers)
    if out is None and not dry_run:
        raise InputError("there is no --out; name a folder for the records")
    if out is not None:
        _check_out(out, specs)
    check_specs(specs, cluster)
    # Its warnings of every try are told once, in the error at the end.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if dry_run or out is None:
        _rehearse(specs, chosen, settings, cluster, workers)
        return
    try:
        _evaluate(specs, chosen, out, settings, cluster, workers, quiet)
    except KeyboardInterrupt:
        click.echo("Interrupted: what was answered is kept; the same command goes on from there.", err=True)
        sys.exit(INTERRUPTED_EXIT)


def _check(settings: Settings, cluster: str | None, workers: int | None) -> None:
    if settings.seed is not None and settings.seed < 0:
        raise InputError(f"--seed is {settings.seed}; it must be 0 or more")
    if settings.limit is not None and settings.limit < 1:
        raise InputError(f"--limit is {settings.limit}; it must be 1 or more")
    if workers is not None and cluster is None:
        raise InputError("--workers goes with --cluster; on this machine --device says where the model runs")
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}; it must be 1 or more")
    if settings.data_dir is not None and not Path(settings.data_dir).is_dir():
        raise InputError(f"--data-dir '{settings.data_dir}' is no folder")


def _check_out(out: Path, specs: Sequence[ModelSpec]) -> None:
    """A model is named by a digest of its folder, which records inside would change."""
    for spec in specs:
        folder = Path(spec.source).resolve()
        if (folder / "config.json").exists() and out.resolve().is_relative_to(folder):
            raise InputError(
                f"--out '{out}' is inside the folder of the model '{spec.name}', which it would change; "
                "give another folder"
            )


def _evaluate(
    specs: list[ModelSpec],
    tasks: list[Task],
    out: Path,
    settings: Settings,
    cluster: str | None,
    workers: int | None,
    quiet: bool,
) -> None:
    from factorlab.eval.model_spec import open_model
    from factorlab.eval.run import evaluate
    from factorlab.progress import Display

    with Display(quiet) as display:
        done = evaluate(
            {spec.name: _opener(open_model, spec, cluster, workers) for spec in specs},
            tasks,
            out,
            settings,
            facts={"command": sys.argv[1:], "asked_models": [spec.to_dict() for spec in specs]},
            progress=display,
        )
    if not quiet and done.results:
        from rich.console import Console

        from factorlab.console import show_evaluation

        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 140
        show_evaluation(done.to_dataframe(), console)
    for note in done.notes:
        click.echo(f"Note: {note}", err=True)
    _warn(done.results)
    if done.results:
        click.echo(
            f"Wrote {done.records}/ ({len(done.results)} of {len(specs) * len(tasks)} runs); report {done.report}. "
            f"Next: factorlab scores {done.records} --out {out / 'scores.parquet'}"
        )
    _fail(done.failures, len(done.results), "failed; what ended well is kept")


def _fail(failures: Mapping[str, str], rest: int, what: str) -> None:
    """All failures at the end, a line each; a single one is the error itself."""
    if not failures:
        return
    if len(failures) == 1 and not rest:
        raise InputError(": ".join(*failures.items()))
    for label, why in failures.items():
        click.echo(f"Failed: {label}: {why}", err=True)
    raise InputError(f"{len(failures)} of {len(failures) + rest} runs {what}")


def _warn(results: Sequence[TaskResult]) -> None:
    """A line a finding, with all benchmarks of a model that it was made on."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for finding in result.findings:
            found.setdefault((result.model, finding), []).append(result.benchmark)
    for (model, finding), benchmarks in found.items():
        click.echo(f"Warning: {model}, {', '.join(benchmarks)}: {finding}", err=True)


def _opener(open_model: Any, spec: ModelSpec, cluster: str | None, workers: int | None) -> Any:
    return lambda: open_model(spec) if cluster is None else open_model(spec, cluster, workers)


def _rehearse(
    specs: list[ModelSpec], tasks: list[Task], settings: Settings, cluster: str | None, workers: int | None
) -> None:
    from factorlab.eval.model_spec import forget, open_model
    from factorlab.eval.rehearsal import rehearse

    total, done, failures = 0.0, 0, {}
    for spec in specs:
        try:
            model = _opener(open_model, spec, cluster, workers)()
        except InputError as error:
            failures[spec.name] = str(error)
            continue
        for task in tasks:
            try:
                found = rehearse(spec.name, model, task, settings)
            except InputError as error:
                failures[f"{spec.name}, {task.benchmark}"] = str(error)
                continue
            total += found.seconds
            done += 1
            _show(found)
        for note in model.facts.notes:
            click.echo(f"Note: {spec.name}: {note}", err=True)
        close = getattr(model, "close", None)
        if close is not None:
            close()
        del model
        forget()
    if done:
        click.echo(f"All together: about {duration(total)}. Nothing was written.")
    _fail(failures, done, "would fail")


def _show(found: Rehearsal) -> None:
    click.secho(f"== {found.benchmark} ({found.protocol}), {found.model}", bold=True)
    click.echo(
        f"{found.instances} instances; prompts of {found.tokens_mean:.0f} tokens, at most {found.tokens_max}; "
        f"about {duration(found.seconds)}"
    )
    click.echo("-- first prompt " + "-" * 40)
    click.echo(found.prompt + "|")  # the mark shows whitespace at the end
    click.echo("-" * 56)
    if found.choices:
        click.echo(f"choices: {', '.join(repr(choice) for choice in found.choices)}")
    click.echo(f"gold: {found.target!r}")
    if found.answers:
        click.echo(f"answer: {found.answers[0][:200]!r}")
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    for finding in found.findings:
        click.echo(f"Warning: {found.model}, {found.benchmark}: {finding}", err=True)
    click.echo()


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _show_tasks(protocol: str) -> None:
    from rich.console import Console

    from factorlab.console import show_tasks
    from factorlab.eval.task import load_task, shipped_tasks

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    show_tasks([load_task(name, protocol) for name in shipped_tasks()], console)
