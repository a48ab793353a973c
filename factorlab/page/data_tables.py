"""Tables of the data itself: benchmarks, flags, budgets by status, who was left out."""

from __future__ import annotations

import pandas as pd

from factorlab.analysis import Analysis
from factorlab.health import KINDS
from factorlab.health_text import TITLES
from factorlab.lineage import STATUSES
from factorlab.page.numbers import NOTHING, PageTable, count, listed, number, significant


def benchmarks(analysis: Analysis) -> PageTable:
    """Spread and standard error of each benchmark."""
    frame = analysis.health.benchmarks
    rows = [
        (
            str(name), _text(row["language"]), count(row["n_scores"]), significant(row["mean"]),
            significant(row["sd"]), significant(row["lowest"]), significant(row["highest"]),
            significant(row["se"]), number(row["se_over_sd"]), _text(row["se_kind"]),
        )
        for name, row in frame.iterrows()
    ]  # fmt: skip
    head = (
        "benchmark",
        "language",
        "scores",
        "mean",
        "sd",
        "lowest",
        "highest",
        "se",
        "se / sd",
        "kind of se",
    )
    return PageTable(
        "Spread of the benchmarks, and how exactly they are measured",
        head,
        tuple(rows),
        "sd: over the models. se: median standard error of one score, from the number of test items. Where "
        "se / sd nears 1, the benchmark mostly measures chance.",
        frozenset(i for i, value in enumerate(frame["se_over_sd"]) if value > 0.5),
    )


def flags(analysis: Analysis) -> list[PageTable]:
    """One table a kind of flag; the same flag of one benchmark or budget is one row."""
    out = []
    for kind in KINDS:
        found = [f for f in analysis.health.flags if f.kind == kind]
        if not found:
            continue
        title = f"{TITLES[kind][:1].upper()}{TITLES[kind][1:]} ({len(found)})"
        if kind.startswith("budget"):
            groups: dict[str, list[str]] = {}
            for flag in found:
                groups.setdefault(flag.detail, []).append(str(flag.model))
            rows = tuple((detail, str(len(names)), ", ".join(names)) for detail, names in groups.items())
            out.append(PageTable(title, ("what", "models", "which"), rows))
        else:
            rows = tuple((f.model or NOTHING, f.benchmark or NOTHING, f.detail) for f in found)
            out.append(PageTable(title, ("model", "benchmark", "what was seen"), rows))
    return out


def budgets(analysis: Analysis) -> PageTable | None:
    """Token counts by status."""
    frame = analysis.health.budgets
    if frame.empty:
        return None
    rows = [
        (str(name), *(count(row[s]) if pd.notna(row[s]) else NOTHING for s in STATUSES), count(row["usable"]))
        for name, row in frame.iterrows()
    ]
    return PageTable(
        "How the token counts are known, number of models",
        ("tokens in", *STATUSES, "with a budget"),
        tuple(rows),
        "official: published; derived: worked out from published figures; guessed: a share assumed by the "
        "authors of the table; none: not trained on the language; with a budget: parameters and tokens known "
        "and above zero.",
    )


def left_out(analysis: Analysis) -> PageTable | None:
    """Models without a published budget, by budget and reason."""
    regression = analysis.pca_budgets or analysis.bayes_budgets
    if regression is None or regression.left_out.empty:
        return None
    rows = [
        (str(budget), str(reason), str(len(part)), ", ".join(part["model"].astype(str)))
        for (budget, reason), part in regression.left_out.groupby(["budget", "reason"], sort=False)
    ]
    note = "They count in the factors all the same."
    if analysis.bayes_budgets is not None and analysis.bayes_budgets.method == "joint":
        note += (
            " In the Bayesian model an unknown count is a latent quantity, so they inform the regression too."
        )
    return PageTable(
        "Left out of the correlations with budgets, and why",
        ("budget", "reason", "models", "which"),
        tuple(rows),
        note,
    )


def cautions(analysis: Analysis) -> list[str]:
    """Every warning but those of convergence, which have a box of their own."""
    return [text for text in analysis.warnings if text not in set(analysis.problems)]


def shape(analysis: Analysis) -> str:
    """ "35 models x 19 benchmarks, every cell scored"."""
    health = analysis.health
    cells = "every cell scored"
    if health.n_missing:
        share = health.n_missing / health.n_cells
        cells = f"{health.n_missing:,} of {health.n_cells:,} cells missing ({100 * share:.1f} %)"
    return f"{health.n_models:,} models × {health.n_benchmarks:,} benchmarks, {cells}"


def languages(analysis: Analysis) -> str:
    """ "10 Japanese, 9 English"; empty when undeclared."""
    from factorlab.plots.style import language_name

    spoken = analysis.table.benchmarks["language"].dropna().value_counts(sort=False)
    return listed(f"{n} {language_name(str(code))}" for code, n in spoken.items())


def _text(value: object) -> str:
    return value if isinstance(value, str) and value else NOTHING
