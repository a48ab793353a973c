"""Which chains agree with which: slow chains told apart from separate modes.

R-hat above its goal has two causes with two cures. Chains that move slowly wander over one solution and
need more draws. Chains in separate modes are each at rest, in different places, and no number of draws
helps. They are told apart by what no rotation changes: entries of the common part
Lambda cov(theta) Lambda' and unique noise psi. Per quantity q and pair of chains a, b

    separation_ab = max_q |mean_aq - mean_bq| / sqrt((var_aq + var_bq) / 2),

in standard deviations within a chain. That of slow chains can be large as well, for they have not seen
their own spread; so only a *settled* chain counts, one that has many effective draws of the quantities
in question. Groups are the connected sets of settled chains with a separation below `APART`.
"""

from __future__ import annotations

from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

from factorlab.inference.mixing import convergence

AGREE = 1.0
"""Separation below which two chains are not looked at further: R-hat of the two is about 1.15 at most."""

APART = 3.0
"""Separation from which settled chains are in different modes: normal draws overlap by 13 %."""

SETTLED = 16
"""Effective draws of a chain from which it has seen its own spread. Of 1920 simulated sets of AR(1) chains
around one mean, with autocorrelation times of 0.06 to 0.67 of their length, none was called modes with this
limit, and 14 with half of it."""

MIXED = 1.05
"""R-hat above which chains that overlap are told of here."""

_LOOKED_AT = 5
"""Quantities in which a pair of chains differs most, that are looked at."""

Verdict = Literal["one", "slow", "several"]


class ChainGroups(NamedTuple):
    """Which chains agree with which.

    Attributes
    ----------
    groups : tuple of tuple of int
        Chains (from 0) of each solution, the largest group first.
    unsettled : tuple of int
        Chains that had not come to rest; in no group, unless there is only one.
    separation : ndarray, (chain, chain)
        Largest difference of means in standard deviations within a chain.
    rhat : float
        Largest R-hat of the quantities that were looked at; NaN when none had to be.
    group_rhat : tuple of float
        The same within each group; NaN for one chain.
    """

    groups: tuple[tuple[int, ...], ...]
    unsettled: tuple[int, ...]
    separation: np.ndarray
    rhat: float
    group_rhat: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """ "several" modes, "slow" chains, or "one" solution that all agree on."""
        if len(self.groups) > 1:
            return "several"
        return "slow" if self.unsettled or self.rhat > MIXED else "one"


def group_chains(values: np.ndarray) -> ChainGroups:
    """Group chains that agree.

    Parameters
    ----------
    values : ndarray, (chain, draw, quantity)
        Draws of what should be the same in all chains: invariants, never raw loadings.

    Returns
    -------
    ChainGroups
    """
    n_chains = len(values)
    everyone = tuple(range(n_chains))
    by_quantity = separations(values.mean(axis=1), values.var(axis=1, ddof=min(1, values.shape[1] - 1)))
    separation = by_quantity.max(axis=2, initial=0.0)
    wide = [(a, b) for a, b in combinations(everyone, 2) if separation[a, b] >= AGREE]
    if not wide:
        return ChainGroups((everyone,), (), separation, np.nan, (np.nan,))
    shown = values[:, :, _most_apart(by_quantity, wide)]
    # A chain that did not move at all has no effective draws (NaN).
    effective = [np.median(np.nan_to_num(convergence(shown[c : c + 1]).ess_bulk)) for c in everyone]
    far = separation.max(axis=1) >= AGREE
    settled = np.flatnonzero(~far | (np.array(effective) >= SETTLED))
    if len(settled) < 2:
        # No two chains at rest, so nothing can be said of solutions.
        restless = tuple(int(c) for c in np.setdiff1d(everyone, settled))
        return ChainGroups((everyone,), restless, separation, _worst(shown), (_worst(shown),))
    label = np.full(n_chains, -1)
    label[settled] = connected_components(separation[np.ix_(settled, settled)] < APART, directed=False)[1]
    _join(label, separation)
    restless = tuple(int(c) for c in np.flatnonzero(label < 0))
    groups = [tuple(int(c) for c in np.flatnonzero(label == g)) for g in range(label.max() + 1)]
    groups = sorted(groups, key=lambda g: (-len(g), g)) if len(groups) > 1 else [everyone]
    inside = tuple(_worst(shown[list(g)]) for g in groups)
    return ChainGroups(tuple(groups), restless, separation, _worst(shown), inside)


def _join(label: np.ndarray, separation: np.ndarray) -> None:
    """Put a chain without a group (-1) with the one that it agrees with, when it is apart from all others.

    Few effective draws may be chance in one chain; one that went from group to group is near both.
    """
    for c in np.flatnonzero(label < 0):
        near = set(label[separation[c] < APART]) - {-1}
        if len(near) == 1 and separation[c, label == next(iter(near))].min() < AGREE:
            label[c] = near.pop()


def separations(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Differences of means in standard deviations, every row with every row.

    Parameters
    ----------
    mean, variance : ndarray, (chain, quantity)

    Returns
    -------
    ndarray, (chain, chain, quantity)
        0 for quantities that do not vary and are equal.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.abs(mean[:, None] - mean) / np.sqrt((variance[:, None] + variance) / 2)
    return np.nan_to_num(apart, nan=0.0, posinf=np.inf)


def _most_apart(by_quantity: np.ndarray, pairs: list[tuple[int, int]]) -> list[int]:
    """Quantities in which some pair differs most, of those in which it differs by `AGREE` at all."""
    out: set[int] = set()
    for a, b in pairs:
        order = np.argsort(-by_quantity[a, b])[:_LOOKED_AT]
        out |= {int(q) for q in order if by_quantity[a, b, q] >= AGREE}
    return sorted(out)


def _worst(values: np.ndarray) -> float:
    if len(values) < 2:
        return np.nan
    rhat = convergence(values).rhat
    return float(np.nanmax(rhat)) if np.isfinite(rhat).any() else np.nan
