"""Console: what to measure next, and the chance to tell, as tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from factorlab.inference.information import NextBenchmarks
    from factorlab.power import PowerStudy

WIDE = 150
"""Letters of a line where there is no terminal whose width numbers must fit into."""


def wide_console() -> Console:
    """A console on stdout; a file or a pipe has no width of its own."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


def show_next(found: NextBenchmarks, console: Console) -> None:
    """Print the candidates, the greedy design and the notes."""
    who = "a new model" if found.model is None else found.model
    percent = f"{100 * found.level:g} %"
    now = found.now
    console.print(
        f"[bold]{found.ability}[/bold] of [bold]{who}[/bold]: standard deviation {now['sd']:.2f} "
        f"[{now['sd_lower']:.2f}, {now['sd_upper']:.2f}] before anything more is run", markup=True,
    )  # fmt: skip
    counted = found.cost_unit == "instance"
    per = "nats per 1000 instances" if counted else f"nats per {found.cost_unit}"
    out = _table(f"What each benchmark would tell ({percent} intervals over the posterior)")
    for name in ("benchmark", "instances", "cost", "information (nats)", "sd after", per, "P(best)",
                 "enough", "of ceiling"):  # fmt: skip
        out.add_column(name, justify="left" if name == "benchmark" else "right", no_wrap=True)
    for _, row in found.candidates.iterrows():
        more = "" if row["kind"] == "new" else "+"
        out.add_row(
            row["benchmark"],
            f"{more}{row['n']:,.0f}",
            f"{row['cost']:,.4g}" if found.cost_unit == "unit of cost" else f"{row['cost']:,.0f}",
            _interval(row, "information", 3),
            _interval(row, "sd", 2),
            _interval(row, "per_cost", 2, 1000) if counted else f"{row['per_cost']:.3g}",
            f"{row['prob_best']:.2f}",
            "unknown" if math.isnan(row["enough"]) else f"{row['enough']:,.0f}",
            "" if math.isnan(row["share_of_ceiling"]) else f"{100 * row['share_of_ceiling']:.0f} %",
        )
    console.print(out)
    if len(found.sequence):
        _sequence(found, console)
    console.print(
        "'enough': instances in all at which sampling variance equals the benchmark's unique variance; beyond "
        "it the unique noise is the larger part. 'of ceiling': of what instances without end would tell."
    )
    for note in found.notes:
        console.print(f"Note: {note}", markup=False)


def _sequence(found: NextBenchmarks, console: Console) -> None:
    out = _table("One after the other, each given those before")
    for name in (
        "step",
        "benchmark",
        "instances",
        "total cost",
        "information (nats)",
        "in all",
        "sd after",
        "P(best)",
    ):
        out.add_column(name, justify="left" if name == "benchmark" else "right", no_wrap=True)
    for _, row in found.sequence.iterrows():
        out.add_row(
            str(row["step"]),
            row["benchmark"],
            f"{row['n']:,.0f}",
            f"{row['total_cost']:,.4g}" if found.cost_unit == "unit of cost" else f"{row['total_cost']:,.0f}",
            f"{row['information']:.3f}",
            f"{row['total_information']:.3f}",
            _interval(row, "sd", 2),
            f"{row['prob_best']:.2f}",
        )
    console.print(out)


def show_power(study: PowerStudy, console: Console) -> None:
    """Print the chance to tell in every setting, with the size of the rule, and the notes."""
    o = study.options
    difference = o.question == "difference"
    what = (
        f"Chance to tell rho(PC{o.factor + 1}, {o.first}) from rho(PC{o.factor + 1}, {o.second})"
        if difference
        else f"Chance to find {o.factors} factors"
    )
    out = _table(f"{what} ({100 * o.level:g} % Wilson intervals)")
    names = ["models", "benchmarks", "instances", "budget error", "chance"]
    names += (
        ["without a difference", "chance at right size", "first", "second", "tables"] if difference else []
    )
    names += [] if difference else ["too few", "too many", "tables"]
    for name in names:
        out.add_column({"first": o.first, "second": o.second}.get(name, name), justify="right", no_wrap=True)
    for _, row in study.settings.iterrows():
        known = "as in table" if pd.isna(row["instances"]) else f"{row['instances']:,.0f}"
        cells = [f"{row['models']:.0f}", f"{row['benchmarks']:.0f}", known, f"{row['token_log_sd']:g}"]
        cells.append(_share(row, "share", "lower", "upper"))
        if difference:
            cells += [_share(row, "size", "size_lower", "size_upper"), f"{row['at_size']:.2f}"]
            cells += [f"{row['first']:.2f}", f"{row['second']:.2f}"]
        else:
            cells += [f"{row['too_few']:.2f}", f"{row['too_many']:.2f}"]
        out.add_row(*cells, f"{row['simulations']:.0f}")
    console.print(out)
    for note in study.notes:
        console.print(f"Note: {note}", markup=False)


def _share(row: pd.Series, share: str, lower: str, upper: str) -> str:
    return f"{row[share]:.2f} [{row[lower]:.2f}, {row[upper]:.2f}]"


def _interval(row: pd.Series, name: str, digits: int, factor: float = 1.0) -> str:
    middle, lower, upper = (factor * row[f"{name}{end}"] for end in ("", "_lower", "_upper"))
    return f"{middle:.{digits}f} [{lower:.{digits}f}, {upper:.{digits}f}]"


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
