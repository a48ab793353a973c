"""Scores and models that do not fit, in plain words with their numbers."""

from __future__ import annotations

from collections.abc import Iterator

from factorlab.inference.outliers import Outliers
from factorlab.page.numbers import listed, number, plural, with_interval

LOOK = {
    "below": "below its prediction, look for a broken prompt or a failed evaluation",
    "above": "above it, look for test items in the training text",
}
"""What to look for, by direction."""

MOST = 20


def outlier_words(outliers: Outliers) -> Iterator[tuple[str, str]]:
    """Claim and numbers of the flagged scores, and of the flagged models."""
    cells, models = outliers.flagged, outliers.models[outliers.models["flagged"]]
    if len(cells):
        shown = [
            f"{row['model']} on {row['benchmark']} {number(row['observed'])}, predicted "
            f"{with_interval(row['predicted'], row['lower'], row['upper'])}"
            for row in cells.to_dict("records")
        ]
        ways = [words for way, words in LOOK.items() if (cells["direction"] == way).any()]
        fits = "does" if len(cells) == 1 else "do"
        yield (
            f"{plural(len(cells), 'score')} {fits} not fit what the model's other scores, budgets and family say",
            f"{listed(shown, MOST)}. Where a score is {'; where it is '.join(ways)}.",
        )
    if len(models):
        shown = [
            f"{row['model']} (on average {number(abs(row['level']))} sd of a benchmark {row['direction']})"
            for row in models.to_dict("records")
        ]
        fits = "does" if len(models) == 1 else "do"
        yield (
            f"{plural(len(models), 'model')} as a whole {fits} not fit what budgets and family say",
            f"{listed(shown, MOST)}.",
        )
