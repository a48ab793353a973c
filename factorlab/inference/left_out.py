"""Density of each model's scores given those of all others, abilities and family effects integrated out.

Given a draw of everything but abilities theta, family effects alpha and steps eta, these are normal, so that
leaving a model out is exact algebra. With e_i = theta_i - B' x_i, for the models of one family

    e ~ Normal(0, C x I_K),    C = I + root_sd^2 1 1' + step_sd^2 N,

where N_ij counts the steps that models i and j both inherit. With A_i = Lambda' R_i^-1 Lambda and
b_i = Lambda' R_i^-1 (z_i - mu - Lambda B' x_i) the family has e | z ~ Normal(m, V),

    V^-1 = C^-1 x I_K + blockdiag(A_i),    V^-1 m = (b_1, ..., b_n),

and e_i | z_-i is its margin with model i's own scores taken out again: precision P_i = V_ii^-1 - A_i and
P_i d_i = h_i = V_ii^-1 m_i - b_i. So, with n_i observed cells and r_i = z_i - mu - Lambda B' x_i,

    log p(z_i | z_-i) = -1/2 [ n_i log 2 pi + log|R_i| + r_i' R_i^-1 r_i + log|V_ii^-1| - log|P_i|
                               - m_i' V_ii^-1 m_i + h_i' P_i^-1 h_i ].

Its inverse is the importance weight of the draw for the data without model i. That of log p(z_i | alpha)
is not usable where a family has one or two models, for alpha has been fitted to z_i.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from factorlab.inference.marginal import Cells, gram

NEEDED = ("loading", "mean", "noise_sd", "pair_sd", "ability_mean", "root_sd", "step_sd")
"""Names of the draws that a left-out density is computed from."""

_BLOCK = 50
"""Draws that are in memory at once."""


class Kin(NamedTuple):
    """Families of one size.

    Attributes
    ----------
    members : ndarray of int, (family, n)
        Models of each family.
    shared : ndarray, (family, n, n)
        Number of steps that two members both inherit.
    """

    members: np.ndarray
    shared: np.ndarray


def kin(node: np.ndarray, parent: np.ndarray) -> tuple[Kin, ...]:
    """Families by their size, with the steps that their members share.

    Parameters
    ----------
    node : ndarray of int, (model,)
        Where each model hangs on the tree of effects (`factorlab.inference.design.BudgetDesign`).
    parent : ndarray of int, (node,)
        Parent of each node of the tree; -1 for a family, the others are steps.
    """
    at, steps = np.asarray(node), []
    while (parent[at] >= 0).any():
        steps.append(np.where(parent[at] >= 0, at, -1))
        at = np.where(parent[at] >= 0, parent[at], at)
    path = np.stack(steps, axis=1) if steps else np.full((len(at), 1), -1)
    place, size = np.unique(at, return_inverse=True, return_counts=True)[1:]
    out = []
    for n in np.unique(size):
        members = np.array([np.flatnonzero(place == f) for f in np.flatnonzero(size == n)])
        own = path[members]
        same = (own[:, :, None, :, None] == own[:, None, :, None, :]) & (own >= 0)[:, :, None, :, None]
        out.append(Kin(members, same.sum(axis=(3, 4)).astype(float)))
    return tuple(out)


def left_out_density(
    cells: Cells,
    values: Mapping[str, np.ndarray],
    families: tuple[Kin, ...] | None = None,
    *,
    most: int = 500,
) -> np.ndarray:
    """log p(z_i | z_-i, draw) of each model.

    Parameters
    ----------
    cells : Cells
    values : mapping of str to ndarray, (chain, draw, ...)
        ``loading``, ``mean``, ``noise_sd``, on the sampler's axes; where there are, ``pair_sd``,
        ``ability_mean`` (B' x, without family effects), ``root_sd`` and ``step_sd``.
    families : tuple of Kin, optional
        From `kin`; without them models are independent given a draw.
    most : int
        Draws of each chain that are used, evenly spaced.

    Returns
    -------
    ndarray, (chain, draw, model)
        0 for a model without scores.
    """
    n_chains, n_draws = values["loading"].shape[:2]
    n_models = len(cells.z)
    keep = np.unique(np.linspace(0, n_draws - 1, min(most, n_draws)).astype(int))
    out = np.empty((n_chains, len(keep), n_models))
    for c in range(n_chains):
        for start in range(0, len(keep), _BLOCK):
            draws = keep[start : start + _BLOCK]
            block = {name: array[c, draws] for name, array in values.items() if name in NEEDED}
            found = evidence(cells, block, families)
            out[c, start : start + len(draws)] = found.log_density(cells.observed.sum(axis=1))
    return out


class Evidence(NamedTuple):
    """What all scores, and all but a model's own, say of e_i, for each draw.

    Attributes
    ----------
    precision : ndarray, (draw, model, factor, factor)
        V_ii^-1, of e_i given all scores.
    pull : ndarray, (draw, model, factor)
        V_ii^-1 m_i.
    precision_without, pull_without : ndarray
        P_i and h_i, the same without the model's own scores.
    log_det_noise, quadratic : ndarray, (draw, model)
        log|R_i| and r_i' R_i^-1 r_i, with r_i = z_i - mu - Lambda B' x_i.
    """

    precision: np.ndarray
    pull: np.ndarray
    precision_without: np.ndarray
    pull_without: np.ndarray
    log_det_noise: np.ndarray
    quadratic: np.ndarray

    def distance(self) -> np.ndarray:
        """Squared Mahalanobis distance of each model's scores from what the others say, (draw, model)."""
        return (
            self.quadratic
            - _form(self.precision, self.pull)
            + _form(self.precision_without, self.pull_without)
        )

    def log_density(self, n_observed: np.ndarray) -> np.ndarray:
        """log p(z_i | z_-i), (draw, model)."""
        log_det = np.linalg.slogdet(self.precision)[1] - np.linalg.slogdet(self.precision_without)[1]
        return -0.5 * (n_observed * np.log(2 * np.pi) + self.log_det_noise + log_det + self.distance())


def _form(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """vector' matrix^-1 vector."""
    return (vector * np.linalg.solve(matrix, vector[..., None])[..., 0]).sum(axis=-1)


def evidence(
    cells: Cells, values: Mapping[str, np.ndarray], families: tuple[Kin, ...] | None = None
) -> Evidence:
    """See `Evidence`.

    Parameters
    ----------
    cells : Cells
    values : mapping of str to ndarray, (draw, ...)
        As for `left_out_density`, chains one after the other.
    families : tuple of Kin, optional
        From `kin`; without them models are independent given a draw.
    """
    n_draws, _, n_factors = values["loading"].shape
    a, b, log_det_noise, quadratic = _own(cells, values)
    none = np.zeros(n_draws)
    root, step = (values.get(name, none) ** 2 for name in ("root_sd", "step_sd"))
    if families is None:
        families, root, step = alone(len(cells.z)), none, none
    precision, pull = np.empty_like(a), np.empty_like(b)
    for members, shared in families:
        n = members.shape[1]
        prior = root[:, None, None, None] + step[:, None, None, None] * shared + np.eye(n)
        joint = np.einsum("dfij,kl->dfikjl", np.linalg.inv(prior), np.eye(n_factors))
        own = np.arange(n)
        joint[:, :, own, :, own] += np.moveaxis(a[:, members], 2, 0)
        side = n * n_factors
        v = np.linalg.inv(joint.reshape(*joint.shape[:2], side, side)).reshape(joint.shape)
        m = np.einsum("dfikjl,dfjl->dfik", v, b[:, members])
        margin = np.linalg.inv(np.moveaxis(v[:, :, own, :, own], 0, 2))
        precision[:, members] = margin
        pull[:, members] = np.einsum("dfikl,dfil->dfik", margin, m)
    return Evidence(precision, pull, precision - a, pull - b, log_det_noise, quadratic)


def alone(n_models: int) -> tuple[Kin, ...]:
    """Every model as a family of its own."""
    return (Kin(np.arange(n_models)[:, None], np.zeros((n_models, 1, 1))),)


def _own(
    cells: Cells, values: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A_i less the identity, b_i, log|R_i| and r_i' R_i^-1 r_i of each draw and model."""
    n_draws, _, k = values["loading"].shape
    n_models = len(cells.z)
    precision, pull = np.empty((n_draws, n_models, k, k)), np.empty((n_draws, n_models, k))
    log_det, quadratic = np.empty((n_draws, n_models)), np.empty((n_draws, n_models))
    for d in range(n_draws):
        loading = values["loading"][d]
        pair_var = values["pair_sd"][d] ** 2 if "pair_sd" in values else np.zeros(cells.member.shape[1])
        residual = cells.z - values["mean"][d]
        if "ability_mean" in values:
            residual = residual - values["ability_mean"][d] @ loading.T
        parts = gram(cells, loading, residual, values["noise_sd"][d] ** 2, pair_var, np)
        for i in range(k):
            pull[d, :, i] = parts.b[i]
            for j in range(i + 1):
                precision[d, :, i, j] = precision[d, :, j, i] = parts.a[i][j] - float(i == j)
        log_det[d], quadratic[d] = parts.log_det_noise, parts.quadratic
    return precision, pull, log_det, quadratic
