"""Predictive: distributions of cells as samples, from the weighted draws of several members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import betaln, gammaln, logsumexp
from scipy.stats import t as student

from factorlab.inference.predict.columns import UNKNOWN_SE, Columns
from factorlab.inference.predict.kernel import BETA_BINOMIAL, BINOMIAL, EDGE, LINEAR
from factorlab.inference.predict.member_fit import CellDraws

SAMPLES = 4000
"""Samples of each cell."""


class Predictive(NamedTuple):
    """Predictive distributions of cells on the model's scale.

    Attributes
    ----------
    samples : ndarray, (sample, cell)
        Of a new score: unique noise and, where known, the error of measurement are in it.
    expected : ndarray, (sample, cell)
        The member's mean m_ij behind each sample: what the score would be without either.
    """

    samples: np.ndarray
    expected: np.ndarray


def draw_predictive(
    parts: Sequence[CellDraws], weights: np.ndarray, columns: Columns, row: np.ndarray, column: np.ndarray,
    *, seed: int, samples: int = SAMPLES,
) -> Predictive:  # fmt: skip
    """Samples of cells from a mixture of members.

    Parameters
    ----------
    parts : sequence of CellDraws
        One a member, of the same cells.
    weights : ndarray, (member,)
    columns : Columns
    row, column : ndarray of int, (cell,)
    seed, samples : int
    """
    rng = np.random.default_rng(seed)
    take = np.round(samples * np.cumsum(np.concatenate([[0.0], weights]))).astype(int)
    kind = columns.kind[column]
    se, trials = measurement(columns, row, column)
    out, mean = [], []
    for part, n in zip(parts, np.diff(take), strict=True):
        if n == 0:
            continue
        # Every draw about equally often: what is left to chance is only the noise.
        pick = np.concatenate([rng.permutation(len(part.nu)) for _ in range(-(-n // len(part.nu)))])[:n]
        m, sd, nu = part.mean[pick], part.sd[pick], part.nu[pick]
        y = m + np.sqrt(sd**2 + se**2) * rng.standard_t(nu[:, None], size=m.shape)
        for k in np.flatnonzero(np.isin(kind, (BETA_BINOMIAL, BINOMIAL))):
            y[:, k] = _counts(m[:, k], sd[:, k], int(trials[k]), kind[k] == BETA_BINOMIAL, rng)
        bounded = kind != LINEAR
        y[:, bounded] = np.clip(y[:, bounded], 0, 1)
        out.append(y)
        mean.append(m)
    return Predictive(np.concatenate(out), np.concatenate(mean))


def measurement(columns: Columns, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and number of instances that a score of each cell would have.

    Its own where known, else the median of its benchmark, else `UNKNOWN_SE` and 1000 instances.
    """
    out = []
    for values, nothing in ((columns.se, UNKNOWN_SE), (columns.trials, 1000.0)):
        known = np.isfinite(values).any(axis=0)
        middle = np.full(values.shape[1], nothing)
        middle[known] = np.nanmedian(values[:, known], axis=0)
        own = values[row, column]
        out.append(np.where(np.isfinite(own), own, middle[column]))
    return out[0], out[1]


def _counts(
    m: np.ndarray, sd: np.ndarray, trials: int, overdispersed: bool, rng: np.random.Generator
) -> np.ndarray:
    p = np.clip(m, EDGE, 1 - EDGE)
    if overdispersed:
        phi = 0.25 / sd**2
        p = rng.beta(p * phi, (1 - p) * phi)
    return rng.binomial(trials, p) / trials


def log_predictive(
    parts: Sequence[CellDraws], columns: Columns, row: np.ndarray, column: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Log predictive density of scores under each member.

    Parameters
    ----------
    parts : sequence of CellDraws
    columns : Columns
    row, column : ndarray of int, (cell,)
    y : ndarray, (cell,)
        On the model's scale.

    Returns
    -------
    ndarray, (member, cell)
        For counts the log probability.
    """
    kind = columns.kind[column]
    se, trials = measurement(columns, row, column)
    out = np.empty((len(parts), len(y)))
    for a, part in enumerate(parts):
        scale = np.sqrt(part.sd**2 + se**2)
        log = student.logpdf(y, part.nu[:, None], part.mean, scale)
        for k in np.flatnonzero(np.isin(kind, (BETA_BINOMIAL, BINOMIAL))):
            log[:, k] = _log_count(y[k], trials[k], part.mean[:, k], part.sd[:, k], kind[k] == BETA_BINOMIAL)
        out[a] = logsumexp(log, axis=0) - np.log(len(log))
    return out


def _log_count(y: float, trials: float, m: np.ndarray, sd: np.ndarray, overdispersed: bool) -> np.ndarray:
    p = np.clip(m, EDGE, 1 - EDGE)
    hits = np.round(y * trials)
    ways = gammaln(trials + 1) - gammaln(hits + 1) - gammaln(trials - hits + 1)
    if not overdispersed:
        return np.asarray(ways + hits * np.log(p) + (trials - hits) * np.log1p(-p))
    a, b = p * 0.25 / sd**2, (1 - p) * 0.25 / sd**2
    return np.asarray(ways + betaln(hits + a, trials - hits + b) - betaln(a, b))
