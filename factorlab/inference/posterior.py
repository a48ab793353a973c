"""Posterior draws: from points in the unconstrained space to oriented, labelled and diagnosed draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from factorlab.inference.bridge import masses
from factorlab.inference.convergence import diagnose, problems
from factorlab.inference.copies import Copies
from factorlab.inference.density import Density, constrainer
from factorlab.inference.design import LanguageTokens
from factorlab.inference.identify import congruence
from factorlab.inference.inputs import ModelInputs, predictor_scale
from factorlab.inference.kernel import draw_latents
from factorlab.inference.left_out import kin, left_out_density
from factorlab.inference.modes import Modes, ability_covariance, find_modes
from factorlab.inference.orientation import Axes, Orientation, Oriented, axes, orient, whiten
from factorlab.inference.pca import fit_pca
from factorlab.inference.sampling import RHAT_GOAL, Standing
from factorlab.inference.solution import Diagnostics, label_draws
from factorlab.inference.stacking import pick_draws, stack_chains
from factorlab.scores import ScoreTable

IDENTIFIED = 0.8
"""An axis counts as identified when the median |cosine| of the draws' principal axis is above this
both with the posterior's typical axis and with the PCA axis that gives it its name."""

ChainWeights = Literal["none", "stacking", "posterior"]

MOST_ABILITIES = 2**24
"""Abilities (draws x models x factors) kept at most, 256 MiB; of more draws every n-th is kept."""


class Found(NamedTuple):
    """Oriented, labelled and diagnosed draws."""

    draws: xr.Dataset
    diagnostics: Diagnostics
    stay: np.ndarray
    identified: list[bool]
    values: dict[str, np.ndarray]
    ability: np.ndarray


class Posterior:
    """From points in the unconstrained space to labelled draws; remembers the last it made."""

    def __init__(
        self, table: ScoreTable, inputs: ModelInputs, density: Density, reference: np.ndarray,
        how: Orientation, seed: int,
    ) -> None:  # fmt: skip
        self.table, self.inputs, self.density = table, inputs, density
        self.reference, self.how, self.seed = reference, how, seed
        known = density.values.names if density.values is not None else ()
        self._constrain = constrainer(density, [name for name in known if name not in _RAW])
        self._last: tuple[tuple[int, ...], Found] | None = None

    def standing(self, points: np.ndarray) -> Standing:
        found = self.judge(points, 0)
        d = found.diagnostics
        ess = [value for value in (d.ess_bulk_min, d.ess_tail_min) if np.isfinite(value)]
        return Standing(d.rhat_max, min(ess, default=0.0), d.rhat_max > RHAT_GOAL and self._apart(found))

    def _modes(self, found: Found) -> Modes:
        return find_modes(
            found.values["loading"], ability_covariance(found.ability), found.values["noise_sd"],
            self.table.benchmark_names,
        )  # fmt: skip

    def _apart(self, found: Found) -> bool:
        modes = self._modes(found)
        return modes.several and not modes.chains.unsettled

    def judge(self, points: np.ndarray, divergences: int) -> Found:
        """Orient, label and diagnose."""
        n_chains, n_draws, n_dim = points.shape
        if self._last is None or self._last[0] != points.shape:
            kept = points[:, :: thinning(self.inputs, n_chains, n_draws)]
            shape = kept.shape[:2]
            flat = self._constrain(kept.reshape(-1, n_dim))
            ability, effect, expected = _latents(self.inputs, flat, self.seed)
            oriented, axis = _orient(flat, ability, self.reference, self.how)
            draws = _label(self.table, self.inputs, flat, effect, oriented, axis, shape)
            stay = _staying(oriented, axis, self.how)
            identified = [bool(value > IDENTIFIED) for value in stay.min(axis=0)]
            values = {name: array.reshape(*shape, *array.shape[1:]) for name, array in flat.items()}
            expected = (expected - oriented.center[:, None]) @ oriented.turn
            told = diagnose(draws, 0, identified, expected.reshape(*shape, *expected.shape[1:]))
            self._last = points.shape, Found(
                draws, told, stay, identified, values,
                ability.reshape(*shape, *ability.shape[1:]),
            )  # fmt: skip
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


_RAW = frozenset({"loading_on_slice", "slope_raw"})
"""Variables that are only read through their deterministics."""


def thinning(inputs: ModelInputs, chains: int, draws: int) -> int:
    """Every how many draws one is kept, so that abilities stay within `MOST_ABILITIES`."""
    return -(-chains * draws * len(inputs.cells.z) * inputs.factors // MOST_ABILITIES)


def reference_loadings(table: ScoreTable, factors: int) -> np.ndarray:
    """PCA loadings that name the axes, (benchmark, factor); EM-PCA where cells are missing."""
    holes = bool(np.isnan(table.scores).any())
    return fit_pca(table, factors, missing="em" if holes else "complete").loading_mean().to_numpy()


def _staying(oriented: Oriented, axis: Axes, how: Orientation) -> np.ndarray:
    """Median |cosine| of each axis over draws, (criterion, factor).

    Axes named after PCA's: the draws' principal axes with their typical direction, and with the PCA
    axis of that name. Rotated axes: the draws' loadings with their mean.
    """
    if how in ("varimax", "promax"):
        mean = oriented.loading.mean(axis=0)
        return np.median(np.abs(congruence(oriented.loading, mean)), axis=0)[None]
    return np.stack([np.median(axis.cosine_self, axis=0), np.median(axis.cosine_reference, axis=0)])


def _latents(
    inputs: ModelInputs, flat: dict[str, np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Abilities and lineage effects, one exact draw for each draw of the parameters; the abilities' means."""
    n_draws, _, k = flat["loading"].shape
    n_models = len(inputs.cells.z)
    blocks = inputs.blocks()
    rng = np.random.default_rng([seed, 1])
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


def _orient(
    flat: dict[str, np.ndarray], ability: np.ndarray, reference: np.ndarray, how: Orientation
) -> tuple[Oriented, Axes]:
    oriented = orient(flat["loading"], ability, flat["mean"], reference, how)
    return oriented, axes(whiten(flat["loading"], ability, flat["mean"])[0], reference)


def _label(
    table: ScoreTable,
    inputs: ModelInputs,
    flat: dict[str, np.ndarray],
    effect: np.ndarray,
    oriented: Oriented,
    axis: Axes,
    shape: tuple[int, int],
) -> xr.Dataset:
    """All draws with their labels; slopes and lineage effects turned like the abilities."""

    def unflat(values: np.ndarray) -> np.ndarray:
        return values.reshape(*shape, *values.shape[1:])

    v = {name: unflat(values) for name, values in flat.items()}
    out = label_draws(
        unflat(oriented.loading), unflat(oriented.ability), v["noise_sd"], unflat(oriented.mean),
        table.model_names, table.benchmark_names,
    )  # fmt: skip
    more: dict[str, Any] = {
        "turn": (("chain", "draw", "raw", "factor"), unflat(oriented.turn)),
        "center": (("chain", "draw", "raw"), unflat(oriented.center)),
        "axis_cosine": (("chain", "draw", "factor"), unflat(axis.cosine_self)),
        "axis_cosine_pca": (("chain", "draw", "factor"), unflat(axis.cosine_reference)),
        "axis_eigenvalue": (("chain", "draw", "factor"), unflat(axis.eigenvalue)),
    }
    if inputs.groups:
        more["pair_sd"] = (("chain", "draw", "pair"), v["pair_sd"])
        out = out.assign_coords(pair=np.asarray(inputs.groups, dtype=object))
    if inputs.regresses:
        slope = flat["slope"] @ oriented.turn / predictor_scale(inputs)[None, :, None]
        more["slope"] = (("chain", "draw", "predictor", "factor"), unflat(slope))
        log10_x = v["predictor"] * predictor_scale(inputs)
        more["predictor_log10"] = (("chain", "draw", "model", "predictor"), log10_x)
        more["log10_tokens"] = (("chain", "draw", "model", "language"), v["log10_tokens"])
        more["log10_params"] = (("chain", "draw", "model"), v["log10_params"])
        out = out.assign_coords(
            predictor=np.asarray(inputs.predictors, dtype=object),
            language=np.asarray([t.language for t in inputs.design.languages], dtype=object),
        )
        for tokens in inputs.design.languages:
            more |= _token_errors(tokens, v)
    if inputs.design.has_roots:
        more["lineage"] = (("chain", "draw", "model", "factor"), unflat(effect @ oriented.turn))
    for name, values in v.items():
        if values.ndim == 2 and name not in more and not name.endswith("__"):
            more[name] = (("chain", "draw"), values)
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
