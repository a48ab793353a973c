"""Answers to the open questions as the page shows them: verdict, numbers, links to what shows more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factorlab.analysis import Analysis
from factorlab.page.numbers import PageTable
from factorlab.questions.answer import Answer, text_table


@dataclass(frozen=True)
class AnswerBlock:
    """One question on the page.

    Attributes
    ----------
    key, question, verdict, cannot : str
    sentences : tuple of str
    table : PageTable or None
    links : tuple of (str, str)
        Anchor on the page, and what to call it.
    """

    key: str
    question: str
    verdict: str
    cannot: str
    sentences: tuple[str, ...]
    table: PageTable | None
    links: tuple[tuple[str, str], ...]


def blocks(analysis: Analysis, titles: Mapping[str, str]) -> list[AnswerBlock]:
    """All answers, with links to those figures and sections that the page has.

    Parameters
    ----------
    analysis : Analysis
    titles : mapping of str to str
        Of the figures on the page, by their names.
    """
    sections = {"flags": "the flags of this table"}
    if any(s is not None for s in (analysis.bayes, analysis.pca, analysis.ml)):
        sections["budgets"] = "all correlations and slopes"
    if analysis.bayes is not None and analysis.comparison is not None:
        sections["comparison"] = "PCA beside Bayes"
    return [_block(answer, titles, sections) for answer in analysis.answers]


def _block(answer: Answer, titles: Mapping[str, str], sections: Mapping[str, str]) -> AnswerBlock:
    links = []
    for name in () if answer.cannot else answer.links:
        if name in titles:
            links.append((f"figure-{name}", titles[name]))
        elif name in sections:
            links.append((name, sections[name]))
    return AnswerBlock(
        key=answer.key,
        question=answer.question,
        verdict=answer.verdict,
        cannot=answer.cannot,
        sentences=answer.sentences,
        table=_table(answer),
        links=tuple(links),
    )


def _table(answer: Answer) -> PageTable | None:
    if answer.table is None or answer.table.empty:
        return None
    frame = text_table(answer.table)
    rows = tuple(tuple(map(str, row)) for row in frame.itertuples(index=False))
    return PageTable("The numbers", tuple(map(str, frame.columns)), rows)
