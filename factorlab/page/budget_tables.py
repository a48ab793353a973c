"""Tables of the associations with budgets: all forms of rho, slopes, contrasts, prior sensitivity."""

from __future__ import annotations

import numpy as np
import pandas as pd

from factorlab.analysis import Analysis
from factorlab.inference.sensitivity import AS_FITTED, HOLDS, NOT_IN_DRAWS, REFIT
from factorlab.page.findings import identified
from factorlab.page.numbers import PageTable, count, number, percent, probability, with_interval
from factorlab.plots.style import language_name

FORMS = {
    "at_hand": (
        "posterior",
        "Over the models with a published budget, with the error of abilities and of token counts. The "
        "headline: it speaks of these models.",
    ),
    "two-step": (
        "in two steps",
        "PCA's abilities and the published counts taken as exact (Pearson); its interval is about other "
        "models drawn like these.",
    ),
    "population": (
        "new families",
        "What the regression implies for models of families not seen, with budgets spread like these.",
    ),
    "partial": (
        "within families",
        "Among models of one family, given the number of parameters: what is left when family and size "
        "cannot explain it.",
    ),
    "all_models": (
        "all models",
        "Over every model: unknown counts are latent, a count of zero enters as a small one, d0.",
    ),
    "spearman": (
        "posterior, ranks",
        "As the first, from ranks (Spearman): no single extreme model can make it.",
    ),
    "two-step spearman": ("two steps, ranks", "In two steps, from ranks."),
}
"""Form of rho: its column, and what it means."""


def rho(analysis: Analysis) -> PageTable | None:
    """Correlation of every factor with every budget, a column a form."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    sizes: dict[tuple[str, str], str] = {}
    for key, part in _rho_parts(analysis):
        for _, row in part.iterrows():
            pair = (str(row["budget"]), str(row["factor"]))
            found.setdefault(pair, {})[key] = with_interval(row["median"], row["lower"], row["upper"])
            if key in ("two-step", "at_hand"):
                sizes.setdefault(pair, count(row["n"]))
    if not found:
        return None
    columns = [key for key in FORMS if any(key in cells for cells in found.values())]
    order = sorted(found, key=lambda pair: list(dict.fromkeys(b for b, _ in found)).index(pair[0]))
    rows = tuple(
        (
            factor,
            budget,
            sizes.get((budget, factor), ""),
            *(found[budget, factor].get(key, "–") for key in columns),
        )
        for budget, factor in order
    )
    turning = _turning(analysis)
    return PageTable(
        "Correlation rho of abilities with log budgets",
        ("factor", "budget", "models", *(FORMS[key][0] for key in columns)),
        rows,
        f"Median and {percent(analysis.options.level, 0)} interval."
        + (" Grey: axes that are not identified." if turning else ""),
        frozenset(i for i, row in enumerate(rows) if row[0] in turning),
    )


def _rho_parts(analysis: Analysis) -> list[tuple[str, pd.DataFrame]]:
    parts = []
    if analysis.pca_budgets is not None:
        table = analysis.pca_budgets.table
        parts.append(("two-step", table[table["form"] == "at_hand"]))
        parts.append(("two-step spearman", table[table["form"] == "spearman"]))
    joint = analysis.bayes_budgets
    if joint is not None and (joint.method == "joint" or analysis.pca_budgets is None):
        for form in ("at_hand", "spearman", "all_models", "population", "partial"):
            parts.append((form, joint.table[joint.table["form"] == form]))
    return parts


def rho_forms(analysis: Analysis) -> list[tuple[str, str]]:
    """Columns of `rho` with what each means."""
    used = {key for key, part in _rho_parts(analysis) if len(part)}
    return [words for key, words in FORMS.items() if key in used]


def slopes(analysis: Analysis) -> list[PageTable]:
    """Slopes in two steps, and of the joint posterior."""
    out = []
    turning = _turning(analysis)
    if (
        analysis.bayes_budgets is not None
        and analysis.bayes_budgets.method == "joint"
        and analysis.bayes is not None
    ):
        frame = analysis.bayes_budgets.slopes
        rows = tuple(
            (
                str(r["factor"]), str(r["predictor"]), with_interval(r["median"], r["lower"], r["upper"]),
                probability(r["prob_positive"], analysis.bayes.n_draws),
            )
            for _, r in frame.iterrows()
        )  # fmt: skip
        out.append(
            PageTable(
                "Slopes of the joint regression",
                ("factor", "on", "slope", "probability > 0"),
                rows,
                "Standard deviations of ability that go with ten times as much, the other columns held "
                "fixed; N parameters, D tokens.",
                frozenset(i for i, row in enumerate(rows) if row[0] in turning),
            )
        )
    if analysis.pca_budgets is not None:
        two_step = analysis.pca_budgets.slopes
        two_step_rows = tuple(
            (
                str(r["factor"]), _predictor(str(r["predictor"])),
                with_interval(r["estimate"], r["lower"], r["upper"]),
                number(r["p"], 3) if not r["p"] < 0.001 else "< 0.001", count(r["n"]), count(r["n_lineages"]),
            )
            for _, r in two_step.iterrows()
        )  # fmt: skip
        out.append(
            PageTable(
                "Slopes in two steps, one budget at a time",
                ("factor", "on", "slope", "p", "models", "lineages"),
                two_step_rows,
                "Least squares of PCA's ability on log10 of parameters times tokens, errors by lineage.",
            )
        )
    return out


def _predictor(name: str) -> str:
    return f"log10 N·D_{name.removeprefix('log10_budget_')}" if name.startswith("log10_budget_") else name


def contrasts(analysis: Analysis) -> PageTable | None:
    """Continually pre-trained models less their base, on every factor."""
    frame = analysis.bayes_budgets.contrasts if analysis.bayes_budgets is not None else None
    if frame is None or frame.empty or analysis.bayes is None:
        return None
    factors = list(dict.fromkeys(frame["factor"].astype(str)))
    changes = [c for c in frame.columns if str(c).startswith("log10_tokens_")]
    rows = []
    for (model, base), part in frame.groupby(["model", "base_model"], sort=False):
        by_factor = part.set_index(part["factor"].astype(str))
        cells = (by_factor.loc[f] for f in factors)
        rows.append(
            (
                str(model), str(base), *(_growth(part[c].iloc[0]) for c in changes),
                *(with_interval(r["median"], r["lower"], r["upper"]) for r in cells),
            )
        )  # fmt: skip
    tokens = [f"{language_name(str(c).removeprefix('log10_tokens_'))} tokens" for c in changes]
    return PageTable(
        "Continually pre-trained models less their own base",
        ("model", "base", *tokens, *factors),
        tuple(rows),
        "Difference of ability, in standard deviations. Tokens: those of the model over those of its base.",
    )


def _growth(change: float) -> str:
    """How many times as many tokens, from the change of log10."""
    if np.isposinf(change):
        return "from none"
    if not np.isfinite(change):
        return "–"
    return "same" if abs(change) < 0.005 else f"×{number(10**change, 1 if change < 1 else 0)}"


def floor_notes(analysis: Analysis) -> list[str]:
    """What a budget of zero stands for, and what hangs on it."""
    if analysis.bayes_budgets is None:
        return []
    return [note for note in analysis.bayes_budgets.notes if note.startswith("Zero '")]


def sensitivity(analysis: Analysis) -> tuple[str, PageTable | None]:
    """A sentence on how much holds under other priors, and a table of what does not."""
    frame = analysis.sensitivity
    if frame is None:
        return "", None
    tried = frame[frame["verdict"] != AS_FITTED]
    open_rows = tried["verdict"].isin([REFIT, NOT_IN_DRAWS])
    read = tried[~open_rows]
    moved = read[read["verdict"] != HOLDS]
    sentence = (
        f"{read['setting'].nunique()} other priors on {read['quantity'].nunique()} results: "
        f"{len(read) - len(moved)} of {len(read)} hold, {len(moved)} move."
    )
    again = list(dict.fromkeys(tried.loc[open_rows, "setting"].astype(str)))
    if again:
        sentence += f" Only a new fit could tell for {'; '.join(again)}."
    fitted = frame[frame["verdict"] == AS_FITTED].set_index("quantity")
    rows = tuple(
        (
            str(r["quantity"]), str(r["setting"]), with_interval(r["median"], r["lower"], r["upper"]),
            with_interval(*(fitted.loc[r["quantity"], c] for c in ("median", "lower", "upper"))),
            str(r["verdict"]),
        )
        for _, r in moved.iterrows()
    )  # fmt: skip
    if not rows:
        return sentence, None
    return sentence, PageTable(
        "Results that move with a prior",
        ("result", "prior", "then", "as fitted", "verdict"),
        rows,
        "Moves: the mean shifts by more than a quarter of the posterior's standard deviation.",
    )


def _turning(analysis: Analysis) -> set[str]:
    return (
        {f for f, ok in identified(analysis.bayes).items() if not ok} if analysis.bayes is not None else set()
    )
