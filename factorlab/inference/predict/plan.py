"""Plan: how many further tokens of a language a target asks for, and what else they could be spent on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.inference.predict.columns import scale_columns
from factorlab.inference.predict.kernel import LINEAR
from factorlab.inference.predict.mixture import Mixture, PredictionSettings, fit_mixture
from factorlab.inference.predict.new_models import without_kin
from factorlab.inference.predict.plan_notes import notes_of
from factorlab.inference.predict.plan_tables import (
    Reached,
    children_table,
    contrast_table,
    curve_table,
    strategy_table,
    target_table,
    token_grid,
)
from factorlab.inference.predict.planned_model import BEYOND, PlannedModel, plan_model
from factorlab.inference.predict.predictors import token_floors, token_predictor
from factorlab.inference.watch import Progress
from factorlab.score_table import ScoreTable


@dataclass(frozen=True)
class Plan:
    """What targets ask for. Tokens are in billions; intervals have the probability ``mixture.settings.level``.

    Attributes
    ----------
    model : PlannedModel
    probability : float
        Wanted of reaching a target.
    most : float
        Further tokens looked at; what needs more is "out of reach".
    targets : pandas.DataFrame
        A row a target, then one for all of them jointly: benchmark, target, base_score, met_by_base;
        tokens_median, tokens_low, tokens_high, tokens_needed (fewest with which the target is reached with
        `probability`), out_of_reach (a probability), beyond_seen (tokens_needed would be more than any scored
        model has); the same from recalibrated samples, with _recalibrated behind the name. Tokens are inf
        where `most` does not do.
    curve : pandas.DataFrame
        benchmark, target, tokens_b, median, low, high (recalibrated), raw_low, raw_high, expected (without
        noise), probability and probability_recalibrated (that at most so many tokens reach the target),
        beyond_seen. With several targets also rows of all of them, with probabilities only.
    strategies : pandas.DataFrame
        A row a benchmark: score with `spend` tokens of language `against` (other) or of the planned language
        (planned), difference (planned - other), low, high, probability that planned is better. Empty where
        there is no other language.
    children : pandas.DataFrame
        Scored models trained on from the same base: model, benchmark, tokens_b, score.
    contrasts : pandas.DataFrame
        Every scored model trained on from a scored base: observed gain, and expected, low, high: what the
        tokens it added go with in the fitted model; their means at the end.
    tokens : ndarray, (sample, target)
        Samples of the further tokens each target asks for.
    against : str or None
    spend : float
    mixture : Mixture
    notes : tuple of str
    """

    model: PlannedModel
    probability: float
    most: float
    targets: pd.DataFrame
    curve: pd.DataFrame
    strategies: pd.DataFrame
    children: pd.DataFrame
    contrasts: pd.DataFrame
    tokens: np.ndarray
    against: str | None
    spend: float
    mixture: Mixture
    notes: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """The targets."""
        return self.targets.copy()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able but for inf and NaN, which `factorlab.summary.clean` makes None."""
        calibration = self.mixture.calibration
        how = self.mixture.settings
        return {
            "table": self.mixture.table.name,
            "base": self.model.base,
            "params_b": self.model.params_b,
            "language": self.model.language,
            "probability": self.probability,
            "most_tokens_b": self.most,
            "largest_seen_tokens_b": self.model.seen,
            "largest_added_tokens_b": self.model.most_stage,
            "level": how.level,
            "targets": self.targets.to_dict(orient="records"),
            "strategies": {
                "against": self.against,
                "spend_tokens_b": self.spend,
                "benchmarks": self.strategies.to_dict(orient="records"),
            },
            "children": self.children.to_dict(orient="records"),
            "contrasts": self.contrasts.to_dict(orient="records"),
            "calibration": None if calibration is None else calibration._asdict(),
            "notes": list(self.notes),
        }


def plan(
    table: ScoreTable,
    targets: Mapping[str, float],
    *,
    language: str,
    base: str | None = None,
    params_b: float | None = None,
    probability: float = 0.8,
    tokens: Mapping[str, float] | None = None,
    most: float | None = None,
    against: str | None = None,
    spend: float | None = None,
    settings: PredictionSettings | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Further tokens of a language that targets ask for, and another language at equal compute.

    Parameters
    ----------
    table : ScoreTable
        With ``params_b`` and ``tokens_b_<language>`` of its models.
    targets : mapping of benchmark to score
    language : str
        Whose tokens are planned.
    base : str, optional
        Continual pre-training of this model of the models table.
    params_b : float, optional
        Instead: a new model of so many billions of parameters, trained from scratch.
    probability : float
        Wanted of reaching each target.
    tokens : mapping of language to billions, optional
        Of a new model: what it has in any case (every language that is a predictor needs one; the planned
        one may). With a base: what is added whatever the plan says.
    most : float, optional
        Further tokens at most, in billions; ten times the most of any scored model when not given.
    against : str, optional
        The other language of the comparison at equal compute: the first other predictor when not given.
    spend : float, optional
        Billions of tokens of that comparison; when not given, what all targets need, if that is no more than
        was seen, else the most that was seen.
    settings : PredictionSettings, optional
        Of the prediction mixture; whole models are held out to recalibrate when not given.
    workers, cluster, progress
        Where the fits run, see `factorlab.batch.run_batch`.

    Raises
    ------
    InputError
        An unknown benchmark, base or language, a target outside its range, a probability that is none, both
        or neither of base and size; a table too small.

    Notes
    -----
    Associations between models are taken to hold for the next one. docs/planning.md has the formulas.
    """
    if not 0 < probability < 1:
        raise InputError(f"probability {probability:g} is none; give a number between 0 and 1, such as 0.8")
    _check_targets(table, targets)
    for name, value in (("most", most), ("spend", spend)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"--{name} {value:g} is no budget; give billions of tokens above 0")
    model = plan_model(table, base=base, params_b=params_b, language=language, tokens=tokens)
    limit = most if most is not None else BEYOND * model.seen
    whole_models, whole_lineages = without_kin(model.table)
    how = replace(settings or PredictionSettings(), whole_models=whole_models, whole_lineages=whole_lineages)
    other = _other_language(model, against)
    mixture = fit_mixture(model.table, how, workers=workers, cluster=cluster, progress=progress)
    names = mixture.inputs.predictors.names
    if progress is not None:
        progress("curves", 0, 0)
    reached = Reached(mixture, model, targets, token_grid(model, limit))
    summary = target_table(reached, model, targets, probability, how.level)
    needed = float(summary["tokens_needed_recalibrated"].iloc[-1])
    paid = spend if spend is not None else needed if 0 < needed <= model.seen else model.seen
    possible = other is not None and (model.start[model.predictor] != 0)
    strategies = (
        strategy_table(mixture, model, names.index(token_predictor(other)), paid)
        if other is not None and possible
        else pd.DataFrame()
    )
    result = Plan(
        model, probability, limit, summary, curve_table(reached, mixture, model, targets), strategies,
        children_table(model.table, base, language, list(targets)),
        contrast_table(mixture, model, list(targets)), reached.tokens, other, paid, mixture, (),
    )  # fmt: skip
    return replace(result, notes=notes_of(result, most is None, possible))


def _check_targets(table: ScoreTable, targets: Mapping[str, float]) -> None:
    """Benchmarks of the table, and scores that they can have."""
    if not targets:
        raise InputError("no target was given; give at least one, such as --target NIILC=0.60")
    columns = scale_columns(table)
    for name, score in targets.items():
        if name not in table.benchmark_names:
            raise InputError(
                f"target '{name}' is no benchmark of table '{table.name}'; it has {table.benchmark_names}"
            )
        j = np.array([table.benchmark_names.index(name)])
        ends = np.sort(columns.to_scores(np.array([[0.0], [1.0]]), j).ravel())
        linear = columns.kind[j[0]] == LINEAR
        if not np.isfinite(score) or not (linear or ends[0] <= score <= ends[1]):
            limits = "" if linear else f" from {ends[0]:g} to {ends[1]:g}"
            raise InputError(f"target {name}={score:g} is no score of '{name}'; give a number{limits}")


def _other_language(model: PlannedModel, against: str | None) -> str | None:
    others = [k for k in token_floors(model.table) if k != model.language]
    if against is None:
        return others[0] if others else None
    if against not in others:
        raise InputError(
            f"--against '{against}' is no other language with enough known token counts; "
            f"there are: {', '.join(others) or 'none'}"
        )
    return against
