"""Modes: the different solutions that chains found, in which benchmarks they differ, and what to do.

Averages over chains in separate modes describe no solution at all. `find_modes` groups the chains
(`factorlab.inference.chains`), compares the groups benchmark by benchmark, and says so in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from factorlab.inference.chains import APART, ChainGroups, group_chains, separations
from factorlab.inference.stacking import KHAT_GOAL, Stacking


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

    def with_(self, stacking: Stacking) -> Modes:
        """The same with predictive weights of its groups."""
        return replace(self, stacking=stacking)

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
            "words": self.words,
        }


def find_modes(
    loading: np.ndarray, covariance: np.ndarray, noise_sd: np.ndarray, benchmarks: Sequence[str]
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

    Returns
    -------
    Modes
        One group when the chains agree, and when they are merely slow.
    """
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
    """cov(theta) over the models of each draw, ddof 0: (chain, draw, factor, factor).

    Parameters
    ----------
    ability : ndarray, (chain, draw, model, factor)
    """
    centred = ability - ability.mean(axis=2, keepdims=True)
    covariance: np.ndarray = np.swapaxes(centred, 2, 3) @ centred / ability.shape[2]
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


_ORDINAL = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_NAMED = 5
_TOLD = 3


def describe(modes: Modes) -> str:
    """What the chains disagree about and what helps, in words; empty when they agree."""
    chains = modes.chains
    if chains.verdict == "one":
        return ""
    n_chains = len(chains.separation)
    restless = f"{_chains(chains.unsettled, n_chains)} had not come to rest"
    if chains.verdict == "slow":
        return (
            f"The chains differ (R-hat up to {chains.rhat:.2f}), but not as separate solutions: "
            f"{restless if chains.unsettled else 'their draws overlap'}. "
            "Use a longer warm-up and more draws (--tune, --draws)."
        )
    who = "; ".join(f"{_nth(g)}: {_chains(c, n_chains)}" for g, c in enumerate(chains.groups))
    out = [
        f"The {n_chains} chains found {len(chains.groups)} different solutions "
        f"({who}{'; ' + restless if chains.unsettled else ''}).",
        _disagreement(modes),
    ]
    if modes.stacking is not None:
        out.append(_predictions(modes.stacking))
    out.append(
        "Averages over all chains mix these solutions: try another number of factors "
        f"(--factors {modes.factors + 1} or auto), or weight the chains by how well they predict "
        "(--chain-weights stacking)."
    )
    return " ".join(out)


def _disagreement(modes: Modes) -> str:
    disputed, pairs = modes.disputed, modes.disputed_pairs()
    named = [modes.benchmarks[j] for j in disputed]
    shown = named if len(named) <= _NAMED else [*named[:_NAMED], f"{len(named) - _NAMED} more"]
    if modes.gap[disputed[0]] < APART and pairs:
        what, values = "the correlation", [modes.correlation[:, i, j] for i, j in pairs[:_TOLD]]
        owners = [f"{modes.benchmarks[i]} with {modes.benchmarks[j]}" for i, j in pairs[:_TOLD]]
    else:
        what, values = "unique noise", [modes.noise_sd.mean[:, j] for j in disputed[:_TOLD]]
        owners = named[:_TOLD]
    first = _list([f"{v:.2f} in the {_nth(g)}" for g, v in enumerate(values[0])])
    others = [
        f"of {owner} {_list([f'{v:.2f}' for v in row])}"
        for owner, row in zip(owners[1:], values[1:], strict=True)
    ]
    told = ", ".join([f"{what} of {owners[0]} is {first}", *others])
    return f"They disagree about {_list(shown)}: {told}."


def _predictions(stacking: Stacking) -> str:
    elpd = [
        f"{v:.1f}" + (f" ({-d:.1f} ± {e:.1f} below the best)" if d < 0 else "")
        for v, d, e in zip(stacking.elpd, stacking.difference, stacking.difference_se, strict=True)
    ]
    weights = [f"{v:.2f}" for v in stacking.group_weights]
    rough = (
        f" (rough: k-hat is above {KHAT_GOAL} for {stacking.unreliable} of {stacking.loo.shape[1]} models)"
    )
    return (
        f"The log predictive densities of left-out models are {_list(elpd)}, the weights by stacking "
        f"{_list(weights)}{rough if stacking.unreliable else ''}."
    )


def _nth(group: int) -> str:
    return _ORDINAL[group] if group < len(_ORDINAL) else f"{group + 1}th"


def _chains(chains: Sequence[int], of: int) -> str:
    if len(chains) == of > 1:
        return "all chains"
    return f"chain{'s' if len(chains) > 1 else ''} {_list([str(c + 1) for c in chains])}"


def _list(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
