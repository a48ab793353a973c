"""Posterior draws: from points in the unconstrained space to oriented, labelled and diagnosed draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from factorlab.inference.bridge import masses
from factorlab.inference.convergence import diagnose, problems
from factorlab.inference.copies import Copies
from factorlab.inference.density import Density
from factorlab.inference.design import LanguageTokens
from factorlab.inference.identify import congruence
from factorlab.inference.inputs import ModelInputs, predictor_scale
from factorlab.inference.left_out import kin, left_out_density
from factorlab.inference.modes import Modes, find_modes
from factorlab.inference.orientation import Axes, Orientation, axes
from factorlab.inference.pca import fit_pca
from factorlab.inference.solution import Diagnostics
from factorlab.inference.stacking import pick_draws, stack_chains
from factorlab.inference.watch import RHAT_GOAL, Standing
from factorlab.inference.worked_draws import MADE, Worked, WorkedDraws
from factorlab.scores import ScoreTable

IDENTIFIED = 0.8
"""An axis counts as identified when the median |cosine| of the draws' principal axis is above this
both with the posterior's typical axis and with the PCA axis that gives it its name."""

ChainWeights = Literal["none", "stacking", "posterior"]

MOST_ABILITIES = 2**24
"""Abilities (draws x models x factors) kept at most, 128 MiB; of more draws every second, fourth, ... is kept."""


class Found(NamedTuple):
    """Oriented, labelled and diagnosed draws.

    Attributes
    ----------
    draws : xarray.Dataset
        Every n-th draw, see `thinning`; diagnostics are those of all.
    diagnostics : Diagnostics
    stay : ndarray, (criterion, factor)
    identified : list of bool
    values : dict of str to ndarray, (chain, draw, ...)
        Variables of the model, on the sampler's axes, of the same draws.
    covariance : ndarray, (chain, draw, factor, factor)
        cov(theta) over the models, on the sampler's axes, of the same draws.
    """

    draws: xr.Dataset
    diagnostics: Diagnostics
    stay: np.ndarray
    identified: list[bool]
    values: dict[str, np.ndarray]
    covariance: np.ndarray


class Posterior:
    """From points in the unconstrained space to labelled draws; remembers what it made of them."""

    def __init__(
        self, table: ScoreTable, inputs: ModelInputs, density: Density, reference: np.ndarray,
        how: Orientation, seed: int,
    ) -> None:  # fmt: skip
        self.table, self.inputs, self.density = table, inputs, density
        self.reference, self.how, self.seed = reference, how, seed
        self._worked = WorkedDraws(inputs, density, reference, how, seed)
        self._last: tuple[tuple[int, ...], Found] | None = None

    def standing(self, points: np.ndarray) -> Standing:
        found = self.judge(points, 0)
        d = found.diagnostics
        ess = [value for value in (d.ess_bulk_min, d.ess_tail_min) if np.isfinite(value)]
        return Standing(d.rhat_max, min(ess, default=0.0), d.rhat_max > RHAT_GOAL and self._apart(found))

    def _modes(self, found: Found) -> Modes:
        return find_modes(
            found.values["loading"], found.covariance, found.values["noise_sd"], self.table.benchmark_names
        )

    def _apart(self, found: Found) -> bool:
        modes = self._modes(found)
        return modes.several and not modes.chains.unsettled

    def judge(self, points: np.ndarray, divergences: int) -> Found:
        """Orient, label and diagnose."""
        if self._last is None or self._last[0] != points.shape:
            self._last = None  # two of them would not fit into memory where one nearly fills it
            every = thinning(self.inputs, *points.shape[:2])
            worked = self._worked.all(points, every)
            kept = worked.kept()
            axis = axes(kept.small["white"].reshape(-1, *kept.small["white"].shape[2:]), self.reference)
            draws = _label(self.table, self.inputs, kept, axis)
            stay = _staying(kept.small["oriented_loading"], axis, self.how)
            identified = [bool(value > IDENTIFIED) for value in stay.min(axis=0)]
            whole = draws if every == 1 else _label_small(self.table, self.inputs, worked.small)
            diagnostics = diagnose(
                draws, 0, identified, expected=kept.large["expected"], whole=whole,
                covariance=worked.small["oriented_covariance"],
            )  # fmt: skip
            values = {n: v for n, v in {**kept.small, **kept.large}.items() if n not in MADE}
            self._last = (
                points.shape,
                Found(draws, diagnostics, stay, identified, values, kept.small["covariance"]),
            )
        found = self._last[1]
        short = tuple(problems(found.diagnostics.table, divergences))
        return found._replace(diagnostics=replace(found.diagnostics, divergences=divergences, problems=short))

    def separate(
        self, found: Found, points: np.ndarray, weights: ChainWeights
    ) -> tuple[Found, Modes | None, list[str]]:
        """Whether chains found different solutions, in words; their draws weighted when asked for."""
        if points.shape[0] < 2:
            return found, None, []
        modes = self._modes(found)
        if not modes.several:
            return found, None, [modes.words] if modes.words else []
        tree = self.inputs.design
        families = kin(tree.node, tree.parent) if tree.has_roots else None
        density = left_out_density(self.inputs.cells, found.values, families)
        evaluate = self.density.evaluator()
        copies = Copies(self.density, self.inputs.frame)
        mass = masses(
            copies.positive(points),
            modes.groups,
            lambda x: evaluate(x)[0] if copies.is_positive(x) else -np.inf,
            seed=self.seed,
        )
        modes = modes.with_(stacking=stack_chains(density, modes.groups), mass=mass)
        if weights == "none":
            return found, modes, [modes.words]
        modes = modes.with_(weighting=weights)
        picked = pick_draws(modes.chain_weights(weights), points.shape[1], self.seed)
        self._last = None
        again = self.judge(points[picked.chain, picked.draw], 0)
        return again, modes, [modes.words]


def thinning(inputs: ModelInputs, chains: int, draws: int) -> int:
    """Every how many draws one is kept, so that abilities stay within `MOST_ABILITIES`; a power of two."""
    every = 1
    while chains * (draws // every) * len(inputs.cells.z) * inputs.factors > MOST_ABILITIES:
        every *= 2
    return every


def reference_loadings(table: ScoreTable, factors: int) -> np.ndarray:
    """PCA loadings that name the axes, (benchmark, factor); EM-PCA where cells are missing."""
    holes = bool(np.isnan(table.scores).any())
    return fit_pca(table, factors, missing="em" if holes else "complete").loading_mean().to_numpy()


def _staying(loading: np.ndarray, axis: Axes, how: Orientation) -> np.ndarray:
    """Median |cosine| of each axis over draws, (criterion, factor).

    Axes named after PCA's: the draws' principal axes with their typical direction, and with the PCA
    axis of that name. Rotated axes: the draws' loadings (chain, draw, benchmark, factor) with their mean.
    """
    if how in ("varimax", "promax"):
        flat = loading.reshape(-1, *loading.shape[2:])
        return np.median(np.abs(congruence(flat, flat.mean(axis=0))), axis=0)[None]
    return np.stack([np.median(axis.cosine_self, axis=0), np.median(axis.cosine_reference, axis=0)])


def _label_small(table: ScoreTable, inputs: ModelInputs, v: dict[str, np.ndarray]) -> xr.Dataset:
    """What does not grow with the number of models, with its labels."""
    chains, draws = v["oriented_loading"].shape[:2]
    factors = [f"PC{k + 1}" for k in range(v["oriented_loading"].shape[3])]
    more: dict[str, Any] = {
        "loading": (("chain", "draw", "benchmark", "factor"), v["oriented_loading"]),
        "noise_sd": (("chain", "draw", "benchmark"), v["noise_sd"]),
        "mean": (("chain", "draw", "benchmark"), v["oriented_mean"]),
    }
    labels: dict[str, Any] = {
        "chain": np.arange(chains),
        "draw": np.arange(draws),
        "benchmark": np.asarray(table.benchmark_names, dtype=object),
        "factor": np.asarray(factors, dtype=object),
    }
    if inputs.groups:
        more["pair_sd"] = (("chain", "draw", "pair"), v["pair_sd"])
        labels["pair"] = np.asarray(inputs.groups, dtype=object)
    if inputs.regresses:
        slope = v["slope"] @ v["turn"] / predictor_scale(inputs)[None, :, None]
        more["slope"] = (("chain", "draw", "predictor", "factor"), slope)
        labels["predictor"] = np.asarray(inputs.predictors, dtype=object)
    for name, values in v.items():
        if values.ndim == 2 and name not in more and not name.endswith("__"):
            more[name] = (("chain", "draw"), values)
    return xr.Dataset(more, labels)


def _label(table: ScoreTable, inputs: ModelInputs, kept: Worked, axis: Axes) -> xr.Dataset:
    """All that is kept of draws with its labels; slopes and lineage effects turned like the abilities."""
    v = kept.large
    shape = v["oriented_ability"].shape[:2]

    def unflat(values: np.ndarray) -> np.ndarray:
        return values.reshape(*shape, *values.shape[1:])

    out = _label_small(table, inputs, kept.small)
    out = out.assign_coords(model=np.asarray(table.model_names, dtype=object))
    more: dict[str, Any] = {
        "ability": (("chain", "draw", "model", "factor"), v["oriented_ability"]),
        "turn": (("chain", "draw", "raw", "factor"), kept.small["turn"]),
        "center": (("chain", "draw", "raw"), kept.small["center"]),
        "axis_cosine": (("chain", "draw", "factor"), unflat(axis.cosine_self)),
        "axis_cosine_pca": (("chain", "draw", "factor"), unflat(axis.cosine_reference)),
        "axis_eigenvalue": (("chain", "draw", "factor"), unflat(axis.eigenvalue)),
    }
    if inputs.regresses:
        log10_x = v["predictor"] * predictor_scale(inputs)
        more["predictor_log10"] = (("chain", "draw", "model", "predictor"), log10_x)
        more["log10_tokens"] = (("chain", "draw", "model", "language"), v["log10_tokens"])
        more["log10_params"] = (("chain", "draw", "model"), v["log10_params"])
        out = out.assign_coords(
            language=np.asarray([t.language for t in inputs.design.languages], dtype=object)
        )
        for tokens in inputs.design.languages:
            more |= _token_errors(tokens, v)
    if inputs.design.has_roots:
        more["lineage"] = (("chain", "draw", "model", "factor"), v["oriented_effect"])
    statuses = [name for name in more if name.startswith("status_")]
    return out.assign(more).set_coords(statuses)


def _token_errors(tokens: LanguageTokens, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Standard normal errors of the known counts, with what each belongs to and its status."""
    name, dim = f"token_error_{tokens.language}", f"source_{tokens.language}"
    if name not in values:
        return {}
    return {
        name: (("chain", "draw", dim), values[name]),
        dim: (dim, np.asarray(tokens.error_label, dtype=object)),
        f"status_{tokens.language}": (dim, np.asarray(tokens.error_status, dtype=object)),
    }
