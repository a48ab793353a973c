"""All questions, put to one analysis."""

from __future__ import annotations

from collections.abc import Callable

from factorlab.analysis import Analysis
from factorlab.questions.amounts import how_much
from factorlab.questions.answer import Answer
from factorlab.questions.certainty import how_uncertain
from factorlab.questions.drivers import guessed_tokens, which_benchmarks
from factorlab.questions.families import within_families
from factorlab.questions.languages import which_language
from factorlab.questions.reading import Reading
from factorlab.questions.structure import only_pca
from factorlab.questions.subsets import other_subsets

QUESTIONS: tuple[Callable[[Reading], Answer], ...] = (
    which_language, how_much, how_uncertain, only_pca, which_benchmarks, within_families, other_subsets,
    guessed_tokens,
)  # fmt: skip
"""In the order of the page."""


def answer_questions(analysis: Analysis) -> tuple[Answer, ...]:
    """What an analysis says to the questions that a study of benchmark scores leaves open.

    Nothing is fitted but PCA: answers come from the solutions and the regressions that are there.

    Parameters
    ----------
    analysis : Analysis
        As `factorlab.analysis.analyse` or `factorlab.runs.load_run` gives it.

    Returns
    -------
    tuple of Answer
        One a question, in a fixed order; where there is no answer, ``cannot`` says what is missing.
    """
    reading = Reading(analysis)
    return tuple(question(reading) for question in QUESTIONS)
