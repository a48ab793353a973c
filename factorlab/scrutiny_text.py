"""Outliers and tornados as plain text lines for a terminal."""

from __future__ import annotations

import numpy as np
import pandas as pd

from factorlab.inference.outliers import Outliers
from factorlab.tornado import Tornado

MOST_MODELS = 5
MOST_CHANGES = 5
MOST_PROBLEMS = 5
DOUBTFUL = 0.05
"""Models with a smaller p-value than this are told, flagged or not."""


def outlier_lines(outliers: Outliers, most: int = 15) -> list[str]:
    """The least probable scores and models, then notes."""
    cells, models = outliers.cells, outliers.models
    count = int(cells["flagged"].sum())
    shown = cells.head(max(most, min(count, 60)))
    wide = max(5, *(len(str(name)) for name in shown["model"]))
    deep = max(9, *(len(str(name)) for name in shown["benchmark"]))
    left = "with the benchmarks that share its items" if outliers.leave == "group" else "alone"
    percent = f"{100 * cells['level'].iloc[0]:g} %"
    lines = [
        f"{len(cells)} scores, each left out {left}: {count} flagged "
        f"({(cells['reason'] == 'zero').sum()} exact zeros that a failed evaluation explains better, "
        f"{(cells['reason'] == 'improbable').sum()} with an adjusted p below {outliers.fdr:g})",
        "",
        f"   {'model':<{wide}}  {'benchmark':<{deep}}  observed  predicted  {percent + ' interval':<20}"
        "  residual         p  adjusted",
    ]
    for row in shown.to_dict("records"):
        lines.append(
            f"{'!' if row['flagged'] else ' '}{' ' if row['weighted'] else '~'} {row['model']:<{wide}}  "
            f"{row['benchmark']:<{deep}}  {_score(row['observed'])}  {_score(row['predicted']):>9}  "
            f"[{_score(row['lower'])}, {_score(row['upper'])}]  {row['residual']:>+8.2f}  {_p(row['p'])}  "
            f"{row['p_adjusted']:>8.2g}"
        )
    lines += ["", *_model_lines(models), ""]
    if not cells["weighted"].all() or not models["weighted"].all():
        lines.append("~ k-hat above 0.7: the draws have seen the score, p is too large rather than too small")
    return [*lines, *(f"{note}." for note in outliers.notes)]


def _model_lines(models: pd.DataFrame) -> list[str]:
    count = int(models["flagged"].sum())
    shown = models[models["flagged"] | (models["p"] < DOUBTFUL)].head(max(MOST_MODELS, count))
    lines = [f"{len(models)} models, each predicted from budgets and family alone: {count} flagged"]
    for row in shown.to_dict("records"):
        lines.append(
            f"{'!' if row['flagged'] else ' '}{' ' if row['weighted'] else '~'} {row['model']}: distance "
            f"{row['distance']:.1f} of {row['n']} scores, p {_p(row['p']).strip()}; mean residual "
            f"{row['level']:+.2f} sd of a benchmark ({row['direction']}), p {_p(row['p_level']).strip()}"
        )
    return lines


def _score(value: float) -> str:
    return f"{value:>8.3f}" if abs(value) < 10 else f"{value:>8.1f}"


def _p(value: float) -> str:
    return f"{value:>8.4f}" if value >= 1e-4 else f"{value:>8.0e}"


def tornado_lines(found: Tornado, most: int = MOST_CHANGES) -> list[str]:
    """Of every headline the value as it is and the changes that move it most, then problems."""
    changes = found.rows["change"].nunique()
    method = "bayes" if (found.rows["method"] == "bayes").any() else "pca"
    again = f", {found.reused} fits kept from before" if found.reused else ""
    words = {"bayes": "joint posterior", "pca": "two-step PCA"}[method]
    lines = [f"{found.table.name}: {changes} changes one at a time, {words}{again}"]
    for headline in found.headlines:
        rows = found.rows[(found.rows["headline"] == headline) & (found.rows["method"] == method)]
        if rows.empty:
            continue
        base = rows.iloc[0]
        lines += ["", f"{headline} {_interval(base['base_median'], base['base_low'], base['base_high'])}"]
        for row in rows.head(most).to_dict("records"):
            size = row["shift_in_intervals"]
            of = f" ({abs(size):.2f} of the interval)" if np.isfinite(size) else ""
            doubt = "  !" if row["problem"] else ""
            after = _interval(row["median"], row["low"], row["high"])
            lines.append(f"  {row['shift']:>+7.3f}{of:<24} {row['change']}: {after}{doubt}")
    told = [*found.problems[:MOST_PROBLEMS], *found.notes]
    if len(found.problems) > MOST_PROBLEMS:
        told.append(
            f"{len(found.problems)} of {changes} fits failed or fell short of a goal of convergence; "
            "tornado.json has all, figures hatch them"
        )
    return [*lines, *([""] if told else []), *(f"! {sentence}" for sentence in told)]


def _interval(median: float, low: float, high: float) -> str:
    return f"{median:.3f} [{low:.2f}, {high:.2f}]" if np.isfinite([low, high]).all() else f"{median:.3f}"
