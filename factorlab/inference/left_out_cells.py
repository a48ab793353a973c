"""What a model's other scores say of each of its scores, for every draw, in closed form.

Given a draw of all but abilities and family terms, the scores of model i given those of all other models are
normal with covariance S_i = Lambda P_i^-1 Lambda' + R_i (`factorlab.inference.left_out`). Let m_i and V_ii be mean
and covariance of e_i given all scores, the cell in question among them. Then (Woodbury)

    Q = S_i^-1 = R_i^-1 - R_i^-1 Lambda V_ii Lambda' R_i^-1,      q = S_i^-1 (z_i - E z_i) = R_i^-1 (r_i - Lambda m_i),

and for any set G of the model's cells, z_G given the model's other scores and all other models is normal with

    covariance C = (Q_GG)^-1,      mean z_G - C q_G.

For one cell and no groups that is the downdate of theta_i by one score: mean mu_j + lambda_j' m_-j, variance
psi_j^2 + s_ij^2 + lambda_j' V_-j lambda_j. Factors and known covariances of benchmarks that share items are in R_i.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from factorlab.inference.left_out import Evidence, Kin, evidence
from factorlab.inference.marginal import Cells

_NUMBERS = 2_000_000
"""Numbers of one array that are in memory at once while draws are gone through."""


class LeftOutCells(NamedTuple):
    """Predictive distributions of each draw; NaN where there is no score.

    Attributes
    ----------
    mean, variance : ndarray, (draw, model, benchmark)
        Of each cell given the model's cells outside its unit and all other models.
    covariance : list of ndarray, (draw, model, cell of the unit, cell of the unit)
        Of the cells of each unit; 1 on the diagonal for a cell without a score.
    log_density : ndarray, (draw, model, unit)
        Of all cells of a unit together; NaN where the model has none of them.
    distance, model_log_density : ndarray, (draw, model)
        Of all scores of a model given the other models: squared Mahalanobis distance and log density.
    level, level_variance : ndarray, (draw, model)
        Mean residual of a model's scores given the other models, and its variance.
    """

    mean: np.ndarray
    variance: np.ndarray
    covariance: list[np.ndarray]
    log_density: np.ndarray
    distance: np.ndarray
    model_log_density: np.ndarray
    level: np.ndarray
    level_variance: np.ndarray


def leave_cells_out(
    cells: Cells,
    values: Mapping[str, np.ndarray],
    families: tuple[Kin, ...] | None,
    units: Sequence[Sequence[int]],
) -> LeftOutCells:
    """Predict each unit of cells from the rest.

    Parameters
    ----------
    cells : Cells
    values : mapping of str to ndarray, (draw, ...)
        As for `factorlab.inference.left_out.evidence`.
    families : tuple of Kin or None
    units : sequence of sequence of int
        Benchmarks that are left out together; each benchmark is in one unit.
    """
    n_draws, n_benchmarks, k = values["loading"].shape
    n_models = len(cells.z)
    of_cells, of_models = (n_draws, n_models, n_benchmarks), (n_draws, n_models)
    out = LeftOutCells(
        mean=np.full(of_cells, np.nan),
        variance=np.full(of_cells, np.nan),
        covariance=[np.empty((*of_models, len(unit), len(unit))) for unit in units],
        log_density=np.full((*of_models, len(units)), np.nan),
        distance=np.empty(of_models),
        model_log_density=np.empty(of_models),
        level=np.empty(of_models),
        level_variance=np.empty(of_models),
    )
    step = max(1, _NUMBERS // (n_models * n_benchmarks * k))
    for start in range(0, n_draws, step):
        at = slice(start, start + step)
        block = {name: array[at] for name, array in values.items()}
        found = evidence(cells, block, families)
        out.distance[at] = found.distance()
        out.model_log_density[at] = found.log_density(cells.observed.sum(axis=1))
        residual, noise = _residual(cells, block), _Noise(cells, block)
        out.level[at], out.level_variance[at] = _level(cells, block, found, residual, noise)
        _units(cells, block, found, residual, noise, units, out, at)
    return out


def _residual(cells: Cells, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """r = z - mu - Lambda B' x, 0 where missing: (draw, model, benchmark)."""
    residual = cells.z - values["mean"][:, None, :]
    if "ability_mean" in values:
        residual = residual - values["ability_mean"] @ np.swapaxes(values["loading"], 1, 2)
    return residual * cells.observed


class _Noise:
    """R_i of each draw and model: multiply by its inverse, and read blocks of it."""

    def __init__(self, cells: Cells, values: Mapping[str, np.ndarray]) -> None:
        self.observed, self.member = cells.observed, cells.member
        variance = values["noise_sd"][:, None, :] ** 2 + cells.variance
        self.variance, self.weight = variance, cells.observed / variance
        self.pair = np.zeros((*variance.shape[:2], cells.member.shape[1]))
        if "pair_sd" in values:
            self.pair = values["pair_sd"][:, None, :] ** 2 + cells.shared
        self.shrink = self.pair / (1.0 + self.pair * (self.weight @ cells.member))

    def solve(self, x: np.ndarray) -> np.ndarray:
        """R^-1 x, with x (draw, model, benchmark)."""
        weighted = self.weight * x
        if not self.member.shape[1]:
            return weighted
        return weighted - self.weight * ((self.shrink * (weighted @ self.member)) @ self.member.T)

    def inverse_block(self, unit: np.ndarray) -> np.ndarray:
        """Rows and columns of R^-1 of a unit: (draw, model, unit, unit)."""
        weight, member = self.weight[..., unit], self.member[unit]
        diagonal = weight[..., None] * np.eye(len(unit))
        common = np.einsum("ag,dmg,bg->dmab", member, self.shrink, member)
        return diagonal - weight[..., :, None] * common * weight[..., None, :]

    def total(self) -> np.ndarray:
        """Sum of all entries of R among the observed cells: (draw, model)."""
        count = self.observed @ self.member
        return (self.observed * self.variance).sum(axis=-1) + (self.pair * count**2).sum(axis=-1)


def _level(
    cells: Cells, values: Mapping[str, np.ndarray], found: Evidence, residual: np.ndarray, noise: _Noise
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of z - E[z | other models] over a model's cells, and its variance."""
    n = np.maximum(cells.observed.sum(axis=1), 1.0)
    total = np.einsum("mj,djk->dmk", cells.observed, values["loading"])
    without = np.linalg.solve(found.precision_without, found.pull_without[..., None])[..., 0]
    spread = np.linalg.solve(found.precision_without, total[..., None])[..., 0]
    level = (residual.sum(axis=-1) - (total * without).sum(axis=-1)) / n
    return level, ((total * spread).sum(axis=-1) + noise.total()) / n**2


def _units(
    cells: Cells,
    values: Mapping[str, np.ndarray],
    found: Evidence,
    residual: np.ndarray,
    noise: _Noise,
    units: Sequence[Sequence[int]],
    out: LeftOutCells,
    at: slice,
) -> None:
    """Fill in the predictive distribution of every unit, for some draws."""
    loading = values["loading"]
    covariance = np.linalg.inv(found.precision)
    ability = np.einsum("dmkl,dml->dmk", covariance, found.pull)
    rest = residual - ability @ np.swapaxes(loading, 1, 2)
    q = noise.solve(rest * cells.observed)
    pulled = np.stack([noise.solve(loading[:, None, :, k]) for k in range(loading.shape[2])], axis=-1)
    for u, unit in enumerate(map(np.asarray, units)):
        has = cells.observed[:, unit].astype(bool)
        own = pulled[:, :, unit]
        block = noise.inverse_block(unit) - np.einsum("dmak,dmkl,dmbl->dmab", own, covariance, own)
        block += np.eye(len(unit)) * ~has[:, None, :]  # cells without a score are left alone
        spread = np.linalg.inv(block)
        ahead = np.einsum("dmab,dmb->dma", spread, q[..., unit])
        square = (q[..., unit] * ahead).sum(axis=-1)
        log_det = -np.linalg.slogdet(block)[1]
        density = -0.5 * (has.sum(axis=1) * np.log(2 * np.pi) + log_det + square)
        out.log_density[at, :, u] = np.where(has.any(axis=1), density, np.nan)
        out.mean[at][..., unit] = np.where(has, cells.z[:, unit] - ahead, np.nan)
        out.variance[at][..., unit] = np.where(has, np.einsum("dmaa->dma", spread), np.nan)
        out.covariance[u][at] = spread


def mixture_tail(weights: np.ndarray, mean: np.ndarray, sd: np.ndarray, x: np.ndarray) -> np.ndarray:
    """P(Z < x) and P(Z > x) of normal mixtures.

    Parameters
    ----------
    weights, mean, sd : ndarray, (draw, case)
        Weights of a case sum to 1.
    x : ndarray, (case,)

    Returns
    -------
    ndarray, (2, case)
    """
    at = (x - mean) / sd
    return np.stack([(weights * ndtr(at)).sum(axis=0), (weights * ndtr(-at)).sum(axis=0)])


def mixture_quantile(
    weights: np.ndarray, mean: np.ndarray, sd: np.ndarray, probability: float, steps: int = 30
) -> np.ndarray:
    """Quantile of each mixture of normals, (case,): Newton steps kept inside a bracket.

    The bracket is the lowest and the highest of the components' own quantiles, the start that of the normal
    with the mixture's moments.
    """
    own = mean + sd * ndtri(probability)
    low, high = own.min(axis=0), own.max(axis=0)
    centre = (weights * mean).sum(axis=0)
    x = centre + ndtri(probability) * np.sqrt((weights * (sd**2 + (mean - centre) ** 2)).sum(axis=0))
    x = np.clip(x, low, high)
    for _ in range(steps):
        at = (x - mean) / sd
        wrong = (weights * ndtr(at)).sum(axis=0) - probability
        if np.abs(wrong).max() < 1e-6:
            break
        low, high = np.where(wrong < 0, x, low), np.where(wrong > 0, x, high)
        density = (weights * np.exp(-0.5 * at**2) / sd).sum(axis=0) / np.sqrt(2 * np.pi)
        ahead = x - wrong / np.maximum(density, 1e-300)
        x = np.where((ahead > low) & (ahead < high), ahead, (low + high) / 2)
    return x
