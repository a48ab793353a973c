"""Stacking: chains that found different solutions, weighted by how well they predict.

Chains that do not visit each other's solutions say nothing of how much posterior mass each holds, so
their equal average is an accident of the starts. Stacking asks another question, which they can
answer: with which weights does the mixture of their predictions do best for models that were left out?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from factorlab.errors import InputError
from factorlab.inference.sampling import smooth_weights

DIRICHLET = 1.0001
"""Concentration of the Dirichlet prior of the weights, the authors' own: it only shares the weight
evenly among groups that predict alike."""

KHAT_GOAL = 0.7


@dataclass(frozen=True)
class Stacking:
    """Weights of chains by their predictions of left-out models.

    Attributes
    ----------
    weights : ndarray, (chain,)
        Sum 1; the chains of a group share the group's weight evenly, a chain in no group has 0.
    group_weights : ndarray, (group,)
        Sum 1.
    loo : ndarray, (group, model)
        log p(z_i | z_-i) of each left-out model.
    khat : ndarray, (group, model)
        Pareto shape of the importance weights behind ``loo``; above 0.7 it is not to be trusted, NaN
        where the weights are all equal.
    """

    weights: np.ndarray
    group_weights: np.ndarray
    loo: np.ndarray
    khat: np.ndarray

    @property
    def elpd(self) -> np.ndarray:
        """Sum of the log predictive densities of the left-out models, (group,)."""
        return self.loo.sum(axis=1)

    @property
    def difference(self) -> np.ndarray:
        """`elpd` less that of the best group, (group,)."""
        return self.elpd - self.elpd.max()

    @property
    def difference_se(self) -> np.ndarray:
        """Standard error of `difference` over models, (group,); NaN for a single model."""
        n = self.loo.shape[1]
        if n < 2:
            return np.full(len(self.loo), np.nan)
        apart = self.loo - self.loo[int(self.elpd.argmax())]
        return np.sqrt(n) * apart.std(axis=1, ddof=1)

    @property
    def unreliable(self) -> int:
        """Models whose k-hat is above 0.7 in some group."""
        return int((self.khat > KHAT_GOAL).any(axis=0).sum())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "weights": self.weights.tolist(),
            "group_weights": self.group_weights.tolist(),
            "elpd": self.elpd.tolist(),
            "difference": self.difference.tolist(),
            "difference_se": [None if np.isnan(v) else float(v) for v in self.difference_se],
            "unreliable_models": self.unreliable,
            "models": int(self.loo.shape[1]),
        }


def stack_chains(
    log_lik: np.ndarray, groups: Sequence[Sequence[int]] | None = None, *, dirichlet: float = DIRICHLET
) -> Stacking:
    """Weights of chains, or of groups of chains, by stacking of predictive distributions.

    With p_gi = p(z_i | z_-i) predicted by the draws of group g (Pareto-smoothed importance sampling),
    the weights w maximise, over the simplex,

        sum_i log sum_g w_g p_gi + (dirichlet - 1) sum_g log w_g,

    which is concave.

    Parameters
    ----------
    log_lik : ndarray, (chain, draw, model)
        log p(z_i | draw), with the abilities integrated out; better still log p(z_i | z_-i, draw), with
        family effects integrated out as well (`factorlab.inference.left_out`), whose importance weights
        are more even. Either way the weight of a draw for the data without i is one over it.
    groups : sequence of sequences of int, optional
        Chains that found the same solution; each chain by itself when not given.
    dirichlet : float
        Concentration of the symmetric Dirichlet prior, 1 or more.

    Returns
    -------
    Stacking

    Raises
    ------
    InputError
        A log likelihood that is not (chain, draw, model) or not finite.

    References
    ----------
    Yao, Vehtari & Gelman 2022, Journal of Machine Learning Research 23(79) (chains that do not mix); the
    Dirichlet prior with concentration 1.0001 is in the authors' code. Yao, Vehtari, Simpson & Gelman 2018,
    Bayesian Analysis 13(3) (stacking of predictive distributions).
    """
    if log_lik.ndim != 3 or not np.isfinite(log_lik).all():
        bad = int((~np.isfinite(log_lik)).sum())
        raise InputError(
            f"log likelihood of shape {log_lik.shape} with {bad} values that are not finite; "
            "stacking needs finite values for (chain, draw, model)"
        )
    if dirichlet < 1:
        raise InputError(f"Dirichlet concentration {dirichlet}; give 1 or more")
    n_chains, _, n_models = log_lik.shape
    members = [list(g) for g in groups] if groups is not None else [[c] for c in range(n_chains)]
    loo, khat = np.empty((len(members), n_models)), np.empty((len(members), n_models))
    for g, chains in enumerate(members):
        merged = log_lik[chains].reshape(-1, n_models)
        for i in range(n_models):
            loo[g, i], khat[g, i] = _left_out(merged[:, i])
    group_weights = stacking_weights(loo, dirichlet)
    weights = np.zeros(n_chains)
    for share, chains in zip(group_weights, members, strict=True):
        weights[chains] = share / len(chains)
    return Stacking(weights, group_weights, loo, khat)


def _left_out(log_lik: np.ndarray) -> tuple[float, float]:
    """log p(z_i | z_-i) from the draws' log p(z_i | draw), and k-hat."""
    weights, khat = smooth_weights(-log_lik)
    top = log_lik.max()
    return float(top + np.log(weights @ np.exp(log_lik - top))), khat


def stacking_weights(log_density: np.ndarray, dirichlet: float = DIRICHLET) -> np.ndarray:
    """Weights on the simplex that maximise the log score of the mixture.

    Parameters
    ----------
    log_density : ndarray, (group, point)
        Log predictive density of each point by each group.
    dirichlet : float

    Returns
    -------
    ndarray, (group,)
    """
    n_groups = len(log_density)
    if n_groups == 1:
        return np.ones(1)
    density = np.exp(log_density - log_density.max(axis=0))
    prior = dirichlet - 1.0

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = w @ density
        value = -np.log(mixed).sum() - prior * np.log(w).sum()
        return value, -(density / mixed).sum(axis=1) - prior / w

    found = minimize(
        loss, np.full(n_groups, 1 / n_groups), jac=True, method="SLSQP",
        bounds=[(1e-12, 1.0)] * n_groups, options={"maxiter": 500, "ftol": 1e-12},
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
    )  # fmt: skip
    w = np.clip(found.x, 1e-12, None)
    # Steps of expectation maximisation never lose: they put right what little the search left.
    for _ in range(20):
        share = (w[:, None] * density / (w @ density)).sum(axis=1) + prior
        w = np.clip(share / share.sum(), 1e-300, None)
    return w / w.sum()


class Picked(NamedTuple):
    """Where each draw of a resample comes from, (chain, draw) both.

    Attributes
    ----------
    chain, draw : ndarray of int
    """

    chain: np.ndarray
    draw: np.ndarray


def pick_draws(weights: np.ndarray, draws: int, seed: int = 0) -> Picked:
    """Draws picked so that every chain has its weight, in the shape that they had.

    Systematic resampling: a chain of weight w gives within one of w times all draws, evenly spaced
    along it; the picks are then dealt out in random order, so that each "chain" of the result is a
    sample of the whole mixture. R-hat and effective sample sizes of the result mean nothing: take those
    of the groups of chains before.

    Parameters
    ----------
    weights : ndarray, (chain,)
    draws : int
        Draws of each chain.
    seed : int

    Returns
    -------
    Picked
    """
    rng = np.random.default_rng(seed)
    n_chains = len(weights)
    total = n_chains * draws
    edges = np.cumsum(np.repeat(np.asarray(weights, dtype=float) / draws, draws))
    at = np.searchsorted(edges / edges[-1], (rng.random() + np.arange(total)) / total, side="right")
    at = rng.permutation(np.minimum(at, total - 1)).reshape(n_chains, draws)
    return Picked(at // draws, at % draws)


def take_draws(values: Mapping[str, np.ndarray], picked: Picked) -> dict[str, np.ndarray]:
    """The picked draws of every variable, (chain, draw, ...)."""
    return {name: array[picked.chain, picked.draw] for name, array in values.items()}
