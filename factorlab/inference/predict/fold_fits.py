"""Fits of a validation: what one method says of the hidden cells of one fold, and how good that was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import logsumexp

from factorlab.inference.predict.columns import Columns, scale_columns
from factorlab.inference.predict.kernel import BETA_BINOMIAL, BINOMIAL
from factorlab.inference.predict.layout import read_inputs
from factorlab.inference.predict.member_fit import Effort, draw_cells, fit_member
from factorlab.inference.predict.mixture import PredictionSettings, fit_mixture
from factorlab.inference.predict.prediction import predict_cells
from factorlab.inference.predict.predictive import log_predictive, measurement
from factorlab.inference.predict.rivals import GAUSSIAN, MEANS, PCA, guess_cells
from factorlab.inference.predict.schemes import Fold, masked
from factorlab.inference.predict.scoring import Scored, score_normal, score_samples
from factorlab.inference.predict.specification import Member
from factorlab.inference.predict.validation_options import ValidationOptions
from factorlab.score_table import ScoreTable

MIXTURE = "prediction mixture"

METHODS = (MIXTURE, GAUSSIAN, PCA, MEANS)
"""In the order in which they are shown."""

RIVAL_FACTORS = 4

COUNT_FITS = Effort(draws=150, tune=150, chains=1, max_depth=6)
"""Sampling of the fits that choose a number of factors."""


def fit_fold(
    table: ScoreTable, folds: Mapping[str, Sequence[Fold]], how: ValidationOptions, scheme: str, fold: int,
    method: str, whole: str = "models",
) -> dict[str, np.ndarray]:  # fmt: skip
    """What one method says of one fold's cells, as arrays (cell,); empty where it cannot be fitted.

    The mixture recalibrates itself on what is like the hidden: cells, or ``whole`` models or lineages.
    """
    part = folds[scheme][fold]
    seen = masked(table, part.hidden)
    row, column = np.nonzero(part.scored)
    y = table.scores[row, column]
    unit = units(table)[column]
    if method == MIXTURE:
        return _mixture(seen, how.settings(scheme != "cells", whole == "lineages"), row, column, y, unit)
    if method.startswith("K="):
        return {"log_density": _count(seen, how, int(method[2:]), row, column, y, unit)}
    guess = guess_cells(seen, method, RIVAL_FACTORS)
    if guess is None:
        return _arrays(Scored(*[np.zeros(0)] * 6))
    scored = score_normal(guess.mean[row, column], guess.sd[row, column], y, how.level)
    return _arrays(scored._replace(log_density=scored.log_density + np.log(unit), crps=scored.crps / unit))


def units(table: ScoreTable) -> np.ndarray:
    """What errors are counted in, (benchmark,): the width of the range, or the spread of the scores."""
    return np.asarray(scale_columns(table).scale)


def _arrays(scored: Scored) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, dtype=float) for name, value in scored._asdict().items()}


def _mixture(
    seen: ScoreTable,
    settings: PredictionSettings,
    row: np.ndarray,
    column: np.ndarray,
    y: np.ndarray,
    unit: np.ndarray,
) -> dict[str, np.ndarray]:
    """The prediction as a user gets it, with its own recalibration."""
    mixture = fit_mixture(seen, settings, workers=1)
    columns = mixture.inputs.columns
    found = predict_cells(mixture, row, column)
    log = log_predictive(mixture.cells(row, column), columns, row, column, columns.from_scores(y, column))
    with np.errstate(divide="ignore"):
        log = logsumexp(log + np.log(mixture.weights)[:, None], axis=0)
    scored = score_samples(found.samples, _per_unit(log, columns, row, column, unit), y, settings.level)
    out = _arrays(scored._replace(crps=scored.crps / unit))
    calibrated = mixture.calibration is not None
    basis = found.cells["basis"].to_numpy()
    factor = np.array(
        [mixture.calibration.factor[b] if mixture.calibration is not None else np.nan for b in basis]
    )
    for name in ("low", "high"):
        recalibrated = found.cells[name].to_numpy(dtype=float)
        out[f"own_{name}"] = np.where(calibrated & np.isfinite(factor), recalibrated, np.nan)
    out["weights"] = mixture.weights
    out["rhat"] = np.array([f.rhat for f in mixture.fits])
    return out


def _per_unit(
    log: np.ndarray, columns: Columns, row: np.ndarray, column: np.ndarray, unit: np.ndarray
) -> np.ndarray:
    """Log density per unit of a benchmark, from that on the model's scale; counts: spread over 1 / n."""
    out = log + np.log(unit / columns.scale[column])
    counted = np.isin(columns.kind[column], (BETA_BINOMIAL, BINOMIAL))
    _, trials = measurement(columns, row, column)
    return np.asarray(np.where(counted, out + np.log(trials), out))


def _count(
    seen: ScoreTable, how: ValidationOptions, factors: int, row: np.ndarray, column: np.ndarray, y: np.ndarray,
    unit: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Log density of hidden cells under one member with so many factors."""
    inputs = read_inputs(seen, likelihood=how.likelihood, covariates=how.covariates)
    fit = fit_member(inputs, Member(factors), seed=how.seed, effort=COUNT_FITS)
    part = draw_cells(fit, row, column, seed=how.seed)
    log = log_predictive([part], inputs.columns, row, column, inputs.columns.from_scores(y, column))[0]
    return _per_unit(log, inputs.columns, row, column, unit)
