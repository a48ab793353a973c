"""Modes: the different solutions that chains found, in which benchmarks they differ, and what to do.

Averages over chains in separate modes describe no solution at all. `find_modes` groups the chains
(`factorlab.inference.chains`), compares the groups benchmark by benchmark, and says so in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from factorlab.errors import InputError
from factorlab.inference.bridge import Mass
from factorlab.inference.chains import APART, ChainGroups, group_chains, separations
from factorlab.inference.modes_text import describe
from factorlab.inference.stacking import Stacking

Weighting = Literal["stacking", "posterior"]


class ByGroup(NamedTuple):
    """A quantity of each benchmark in each group: mean and 94 % interval, (group, benchmark)."""

    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class Modes:
    """Solutions that the chains found, and how far they differ.

    Attributes
    ----------
    chains : ChainGroups
    benchmarks : tuple of str
    noise_sd : ByGroup
        Unique noise psi.
    common : ByGroup
        Share of a benchmark's variance that the factors account for (the common part over itself plus
        psi^2).
    correlation : ndarray, (group, benchmark, benchmark)
        Mean correlation of two benchmarks that the factors imply; the diagonal is `common`.
    gap : ndarray, (benchmark,)
        How far the groups lie apart in unique noise or common share, in standard deviations within a
        group: the largest over pairs of groups.
    pair_gap : ndarray, (benchmark, benchmark)
        The same of the implied correlations.
    factors : int
    stacking : Stacking or None
        How well the groups predict.
    mass : Mass or None
        How much of the posterior they hold.
    weighting : {"stacking", "posterior"} or None
        How draws were picked from the chains; None when they are as the chains found them.
    """

    chains: ChainGroups
    benchmarks: tuple[str, ...]
    noise_sd: ByGroup
    common: ByGroup
    correlation: np.ndarray
    gap: np.ndarray
    pair_gap: np.ndarray
    factors: int
    stacking: Stacking | None = None
    mass: Mass | None = None
    weighting: Weighting | None = None

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return self.chains.groups

    @property
    def several(self) -> bool:
        return len(self.groups) > 1

    @property
    def disputed(self) -> list[int]:
        """Benchmarks that the groups disagree about, most first.

        Those with a gap of `APART` or more; else those of the `disputed_pairs`; else the widest.
        """
        order = [int(j) for j in np.argsort(-self.gap, kind="stable")] if self.several else []
        own = [j for j in order if self.gap[j] >= APART]
        return own or list(dict.fromkeys(j for pair in self.disputed_pairs() for j in pair)) or order[:1]

    def disputed_pairs(self, most: int = 10) -> list[tuple[int, int]]:
        """Pairs of benchmarks whose implied correlations lie `APART` or more, most first."""
        if not self.several:
            return []
        row, column = np.tril_indices(len(self.benchmarks), -1)
        apart = self.pair_gap[row, column]
        order = [k for k in np.argsort(-apart, kind="stable")[:most] if apart[k] >= APART]
        return [(int(column[k]), int(row[k])) for k in order]

    def with_(
        self,
        stacking: Stacking | None = None,
        mass: Mass | None = None,
        weighting: Weighting | None = None,
    ) -> Modes:
        """The same with what is known of how its groups predict, of their mass, and of what was done."""
        return replace(
            self,
            stacking=stacking or self.stacking,
            mass=mass or self.mass,
            weighting=weighting or self.weighting,
        )

    def chain_weights(self, how: Weighting) -> np.ndarray:
        """Weight of each chain, sum 1: (chain,).

        Parameters
        ----------
        how : {"stacking", "posterior"}
            By how well its group predicts, or by the posterior mass that its group holds.

        Raises
        ------
        InputError
            When that is not known.
        """
        if how == "stacking" and self.stacking is not None:
            return self.stacking.weights
        if how == "posterior" and self.mass is not None and np.isfinite(self.mass.share).all():
            weights = np.zeros(len(self.chains.separation))
            for share, chains in zip(self.mass.share, self.groups, strict=True):
                weights[list(chains)] = share / len(chains)
            return weights
        raise InputError(
            f"weights by '{how}' are not known for these chains; "
            + (
                "give more draws: its mass needs several for each parameter"
                if self.mass
                else "compute them first"
            )
        )

    @property
    def words(self) -> str:
        """What a user has to know, in one to four sentences; empty when all chains agree."""
        return describe(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; chains are numbered from 1, as in words."""
        measures = {"noise_sd": self.noise_sd, "common": self.common}
        return {
            "verdict": self.chains.verdict,
            "groups": [[c + 1 for c in g] for g in self.groups],
            "unsettled": [c + 1 for c in self.chains.unsettled],
            "rhat": _number(self.chains.rhat),
            "group_rhat": [_number(v) for v in self.chains.group_rhat],
            "benchmarks": list(self.benchmarks),
            "disputed": [self.benchmarks[j] for j in self.disputed],
            "gap": [_number(v) for v in self.gap],
            **{name: {k: v.tolist() for k, v in m._asdict().items()} for name, m in measures.items()},
            "pairs": [
                {
                    "benchmarks": [self.benchmarks[i], self.benchmarks[j]],
                    "correlation": self.correlation[:, i, j].tolist(),
                    "gap": _number(self.pair_gap[i, j]),
                }
                for i, j in self.disputed_pairs()
            ],
            "stacking": self.stacking.to_dict() if self.stacking is not None else None,
            "mass": None
            if self.mass is None
            else {
                name: [_number(v) for v in getattr(self.mass, name)]
                for name in ("log_mass", "error", "share")
            },
            "words": self.words,
        }


def find_modes(
    loading: np.ndarray,
    covariance: np.ndarray,
    noise_sd: np.ndarray,
    benchmarks: Sequence[str],
    *,
    most: int = 1000,
) -> Modes:
    """Group the chains by the solution they found, and compare the groups.

    Parameters
    ----------
    loading : ndarray, (chain, draw, benchmark, factor)
        On any axes: only Lambda cov(theta) Lambda' is used.
    covariance : ndarray, (chain, draw, factor, factor)
        cov(theta) over the models at hand, on the same axes (`ability_covariance`).
    noise_sd : ndarray, (chain, draw, benchmark)
    benchmarks : sequence of str
    most : int
        Draws of each chain that are used, evenly spaced: 60 benchmarks have 1830 entries of the common part.

    Returns
    -------
    Modes
        One group when the chains agree, and when they are merely slow.
    """
    keep = np.unique(np.linspace(0, loading.shape[1] - 1, min(most, loading.shape[1])).astype(int))
    loading, covariance, noise_sd = loading[:, keep], covariance[:, keep], noise_sd[:, keep]
    n_chains, n_draws, n_benchmarks, n_factors = loading.shape
    row, column = np.tril_indices(n_benchmarks)
    common = np.empty((n_chains, n_draws, len(row)))
    for c in range(n_chains):  # chain by chain: the full square takes twice the room
        common[c] = np.einsum("djk,dkl,dml->djm", loading[c], covariance[c], loading[c])[:, row, column]
    chains = group_chains(np.concatenate([common, noise_sd], axis=2))
    diagonal = np.flatnonzero(row == column)
    root = np.sqrt(common[:, :, diagonal] + noise_sd**2)
    implied = common / (root[:, :, row] * root[:, :, column])
    center, spread = _by_group(implied, chains.groups)
    square = np.zeros((2, len(chains.groups), n_benchmarks, n_benchmarks))
    square[:, :, row, column] = square[:, :, column, row] = center, spread
    noise_center, noise_spread = _by_group(noise_sd, chains.groups)
    share_gap = _gap(center[:, diagonal], spread[:, diagonal])
    return Modes(
        chains=chains,
        benchmarks=tuple(str(b) for b in benchmarks),
        noise_sd=_intervals(noise_sd, chains.groups),
        common=_intervals(implied[:, :, diagonal], chains.groups),
        correlation=square[0],
        gap=np.maximum(_gap(noise_center, noise_spread), share_gap),
        pair_gap=_gap(square[0], square[1]),
        factors=n_factors,
    )


def ability_covariance(ability: np.ndarray) -> np.ndarray:
    """cov(theta) over the models of each draw, ddof 0: (..., factor, factor).

    Parameters
    ----------
    ability : ndarray, (..., model, factor)
    """
    centred = ability - ability.mean(axis=-2, keepdims=True)
    covariance: np.ndarray = np.swapaxes(centred, -2, -1) @ centred / ability.shape[-2]
    return covariance


def _by_group(values: np.ndarray, groups: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the draws of each group, (group, quantity)."""
    merged = [values[list(g)].reshape(-1, values.shape[2]) for g in groups]
    return np.stack([m.mean(axis=0) for m in merged]), np.stack([m.std(axis=0) for m in merged])


def _intervals(values: np.ndarray, groups: Sequence[Sequence[int]]) -> ByGroup:
    merged = [values[list(g)].reshape(-1, values.shape[2]) for g in groups]
    lower, upper = np.stack([np.quantile(m, [0.03, 0.97], axis=0) for m in merged], axis=1)
    return ByGroup(np.stack([m.mean(axis=0) for m in merged]), lower, upper)


def _gap(center: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Largest separation over pairs of groups, for arrays (group, ...)."""
    n_groups = len(center)
    apart = separations(center.reshape(n_groups, -1), (spread**2).reshape(n_groups, -1))
    return apart.max(axis=(0, 1)).reshape(center.shape[1:])


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(value) if np.isfinite(value) else None
