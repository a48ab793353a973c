"""A `HealthReport` as plain text lines."""

from __future__ import annotations

import pandas as pd

from factorlab.health import KINDS, HealthReport
from factorlab.lineage import STATUSES

TITLES = {
    "zero": "exactly 0 against all other scores of the model",
    "at_chance": "at chance",
    "outlier": "far from what the model's other scores say",
    "no_variance": "benchmarks with one value only",
    "duplicate": "benchmarks counted twice",
    "no_se": "benchmarks without standard errors",
    "budget_unknown": "unknown budgets",
    "budget_guessed": "guessed budgets",
}


def report_lines(report: HealthReport, most: int = 12) -> list[str]:
    """The report for a terminal, a list of lines; at most ``most`` flags of one kind are spelled out."""
    observed = report.n_cells - report.n_missing
    lines = [
        f"{report.name}: {report.n_models} models x {report.n_benchmarks} benchmarks, "
        f"{observed} of {report.n_cells} cells scored, {report.n_missing} missing",
        "",
        *_benchmark_lines(report.benchmarks),
    ]
    if len(report.budgets):
        lines += ["", *_budget_lines(report)]
    lines += ["", f"Flags: {len(report.flags)}"]
    for kind in KINDS:
        lines += _flag_lines(report, kind, most)
    for title, sentences in (("Gaps", report.gaps), ("Notes", report.notes)):
        if sentences:
            lines += ["", title, *(f"  {sentence}" for sentence in sentences)]
    return lines


def _benchmark_lines(table: pd.DataFrame) -> list[str]:
    width = max(9, *(len(str(name)) for name in table.index))
    lines = [
        f"{'benchmark':<{width}}  lang  scores     mean       sd       se  se/sd  standard error",
    ]
    for name, row in table.iterrows():
        language = row["language"] if isinstance(row["language"], str) else "-"
        lines.append(
            f"{name:<{width}}  {language:<4}  {row['n_scores']:>6}  {_number(row['mean'])} "
            f"{_number(row['sd'])} {_number(row['se'])}  {_ratio(row['se_over_sd'])}  {row['se_kind']}"
        )
    return lines


def _budget_lines(report: HealthReport) -> list[str]:
    lines = ["tokens    " + "".join(f"{status:>10}" for status in STATUSES) + "    with N x D"]
    for language, row in report.budgets.iterrows():
        counts = "".join(f"{'-' if pd.isna(row[s]) else row[s]:>10}" for s in STATUSES)
        lines.append(f"{language!s:<10}{counts}{row['usable']:>14}")
    return lines


def _flag_lines(report: HealthReport, kind: str, most: int) -> list[str]:
    flags = [f for f in report.flags if f.kind == kind]
    if not flags:
        return []
    lines = [f"  {kind} ({len(flags)}): {TITLES[kind]}"]
    for flag in flags[:most]:
        where = " on ".join(name for name in (flag.model, flag.benchmark) if name is not None)
        lines.append(f"    {where}: {flag.detail}")
    if len(flags) > most:
        lines.append(f"    and {len(flags) - most} more")
    return lines


def _number(value: float) -> str:
    return f"{'-':>8}" if pd.isna(value) else f"{value:>8.4g}"


def _ratio(value: float) -> str:
    return f"{'-':>5}" if pd.isna(value) else f"{value:>5.2f}"
