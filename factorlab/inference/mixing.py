"""How well chains mix: R-hat and effective sample sizes of many quantities at once.

ArviZ answers one quantity a call; a fit of thousands of models has tens of thousands, and asks while it
samples. These are the same numbers, vectorised over quantities in chunks of bounded memory.

Each chain is split into halves (an odd middle draw is left out): M chains of N draws. With theta_nm the
draws, or z_nm = Phi^-1((r_nm - 3/8) / (M N + 1/4)) of their average ranks r,

    W = mean of the chains' variances (ddof 1),   B / N = variance of the chains' means (ddof 1)
    var_plus = (N - 1) / N W + B / N,             R-hat = sqrt(var_plus / W)
    rho_t = 1 - (W - mean over chains of the autocovariance at lag t) / var_plus
    tau = -1 + 2 sum of the pairs P_k = rho_2k + rho_2k+1, while positive, made monotone
          + rho_2k of the pair where that ends,   ESS = M N / max(tau, 1 / log10(M N))

R-hat is the larger of those of z and of the z of abs(theta - median); bulk ESS is that of z; tail ESS is
the smaller of those of the indicators theta <= 5 % quantile and theta <= 95 % quantile.

References
----------
Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, Bayesian Analysis 16 (R-hat, bulk and tail ESS).
Geyer 1992, Statistical Science 7 (initial positive and monotone sequence).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.special import ndtri

TAILS = (0.05, 0.95)

FEWEST_DRAWS = 4
"""With fewer draws a chain every measure is NaN."""

WORK_BYTES = 8 * 2**20
"""About the size of the work arrays of one chunk of quantities, whatever the number of quantities."""

WORK_ARRAYS = 20
"""Work arrays as large as the values of a chunk that are alive at once, at most."""

ROUNDING = 1e-12
"""A pair of autocorrelations within this of 0 is 0: a sum of few draws can be, but for rounding."""


class Convergence(NamedTuple):
    """R-hat and effective sample sizes, one a quantity, (quantity,)."""

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def convergence(values: np.ndarray) -> Convergence:
    """Rank-normalised split R-hat, bulk and tail effective sample size.

    Parameters
    ----------
    values : ndarray, (chain, draw, quantity)

    Returns
    -------
    Convergence
        NaN for a quantity that does not vary or is not finite, with fewer than 4 draws, and for R-hat
        of a single chain.

    Notes
    -----
    The numbers of ArviZ (``rhat``, ``ess`` with "bulk", and with "tail" at 5 % and 95 %). ArviZ 0.x
    interpolates quantiles as (1 - g) a + g b, which can fall below a where a equals b, and then leaves
    the draw at the quantile out of the tail; this, like ArviZ 1.x and NumPy, does not. Where a pair of
    autocorrelations is 0 but for rounding (few draws of few values), ArviZ may take it as positive.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, Bayesian Analysis 16 (R-hat, bulk and tail ESS).
    """
    chains, draws, n = values.shape
    out = np.full((3, n), np.nan)
    if chains > 0 and draws >= FEWEST_DRAWS:
        step = max(1, WORK_BYTES // (8 * WORK_ARRAYS * chains * draws))
        for first in range(0, n, step):
            x = np.ascontiguousarray(np.moveaxis(values[:, :, first : first + step], 2, 0), dtype=float)
            varies = np.isfinite(x).all(axis=(1, 2))
            varies[varies] = np.ptp(x[varies], axis=(1, 2)) > 0
            if varies.any():
                out[:, first : first + step][:, varies] = _measures(x[varies])
    if chains == 1:
        out[0] = np.nan
    return Convergence(*out)


def _measures(x: np.ndarray) -> np.ndarray:
    """(3, quantity): R-hat, bulk ESS and tail ESS of finite x (quantity, chain, draw) that vary."""
    q, _, draws = x.shape
    half = draws // 2
    theta = np.concatenate([x[:, :, :half], x[:, :, -half:]], axis=1)
    flat = theta.reshape(q, -1)
    s = flat.shape[1]
    scores = ndtri((np.arange(2, 2 * s + 1) / 2 - 3 / 8) / (s + 1 / 4))  # of rank 1, 3/2, 2, ..., s

    order = np.argsort(flat, axis=1)
    ordered = np.take_along_axis(flat, order, axis=1)
    z = _scatter(_scores(ordered, scores), order).reshape(theta.shape)

    median = (ordered[:, s // 2 - 1] + ordered[:, s // 2]) / 2
    folded = np.abs(ordered - median[:, None])
    # Falling, then rising: a stable sort merges the two runs and is done.
    again = np.argsort(folded, axis=1, kind="stable")
    z_folded = _scatter(
        _scores(np.take_along_axis(folded, again, axis=1), scores), np.take_along_axis(order, again, axis=1)
    ).reshape(theta.shape)
    bulk, tail = _rhat(z), _rhat(z_folded)
    rhat = np.where(tail > bulk, tail, bulk)  # a folded quantity may be constant: the bulk's R-hat then
    del order, folded, again, z_folded

    low, high = TAILS
    whole = ordered if 2 * half == draws else np.sort(x.reshape(q, -1), axis=1)
    ess = [_ess(theta <= _quantile(whole, p)[:, None, None]) for p in (low, high)]
    return np.stack([rhat, _ess(z), np.minimum(*ess)])


def _scores(ordered: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Normal scores of the average ranks of rows (quantity, draw) in rising order."""
    q, s = ordered.shape
    place = np.arange(s, dtype=np.int32)
    new = ordered[:, 1:] != ordered[:, :-1]
    if new.all():
        return np.broadcast_to(scores[::2], (q, s))
    edge = np.ones((q, 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, new]), place, 0), axis=1)
    last = np.where(np.hstack([new, edge]), place, s)[:, ::-1]
    last = np.minimum.accumulate(last, axis=1)[:, ::-1]
    return scores[first + last]


def _scatter(sorted_values: np.ndarray, order: np.ndarray) -> np.ndarray:
    out = np.empty(order.shape)
    np.put_along_axis(out, order, sorted_values, axis=1)
    return out


def _quantile(ordered: np.ndarray, p: float) -> np.ndarray:
    """Quantile of each row in rising order, linear between draws; exact where neighbours are equal."""
    place = p * (ordered.shape[1] - 1)
    k = int(place)
    t = place - k
    a, b = ordered[:, k], ordered[:, min(k + 1, ordered.shape[1] - 1)]
    return a + (b - a) * t if t < 0.5 else b - (b - a) * (1 - t)


def _rhat(theta: np.ndarray) -> np.ndarray:
    """R-hat (quantity,) of split chains (quantity, chain, draw)."""
    n = theta.shape[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = n * np.var(theta.mean(axis=2), axis=1, ddof=1)
        within = np.var(theta, axis=2, ddof=1).mean(axis=1)
        return np.sqrt((between / within + n - 1) / n)


def _ess(theta: np.ndarray) -> np.ndarray:
    """Effective sample size (quantity,) of split chains (quantity, chain, draw).

    A quantity that does not vary, as the indicator of a tail without draws, counts every draw.
    """
    _, m, n = theta.shape
    mean = theta.mean(axis=2)
    acov = _autocovariance(theta - mean[:, :, None])
    within = acov[:, 0] * n / (n - 1)
    var_plus = acov[:, 0] + np.var(mean, axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1 - (within[:, None] - acov) / var_plus[:, None]
    rho[:, 0] = 1
    tau = np.maximum(_autocorrelation_time(rho), 1 / np.log10(m * n))
    ess = np.where(np.isnan(rho[:, 1]), np.nan, m * n / tau)
    flat = theta.reshape(len(theta), -1)
    return np.where(flat.max(axis=1) == flat.min(axis=1), m * n, ess)


def _autocovariance(centred: np.ndarray) -> np.ndarray:
    """Mean over chains of the autocovariance at lags 0 ... N - 1, (quantity, lag)."""
    n = centred.shape[2]
    size = fft.next_fast_len(2 * n, real=True)
    spectrum = fft.rfft(centred, n=size, axis=2)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=1)
    return fft.irfft(power, n=size, axis=1)[:, :n] / n


def _autocorrelation_time(rho: np.ndarray) -> np.ndarray:
    """tau (quantity,) of autocorrelations (quantity, lag), by Geyer's initial monotone sequence."""
    n = rho.shape[1]
    last = max((n - 1) // 2 - 1, 0)  # the last pair looked at
    pairs = rho[:, 0 : 2 * last + 1 : 2] + rho[:, 1 : 2 * last + 2 : 2]
    ends = ~(pairs > ROUNDING)
    ends[:, last] = True
    end = ends.argmax(axis=1)
    before = np.arange(last + 1) < end[:, None]
    total = np.where(before, np.minimum.accumulate(pairs, axis=1), 0).sum(axis=1)
    rows = np.arange(len(rho))
    even = rho[rows, 2 * end]
    return -1 + 2 * total + np.where((even > 0) | (pairs[rows, end] >= -ROUNDING), even, 0)
