"""What separate modes mean for a user, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from factorlab.inference.bridge import Mass
from factorlab.inference.chains import APART
from factorlab.inference.stacking import KHAT_GOAL, Stacking

if TYPE_CHECKING:
    from factorlab.inference.modes import Modes

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
    massive = modes.mass is not None and bool(np.isfinite(modes.mass.share).all())
    if modes.mass is not None and massive:
        out.append(_masses(modes.mass))
    if modes.stacking is not None:
        out.append(_predictions(modes.stacking))
    if modes.weighting is not None:
        weights = _list([f"{w:.2f}" for w in modes.chain_weights(modes.weighting)])
        by = "how well they predict" if modes.weighting == "stacking" else "their mass"
        out.append(
            f"The draws shown are picked from the chains with weights {weights}, by {by}; R-hat and "
            "effective sample sizes told here are those of the chains before."
        )
        return " ".join(out)
    out.append(
        "Averages over all chains mix these solutions: try another number of factors "
        f"(--factors {modes.factors + 1} or auto), or weight the chains by how well they predict "
        f"(--chain-weights stacking){' or by their mass (--chain-weights posterior)' if massive else ''}."
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


def _masses(mass: Mass) -> str:
    share = ["less than 0.001" if v < 0.001 else f"{v:.3f}" for v in mass.share]
    rough = f" (rough: log masses are uncertain by {mass.error.max():.1f})" if mass.error.max() > 0.5 else ""
    return f"Of the posterior that was found they hold {_list(share)}{rough}, however many chains found each."


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
