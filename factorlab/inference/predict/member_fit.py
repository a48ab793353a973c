"""MemberFit: draws of one member, and what they say of any cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from factorlab.inference.density import Density
from factorlab.inference.mixing import convergence
from factorlab.inference.predict.kernel import (
    Arrays,
    address_table,
    cell_moments,
    log_density,
)
from factorlab.inference.predict.layout import Inputs, Layout, lay_out
from factorlab.inference.predict.specification import Member, PredictionPriors
from factorlab.inference.sampling import sample
from factorlab.inference.watch import Length, Progress


class Effort(NamedTuple):
    """How hard to sample.

    Attributes
    ----------
    draws, tune, chains : int
        Kept draws and warm-up draws of each chain; chains.
    max_depth : int
        Trajectories have at most 2 ** max_depth - 1 leapfrog steps.
    """

    draws: int = 250
    tune: int = 250
    chains: int = 2
    max_depth: int = 7


DEFAULT_EFFORT = Effort()


class MemberFit(NamedTuple):
    """Draws of one member.

    Attributes
    ----------
    member : Member
    layout : Layout
    draws : ndarray, (chain, draw, dim)
    rhat, ess : float
        Largest R-hat and smallest bulk effective sample size of the predicted means of observed cells, over
        all but the worst 1 % of the cells.
    divergences : int
    gradients : int
    seconds : float
    """

    member: Member
    layout: Layout
    draws: np.ndarray
    rhat: float
    ess: float
    divergences: int
    gradients: int
    seconds: float


def fit_member(
    inputs: Inputs,
    member: Member,
    *,
    seed: int,
    effort: Effort | None = None,
    priors: PredictionPriors | None = None,
    cores: int | None = 1,
    progress: Progress | None = None,
) -> MemberFit:
    """Sample one member on one table."""
    how = effort or Effort()
    layout = lay_out(inputs, member, priors)
    length = Length(how.draws, how.draws, None, how.tune, how.max_depth, "diagonal")
    drawn = sample(density_of(layout), length, chains=how.chains, seed=seed, cores=cores, progress=progress)
    rhat, ess = _mixing(layout, drawn.points)
    return MemberFit(
        member, layout, drawn.points, rhat, ess, drawn.divergences, drawn.gradients, drawn.seconds
    )


def density_of(layout: Layout) -> Density:
    """The compiled density with the layout's arrays."""
    dim = len(layout.start)
    return Density(
        n_dim=dim,
        names=("point",),
        slices=(slice(0, dim),),
        shapes=((dim,),),
        start=layout.start,
        function=log_density,
        table=address_table(layout.arrays),
        data=tuple(layout.arrays),
        held=layout.held,
    )


MIXED_CELLS = 400
"""R-hat is taken of at most this many cells, evenly spread over the table."""


def _mixing(layout: Layout, points: np.ndarray) -> tuple[float, float]:
    a = layout.arrays
    chosen = np.unique(np.linspace(0, len(a.row) - 1, min(MIXED_CELLS, len(a.row))).astype(int))
    flat = points.reshape(-1, points.shape[-1])
    mean, _, _ = cell_moments(
        flat, a, a.row[chosen], a.column[chosen], a.specific_index[chosen], np.zeros((len(flat), 1)),
        np.zeros((len(chosen), 0)),
    )  # fmt: skip
    shaped = mean.reshape(*points.shape[:2], len(chosen))
    found = convergence(shaped)
    return float(np.quantile(found.rhat, 0.99)), float(np.quantile(found.ess_bulk, 0.01))


class CellDraws(NamedTuple):
    """Predictive distributions of cells, one a draw, on the model's scale.

    Attributes
    ----------
    mean, sd : ndarray, (draw, cell)
        Centre and scale of a draw's distribution; of counts, mean and unique noise at one half.
    nu : ndarray, (draw,)
    """

    mean: np.ndarray
    sd: np.ndarray
    nu: np.ndarray


def draw_cells(
    fit: MemberFit, row: np.ndarray, column: np.ndarray, *, seed: int = 0, move: np.ndarray | None = None
) -> CellDraws:
    """What a member's draws say of cells, seen or not.

    Parameters
    ----------
    fit : MemberFit
    row, column : ndarray of int, (cell,)
        Model and benchmark.
    seed : int
        Of what a (model, group of benchmarks) without an observed cell has of its own.
    move : ndarray, (cell, predictor), optional
        Move the model's standardised predictors by this, all else as it is.
    """
    a = fit.layout.arrays
    index, fresh = _specific(a, fit.layout.specific, row, column)
    flat = fit.draws.reshape(-1, fit.draws.shape[-1])
    noise = np.random.default_rng(seed).standard_normal((len(flat), max(fresh, 1)))
    by = np.zeros((len(row), 0)) if move is None or not fit.member.predictors else np.ascontiguousarray(move)
    return CellDraws(*cell_moments(flat, a, row.astype(np.int64), column.astype(np.int64), index, noise, by))


def _specific(
    a: Arrays, known: dict[tuple[int, int], int], row: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, int]:
    """Index of each cell's omega: that of a parameter, or -2, -3, ... for one to be drawn anew."""
    fresh: dict[tuple[int, int], int] = {}
    index = np.full(len(row), -1, dtype=np.int64)
    for t, (i, j) in enumerate(zip(row, column, strict=True)):
        pair = (int(i), int(a.group[j]))
        if pair[1] < 0:
            continue
        index[t] = known[pair] if pair in known else -2 - fresh.setdefault(pair, len(fresh))
    return index, len(fresh)
