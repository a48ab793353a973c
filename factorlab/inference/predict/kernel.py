"""Log density of the prediction model and its gradient, as one C function.

The model (`factorlab.inference.predict.specification` says what each part is for), model i, benchmark j:

    theta_i ~ Normal(B' x_i + sum_n w_in exp(level_n) a_n, r)               abilities
    x_ip    = X_ip + sum_e c_ipe e_e                                        predictors, with error
    eta_ij  = mu_j + lambda_j' theta_i + delta_g(j) omega_i,g(j)
    s_ij    = (1 + (2 ** (1 / kappa_j) - 1) exp(-eta_ij)) ** -kappa_j        one half at eta = 0, whatever kappa
    m_ij    = c_j + (u_j - c_j) s_ij
    sd_ij   = sigma_j tau_i (4 s_ij (1 - s_ij) + 0.01) ** gamma
    y_ij ~ StudentT(nu, m_ij, sqrt(sd_ij^2 + se_ij^2))                      kind LINK
    y_ij ~ StudentT(nu, eta_ij, sqrt((5 sigma_j tau_i)^2 + se_ij^2))         kind LINEAR
    n y_ij ~ BetaBinomial(n_ij, m_ij, 1 / (4 sigma_j^2 tau_i^2))             kind BETA_BINOMIAL
    n y_ij ~ Binomial(n_ij, m_ij)                                            kind BINOMIAL

All parameters are unconstrained, in one vector; ``offsets`` says where each block lies. Most have independent
normal priors; abilities, intercepts mu_j, log lambda_j1 and log sigma_j, which the data hold fast, have normal
priors around what is common to them (centred), as NUTS then needs a fraction of the steps. A table of another
shape needs no compiling: that is why this is a function of its own and no PyMC graph (a validation fits hundreds
of tables). ``tests/inference/predict/test_density.py`` states the same model in PyMC and holds the two against
each other.

One file for all of it: numba asks only whether the file of a function has changed, not those of the functions that
it calls, so that machine code on disk would go on using an old one.
"""

from __future__ import annotations

from math import exp, expm1, lgamma, log, log1p, sqrt
from typing import Any, NamedTuple

import numpy as np
from numba import carray, cfunc, njit
from numba.core import types

from factorlab.inference.pointer import as_pointer

LINK, LINEAR, BETA_BINOMIAL, BINOMIAL = 0, 1, 2, 3

LINEAR_SCALE = 5.0
"""Standardised scores spread about five times as far as scores on the unit interval do."""

RIDGE = 0.01
"""Keeps the noise of a score at the floor or the ceiling off zero."""

LEAST_NU = 1.5

# Below, error_model="numpy": far out, where a trajectory may go before it is turned down, a division by zero is
# an infinite number and the point is refused; Python's error could not leave a C function.

EDGE = 1e-9
"""Probabilities of a count are held this far from 0 and 1."""

BLOCKS = (
    "ability", "mean", "general", "loading", "loading_scale", "noise", "model_noise", "shape",
    "mean_center", "mean_spread", "general_center", "general_spread", "noise_center", "noise_spread",
    "model_noise_spread", "shape_spread", "tail", "slope_of_noise", "ceiling", "floor", "residual",
    "slope", "error", "effect", "level", "specific", "specific_scale", "specific_center",
)  # fmt: skip
"""Blocks of the vector, in order; one that a model does not have is empty."""

(
    _ABILITY, _MEAN, _GENERAL, _LOADING, _LOADING_SCALE, _NOISE, _MODEL_NOISE, _SHAPE,
    _MEAN_CENTER, _MEAN_SPREAD, _GENERAL_CENTER, _GENERAL_SPREAD, _NOISE_CENTER, _NOISE_SPREAD,
    _MODEL_NOISE_SPREAD, _SHAPE_SPREAD, _TAIL, _SLOPE_OF_NOISE, _CEILING, _FLOOR, _RESIDUAL,
    _SLOPE, _ERROR, _EFFECT, _LEVEL, _SPECIFIC, _SPECIFIC_SCALE, _SPECIFIC_CENTER,
) = range(len(BLOCKS))  # fmt: skip


class Arrays(NamedTuple):
    """What the density is a function of besides the parameters; every array is contiguous.

    Attributes
    ----------
    sizes : ndarray of int, (4,)
        Models M, benchmarks J, factors K, predictors P.
    offsets : ndarray of int, (block + 1,)
        Where each of `BLOCKS` begins in the vector.
    prior_mean, prior_sd : ndarray, (dim,)
        Of the independent normal priors; an infinite sd where the prior is centred.
    row, column : ndarray of int, (cell,)
        Model and benchmark of each observed cell.
    y, variance, trials : ndarray, (cell,)
        Score on the scale of its column; square of its standard error; number of instances, for counts.
    specific_index : ndarray of int, (cell,)
        Which omega the cell has; -1 for none.
    kind : ndarray of int, (benchmark,)
    low, high : ndarray, (benchmark,)
        Limits of floor and ceiling.
    group : ndarray of int, (benchmark,)
        Group of benchmarks; -1 for none.
    x : ndarray, (model, predictor)
    error_row, error_predictor, error_index : ndarray of int, (entry,)
    error_weight : ndarray, (entry,)
    effect_row, effect_node : ndarray of int, (entry,)
    effect_weight : ndarray, (entry,)
    node_level : ndarray of int, (node,)
    """

    sizes: np.ndarray
    offsets: np.ndarray
    prior_mean: np.ndarray
    prior_sd: np.ndarray
    row: np.ndarray
    column: np.ndarray
    y: np.ndarray
    variance: np.ndarray
    trials: np.ndarray
    specific_index: np.ndarray
    kind: np.ndarray
    low: np.ndarray
    high: np.ndarray
    group: np.ndarray
    x: np.ndarray
    error_row: np.ndarray
    error_predictor: np.ndarray
    error_index: np.ndarray
    error_weight: np.ndarray
    effect_row: np.ndarray
    effect_node: np.ndarray
    effect_weight: np.ndarray
    node_level: np.ndarray


class Natural(NamedTuple):
    """Parameters on their own scale, for one draw.

    Attributes
    ----------
    theta, expected : ndarray, (model, factor)
        Abilities, and what predictors and kin expect of them.
    residual : ndarray, (factor,)
    lam : ndarray, (benchmark, factor)
    mu, sigma, kappa, floor, ceiling : ndarray, (benchmark,)
    shift : ndarray, (benchmark,)
        -log(2 ** (1 / kappa) - 1), 0 for a linear column.
    tau : ndarray, (model,)
    delta : ndarray, (group,)
    nu, gamma : float
    x : ndarray, (model, predictor)
    """

    theta: Any
    expected: Any
    residual: Any
    lam: Any
    mu: Any
    sigma: Any
    kappa: Any
    shift: Any
    floor: Any
    ceiling: Any
    tau: Any
    delta: Any
    nu: Any
    gamma: Any
    x: Any


@njit(cache=True, error_model="numpy")
def logistic(v):
    if v >= 0:
        return 1.0 / (1.0 + exp(-v))
    e = exp(v)
    return e / (1.0 + e)


@njit(cache=True, error_model="numpy")
def digamma(v):
    """Derivative of log gamma for v > 0: recurrence up to 6, then the asymptotic series (DLMF 5.11.2)."""
    out = 0.0
    while v < 6.0:
        out -= 1.0 / v
        v += 1.0
    f = 1.0 / (v * v)
    series = f * (1 / 12 - f * (1 / 120 - f * (1 / 252 - f * (1 / 240 - f * (1 / 132)))))
    return out + log(v) - 0.5 / v - series


@njit(cache=True, error_model="numpy")
def natural(q, a):
    """The vector ``q`` on the parameters' own scale."""
    M, J, K, P = a.sizes
    o = a.offsets
    x = a.x.copy()
    for t in range(a.error_row.size):
        x[a.error_row[t], a.error_predictor[t]] += a.error_weight[t] * q[o[_ERROR] + a.error_index[t]]
    residual = np.ones(K)
    if o[_RESIDUAL + 1] > o[_RESIDUAL]:
        for k in range(K):
            residual[k] = exp(q[o[_RESIDUAL] + k])
    theta, expected = np.empty((M, K)), np.empty((M, K))
    for i in range(M):
        for k in range(K):
            v = 0.0
            for p in range(P):
                v += x[i, p] * q[o[_SLOPE] + p * K + k]
            expected[i, k] = v
            theta[i, k] = q[o[_ABILITY] + i * K + k]
    for t in range(a.effect_row.size):
        n = a.effect_node[t]
        scale = a.effect_weight[t] * exp(q[o[_LEVEL] + a.node_level[n]])
        for k in range(K):
            expected[a.effect_row[t], k] += scale * q[o[_EFFECT] + n * K + k]
    lam = np.empty((J, K))
    mu, sigma, kappa, shift = np.empty(J), np.empty(J), np.empty(J), np.zeros(J)
    floor, ceiling = np.empty(J), np.empty(J)
    for j in range(J):
        lam[j, 0] = exp(q[o[_GENERAL] + j])
        for k in range(1, K):
            lam[j, k] = exp(q[o[_LOADING_SCALE] + k - 1]) * q[o[_LOADING] + j * (K - 1) + k - 1]
        sigma[j] = exp(q[o[_NOISE] + j])
        kappa[j] = exp(exp(q[o[_SHAPE_SPREAD]]) * q[o[_SHAPE] + j])
        mu[j] = q[o[_MEAN] + j]
        if a.kind[j] == LINEAR:
            sigma[j] *= LINEAR_SCALE
        else:
            shift[j] = -log(expm1(log(2.0) / kappa[j]))
        floor[j], ceiling[j] = a.low[j], 1.0
        if o[_FLOOR + 1] > o[_FLOOR]:
            floor[j] = a.low[j] * logistic(q[o[_FLOOR] + j])
        if o[_CEILING + 1] > o[_CEILING]:
            ceiling[j] = a.high[j] + (1 - a.high[j]) * logistic(q[o[_CEILING] + j])
    tau = np.empty(M)
    for i in range(M):
        tau[i] = exp(exp(q[o[_MODEL_NOISE_SPREAD]]) * q[o[_MODEL_NOISE] + i])
    G = o[_SPECIFIC_SCALE + 1] - o[_SPECIFIC_SCALE]
    delta = np.empty(G)
    for g in range(G):
        delta[g] = exp(q[o[_SPECIFIC_CENTER]] + 0.5 * q[o[_SPECIFIC_SCALE] + g])
    nu = LEAST_NU + exp(q[o[_TAIL]])
    gamma = logistic(q[o[_SLOPE_OF_NOISE]])
    return Natural(
        theta, expected, residual, lam, mu, sigma, kappa, shift, floor, ceiling, tau, delta, nu, gamma, x
    )


@njit(cache=True, error_model="numpy")
def _predictor(n, i, j, omega):
    eta = n.mu[j] + n.shift[j] + omega
    for k in range(n.theta.shape[1]):
        eta += n.lam[j, k] * n.theta[i, k]
    return eta


@njit(cache=True, error_model="numpy")
def value_and_gradient(q, a, out):
    """Log density (up to a constant of the priors) at ``q``; its gradient goes into ``out``."""
    M, J, K = a.sizes[0], a.sizes[1], a.sizes[2]
    o = a.offsets
    n = natural(q, a)
    value = 0.0
    for d in range(q.size):
        t = (q[d] - a.prior_mean[d]) / a.prior_sd[d]
        value -= 0.5 * t * t
        out[d] = -t / a.prior_sd[d]
    g_theta, g_lam = np.zeros((M, K)), np.zeros((J, K))
    g_mu, g_sigma, g_kappa = np.zeros(J), np.zeros(J), np.zeros(J)
    g_floor, g_ceiling = np.zeros(J), np.zeros(J)
    g_tau = np.zeros(M)
    g_delta = np.zeros(n.delta.size)
    g_nu, g_gamma = 0.0, 0.0
    half = 0.5 * (n.nu + 1.0)
    constant = lgamma(half) - lgamma(0.5 * n.nu) - 0.5 * log(n.nu * np.pi)
    constant_slope = 0.5 * (digamma(half) - digamma(0.5 * n.nu) - 1.0 / n.nu)
    for t in range(a.row.size):
        i, j, w = a.row[t], a.column[t], a.specific_index[t]
        kind = a.kind[j]
        omega = 0.0
        if w >= 0:
            omega = n.delta[a.group[j]] * q[o[_SPECIFIC] + w]
        eta = _predictor(n, i, j, omega)
        noise = n.sigma[j] * n.tau[i]  # sigma and tau enter as logs below: d noise / d log = noise
        s, soft, slope, mean, factor, bend, log_bend = 0.0, 0.0, 1.0, eta, 1.0, 1.0, 0.0
        if kind != LINEAR:
            e = exp(-abs(eta))
            soft = log1p(e) if eta > 0 else log1p(e) - eta  # log(1 + exp(-eta))
            s = exp(-n.kappa[j] * soft)
            slope = s * n.kappa[j] * (e / (1.0 + e) if eta > 0 else 1.0 / (1.0 + e))  # ds / d eta
            mean = n.floor[j] + (n.ceiling[j] - n.floor[j]) * s
            bend = 4.0 * s * (1.0 - s) + RIDGE
            log_bend = log(bend)
            factor = exp(n.gamma * log_bend)
        d_s = 0.0  # by the noise's dependence on s
        if kind in (LINK, LINEAR):
            own = noise * factor
            total = own * own + a.variance[t]
            sd = sqrt(total)
            r = (a.y[t] - mean) / sd
            tail = log1p(r * r / n.nu)
            value += constant - 0.5 * log(total) - half * tail
            d_r = -(n.nu + 1.0) * r / (n.nu + r * r)
            d_mean = -d_r / sd
            d_own = (-1.0 / sd - d_r * r / sd) * own / sd
            d_log_noise = d_own * own
            if kind == LINK:
                g_gamma += d_own * own * log_bend
                d_s = d_own * own * n.gamma * 4.0 * (1.0 - 2.0 * s) / bend
            g_nu += constant_slope - 0.5 * tail + half * (r * r / (n.nu * n.nu)) / (1.0 + r * r / n.nu)
        else:
            trials = a.trials[t]
            hits = a.y[t] * trials
            p = min(max(mean, EDGE), 1.0 - EDGE)
            if kind == BINOMIAL:
                value += lgamma(trials + 1) - lgamma(hits + 1) - lgamma(trials - hits + 1)
                value += hits * log(p) + (trials - hits) * log(1.0 - p)
                d_mean = hits / p - (trials - hits) / (1.0 - p)
                d_log_noise = 0.0
            else:
                phi = 0.25 / (noise * noise)
                alpha, beta = p * phi, (1.0 - p) * phi
                value += lgamma(trials + 1) - lgamma(hits + 1) - lgamma(trials - hits + 1)
                value += lgamma(hits + alpha) - lgamma(alpha) + lgamma(trials - hits + beta) - lgamma(beta)
                value += lgamma(phi) - lgamma(trials + phi)
                d_alpha = digamma(hits + alpha) - digamma(alpha)
                d_beta = digamma(trials - hits + beta) - digamma(beta)
                d_mean = phi * (d_alpha - d_beta)
                d_phi = p * d_alpha + (1.0 - p) * d_beta + digamma(phi) - digamma(trials + phi)
                d_log_noise = -2.0 * phi * d_phi
        g_sigma[j] += d_log_noise
        g_tau[i] += d_log_noise
        if kind == LINEAR:
            d_eta = d_mean
        else:
            d_s += d_mean * (n.ceiling[j] - n.floor[j])
            d_eta = d_s * slope
            bent = log(2.0) / n.kappa[j]
            d_shift = bent * exp(bent) / expm1(bent)  # both by log kappa
            g_kappa[j] += d_eta * d_shift - d_s * s * soft * n.kappa[j]
            g_floor[j] += d_mean * (1.0 - s)
            g_ceiling[j] += d_mean * s
        g_mu[j] += d_eta
        for k in range(K):
            g_theta[i, k] += d_eta * n.lam[j, k]
            g_lam[j, k] += d_eta * n.theta[i, k]
        if w >= 0:
            g_delta[a.group[j]] += d_eta * q[o[_SPECIFIC] + w]
            out[o[_SPECIFIC] + w] += d_eta * n.delta[a.group[j]]
    value += _centred(q, a, n, out)
    _pull_back_benchmarks(q, a, n, out, g_lam, g_mu, g_sigma, g_kappa, g_floor, g_ceiling)
    _pull_back_models(q, a, n, out, g_theta, g_tau)
    for g in range(n.delta.size):
        out[o[_SPECIFIC_CENTER]] += g_delta[g] * n.delta[g]
        out[o[_SPECIFIC_SCALE] + g] += 0.5 * g_delta[g] * n.delta[g]
    out[o[_TAIL]] += g_nu * (n.nu - LEAST_NU)
    out[o[_SLOPE_OF_NOISE]] += g_gamma * n.gamma * (1.0 - n.gamma)
    return value


@njit(cache=True, error_model="numpy")
def _centred_block(q, out, first, n, center, spread, skip):
    """Log density of q[first:first + n] ~ Normal(q[center], exp(q[spread])), and its gradient."""
    value, log_sd = 0.0, q[spread]
    precision = exp(-2.0 * log_sd)
    for j in range(n):
        if skip[j] == LINEAR:  # standardised: around 0, with sd 1
            value -= 0.5 * q[first + j] * q[first + j]
            out[first + j] -= q[first + j]
            continue
        d = q[first + j] - q[center]
        value -= 0.5 * d * d * precision + log_sd
        out[first + j] -= d * precision
        out[center] += d * precision
        out[spread] += d * d * precision - 1.0
    return value


@njit(cache=True, error_model="numpy")
def _centred(q, a, n, out):
    """Log density of the centred priors; what is common to benchmarks gets its gradient here, that of
    abilities goes on to predictors and kin in `_pull_back_models`."""
    M, J, K = a.sizes[0], a.sizes[1], a.sizes[2]
    o = a.offsets
    none = np.full(J, -1)
    value = _centred_block(q, out, o[_MEAN], J, o[_MEAN_CENTER], o[_MEAN_SPREAD], a.kind)
    value += _centred_block(q, out, o[_GENERAL], J, o[_GENERAL_CENTER], o[_GENERAL_SPREAD], none)
    value += _centred_block(q, out, o[_NOISE], J, o[_NOISE_CENTER], o[_NOISE_SPREAD], none)
    for i in range(M):
        for k in range(K):
            t = (n.theta[i, k] - n.expected[i, k]) / n.residual[k]
            value -= 0.5 * t * t + log(n.residual[k])
    return value


@njit(cache=True, error_model="numpy")
def _pull_back_benchmarks(q, a, n, out, g_lam, g_mu, g_sigma, g_kappa, g_floor, g_ceiling):
    """From the gradient by benchmarks' parameters to that by the vector."""
    J, K = a.sizes[1], a.sizes[2]
    o = a.offsets
    shape_spread = exp(q[o[_SHAPE_SPREAD]])
    for j in range(J):
        out[o[_GENERAL] + j] += g_lam[j, 0] * n.lam[j, 0]
        for k in range(1, K):
            scale = exp(q[o[_LOADING_SCALE] + k - 1])
            out[o[_LOADING] + j * (K - 1) + k - 1] += g_lam[j, k] * scale
            out[o[_LOADING_SCALE] + k - 1] += g_lam[j, k] * n.lam[j, k]
        out[o[_MEAN] + j] += g_mu[j]
        out[o[_NOISE] + j] += g_sigma[j]
        out[o[_SHAPE] + j] += g_kappa[j] * shape_spread
        out[o[_SHAPE_SPREAD]] += g_kappa[j] * shape_spread * q[o[_SHAPE] + j]
        if o[_FLOOR + 1] > o[_FLOOR]:
            v = logistic(q[o[_FLOOR] + j])
            out[o[_FLOOR] + j] += g_floor[j] * a.low[j] * v * (1.0 - v)
        if o[_CEILING + 1] > o[_CEILING]:
            v = logistic(q[o[_CEILING] + j])
            out[o[_CEILING] + j] += g_ceiling[j] * (1.0 - a.high[j]) * v * (1.0 - v)


@njit(cache=True, error_model="numpy")
def _pull_back_models(q, a, n, out, g_theta, g_tau):
    """From the gradient by models' parameters to that by the vector."""
    M, K, P = a.sizes[0], a.sizes[2], a.sizes[3]
    o = a.offsets
    learned = o[_RESIDUAL + 1] > o[_RESIDUAL]
    spread = exp(q[o[_MODEL_NOISE_SPREAD]])
    g_x = np.zeros((M, P))
    g_expected = np.empty((M, K))
    for i in range(M):
        out[o[_MODEL_NOISE] + i] += g_tau[i] * spread
        out[o[_MODEL_NOISE_SPREAD]] += g_tau[i] * spread * q[o[_MODEL_NOISE] + i]
        for k in range(K):
            t = (n.theta[i, k] - n.expected[i, k]) / n.residual[k]
            g = t / n.residual[k]
            g_expected[i, k] = g
            out[o[_ABILITY] + i * K + k] += g_theta[i, k] - g
            if learned:
                out[o[_RESIDUAL] + k] += t * t - 1.0
            for p in range(P):
                out[o[_SLOPE] + p * K + k] += g * n.x[i, p]
                g_x[i, p] += g * q[o[_SLOPE] + p * K + k]
    for t in range(a.error_row.size):
        out[o[_ERROR] + a.error_index[t]] += a.error_weight[t] * g_x[a.error_row[t], a.error_predictor[t]]
    for t in range(a.effect_row.size):
        i, node = a.effect_row[t], a.effect_node[t]
        level = a.node_level[node]
        scale = a.effect_weight[t] * exp(q[o[_LEVEL] + level])
        for k in range(K):
            out[o[_EFFECT] + node * K + k] += g_expected[i, k] * scale
            out[o[_LEVEL] + level] += g_expected[i, k] * scale * q[o[_EFFECT] + node * K + k]


@njit(cache=True, error_model="numpy")
def cell_moments(draws, a, row, column, specific_index, noise, move):
    """Mean and scale of cells under many draws.

    Parameters
    ----------
    draws : ndarray, (draw, dim)
    a : Arrays
    row, column, specific_index : ndarray of int, (cell,)
        ``specific_index`` is -1 without a group, -2 - w for the w-th omega that is not a parameter.
    noise : ndarray, (draw, omega)
        Standard normals for omegas of (model, group) pairs without an observed cell.
    move : ndarray, (cell, predictor)
        The model's predictors are moved by this, and its abilities with them.

    Returns
    -------
    mean, sd : ndarray, (draw, cell)
        Unique noise only: the error of measurement is not in ``sd``.
    nu : ndarray, (draw,)
    """
    D, N = draws.shape[0], row.size
    mean, sd, nu = np.empty((D, N)), np.empty((D, N)), np.empty(D)
    o = a.offsets
    for d in range(D):
        q = draws[d]
        n = natural(q, a)
        nu[d] = n.nu
        for t in range(N):
            i, j, w = row[t], column[t], specific_index[t]
            omega = 0.0
            if w >= 0:
                omega = n.delta[a.group[j]] * q[o[_SPECIFIC] + w]
            elif w < -1:
                omega = n.delta[a.group[j]] * noise[d, -2 - w]
            eta = _predictor(n, i, j, omega)
            for p in range(move.shape[1]):
                if move[t, p] != 0.0:
                    for k in range(n.theta.shape[1]):
                        eta += n.lam[j, k] * move[t, p] * q[o[_SLOPE] + p * n.theta.shape[1] + k]
            own = n.sigma[j] * n.tau[i]
            if a.kind[j] == LINEAR:
                mean[d, t], sd[d, t] = eta, own
                continue
            soft = log1p(exp(-eta)) if eta > 0 else log1p(exp(eta)) - eta
            s = exp(-n.kappa[j] * soft)
            mean[d, t] = n.floor[j] + (n.ceiling[j] - n.floor[j]) * s
            sd[d, t] = own * (4.0 * s * (1.0 - s) + RIDGE) ** n.gamma if a.kind[j] == LINK else own
    return mean, sd, nu


_INT, _FLOAT = "int64", "float64"

_TYPES = tuple(
    (name, 2 if name == "x" else 1, _FLOAT if name in (
        "prior_mean", "prior_sd", "y", "variance", "trials", "low", "high", "x", "error_weight", "effect_weight"
    ) else _INT)
    for name in Arrays._fields
)  # fmt: skip
"""Name, dimensions and type of each of `Arrays`."""


def contiguous(arrays: Arrays) -> Arrays:
    """The same arrays with the types that the compiled functions are made for."""
    return Arrays(
        *(
            np.ascontiguousarray(value, dtype=np.int64 if dtype == _INT else np.float64)
            for value, (_, _, dtype) in zip(arrays, _TYPES, strict=True)
        )
    )


def address_table(arrays: Arrays) -> np.ndarray:
    """Address, then shape, of each array: how `log_density` finds them."""
    parts = [[value.ctypes.data, *value.shape] for value in arrays]
    return np.array([v for part in parts for v in part], dtype=np.int64)


@njit(cache=True, error_model="numpy")
def _ints(table, at):
    return carray(as_pointer(table[at]), (table[at + 1],), np.int64)


@njit(cache=True, error_model="numpy")
def _floats(table, at):
    return carray(as_pointer(table[at]), (table[at + 1],), np.float64)


@njit(cache=True, error_model="numpy")
def _evaluate(q, table, out):
    # One array after the other, two numbers each (address, length), the predictors three: the order of `Arrays`.
    arrays = Arrays(
        _ints(table, 0), _ints(table, 2), _floats(table, 4), _floats(table, 6),
        _ints(table, 8), _ints(table, 10), _floats(table, 12), _floats(table, 14), _floats(table, 16),
        _ints(table, 18), _ints(table, 20), _floats(table, 22), _floats(table, 24), _ints(table, 26),
        carray(as_pointer(table[28]), (table[29], table[30]), np.float64),
        _ints(table, 31), _ints(table, 33), _ints(table, 35), _floats(table, 37),
        _ints(table, 39), _ints(table, 41), _floats(table, 43), _ints(table, 45),
    )  # fmt: skip
    return value_and_gradient(q, arrays, out)


_DOUBLE = types.CPointer(types.double)

TABLE_LENGTH = 47


@cfunc(types.int64(types.uint64, _DOUBLE, _DOUBLE, _DOUBLE, types.CPointer(types.int64)), cache=True)
def log_density(dim: Any, x_: Any, gradient_: Any, value_: Any, table_: Any) -> Any:
    """What nutpie calls: status 0 where value and gradient are finite."""
    gradient = carray(gradient_, (dim,))
    value = _evaluate(carray(x_, (dim,)), carray(table_, (TABLE_LENGTH,)), gradient)
    carray(value_, (1,))[0] = value
    if not np.isfinite(value):
        return 4
    for d in range(dim):
        if not np.isfinite(gradient[d]):
            return 3
    return 0
