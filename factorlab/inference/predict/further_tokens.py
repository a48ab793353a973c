"""Further tokens: what a fitted mixture says of a model's scores were it trained on more tokens.

A count D of a language enters as x = (log10(D + d0) - center) / scale, and carries error: in a draw, the model's x
has moved by its share of each count's error (`factorlab.inference.predict.predictors`). That moved x says how many
tokens the model has in this draw; further tokens t, which the planner chooses and so knows, are added to those:

    x(t) = (log10(10 ** (center + scale x) + t) - center) / scale

At t = 0 this is the model as fitted, and the error of its base's count fades as t outgrows it, as it should.
Everything else of the model (its own part of the abilities, kin, noise) is the same for every t in a draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import beta, binom

from factorlab.inference.predict.columns import Columns
from factorlab.inference.predict.kernel import BETA_BINOMIAL, BINOMIAL, BLOCKS, EDGE, LINEAR
from factorlab.inference.predict.member_fit import CellDraws, MemberFit, draw_cells
from factorlab.inference.predict.mixture import Mixture
from factorlab.inference.predict.predictive import SAMPLES, Predictive, measurement


def scores_with_tokens(
    mixture: Mixture,
    row: np.ndarray,
    column: np.ndarray,
    further: np.ndarray,
    start: np.ndarray | None = None,
    *,
    samples: int = SAMPLES,
) -> Predictive:
    """Joint samples of cells whose models have more tokens than they have in the table.

    Parameters
    ----------
    mixture : Mixture
    row, column : ndarray of int, (cell,)
    further : ndarray, (cell, predictor)
        Billions of tokens added; 0 for predictors that are no token counts.
    start : ndarray, (predictor,), optional
        Tokens (d0 with them) that `further` is added to, where that is known exactly; NaN: the model's own
        in each draw.
    samples : int

    Returns
    -------
    Predictive
        Noise is drawn once a sample, model and benchmark: cells that differ in tokens alone share it.
    """
    parts = [_draws(mixture, fit, row, column, further, start) for fit in mixture.fits]
    return draw_coupled(
        parts, mixture.weights, mixture.inputs.columns, row, column, seed=mixture.settings.seed,
        samples=samples,
    )  # fmt: skip


def _draws(
    mixture: Mixture, fit: MemberFit, row: np.ndarray, column: np.ndarray, further: np.ndarray,
    start: np.ndarray | None,
) -> CellDraws:  # fmt: skip
    """Draws of cells, each draw with predictors of its own."""
    seed = mixture.settings.seed
    if not fit.member.predictors:
        return draw_cells(fit, row, column, seed=seed)
    flat = fit.draws.reshape(-1, fit.draws.shape[-1])
    move = predictor_moves(mixture, fit, row, further, start)
    parts = [
        draw_cells(fit._replace(draws=flat[None, d : d + 1]), row, column, seed=seed + d, move=move[d])
        for d in range(len(flat))
    ]
    return CellDraws(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def predictor_moves(
    mixture: Mixture, fit: MemberFit, row: np.ndarray, further: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """By how much the standardised predictors of each cell's model move, (draw, cell, predictor).

    Parameters are those of `scores_with_tokens`.
    """
    x = mixture.inputs.predictors
    own = predictor_draws(fit, row)
    out = np.zeros((len(own), *further.shape))
    for p in range(further.shape[1]):
        fixed = start is not None and bool(np.isfinite(start[p]))
        if not fixed and not further[:, p].any():
            continue
        have = start[p] if fixed and start is not None else 10 ** (x.center[p] + x.scale[p] * own[:, :, p])
        with np.errstate(divide="ignore"):
            moved = (np.log10(have + further[:, p]) - x.center[p]) / x.scale[p]
        out[:, :, p] = moved - own[:, :, p]
    return out


def predictor_draws(fit: MemberFit, row: np.ndarray) -> np.ndarray:
    """Standardised predictors of models as each draw has them, errors of counts included.

    Parameters
    ----------
    fit : MemberFit
    row : ndarray of int, (cell,)

    Returns
    -------
    ndarray, (draw, cell, predictor)
    """
    a = fit.layout.arrays
    flat = fit.draws.reshape(-1, fit.draws.shape[-1])
    first = a.offsets[BLOCKS.index("error")]
    models, place = np.unique(row, return_inverse=True)
    x = np.repeat(a.x[models][None], len(flat), axis=0)
    for k, i in enumerate(models):
        for t in np.flatnonzero(a.error_row == i):
            x[:, k, a.error_predictor[t]] += a.error_weight[t] * flat[:, first + a.error_index[t]]
    return np.asarray(x[:, place])


def draw_coupled(
    parts: Sequence[CellDraws], weights: np.ndarray, columns: Columns, row: np.ndarray, column: np.ndarray,
    *, seed: int, samples: int = SAMPLES,
) -> Predictive:  # fmt: skip
    """Like `draw_predictive`, but cells of one model and benchmark have the same noise in a sample.

    Student noise is the same number of standard deviations; counts have the same quantiles.
    """
    rng = np.random.default_rng(seed)
    take = np.round(samples * np.cumsum(np.concatenate([[0.0], weights]))).astype(int)
    kind = columns.kind[column]
    se, trials = measurement(columns, row, column)
    pairs, place = np.unique(np.column_stack([row, column]), axis=0, return_inverse=True)
    place = place.reshape(-1)
    out, mean = [], []
    for part, n in zip(parts, np.diff(take), strict=True):
        if n == 0:
            continue
        # Every draw about equally often: what is left to chance is only the noise.
        pick = np.concatenate([rng.permutation(len(part.nu)) for _ in range(-(-n // len(part.nu)))])[:n]
        m, sd, nu = part.mean[pick], part.sd[pick], part.nu[pick]
        noise = rng.standard_t(nu[:, None], size=(n, len(pairs)))[:, place]
        first, second = (rng.random((n, len(pairs)))[:, place] for _ in range(2))
        y = m + np.sqrt(sd**2 + se**2) * noise
        for k in np.flatnonzero(np.isin(kind, (BETA_BINOMIAL, BINOMIAL))):
            p = np.clip(m[:, k], EDGE, 1 - EDGE)
            if kind[k] == BETA_BINOMIAL:
                phi = 0.25 / sd[:, k] ** 2
                p = beta.ppf(first[:, k], p * phi, (1 - p) * phi)
            y[:, k] = binom.ppf(second[:, k], int(trials[k]), p) / trials[k]
        bounded = kind != LINEAR
        y[:, bounded] = np.clip(y[:, bounded], 0, 1)
        out.append(y)
        mean.append(m)
    return Predictive(np.concatenate(out), np.concatenate(mean))
