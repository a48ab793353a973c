"""The verb `plan`: how many further tokens a target asks for, and what else they could be spent on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factorlab.errors import InputError
from factorlab.verbs.records import pair
from factorlab.verbs.table_options import FILE, read_table, table_options

if TYPE_CHECKING:
    from rich.console import Console

    from factorlab.inference.predict.plan import Plan
    from factorlab.scores import ScoreTable

FEWEST_PARAMETERS = 1e5
"""A smaller number was meant as billions."""


@click.command(name="plan")
@click.argument("source", metavar="RUN_OR_TABLE", type=FILE)
@table_options
@click.option(
    "--target", "targets", multiple=True, metavar="BENCHMARK=SCORE", help="A target; again for more."
)
@click.option("--base", metavar="MODEL", help="Continual pre-training of this model of the models table.")
@click.option("--params", type=float, help="Instead: parameters of a new model, e.g. 8e9.")
@click.option("--language", required=True, metavar="LANG", help="Whose tokens are planned, e.g. ja.")
@click.option(
    "--probability", type=float, default=0.8, show_default=True, help="Wanted of reaching a target."
)
@click.option(
    "--tokens",
    multiple=True,
    metavar="LANG=BILLIONS",
    help="Tokens of other languages: of a new model, or added to the base in any case.",
)
@click.option(
    "--most",
    type=float,
    metavar="BILLIONS",
    help="Further tokens at most; default: 10 times the most of any scored model.",
)
@click.option(
    "--against", metavar="LANG", help="The other language at equal compute; default: the first other."
)
@click.option(
    "--spend",
    type=float,
    metavar="BILLIONS",
    help="Tokens of that comparison; default: what the targets need, or the most of any scored model.",
)
@click.option("--level", type=float, default=0.9, show_default=True, help="Probability of the intervals.")
@click.option(
    "--likelihood",
    type=click.Choice(["student", "beta-binomial", "binomial"]),
    default="student",
    show_default=True,
    help="Noise of scores; counts need n_instances.",
)
@click.option("--workers", type=int, help="Fits at once; default: the machine's cores, or all of a cluster.")
@click.option("--cluster", metavar="URL", help="Where the fits run: dask://host:port or ray://host:port.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--out", type=FILE, help="Also write a folder: plan.json, CSV tables, figures.")
@click.option("--force", is_flag=True, help="Replace the folder of an earlier plan.")
@click.option("--json", "as_json", is_flag=True, help="Print plan.json instead of tables.")
@click.option("--quiet", is_flag=True, help="No progress display.")
def plan_verb(
    source: Path, targets: tuple[str, ...], base: str | None, params: float | None, language: str,
    probability: float, tokens: tuple[str, ...], most: float | None, against: str | None, spend: float | None,
    level: float, likelihood: str, workers: int | None, cluster: str | None, seed: int, out: Path | None,
    force: bool, as_json: bool, quiet: bool, **reading: Any,
) -> None:  # fmt: skip
    """Plan training budgets: further tokens of a language that targets ask for, with their uncertainty.

    Tells the probability of reaching each target along further tokens, that it is out of reach, and how the
    same tokens in another language compare. Assumes that what holds between the models of the table holds for
    the next one.
    """
    goals = _numbers(targets, "--target", "BENCHMARK=SCORE")
    counts = _numbers(tokens, "--tokens", "LANG=BILLIONS")
    if (base is None) == (params is None):
        raise InputError("give either --base MODEL (to train on) or --params N (a new model), one of the two")
    if params is not None and not params >= FEWEST_PARAMETERS:
        raise InputError(
            f"--params {params:g} is no size of a model; give the number of parameters, such as 8e9"
        )
    from factorlab.inference.predict.mixture import PredictionSettings
    from factorlab.inference.predict.plan import plan
    from factorlab.plan_folder import check_free, plan_text, write_plan
    from factorlab.progress import Display

    settings = PredictionSettings(likelihood=likelihood, level=level, seed=seed)  # type: ignore[arg-type]
    if out is not None:
        check_free(out, force)
    table = run_or_table(source, reading)
    with Display(silent=quiet) as progress:
        result = plan(
            table,
            goals,
            language=language,
            base=base,
            params_b=None if params is None else params / 1e9,
            probability=probability,
            tokens=counts,
            most=most,
            against=against,
            spend=spend,
            settings=settings,
            workers=workers,
            cluster=cluster,
            progress=progress,
        )
        if out is not None:
            write_plan(result, out, force=force)
    if as_json:
        click.echo(plan_text(result), nl=False)
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100
    show_plan(result, console)
    if out is not None:
        click.echo(f"Wrote {out}/")


def run_or_table(source: Path, reading: dict[str, Any]) -> ScoreTable:
    """The table of a run folder, or a table.

    Raises
    ------
    InputError
    """
    if not source.is_dir():
        return read_table(source, **reading)
    if not (source / "run.json").is_file():
        raise InputError(f"'{source}' is not a run folder: it has no run.json; factorlab fit writes one")
    return read_table(source / "table" / "scores.parquet", **reading)


def _numbers(given: tuple[str, ...], option: str, form: str) -> dict[str, float]:
    """Names and numbers of a repeated option."""
    out: dict[str, float] = {}
    for text in given:
        name, value = pair(text, option, form, last=True)
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"{option} '{text}' is not of the form {form}: '{value}' is no number") from None
        if name in out:
            raise InputError(f"{option} names '{name}' twice; give it once")
        out[name] = number
    return out


def show_plan(plan: Plan, console: Console) -> None:
    """Print the targets, the strategies and the notes."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from factorlab.inference.predict.plan_notes import amount

    model = plan.model
    percent = f"{100 * plan.mixture.settings.level:g} %"
    whom = model.base or model.name
    out = Table(
        title=f"Further {model.language} tokens for {whom}, billions",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    out.add_column("target", no_wrap=True)
    out.add_column("", no_wrap=True)
    for name in (f"median [{percent}]", f"P = {plan.probability:g}", "out of reach"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in plan.targets.to_dict(orient="records"):
        goal = "" if row["target"] != row["target"] else f" {row['target']:g}"
        base = "" if row["base_score"] != row["base_score"] else f"(base {row['base_score']:.3f})"
        for kind in ("_recalibrated", ""):
            median, low, high, needed = (
                _within(row[f"tokens_{k}{kind}"], plan.most) for k in ("median", "low", "high", "needed")
            )
            far = " *" if row[f"beyond_seen{kind}"] and not needed.startswith(">") else ""
            first = kind != ""
            out.add_row(
                Text(row["benchmark"] + goal if first else base), kind.strip("_") or "raw",
                Text(f"{median} [{low}, {high}]"), needed + far, f"{row[f'out_of_reach{kind}']:.2f}",
            )  # fmt: skip
    console.print(out)
    if plan.targets[["beyond_seen", "beyond_seen_recalibrated"]].to_numpy().any():
        console.print(f"* more than any scored model has ({amount(model.seen)} billion): an extrapolation")
    if len(plan.strategies):
        _show_strategies(plan, console)
    for sentence in plan.notes:
        console.print(Text(f"! {sentence}", style="yellow"))


def _within(tokens_b: float, most: float) -> str:
    from factorlab.inference.predict.plan_notes import amount

    return amount(tokens_b) if tokens_b < float("inf") else f"> {amount(most)}"


def _show_strategies(plan: Plan, console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from factorlab.inference.predict.plan_notes import amount

    other, planned = str(plan.against), plan.model.language
    title = f"{amount(plan.spend)} billion tokens more in {planned} rather than {other}"
    out = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    out.add_column("benchmark", no_wrap=True)
    level = f"{100 * plan.mixture.settings.level:g} %"
    for name in (other, planned, f"difference [{level}]", f"P({planned} better)"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in plan.strategies.to_dict(orient="records"):
        out.add_row(
            Text(row["benchmark"]), f"{row['other']:.3f}", f"{row['planned']:.3f}",
            Text(f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"), f"{row['probability']:.2f}",
        )  # fmt: skip
    console.print(out)
