"""Console: what a person sees in the terminal while a fit runs and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from factorlab.analysis import Analysis
    from factorlab.eval.task import Task
    from factorlab.inference.budgets import BudgetRegression
    from factorlab.inference.compare import Comparison
    from factorlab.inference.predict.prediction import Prediction
    from factorlab.inference.predict.validation import Validation
    from factorlab.refits import Refits

OFF = 1.1
"""Standard errors that differ by more than this factor from the binomial one are pointed at."""

MOST_WARNINGS = 12
"""Sentences printed in the terminal; all of them are in the summary and on the page."""


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


def show_standard_errors(table: pd.DataFrame, console: Console) -> None:
    """Print, a line a benchmark, what its standard errors are and what bare scores would have got."""
    out = _table("Standard errors (medians over models)")
    out.add_column("benchmark", no_wrap=True)
    for name in ("models", "n", "clusters", "se", "binomial", "ratio"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("how")
    for benchmark, part in table.groupby("benchmark", sort=True):
        kinds = part["se_kind"].value_counts()
        ratio = (part["se"] / part["se_binomial"]).median()
        numbers = [_short(part[name].median()) for name in ("se", "se_binomial")]
        style = "yellow" if ratio == ratio and not 1 / OFF <= ratio <= OFF else ""
        counts = [_count(part["n_instances"]), _count(part["n_clusters"])]
        how = ", ".join(f"{kind}" + (f" ({n})" if len(kinds) > 1 else "") for kind, n in kinds.items())
        cells = [str(len(part)), *counts, *numbers, "" if ratio != ratio else f"{ratio:.2f}", how]
        out.add_row(Text(str(benchmark)), *(Text(cell, style=style) for cell in cells))
    console.print(out)
    wrong = table[(table["se"] / table["se_binomial"]).pipe(lambda r: (r > OFF) | (r < 1 / OFF))]
    if len(wrong):
        console.print(
            f"{len(wrong)} of {len(table)} standard errors differ by more than {OFF:g} times from what the bare "
            "score would have got (columns se_binomial and se_why say why)"
        )


def show_evaluation(results: pd.DataFrame, console: Console) -> None:
    """Print a line a model and benchmark: score, standard error, instances, time."""
    out = _table("Scores, with errors of independent instances")
    for name in ("model", "benchmark", "protocol", "metric"):
        out.add_column(name, no_wrap=name == "benchmark", overflow="fold")
    for name in ("score", "se", "n", "kept", "s"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in results.to_dict("records"):
        se = "" if pd.isna(row["se"]) else f"{row['se']:.4f}"
        cells = [
            *(row[name] for name in ("model", "benchmark", "protocol", "metric")),
            f"{row['score']:.4g}",
            se,
        ]
        counts = [row["instances"], row["reused"] or "", f"{row['seconds']:.1f}"]
        out.add_row(*(Text(str(cell)) for cell in (*cells, *counts)))
    console.print(out)


def show_tasks(tasks: Sequence[Task], console: Console) -> None:
    """Print a line a task: what `factorlab eval --tasks` takes."""
    out = _table("Tasks")
    for name in (
        "task",
        "benchmark",
        "language",
        "scored by",
        "metric",
        "shots",
        "chance",
        "licence of the data",
    ):
        out.add_column(name)
    for task in tasks:
        shots = str(task.shots.count) if task.shots else "in the prompt or none"
        cells = (
            task.name,
            task.benchmark,
            task.language,
            task.scoring,
            task.metric.name,
            shots,
            f"{task.chance:g}",
        )
        out.add_row(*(Text(cell) for cell in (*cells, task.licence)))
    console.print(out)


def _count(column: pd.Series) -> str:
    """A number that all models share, or the range of it."""
    known = column.dropna()
    if known.empty:
        return ""
    low, high = int(known.min()), int(known.max())
    return str(low) if low == high else f"{low}-{high}"


def _short(value: float) -> str:
    return "unknown" if value != value else f"{value:.3g}"


def show_prediction(result: Prediction, cells: pd.DataFrame, console: Console, most: int) -> None:
    """Print predicted cells, what held-out cells say of the intervals, and what the prediction goes beyond."""
    level = f"{100 * result.mixture.settings.level:.0f} %"
    out = _table(f"Predicted scores, {level} intervals")
    beats = [str(c) for c in cells.columns if str(c).startswith("beats ")]
    several = cells["model"].nunique() > 1
    for name in [
        *(["model"] if several else []),
        "benchmark",
        "median",
        f"{level} interval",
        "raw",
        *beats,
        "",
    ]:
        out.add_column(name, justify="left" if name in ("model", "benchmark", "") else "right")
    for _, row in cells.head(most).iterrows():
        out.add_row(
            *([str(row["model"])] if several else []),
            str(row["benchmark"]),
            _short(row["median"]),
            f"[{_short(row['low'])}, {_short(row['high'])}]".replace("[", "\\["),
            f"[{_short(row['raw_low'])}, {_short(row['raw_high'])}]".replace("[", "\\["),
            *(f"{row[c]:.2f}" for c in beats),
            "*" if row["extrapolates"] else "",
        )
    if not several and len(cells):
        console.print(f"[bold]{cells['model'].iloc[0]}[/bold]")
    console.print(out)
    if len(cells) > most:
        console.print(f"... and {len(cells) - most} more; --out FILE.csv has all {len(cells)}.")
    for model, part in cells[cells["extrapolates"] != ""].groupby("model", sort=False):
        console.print(f"* beyond what was seen: {model}: {part['extrapolates'].iloc[0]}.")
    for note in result.notes:
        console.print(Text(note))


def show_validation(found: Validation, console: Console) -> None:
    """Print, a line a scheme and method, errors and coverage; then the numbers of factors."""
    from factorlab.inference.predict.schemes import SCHEMES

    level = f"{100 * found.options.level:g} %"
    for scheme, rows in found.methods.groupby("scheme", sort=False):
        first = rows.iloc[0]
        out = _table(f"{SCHEMES[str(scheme)]}: {first['n']} cells of {first['models']} models")
        out.add_column("method", no_wrap=True)
        for name in ("error", "R2", "log", "raw", "width", "recal", "width"):
            out.add_column(name, justify="right", no_wrap=True)
        for _, row in rows.iterrows():
            numbers = [f"{row['median_error']:.3f}", f"{row['r2'] + 0.0:.2f}", f"{row['elpd']:.2f}"]
            numbers += [
                "-" if row[n] != row[n] else f"{row[n]:.2f}"
                for n in ("raw_coverage", "raw_width", "coverage", "width")
            ]
            out.add_row(str(row["method"]).replace("benchmark mean + model mean", "means"), *numbers)
        console.print(out)
    console.print(
        f"error: median, of the benchmark's range; log: log score; raw, recal: share inside {level} intervals as "
        "sampled, as recalibrated, each with their median width; more in methods.csv."
    )
    if found.counts is not None:
        out = _table("Factors: log score of held-out cells\n(* the fewest within one standard error)")
        for name in ("factors", "log score", "less the best"):
            out.add_column(name, justify="right")
        for _, row in found.counts.iterrows():
            apart = f"{row['difference']:.1f} ± {row['difference_se']:.1f}"
            out.add_row(f"{row['factors']}{'*' if row['chosen'] else ''}", f"{row['elpd']:.1f}", apart)
        console.print(out)
    for note in found.notes:
        console.print(Text(f"Note: {note}"))
