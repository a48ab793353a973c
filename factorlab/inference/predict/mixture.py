"""Mixture: members fitted to one table, weighted by held-out training cells, with recalibrated intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from factorlab.batch import run_batch
from factorlab.errors import InputError
from factorlab.inference.predict.calibration import Calibration, HeldOut, Split, calibrate, draw_splits
from factorlab.inference.predict.columns import visible
from factorlab.inference.predict.layout import Inputs, read_inputs
from factorlab.inference.predict.member_fit import (
    DEFAULT_EFFORT,
    CellDraws,
    Effort,
    MemberFit,
    draw_cells,
    fit_member,
)
from factorlab.inference.predict.predictive import Predictive, draw_predictive, log_predictive
from factorlab.inference.predict.specification import (
    DEFAULT_MEMBERS,
    LIKELIHOODS,
    Likelihood,
    Member,
    PredictionPriors,
    limited,
)
from factorlab.inference.stacking import stacking_weights
from factorlab.inference.watch import Progress
from factorlab.lineage import build_lineage
from factorlab.score_table import ScoreTable

SPLITS = 3

PSEUDO_CELLS = 5.0
"""Dirichlet prior of the weights: as if each member had won this many cells."""

FEWEST_HELD = 20
"""With fewer held-out cells members weigh the same."""


@dataclass(frozen=True)
class PredictionSettings:
    """How a mixture is made.

    Attributes
    ----------
    likelihood : {"student", "beta-binomial", "binomial"}
    members : tuple of Member
        Their numbers of factors are cut to what the table can bear.
    covariates : tuple of str
        Further columns of the models table that abilities are regressed on.
    splits : int
        Splits of the training cells that weigh and recalibrate; 0: equal weights, raw intervals.
    whole_models : bool
        Hide whole models too: to recalibrate predictions of models without a score.
    whole_lineages : bool
        With ``whole_models``: hide lineages whole, to recalibrate predictions of models of a lineage never seen.
    level : float
        Probability of the intervals.
    effort : Effort
        Of the fits to all cells; trajectories of those to splits are half as long at most.
    seed : int
    """

    likelihood: Likelihood = "student"
    members: tuple[Member, ...] = DEFAULT_MEMBERS
    covariates: tuple[str, ...] = ()
    splits: int = SPLITS
    whole_models: bool = False
    whole_lineages: bool = False
    level: float = 0.9
    effort: Effort = DEFAULT_EFFORT
    seed: int = 0

    def __post_init__(self) -> None:
        if self.likelihood not in LIKELIHOODS:
            raise InputError(f"likelihood '{self.likelihood}' is unknown; give {', '.join(LIKELIHOODS)}")
        if not 0 < self.level < 1:
            raise InputError(
                f"level {self.level} is no probability; give a number between 0 and 1, such as 0.9"
            )
        if self.splits < 0 or self.splits == 1:
            raise InputError(f"{self.splits} splits asked; give 2 or more, or 0 for raw intervals only")
        if not self.members:
            raise InputError("no member was given; give at least one number of factors")


@dataclass(frozen=True)
class Mixture:
    """Fitted members, their weights and the calibration of their intervals.

    Attributes
    ----------
    table : ScoreTable
    observed : ndarray of bool, (model, benchmark)
        The cells that were seen.
    settings : PredictionSettings
    inputs : Inputs
    fits : tuple of MemberFit
    weights : ndarray, (member,)
    calibration : Calibration or None
        None without splits.
    held_out : HeldOut or None
    member_scores : ndarray, (member,)
        Mean log predictive density of the held-out training cells; NaN without splits.
    problems : tuple of str
        What the sampler has to say, in sentences.
    """

    table: ScoreTable
    observed: np.ndarray
    settings: PredictionSettings
    inputs: Inputs
    fits: tuple[MemberFit, ...]
    weights: np.ndarray
    calibration: Calibration | None
    held_out: HeldOut | None
    member_scores: np.ndarray
    problems: tuple[str, ...]

    def cells(self, row: np.ndarray, column: np.ndarray, move: np.ndarray | None = None) -> list[CellDraws]:
        """Each member's draws of cells; ``move`` as in `draw_cells`."""
        return [draw_cells(f, row, column, seed=self.settings.seed, move=move) for f in self.fits]

    def predict(self, row: np.ndarray, column: np.ndarray, move: np.ndarray | None = None) -> Predictive:
        """Joint samples of cells on the model's scale."""
        return draw_predictive(
            self.cells(row, column, move), self.weights, self.inputs.columns, row, column,
            seed=self.settings.seed,
        )  # fmt: skip


def fit_mixture(
    table: ScoreTable,
    settings: PredictionSettings | None = None,
    *,
    observed: np.ndarray | None = None,
    priors: PredictionPriors | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Mixture:
    """Fit, weigh and calibrate.

    Parameters
    ----------
    table : ScoreTable
        Rows without a score are models to be predicted from their predictors.
    settings : PredictionSettings, optional
    observed : ndarray of bool, (model, benchmark), optional
        Cells that may be seen; all that have a score when not given.
    priors : PredictionPriors, optional
    workers, cluster, progress
        Where the fits run, see `factorlab.batch.run_batch`.

    Raises
    ------
    InputError
        A table too small, a covariate that cannot be used, a fit that failed.

    Notes
    -----
    Weights maximise the log score of the mixture on cells of the training table that were hidden in turn
    (stacking); intervals are recalibrated on the same cells (`factorlab.inference.predict.calibration`).

    References
    ----------
    Yao, Vehtari, Simpson & Gelman 2018, Bayesian Analysis 13(3) (stacking of predictive distributions).
    """
    how = settings or PredictionSettings()
    seen = visible(table, observed)
    _check(seen, table)
    members = limited(how.members, int(seen.any(axis=1).sum()), int(seen.any(axis=0).sum()))
    lineage = build_lineage(table.models).family_of(table.model_names) if how.whole_lineages else None
    splits = draw_splits(seen, how.splits, seed=how.seed, models=how.whole_models, lineage=lineage)
    tasks: dict[str, dict[str, Any]] = {
        f"{member.name}, {'all cells' if s < 0 else f'split {s + 1}'}": {"member": m, "split": s}
        for s in range(-1, len(splits))
        for m, member in enumerate(members)
    }
    batch = run_batch(
        fit_task,
        tasks,
        shared=(table, seen, splits, members, how, priors),
        workers=workers,
        cluster=cluster,
        stage="prediction models",
        progress=progress,
    )
    for name, text in batch.failures.items():
        raise InputError(f"the prediction model with {name} failed: {text}")
    fits = {(t["member"], t["split"]): batch.results[name] for name, t in tasks.items()}
    final = tuple(fits[m, -1] for m in range(len(members)))
    weights = np.full(len(members), 1 / len(members))
    scores = np.full(len(members), np.nan)
    held = calibration = None
    if splits:
        parts = [[fits[m, s] for m in range(len(members))] for s in range(len(splits))]
        density = np.concatenate(
            [_log_scores(table, seen, how, sp, p) for sp, p in zip(splits, parts, strict=True)], axis=1
        )
        scores = density.mean(axis=1)
        if density.shape[1] >= FEWEST_HELD:
            weights = stacking_weights(density, dirichlet=1 + PSEUDO_CELLS)
        held = _hold(table, seen, how, splits, parts, weights)
        calibration = calibrate(held, how.level)
    return Mixture(
        table, seen, how, read_inputs(table, seen, likelihood=how.likelihood, covariates=how.covariates),
        final, weights, calibration, held, scores, _problems(final),
    )  # fmt: skip


def fit_task(
    table: ScoreTable, seen: np.ndarray, splits: Sequence[Split], members: Sequence[Member], how: PredictionSettings,
    priors: PredictionPriors | None, member: int, split: int,
) -> MemberFit:  # fmt: skip
    """One member on one split (-1: on all observed cells)."""
    visible = seen if split < 0 else seen & ~splits[split].hidden
    inputs = read_inputs(table, visible, likelihood=how.likelihood, covariates=how.covariates)
    seed = how.seed + 1000 * (split + 1) + member
    effort = how.effort if split < 0 else how.effort._replace(max_depth=how.effort.max_depth - 1)
    return fit_member(inputs, members[member], seed=seed, effort=effort, priors=priors)


def _check(seen: np.ndarray, table: ScoreTable) -> None:
    models, benchmarks = int(seen.any(axis=1).sum()), int(seen.any(axis=0).sum())
    if models < 4 or benchmarks < 2:
        raise InputError(
            f"table '{table.name}' has scores of {models} models on {benchmarks} benchmarks; "
            "a prediction needs at least 4 models and 2 benchmarks"
        )


def _log_scores(
    table: ScoreTable, seen: np.ndarray, how: PredictionSettings, split: Split, fits: Sequence[MemberFit]
) -> np.ndarray:
    """Log predictive density of a split's hidden cells, (member, cell)."""
    columns, row, column, y = hidden_cells(table, seen, split.hidden, how)
    parts = [draw_cells(f, row, column, seed=how.seed) for f in fits]
    return log_predictive(parts, columns, row, column, y)


def hidden_cells(
    table: ScoreTable, seen: np.ndarray, hidden: np.ndarray, how: PredictionSettings
) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Columns as the fit without them sees them, place and score (on the model's scale) of hidden cells."""
    columns = read_inputs(table, seen & ~hidden, likelihood=how.likelihood, covariates=how.covariates).columns
    row, column = np.nonzero(hidden)
    return columns, row, column, columns.from_scores(table.scores[row, column], column)


def _hold(
    table: ScoreTable, seen: np.ndarray, how: PredictionSettings, splits: Sequence[Split],
    parts: Sequence[Sequence[MemberFit]], weights: np.ndarray,
) -> HeldOut:  # fmt: skip
    tail = (1 - how.level) / 2
    out = []
    for s, (split, fits) in enumerate(zip(splits, parts, strict=True)):
        columns, row, column, y = hidden_cells(table, seen, split.hidden, how)
        drawn = draw_predictive(
            [draw_cells(f, row, column, seed=how.seed) for f in fits], weights, columns, row, column,
            seed=how.seed,
        )  # fmt: skip
        low, median, high = np.quantile(drawn.samples, [tail, 0.5, 1 - tail], axis=0)
        out.append(HeldOut(np.full(len(y), s), split.whole[row], y, low, median, high))
    return HeldOut(*(np.concatenate(values) for values in zip(*out, strict=True)))


RHAT_TOLD = 1.05
"""Larger R-hat of predicted means is told."""


def _problems(fits: Sequence[MemberFit]) -> tuple[str, ...]:
    out = []
    for f in fits:
        if f.rhat > RHAT_TOLD:
            out.append(
                f"{f.member.name}: the chains do not quite agree on the predicted scores (R-hat {f.rhat:.2f}, "
                f"effective sample size {f.ess:.0f}); more draws or a larger --max-depth help."
            )
        if f.divergences:
            out.append(f"{f.member.name}: {f.divergences} divergent transitions.")
    return tuple(out)
