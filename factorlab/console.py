"""Console: what a person sees in the terminal while a fit runs and when it ends."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from factorlab.analysis import Analysis
from factorlab.inference.budgets import BudgetRegression
from factorlab.inference.compare import Comparison
from factorlab.refits import Refits

QUIET_SECONDS = 10.0
"""Without a terminal a line is written at each new stage, and this often within one."""


MOST_WARNINGS = 12
"""Sentences printed in the terminal; all of them are in the summary and on the page."""


class Display:
    """Progress on stderr: a bar with an estimate in a terminal, plain lines elsewhere.

    Used as a context; called with (stage, done, total), total 0 where the length is not known.
    """

    def __init__(self, silent: bool = False) -> None:
        self._silent = silent
        self._bar: Progress | None = None
        self._task: Any = None
        self._stage = self._detail = ""
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Display:
        if not self._silent and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        if self._silent:
            return
        if self._bar is not None:
            if stage != self._stage:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(stage, total=total or None)
            text = f"{stage} ({detail})" if detail else stage
            self._bar.update(self._task, completed=done, total=total or None, description=text)
        else:
            self._line(stage, done, total, detail)
        self._stage, self._detail = stage, detail

    def _line(self, stage: str, done: int, total: int, detail: str) -> None:
        now = time.monotonic()
        known = stage == self._stage and detail == self._detail
        if known and (not total or (now - self._last < QUIET_SECONDS and done < total)):
            return
        if stage != self._stage:
            self._began = now
        self._last = now
        text = stage
        if total and done:
            spent = now - self._began
            known = done < total and spent >= QUIET_SECONDS  # before that an estimate means nothing
            text = f"{stage}: {done} of {total}"
            text += f", about {spent * (total - done) / done:.0f} s left" if known else ""
        text += f" ({detail})" if detail else ""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def show(analysis: Analysis, console: Console) -> None:
    """Print the tables of a fit: explained variance, loadings, correlations with budgets, warnings."""
    table = analysis.table
    console.print(
        f"[bold]{table.name}[/bold]: {len(table.model_names)} models x {len(table.benchmark_names)} "
        f"benchmarks, {analysis.health.n_missing} cells missing, {len(analysis.health.flags)} flags"
    )
    if analysis.pca is not None:
        console.print(_variance(analysis))
    if analysis.pca is not None or analysis.bayes is not None or analysis.ml is not None:
        console.print(_loadings(analysis))
    if analysis.pca_budgets is not None or analysis.bayes_budgets is not None:
        console.print(_rho(analysis))
    _show_state(analysis, console)


def _variance(analysis: Analysis) -> Table:
    assert analysis.pca is not None
    out = _table("Explained variance (PCA)")
    out.add_column("")
    ratio = analysis.pca.extra["explained_variance_ratio"][: len(analysis.pca.factors)]
    for name in analysis.pca.factors:
        out.add_column(name, justify="right")
    out.add_row("%", *[f"{100 * value:.2f}" for value in ratio])
    return out


def _loadings(analysis: Analysis) -> Table:
    """Loadings with half their interval: Bayes where there is a posterior, else PCA, else ML."""
    solution = analysis.bayes or analysis.pca or analysis.ml
    assert solution is not None
    rows = solution.summary("loading", analysis.options.level)
    percent = f"{100 * analysis.options.level:.0f}"
    name = {"bayes": f"posterior mean ± half the {percent} % interval", "pca": "PCA, scaled", "ml": "ML"}
    identified = solution.extra.get("identified", [True] * len(solution.factors))
    title = f"Loadings ({name[solution.method]}{'; * not identified' if not all(identified) else ''})"
    out = _table(title)
    out.add_column("benchmark", no_wrap=True)
    for factor, ok in zip(solution.factors, identified, strict=True):
        out.add_column(
            factor if ok else f"{factor}*", justify="right", no_wrap=True, style=None if ok else "dim"
        )
    for benchmark, part in rows.groupby("benchmark", sort=False):
        out.add_row(str(benchmark), *[_with_half(row, solution.n_draws > 1) for _, row in part.iterrows()])
    return out


def _with_half(row: pd.Series, drawn: bool) -> str:
    half = (row["upper"] - row["lower"]) / 2
    return f"{row['mean']:.2f} ± {half:.2f}" if drawn else f"{row['mean']:.2f}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)


def _rho(analysis: Analysis) -> Table:
    """rho of each of the first factors with each budget: in two steps, and from the posterior."""
    level = analysis.options.level
    out = _table(f"rho of ability and log10(N x D) ({100 * level:.0f} % intervals)")
    for name in ("ability", "budget"):
        out.add_column(name)
    parts = {"two-step": analysis.pca_budgets, "posterior": analysis.bayes_budgets}
    for name, budgets in parts.items():
        if budgets is not None:
            out.add_column(name, justify="right")
    out.add_column("n", justify="right")
    first = next(b for b in parts.values() if b is not None)
    keys = first.table[first.table["form"] == "at_hand"][["factor", "budget", "n"]]
    leading = list(dict.fromkeys(keys["factor"]))[:2]
    for _, key in keys[keys["factor"].isin(leading)].sort_values("factor", kind="stable").iterrows():
        cells = [_cell(b, key["factor"], key["budget"]) for b in parts.values() if b is not None]
        out.add_row(key["factor"], key["budget"], *cells, str(key["n"]))
    return out


def _cell(budgets: BudgetRegression, factor: str, budget: str) -> str:
    rows = budgets.table
    row = rows[(rows["factor"] == factor) & (rows["budget"] == budget) & (rows["form"] == "at_hand")]
    if row.empty:
        return "-"
    r = row.iloc[0]
    return f"{r['median']:.3f} [{r['lower']:.2f}, {r['upper']:.2f}]"


def _show_state(analysis: Analysis, console: Console) -> None:
    bayes = analysis.bayes
    if bayes is not None and bayes.diagnostics is not None:
        d = bayes.diagnostics
        numbers = (
            f"R-hat at most {d.rhat_max:.3f}, effective sample size at least {d.ess_bulk_min:.0f} (bulk) and "
            f"{d.ess_tail_min:.0f} (tail), {d.divergences} divergent transitions"
        )
        if d.problems:
            console.print(Text(f"NOT CONVERGED. {numbers}", style="bold red"))
        else:
            console.print(Text(f"Converged: {numbers}.", style="green"))
    for sentence in analysis.warnings[:MOST_WARNINGS]:
        console.print(Text(f"! {sentence}", style="red" if sentence in analysis.problems else "yellow"))
    if len(analysis.warnings) > MOST_WARNINGS:
        rest = len(analysis.warnings) - MOST_WARNINGS
        console.print(f"! and {rest} more: 'warnings' in summary.json, and the page")


def show_refits(refits: Refits, console: Console) -> None:
    """Print how far each headline moves, and what failed."""
    units = len(refits.solution.extra["units"])
    again = f", {refits.reused} fits kept from before" if refits.reused else ""
    console.print(
        f"[bold]{refits.table.name}[/bold]: {units} refits, {refits.scheme}, {refits.options.method}{again}"
    )
    rows = refits.headlines[refits.headlines["form"].isin(["at_hand", "difference"])]
    rows = rows[rows["factor"].isin(list(dict.fromkeys(rows["factor"]))[:2])]
    out = _table("rho over the refits (all numbers: headlines.csv)")
    for name in ("", "moved most by"):
        out.add_column(name, no_wrap=not name)
    for name in ("whole table", "lowest", "highest", "se"):
        out.add_column(name, justify="right", no_wrap=True)
    for _, row in rows.iterrows():
        whole = f"{row['whole']:.3f} [{row['lower']:.2f}, {row['upper']:.2f}]"
        who = str(row["moved_most_by"]).removeprefix("without ")
        numbers = [f"{row[name]:.3f}" for name in ("lowest", "highest", "se")]
        out.add_row(Text(row["headline"]), Text(who), Text(whole), *numbers)
    if len(rows):
        console.print(out)
    least = refits.summary.groupby("factor", sort=False)["congruence"].min()
    console.print(
        "Least congruence of the loadings with the whole table's: "
        + ", ".join(f"{factor} {value:.3f}" for factor, value in least.items())
    )
    for sentence in refits.problems:
        console.print(Text(f"! {sentence}", style="red"))
    for sentence in refits.notes[:MOST_WARNINGS]:
        console.print(Text(f"! {sentence}", style="yellow"))


def show_comparison(result: Comparison, console: Console) -> None:
    """Print agreement by factor, and what changes from the first solution to the second."""
    first, second = result.names
    out = _table(f"{first} and {second}: {result.n_benchmarks} benchmarks, {result.n_models} models")
    out.add_column(first)
    out.add_column(second)
    for name in ("congruence", "RMSE of loadings", "RMSE of scores", "correlation of scores"):
        out.add_column(name, justify="right")
    for _, row in result.factors.iterrows():
        cells = [
            _quantiles(row, m) for m in ("congruence", "rmse_loading", "rmse_score", "score_correlation")
        ]
        out.add_row(str(row["factor"]), str(row["second_factor"]), *cells)
    console.print(out)
    cosines = ", ".join(f"{row['median']:.3f}" for _, row in result.angles.iterrows())
    console.print(f"Cosines of the principal angles between the loading spaces: {cosines}")
    changed = result.loadings[result.loadings["changes"].astype(bool)]
    if len(changed):
        console.print(f"Loadings that differ (interval of the difference excludes 0): {len(changed)}")
        for _, row in changed.iterrows():
            console.print(
                f"  {row['benchmark']} on {row['factor']}: {row['first']:.2f} and {row['second']:.2f}, "
                f"difference {row['difference']:+.2f} [{row['lower']:+.2f}, {row['upper']:+.2f}]"
            )
    for sentence in [*result.conclusions["sentence"], *result.notes]:
        console.print(Text(f"! {sentence}", style="yellow"))


def _quantiles(row: pd.Series, measure: str) -> str:
    median, lower, upper = (row[f"{measure}_{q}"] for q in ("median", "lower", "upper"))
    if pd.isna(lower):
        return f"{median:.3f}"
    return f"{median:.3f} [{lower:.2f}, {upper:.2f}]"
