"""What looks wrong in an evaluation, told in a line each: what the study's authors wished they had been told.

Nothing is changed by these; a score of 0 may be a score of 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 0.05
"""Share of answers from which on a kind of answer is told."""

CLOSE = 2.0
"""Standard errors within which a score is at chance."""


@dataclass(frozen=True)
class PromptFit:
    """How the prompts of a task fit a model.

    Attributes
    ----------
    instances : int
    dropped_shots : dict of str to int
        Instance id to the worked examples that were left out, where any were.
    truncated : tuple of str
        Instances whose text was cut on the left even without examples.
    begins : tuple of int
        For some prompts, how many tokens that begin a text stand before it; empty where the model has none.
    asked_bos : bool
        Whether the tokenizer's own special tokens were asked for.
    """

    instances: int
    dropped_shots: dict[str, int]
    truncated: tuple[str, ...] = ()
    begins: tuple[int, ...] = ()
    asked_bos: bool = True


def prompt_findings(fit: PromptFit) -> list[str]:
    """What is wrong with prompts."""
    found = []
    if fit.dropped_shots:
        most = max(fit.dropped_shots.values())
        found.append(
            f"{len(fit.dropped_shots)} of {fit.instances} prompts lost worked examples (up to {most}) "
            "to fit into the model's context"
        )
    if fit.truncated:
        found.append(
            f"{len(fit.truncated)} of {fit.instances} prompts were truncated on the left: too long for the "
            "model's context even without worked examples"
        )
    if fit.begins and max(fit.begins) > 1:
        found.append(f"prompts begin with {max(fit.begins)} begin-of-text tokens; one is usual")
    elif fit.begins and min(fit.begins) == 0:
        if fit.asked_bos:
            found.append("prompts have no begin-of-text token, as the model's tokenizer does not add one")
        else:
            found.append(
                "prompts have no begin-of-text token, as this protocol asks; models trained with one may lose"
            )
    return found


def text_findings(texts: Sequence[str]) -> list[str]:
    """What is wrong with generated texts."""
    n = len(texts)
    if not n:
        return []
    found = []
    empty = sum(not text.strip() for text in texts)
    newline = sum(text.startswith(("\n", "\r")) for text in texts)
    if empty / n >= LEAST:
        found.append(f"{empty} of {n} answers are empty, or begin with what ends them (a newline, often)")
    if newline / n >= LEAST:
        found.append(
            f"{newline} of {n} answers begin with a newline; where leading whitespace costs the answer, that is what "
            "the score measures (protocol fixed mends it)"
        )
    return found


def score_findings(score: float, se: float, chance: float, n: int) -> list[str]:
    """What is odd about a score between 0 and 1 of n instances."""
    if not n or not math.isfinite(score):
        return []
    if score == 0:
        return [f"the score is exactly 0 on {n} instances; look at the answers before you believe it"]
    if chance > 0 and abs(score - chance) <= CLOSE * max(se, math.sqrt(chance * (1 - chance) / n)):
        return [f"the score {score:.3f} is at chance ({chance:g}) within {CLOSE:g} standard errors"]
    return []
