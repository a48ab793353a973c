"""Click verbs of plans: `next`, what to measure; `power`, whether it will tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factorlab.errors import InputError
from factorlab.verbs.records import pair
from factorlab.verbs.table_options import FILE

if TYPE_CHECKING:
    from factorlab.inference.information import NextBenchmarks


@click.command(name="next")
@click.argument("run", type=FILE)
@click.option("--ability", required=True, metavar="PCk", help="Which ability.")
@click.option("--model", "models", multiple=True, help="A model of RUN; again for more. Default: a new one.")
@click.option(
    "--cost",
    "costs",
    multiple=True,
    metavar="FILE|[BENCHMARK=]COST",
    help="Cost of an instance (default 1), or a CSV file with columns benchmark, cost, fixed_cost.",
)
@click.option("--fixed-cost", type=float, help="Cost of running a benchmark at all.")
@click.option(
    "--instances",
    multiple=True,
    metavar="[BENCHMARK=]N",
    help="Instances to run: a number, all (default), enough or best (per cost, with a fixed cost).",
)
@click.option(
    "--rank-by",
    type=click.Choice(["cost", "information"]),
    default="cost",
    show_default=True,
    help="Rank by information per unit of cost, or by information alone.",
)
@click.option("--steps", type=int, default=5, show_default=True, help="Benchmarks of the greedy design.")
@click.option("--level", type=float, default=0.94, show_default=True, help="Probability of the intervals.")
@click.option("--out", type=FILE, help="Also write the table as a CSV file.")
@click.option("--figure", type=FILE, help="Also draw it: a file without ending (.png and .svg are written).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def next_verb(
    run: Path, ability: str, models: tuple[str, ...], costs: tuple[str, ...], fixed_cost: float | None,
    instances: tuple[str, ...], rank_by: str, steps: int, level: float, out: Path | None, figure: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Say which benchmark tells most about an ability of a model, per unit of cost.

    In closed form from the posterior of RUN: how far the ability's variance falls when a benchmark is run, how
    many instances are enough, and which benchmarks to run one after the other.
    """
    if figure is not None and len(models) > 1:
        raise InputError(f"--figure shows one model, {len(models)} are given; give --model once")
    cost, fixed = _costs(costs, fixed_cost)
    amounts = _amounts(instances)
    from factorlab.inference.information import next_benchmarks
    from factorlab.runs import load_run

    _check_places(out, figure)
    analysis = load_run(run)
    if analysis.bayes is None:
        raise InputError(f"run '{run}' has no posterior; fit with --method bayes or all")
    found = [
        next_benchmarks(
            analysis.bayes, analysis.table, ability.upper() if ability[:2].lower() == "pc" else ability,
            model=model, instances=amounts, cost=cost, fixed_cost=fixed, by=rank_by, steps=steps, level=level,
        )
        for model in models or (None,)
    ]  # fmt: skip
    _write_next(found, analysis.table, out, figure)
    if as_json:
        from factorlab.summary import clean

        click.echo(json.dumps(clean([one.to_dict() for one in found]), ensure_ascii=False, indent=1))
        return
    from factorlab.design_console import show_next, wide_console

    console = wide_console()
    for one in found:
        show_next(one, console)


def _write_next(found: list[NextBenchmarks], table: Any, out: Path | None, figure: Path | None) -> None:
    drawn = None
    if figure is not None:
        from factorlab.plots.information import information_gain

        drawn = information_gain(found[0], table)
    written: list[Path] = []
    if out is not None:
        import pandas as pd

        from factorlab.tabular import write_atomically

        frame = pd.concat([one.to_dataframe() for one in found], ignore_index=True)
        write_atomically(out, lambda path: frame.to_csv(path, index=False))
        written.append(out)
    if figure is not None and drawn is not None:
        from factorlab.plots import save

        written += save(drawn, _stem(figure))
    if written:
        click.echo(f"Wrote {', '.join(str(path) for path in written)}", err=True)


def _stem(figure: Path) -> Path:
    return figure.with_suffix("") if figure.suffix in (".png", ".svg") else figure


def _check_places(out: Path | None, figure: Path | None) -> None:
    """Before any work: files can be written where they are asked for."""
    if out is not None and out.suffix != ".csv":
        raise InputError(f"--out '{out}' ends in '{out.suffix}'; give a name ending in .csv")
    for option, path in (("--out", out), ("--figure", figure)):
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"{option}: no such folder: '{path.parent}'; make it first")
        if path is not None and path.is_dir():
            raise InputError(f"{option} '{path}' is a folder; give a file")


def _costs(given: tuple[str, ...], fixed: float | None) -> tuple[dict[str, float], dict[str, float]]:
    """Cost of an instance and fixed cost, by benchmark with "*" for the others."""
    cost: dict[str, float] = {}
    once: dict[str, float] = {} if fixed is None else {"*": fixed}
    for text in given:
        if "=" in text:
            name, value = pair(text, "--cost", "BENCHMARK=COST", last=True)
            cost[name] = _number(value, text)
        elif _is_number(text):
            cost["*"] = float(text)
        else:
            _read_costs(Path(text), cost, once)
    return cost, once


def _read_costs(path: Path, cost: dict[str, float], once: dict[str, float]) -> None:
    from factorlab.tabular import is_number, read_frame

    frame = read_frame(path)
    for column in ("benchmark", "cost"):
        if column not in frame:
            raise InputError(
                f"'{path}' has no column '{column}'; give benchmark, cost and, if any, fixed_cost"
            )
    for column, into in (("cost", cost), ("fixed_cost", once)):
        if column not in frame:
            continue
        if not is_number(frame[column]):
            raise InputError(f"'{path}': column '{column}' is not all numbers; give costs of 0 or more")
        known = frame[frame[column].notna()]
        into |= {
            str(name): float(value) for name, value in zip(known["benchmark"], known[column], strict=True)
        }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(value: str, text: str) -> float:
    if not _is_number(value):
        raise InputError(f"--cost '{text}' is not of the form BENCHMARK=COST, such as NIILC=2.5")
    return float(value)


def _amounts(given: tuple[str, ...]) -> dict[str, Any]:
    """Instances by benchmark, "*" for the others."""
    out: dict[str, Any] = {}
    for text in given:
        name, value = pair(text, "--instances", "[BENCHMARK=]N", last=True) if "=" in text else ("*", text)
        out[name] = int(value) if value.lstrip("+-").isdigit() else value
    return out


@click.command(name="power")
@click.option(
    "--like",
    type=FILE,
    metavar="TABLE|RUN",
    help="Models, budgets, benchmarks and loadings of a table or run.",
)
@click.option("--models", default="20,35,70", show_default=True, metavar="N,...", help="Numbers of models.")
@click.option("--benchmarks", metavar="N,...", help="Numbers of benchmarks; default 19, or those of --like.")
@click.option(
    "--instances", metavar="N,...", help="Instances of a benchmark; default 1000, or those of --like."
)
@click.option(
    "--token-log-sd",
    default="0",
    show_default=True,
    metavar="SD,...",
    help="Errors of published token counts (natural log).",
)
@click.option(
    "--rho",
    multiple=True,
    metavar="PCk:LANG=R",
    help="True correlation of an ability and a log budget; default PC2:ja=0.8, PC2:en=0.2.",
)
@click.option("--factors", type=int, default=3, show_default=True, help="True number of factors.")
@click.option(
    "--languages", default="en,ja", show_default=True, help="Languages with a budget (without --like)."
)
@click.option(
    "--question",
    type=click.Choice(["difference", "factors"]),
    default="difference",
    show_default=True,
    help="Tell two correlations apart, or find the number of factors.",
)
@click.option(
    "--difference", default="PC2:ja-en", show_default=True, metavar="PCk:A-B", help="Which correlations."
)
@click.option(
    "--method",
    type=click.Choice(["pca", "bayes"]),
    default="pca",
    show_default=True,
    help="Two-step PCA or the joint model; for factors parallel analysis or held-out cells.",
)
@click.option(
    "--interval",
    type=click.Choice(["jackknife", "refit", "bootstrap"]),
    default="jackknife",
    show_default=True,
    help="Of two-step PCA: jackknife over lineages, abilities known or found again; bootstrap of lineages.",
)
@click.option(
    "--family-share",
    type=float,
    default=0.0,
    show_default=True,
    help="Share of residual variance of families.",
)
@click.option("--level", type=float, default=0.94, show_default=True, help="Probability of the intervals.")
@click.option(
    "--simulations", type=int, default=200, show_default=True, help="Tables of each setting and truth."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@click.option(
    "--workers", type=int, help="Tables at once; default: the machine's cores, or all of a cluster."
)
@click.option("--cluster", metavar="URL", help="Where they run: dask://host:port or ray://host:port.")
@click.option("--out", type=FILE, help="A CSV file, or a folder for table, JSON and figure.")
@click.option("--force", is_flag=True, help="Replace a folder that an earlier call wrote.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", is_flag=True, help="No progress display.")
def power_verb(
    like: Path | None, models: str, benchmarks: str | None, instances: str | None, token_log_sd: str,
    rho: tuple[str, ...], languages: str, difference: str, factors: int, out: Path | None, force: bool,
    as_json: bool, quiet: bool, **rest: Any,
) -> None:  # fmt: skip
    """Chance to tell two correlations apart, or to find the number of factors, in a study of a given size.

    Tables are simulated with a difference and without one: beside the power stands how often the same rule finds
    a difference that is not there.
    """
    asked: dict[str, Any] = {
        "models": _whole(models, "--models"),
        "benchmarks": None if benchmarks is None else _whole(benchmarks, "--benchmarks"),
        "instances": None if instances is None else _whole(instances, "--instances"),
        "token_log_sd": _listed(token_log_sd, "--token-log-sd", float, "0,0.3,0.7"),
        "rho": dict(parse_rho(text) for text in rho) or None,
        "languages": tuple(name.strip() for name in languages.split(",") if name.strip()),
        "difference": _difference(difference),
    }
    _check_study(out, force)
    from factorlab.power import measure_power
    from factorlab.progress import Display

    table, loading = _like(like, factors)
    with Display(silent=quiet) as progress:
        study = measure_power(
            like=table, loading=loading, factors=factors, progress=progress, **asked, **rest
        )
    if out is not None:
        _write_study(study, out)
    if as_json:
        from factorlab.summary import clean

        click.echo(json.dumps(clean(study.to_dict()), ensure_ascii=False, indent=1))
        return
    from factorlab.design_console import show_power, wide_console

    show_power(study, wide_console())


def _like(path: Path | None, factors: int) -> tuple[Any, Any]:
    """A table and true loadings: of a run its posterior means or components, of a table its components."""
    if path is None:
        return None, None
    from factorlab.inference.pca import fit_pca
    from factorlab.inference.solution import load_solution
    from factorlab.scores import read_scores

    if path.is_dir():
        if not (path / "run.json").is_file():
            raise InputError(
                f"--like '{path}' is a folder but no run; give a score table, or a run of factorlab fit"
            )
        table = read_scores(path / "table" / "scores.parquet", name=path.stem)
        if (path / "bayes.nc").is_file():
            solution = load_solution(path / "bayes.nc")
            if len(solution.factors) < factors:
                raise InputError(
                    f"--factors is {factors}, but run '{path}' has {len(solution.factors)}; give at most so many"
                )
            return table, solution.loading_mean().to_numpy()[:, :factors]
    else:
        table = read_scores(path)
    return table, fit_pca(table, factors, missing="em").loading_mean().to_numpy()


def _check_study(out: Path | None, force: bool) -> None:
    """Before any work: the results can be written."""
    if out is None:
        return
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out: no such folder: '{out.parent}'; make it first")
    if out.suffix == ".csv":
        if out.is_dir():
            raise InputError(f"--out '{out}' is a folder; give a file, or a folder of another name")
        return
    if out.exists() and not (force and (out / "power.json").is_file()):
        raise InputError(f"'{out}' exists; give --out another folder, or --force to replace an earlier study")


def _write_study(study: Any, out: Path) -> None:
    from factorlab.plots import save
    from factorlab.plots.power import power_curves
    from factorlab.runs import new_folder
    from factorlab.summary import clean
    from factorlab.tabular import write_atomically

    if out.suffix == ".csv":
        write_atomically(out, lambda path: study.to_dataframe().to_csv(path, index=False))
    else:
        with new_folder(out) as work:
            study.to_dataframe().to_csv(work / "power.csv", index=False)
            text = json.dumps(clean(study.to_dict()), ensure_ascii=False, indent=1)
            (work / "power.json").write_text(text + "\n", encoding="utf-8")
            save(power_curves(study), work / "power")
    click.echo(f"Wrote {out}{'' if out.suffix == '.csv' else '/'}", err=True)


def _whole(text: str, option: str) -> list[int]:
    return _listed(text, option, int, "20,35,70")


def _listed(text: str, option: str, kind: type, example: str) -> list[Any]:
    """Different numbers, divided by commas."""
    try:
        out = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        out = []
    if not out:
        raise InputError(
            f"{option} '{text}' is no list of numbers; give them divided by commas, such as {example}"
        )
    return list(dict.fromkeys(out))


def _difference(text: str) -> tuple[int, str, str]:
    factor, sign, languages = text.partition(":")
    first, minus, second = languages.partition("-")
    if not (sign and minus and first.strip() and second.strip()):
        raise InputError(f"--difference '{text}' is not of the form PCk:A-B, such as PC2:ja-en")
    return factor_number(factor, "--difference") - 1, first.strip(), second.strip()


def factor_number(text: str, option: str) -> int:
    """The number of a factor: "PC2" or "2" is 2."""
    number = text.strip().upper().removeprefix("PC")
    if not number.isdigit() or int(number) < 1:
        raise InputError(f"{option} names factor '{text}'; give PC1, PC2, ... or 1, 2, ...")
    return int(number)


def parse_rho(text: str) -> tuple[tuple[int, str], float]:
    """(factor from 0, language) and value of "PC2:ja=0.8"."""
    left, value = pair(text, "--rho", "PCk:LANG=R")
    factor, _, language = left.partition(":")
    number = factor_number(factor, "--rho") - 1
    if not language.strip() or not _is_number(value):
        raise InputError(f"--rho '{text}' is not of the form PCk:LANG=R, such as PC2:ja=0.8")
    return (number, language.strip()), float(value)
