"""Layout: a table's inputs and a member as the arrays of the density, and where each parameter lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from factorlab.inference.design import design_budgets
from factorlab.inference.predict.columns import UNKNOWN_SE, Columns, scale_columns
from factorlab.inference.predict.kernel import (
    BETA_BINOMIAL,
    BINOMIAL,
    BLOCKS,
    LINEAR,
    Arrays,
    contiguous,
)
from factorlab.inference.predict.kin import Kin, benchmark_groups, kin_of
from factorlab.inference.predict.predictors import Predictors, read_predictors
from factorlab.inference.predict.specification import Likelihood, Member, PredictionPriors
from factorlab.inference.priors import Priors
from factorlab.score_table import ScoreTable


class Inputs(NamedTuple):
    """What a table tells the prediction model, before a member is chosen.

    Attributes
    ----------
    columns : Columns
        The scores; hidden ones are NaN.
    predictors : Predictors
    kin : Kin
    group : ndarray of int, (benchmark,)
        Group of benchmarks; -1 without one.
    groups : tuple of str
    """

    columns: Columns
    predictors: Predictors
    kin: Kin
    group: np.ndarray
    groups: tuple[str, ...]


def read_inputs(
    table: ScoreTable,
    observed: np.ndarray | None = None,
    *,
    likelihood: Likelihood = "student",
    covariates: Sequence[str] = (),
) -> Inputs:
    """Inputs of a table; of the scores only those of ``observed`` (model, benchmark) are looked at.

    Raises
    ------
    InputError
        A covariate that cannot be used.
    """
    design = design_budgets(table, Priors())
    group, groups = benchmark_groups(table)
    return Inputs(
        scale_columns(table, observed, likelihood),
        read_predictors(table, covariates, design),
        kin_of(design, table.model_names),
        group,
        groups,
    )


class Layout(NamedTuple):
    """A density ready to be sampled.

    Attributes
    ----------
    arrays : Arrays
    start : ndarray, (dim,)
        A point in the middle of the priors.
    specific : dict of (int, int) to int
        Which omega belongs to (model, group); only pairs with an observed cell have one.
    held : ndarray of bool, (dim,)
        Spreads and noise: a chain begins with them in the middle of their priors.
    """

    arrays: Arrays
    start: np.ndarray
    specific: dict[tuple[int, int], int]
    held: np.ndarray


SPREADS = (
    "loading_scale", "noise", "model_noise", "mean_spread", "general_spread", "noise_center", "noise_spread",
    "model_noise_spread", "shape_spread", "tail", "slope_of_noise", "residual", "level", "specific_scale",
    "specific_center",
)  # fmt: skip
"""Blocks that `Layout.held` holds: where they are free, the optimiser runs to the joint mode, at which the
residuals of abilities or the noise of a benchmark vanish."""


def lay_out(inputs: Inputs, member: Member, priors: PredictionPriors | None = None) -> Layout:
    """Arrays, prior and starting point of one member on one table."""
    p = priors or PredictionPriors()
    columns, x, kin = inputs.columns, inputs.predictors, inputs.kin
    row, column = np.nonzero(np.isfinite(columns.y))
    n_models, n_benchmarks = columns.y.shape
    group = inputs.group if member.groups else np.full(n_benchmarks, -1)
    pairs = [(int(i), int(group[j])) for i, j in zip(row, column, strict=True)]
    specific = {pair: w for w, pair in enumerate(dict.fromkeys(k for k in pairs if k[1] >= 0))}
    used = np.arange(len(x.names)) if member.predictors else np.arange(0)
    entry = np.isin(x.error_predictor, used)
    kept = np.ones(len(kin.row), dtype=bool) if member.kin else np.zeros(len(kin.row), dtype=bool)
    n_nodes = len(kin.names) if member.kin else 0
    known = np.isfinite(columns.chance) & (columns.chance > 0)
    low = np.where(known, columns.chance, columns.lowest if member.floor else 0.0)
    k = member.factors
    blocks = _blocks(
        p, member, (n_models, n_benchmarks, k), len(used), x.n_errors if entry.any() else 0, n_nodes,
        len(specific), int(group.max(initial=-1)) + 1, known,
    )  # fmt: skip
    sizes = [len(blocks[name][0]) for name in BLOCKS]
    variance = np.where(np.isfinite(columns.se), columns.se, UNKNOWN_SE) ** 2
    trials = np.nan_to_num(columns.trials, nan=1.0)
    counted = np.isin(columns.kind[column], (BETA_BINOMIAL, BINOMIAL))
    y = columns.y[row, column]
    hits = np.where(counted, np.round(y * trials[row, column]) / trials[row, column], y)
    arrays = Arrays(
        sizes=np.array([n_models, n_benchmarks, k, len(used)]),
        offsets=np.cumsum([0, *sizes]),
        prior_mean=np.concatenate([blocks[name][0] for name in BLOCKS]),
        prior_sd=np.concatenate([blocks[name][1] for name in BLOCKS]),
        row=row,
        column=column,
        y=hits,
        variance=variance[row, column],
        trials=trials[row, column],
        specific_index=np.array([specific.get(pair, -1) for pair in pairs], dtype=int),
        kind=columns.kind,
        low=low,
        high=columns.highest,
        group=group,
        x=x.x[:, used],
        error_row=x.error_row[entry],
        error_predictor=x.error_predictor[entry],
        error_index=x.error_index[entry],
        error_weight=x.error_weight[entry],
        effect_row=kin.row[kept],
        effect_node=kin.node[kept],
        effect_weight=np.ones(int(kept.sum())),
        node_level=kin.level[:n_nodes],
    )
    held = np.concatenate([np.full(n, name in SPREADS) for name, n in zip(BLOCKS, sizes, strict=True)])
    return Layout(contiguous(arrays), _start(arrays), specific, held)


def _blocks(
    p: PredictionPriors, member: Member, shape: tuple[int, int, int], n_predictors: int, n_errors: int,
    n_nodes: int, n_specific: int, n_groups: int, known_floor: np.ndarray,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Mean and standard deviation of each block's normal priors."""
    models, benchmarks, k = shape

    def standard(n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(n), np.ones(n)

    def centred(n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(n), np.full(n, np.inf)

    def normal(prior: tuple[float, float], n: int = 1) -> tuple[np.ndarray, np.ndarray]:
        return np.full(n, prior[0]), np.full(n, prior[1])

    scales = p.loading_scale[0] - p.loading_step * np.arange(k - 1)
    # A declared chance level is the floor: a logit of 4 with a small spread leaves it where it is.
    floors = np.where(known_floor, 4.0, p.floor[0]), np.where(known_floor, 0.5, p.floor[1])
    levels = np.array([p.family, p.base_model] if n_nodes else np.zeros((0, 2)), dtype=float)
    return {
        "ability": centred(models * k),
        "mean": centred(benchmarks),
        "general": centred(benchmarks),
        "loading": standard(benchmarks * (k - 1)),
        "loading_scale": (scales, np.full(k - 1, p.loading_scale[1])),
        "noise": centred(benchmarks),
        "model_noise": standard(models),
        "shape": standard(benchmarks),
        "mean_center": normal(p.mean_center),
        "mean_spread": normal(p.mean_spread),
        "general_center": normal(p.general_center),
        "general_spread": normal(p.general_spread),
        "noise_center": normal(p.noise_center),
        "noise_spread": normal(p.noise_spread),
        "model_noise_spread": normal(p.model_noise_spread),
        "shape_spread": normal(p.shape_spread),
        "tail": normal(p.tail),
        "slope_of_noise": normal(p.slope_of_noise),
        "ceiling": normal(p.ceiling, benchmarks if member.ceiling else 0),
        "floor": floors if member.floor else standard(0),
        "residual": normal(p.residual, k if member.residual else 0),
        "slope": normal(p.slope, n_predictors * k),
        "error": standard(n_errors),
        "effect": standard(n_nodes * k),
        "level": (levels[:, 0], levels[:, 1]),
        "specific": standard(n_specific),
        "specific_scale": standard(n_groups),
        "specific_center": normal(p.specific_center, 1 if n_groups else 0),
    }


def _start(arrays: Arrays) -> np.ndarray:
    """The middle of the priors, with every benchmark's intercept at its mean score where there is a link."""
    start = arrays.prior_mean.copy()
    n_benchmarks = arrays.sizes[1]

    def block(name: str) -> slice:
        first = arrays.offsets[BLOCKS.index(name)]
        return slice(first, first + n_benchmarks)

    start[block("general")] = start[block("general_center")][0]
    start[block("noise")] = start[block("noise_center")][0]
    for j in range(n_benchmarks):
        values = arrays.y[arrays.column == j]
        if len(values) and arrays.kind[j] != LINEAR:
            p = np.clip(values.mean(), 0.02, 0.98)
            start[block("mean")][j] = np.log(p / (1 - p))
    return start
