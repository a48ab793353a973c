"""Worked draws: what is computed of each point, a piece of a chain at a time, and kept for the next look.

Sampling asks again and again how its draws stand. Pieces of chains that were worked out before are not worked out
again, and of arrays that grow with the number of models only every n-th draw is held, so that memory stays
bounded while abilities of all draws are used for what is small: axes, centres, covariances.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from factorlab.inference.curvature import OWN
from factorlab.inference.density import Density, constrainer
from factorlab.inference.inputs import ModelInputs
from factorlab.inference.kernel import Blocks, draw_latents
from factorlab.inference.modes import ability_covariance
from factorlab.inference.orientation import Orientation, orient, whiten

PIECE = 2**21
"""Abilities (draws x models x factors) that are worked out at once, 16 MiB each array of them."""

OF_MODELS = frozenset({"ability_mean", "predictor", "log10_tokens", "log10_params"})
"""Variables that grow with the number of models, beside those of single models and families (`OWN`)."""

_RAW = frozenset({"loading_on_slice", "slope_raw"})
"""Variables that are only read through their deterministics."""

MADE = frozenset(
    {
        "white", "turn", "center", "covariance", "expected", "oriented_loading", "oriented_mean",
        "oriented_covariance", "oriented_ability", "oriented_effect",
    }
)  # fmt: skip
"""Names of what is made here; the others are variables of the model."""


class Worked(NamedTuple):
    """Arrays of draws by name, (draw, ...) of a piece or (chain, draw, ...) of all chains.

    Attributes
    ----------
    small : dict of str to ndarray
        Every draw.
    large : dict of str to ndarray
        Every ``every``-th draw of a chain, the first among them, of what grows with the number of models.
    every : int
    """

    small: dict[str, np.ndarray]
    large: dict[str, np.ndarray]
    every: int

    def kept(self) -> Worked:
        """The same draws of everything."""
        small = {name: values[:, :: self.every] for name, values in self.small.items()}
        return Worked(small, self.large, 1)


class _Piece(NamedTuple):
    first: int
    last: int
    digest: bytes
    worked: Worked


class WorkedDraws:
    """Works out draws of one model.

    Parameters
    ----------
    inputs : ModelInputs
    density : Density
    reference : ndarray, (benchmark, factor)
        Loadings that name the axes.
    how : {"procrustes", "principal", "varimax", "promax"}
    seed : int
    """

    def __init__(
        self, inputs: ModelInputs, density: Density, reference: np.ndarray, how: Orientation, seed: int
    ) -> None:
        self._inputs, self._reference, self._how, self._seed = inputs, reference, how, seed
        known = density.values.names if density.values is not None else ()
        self._constrain = constrainer(density, [name for name in known if name not in _RAW])
        self._blocks = inputs.blocks()
        self._pieces: list[list[_Piece]] = []

    def all(self, points: np.ndarray, every: int) -> Worked:
        """Arrays (chain, draw, ...) of points (chain, draw, dim).

        Parameters
        ----------
        points : ndarray, (chain, draw, dim)
        every : int
            A multiple of what was asked for before, as what was not kept is gone.
        """
        if len(self._pieces) != len(points):
            self._pieces = [[] for _ in points]
        chains = []
        for c, chain in enumerate(points):
            self._pieces[c] = self._extended(self._pieces[c], chain, c, every)
            chains.append([piece.worked for piece in self._pieces[c]])
        return Worked(
            _joined([[piece.small for piece in pieces] for pieces in chains]),
            _joined([[piece.large for piece in pieces] for pieces in chains]),
            every,
        )

    def _extended(self, pieces: list[_Piece], chain: np.ndarray, c: int, every: int) -> list[_Piece]:
        """Pieces of one chain: those that are still what they were, thinned, then new ones."""
        out = []
        for piece in pieces:
            same = piece.last <= len(chain) and piece.digest == _digest(chain[piece.first : piece.last])
            if not same or every % piece.worked.every:
                break
            out.append(_thinned(piece, every))
        at = out[-1].last if out else 0
        size = max(1, PIECE // max(1, len(self._inputs.cells.z) * self._inputs.factors))
        for first in range(at, len(chain), size):
            points = chain[first : first + size]
            whole = _Piece(first, first + len(points), _digest(points), self._work(points, c, first))
            out.append(_thinned(whole, every))
        return out

    def _work(self, points: np.ndarray, c: int, first: int) -> Worked:
        """Everything of some draws in a row."""
        v = self._constrain(points)
        ability, effect, expected = _latents(self._inputs, self._blocks, v, [self._seed, 1, c, first])
        oriented = orient(v["loading"], ability, v["mean"], self._reference, self._how)
        small = {name: values for name, values in v.items() if not _grows(name)}
        small |= {
            "white": whiten(v["loading"], ability, v["mean"])[0],
            "turn": oriented.turn, "center": oriented.center, "covariance": ability_covariance(ability),
            "oriented_loading": oriented.loading, "oriented_mean": oriented.mean,
            "oriented_covariance": ability_covariance(oriented.ability),
        }  # fmt: skip
        large = {name: values for name, values in v.items() if _grows(name)}
        large |= {
            "oriented_ability": oriented.ability,
            "expected": (expected - oriented.center[:, None]) @ oriented.turn,
        }
        if self._inputs.design.has_roots:
            large["oriented_effect"] = effect @ oriented.turn
        return Worked(small, large, 1)


def _grows(name: str) -> bool:
    return name in OF_MODELS or name.startswith(OWN)


def _digest(points: np.ndarray) -> bytes:
    return blake2b(np.ascontiguousarray(points).view(np.uint8), digest_size=16).digest()


def _thinned(piece: _Piece, every: int) -> _Piece:
    """Large arrays cut to the draws of the chain whose number is a multiple of ``every``."""
    now = piece.worked.every
    if now == every:
        return piece
    # The first that is held is the first multiple of `now`; then the first multiple of `every` among them.
    held = -(-piece.first // now) * now
    skip = (-(-piece.first // every) * every - held) // now
    large = {name: values[skip :: every // now].copy() for name, values in piece.worked.large.items()}
    return piece._replace(worked=Worked(piece.worked.small, large, every))


def _joined(chains: list[list[dict[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """Pieces one after another, chains stacked."""
    names = chains[0][0]
    return {
        name: np.stack([np.concatenate([piece[name] for piece in pieces]) for pieces in chains])
        for name in names
    }


def _latents(
    inputs: ModelInputs, blocks: Blocks, flat: dict[str, np.ndarray], seed: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Abilities and lineage effects, one exact draw for each draw of the parameters; the abilities' means."""
    n_draws, _, k = flat["loading"].shape
    n_models = len(inputs.cells.z)
    rng = np.random.default_rng(seed)
    zero = np.zeros(n_draws)
    given = (
        flat["loading"], flat["mean"], flat.get("ability_mean", np.zeros((n_draws, n_models, k))),
        flat["noise_sd"], flat.get("pair_sd", np.zeros((n_draws, 0))),
        flat.get("root_sd", zero), flat.get("step_sd", zero),
    )  # fmt: skip
    return draw_latents(
        *blocks,
        *[np.ascontiguousarray(values, dtype=float) for values in given],
        rng.standard_normal((n_draws, len(blocks.parent), k)),
        rng.standard_normal((n_draws, n_models, k)),
    )
