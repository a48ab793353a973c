"""Notes of a plan: what a reader has to know beside its numbers, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from factorlab.inference.predict.calibration import MODEL
from factorlab.inference.predict.mixture import Mixture
from factorlab.inference.predict.plan_tables import ALL, MEAN
from factorlab.inference.predict.planned_model import BEYOND
from factorlab.inference.predict.prediction import extrapolations
from factorlab.inference.predict.predictors import token_predictor

if TYPE_CHECKING:
    from factorlab.inference.predict.plan import Plan

TOLD_EARLY = 0.05
"""Probability of meeting a target at once from which it is told."""


def amount(tokens_b: float) -> str:
    """Billions of tokens with three digits and no exponent: "0.042", "13.5", "2,430"."""
    if not np.isfinite(tokens_b):
        return "-"
    if tokens_b == 0:
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(tokens_b)))))
    text = f"{float(f'{tokens_b:.3g}'):,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def notes_of(plan: Plan, by_default: bool, comparable: bool) -> tuple[str, ...]:
    """Notes of a plan.

    Parameters
    ----------
    plan : Plan
    by_default : bool
        Nobody chose how many further tokens are looked at.
    comparable : bool
        A model without tokens of the planned language can be spoken of.
    """
    model, mixture = plan.model, plan.mixture
    notes = [
        "Associations are observational: the plan assumes that what holds between the models of the table holds "
        "for the next one, trained with data and recipes like theirs.",
        f"Out of reach: not reached with {amount(plan.most)} billion further tokens of {model.language}"
        + (
            f", {BEYOND:g} times the most of any scored model ({amount(model.seen)} billion)."
            if by_default
            else f" (most of any scored model: {amount(model.seen)} billion)."
        ),
    ]
    if np.isfinite(model.most_stage) and model.base is not None:
        notes.append(
            f"The most that a scored model added to its base is {amount(model.most_stage)} billion; "
            "beyond that the curve rests on models trained from scratch."
        )
    for row in plan.targets.to_dict(orient="records"):
        if row["benchmark"] != ALL and row["met_by_base"]:
            notes.append(
                f"{model.base} scores {row['base_score']:.4g} on {row['benchmark']}: "
                "0 further tokens, the target is met already."
            )
        needed = row["tokens_needed_recalibrated"]
        if row["beyond_seen_recalibrated"] and np.isfinite(needed):
            notes.append(
                f"{row['benchmark']}: {amount(needed)} billion would be more than any scored model has: "
                "an extrapolation."
            )
    notes += _early_notes(plan)
    notes += _calibration_notes(mixture)
    notes += _contrast_notes(plan)
    beyond = [
        r
        for r in extrapolations(mixture)[model.row].split("; ")
        if r and not r.startswith(f"{token_predictor(model.language)} ")
    ]
    notes += [f"The planned model is unlike the scored ones: {'; '.join(beyond)}."] if beyond else []
    if plan.against is None:
        notes.append("No other language has enough known token counts: no comparison at equal compute.")
    elif comparable:
        notes.append(_spending_note(plan))
    else:
        notes.append(
            f"No comparison at equal compute: no scored model is without {model.language}, so none of it cannot be "
            f"spoken of; give the new model some with --tokens {model.language}=BILLIONS."
        )
    return (*notes, *mixture.inputs.columns.notes, *mixture.problems)


def _early_notes(plan: Plan) -> list[str]:
    """Where samples are at a target with next to nothing though the base is not."""
    if plan.model.base is None:
        return []
    first = plan.curve.groupby("benchmark", sort=False)["probability_recalibrated"].first()
    unmet = plan.targets[~plan.targets["met_by_base"] & (plan.targets["benchmark"] != ALL)]
    return [
        f"{name}: with probability {first[name]:.2f} a model trained on from {plan.model.base} is at the target with "
        "hardly any tokens: it differs from its base by more than tokens, as those in the table do."
        for name in unmet["benchmark"]
        if first[name] >= TOLD_EARLY
    ]


def _spending_note(plan: Plan) -> str:
    """The same tokens are few beside many: what they do to either logarithm."""
    model, x = plan.model, plan.mixture.inputs.predictors
    steps = []
    for language in (str(plan.against), model.language):
        p = x.names.index(token_predictor(language))
        own = model.start[p]
        have = own if np.isfinite(own) else 10 ** (x.center[p] + x.scale[p] * x.x[model.row, p])
        have += model.fixed[p]
        steps.append(f"{language} {np.log10(1 + plan.spend / have):+.2f}")
    return (
        f"At equal compute (6 N D, the same N) {amount(plan.spend)} billion tokens are spent on either language; "
        f"they move log10 of its tokens by {', '.join(steps)}."
    )


def _calibration_notes(mixture: Mixture) -> list[str]:
    c = mixture.calibration
    if c is None or not np.isfinite(c.factor[MODEL]):
        return ["Bands are raw: too few models without a score were held out to recalibrate them."]
    return [
        f"Held-out models without a score: {100 * c.raw_coverage[MODEL]:.0f} % of {c.n[MODEL]} scores in raw "
        f"{100 * c.level:.0f} % intervals, {100 * c.coverage[MODEL]:.0f} % in recalibrated ones. Bands and numbers "
        f"called recalibrated have each side times {c.factor[MODEL]:.2f}; the others are the raw posterior."
    ]


def _contrast_notes(plan: Plan) -> list[str]:
    out = []
    for row in plan.contrasts[plan.contrasts["model"] == MEAN].to_dict(orient="records"):
        own = plan.contrasts[
            (plan.contrasts["benchmark"] == row["benchmark"]) & (plan.contrasts["model"] != MEAN)
        ]
        out.append(
            f"{row['benchmark']}: {len(own)} scored models trained on from a scored base gained "
            f"{row['observed']:+.3f} on average (sd {own['observed'].std():.3f}); the {plan.model.language} tokens "
            f"they added go with {row['expected']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] in the fitted model."
        )
    return out
