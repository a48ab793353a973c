"""The fit of the Bayesian latent-factor model: sampled, oriented, labelled, diagnosed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from factorlab.inference.convergence import diagnose
from factorlab.inference.design import LanguageTokens
from factorlab.inference.identify import congruence
from factorlab.inference.marginal import draw_abilities
from factorlab.inference.model import BudgetForm, ModelInputs, build_model, model_inputs, predictor_scale
from factorlab.inference.orientation import Axes, Orientation, Oriented, axes, orient, whiten
from factorlab.inference.pca import fit_pca
from factorlab.inference.priors import Priors
from factorlab.inference.provenance import describe
from factorlab.inference.sampling import Progress, Sample, sample
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.scores import ScoreTable

IDENTIFIED = 0.8
"""An axis counts as identified when the median |cosine| of the draws' principal axis is above this
both with the posterior's typical axis and with the PCA axis that gives it its name."""


def fit_bayes(
    table: ScoreTable,
    factors: int = 4,
    *,
    budget: BudgetForm = "separate",
    pairs: bool = True,
    orientation: Orientation = "procrustes",
    languages: Sequence[str] | None = None,
    priors: Priors | None = None,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    cores: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> FactorSolution:
    """Sample the Bayesian factor model and orient its draws.

    Parameters
    ----------
    table : ScoreTable
    factors : int
        K.
    budget : {"separate", "product", "none"}
        log N and log D_l as predictors, the study's log(N D_l), or no regression.
    pairs : bool
        Give every declared group of benchmarks that share items a factor of its own.
    orientation : {"procrustes", "principal", "varimax", "promax"}
    languages : sequence of str, optional
        Languages whose budgets are predictors; all of the table's when not given.
    priors : Priors, optional
    draws, tune, chains : int
    cores : int, optional
    seed : int
        The same seed gives the same draws up to Monte Carlo error, not bit for bit.
    progress : callable, optional
        See `factorlab.inference.sampling.Progress`.

    Returns
    -------
    FactorSolution
        ``kind`` "posterior". Beside loading, ability, noise_sd and mean its draws hold ``pair_sd``
        (chain, draw, pair), ``slope`` (chain, draw, predictor, factor), in sd of ability per factor
        of ten, ``lineage`` (chain, draw, model, factor), ``log10_tokens`` (chain, draw, model,
        language) in log10 billions, ``predictor_log10`` (chain, draw,
        model, predictor; log10, up to a constant), ``axis_cosine``, ``axis_cosine_pca`` and
        ``axis_eigenvalue`` (chain, draw, factor), and the standard deviations of the hierarchy.

    Raises
    ------
    InputError
        When the table is too small for K factors.
    KeyboardInterrupt
        When interrupted while sampling; nothing is kept.
    """
    began = time.perf_counter()
    p = priors or Priors()
    inputs = model_inputs(table, factors, p, budget=budget, pairs=pairs, languages=languages)
    reference = reference_loadings(table, factors)
    tell = progress or (lambda stage, done, total: None)
    drawn = sample(
        build_model(inputs, p), draws=draws, tune=tune, chains=chains, cores=cores, seed=seed, progress=tell
    )
    tell("turning draws to common axes", 0, 0)
    raw_ability = _abilities(inputs, drawn, seed)
    oriented, axis = _orient(drawn, raw_ability, reference, orientation)
    labelled = _label(table, inputs, drawn, oriented, axis, (chains, draws))
    stay = _staying(oriented, axis, orientation)
    identified = [bool(value > IDENTIFIED) for value in stay.min(axis=0)]
    tell("checking convergence", 0, 0)
    diagnostics = diagnose(labelled, drawn.divergences, identified)
    standard = table.standardised()
    settings = {
        "factors": factors, "budget": inputs.budget if inputs.regresses else "none",
        "pairs": bool(inputs.groups),
        "orientation": orientation, "draws": draws, "tune": tune, "chains": chains, "priors": asdict(p),
    }  # fmt: skip
    return FactorSolution(
        draws=labelled,
        constants=xr.Dataset(
            {
                "location": ("benchmark", standard.location),
                "scale": ("benchmark", standard.scale),
                "z": (("model", "benchmark"), standard.z),
                "z_se": (("model", "benchmark"), standard.z_se),
                "reference_loading": (("benchmark", "factor"), reference),
            },
            coords={
                "benchmark": labelled["benchmark"],
                "model": labelled["model"],
                "factor": labelled["factor"],
            },
        ),
        method="bayes",
        kind="posterior",
        orientation=orientation,
        diagnostics=diagnostics,
        provenance=describe(table, seed, settings),
        notes=(*inputs.design.notes, *_notes(table, stay, identified)),
        extra={
            "identified": identified,
            "leapfrog_steps": drawn.leapfrog_steps,
            "seconds": time.perf_counter() - began,
        },
    )


def reference_loadings(table: ScoreTable, factors: int) -> np.ndarray:
    """PCA loadings that name the axes, (benchmark, factor); EM-PCA where cells are missing."""
    holes = bool(np.isnan(table.scores).any())
    return fit_pca(table, factors, missing="em" if holes else "complete").loading_mean().to_numpy()


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[2:])


def _staying(oriented: Oriented, axis: Axes, how: Orientation) -> np.ndarray:
    """Median |cosine| of each axis over draws, (criterion, factor).

    Axes named after PCA's: the draws' principal axes with their typical direction, and with the PCA
    axis of that name. Rotated axes: the draws' loadings with their mean.
    """
    if how in ("varimax", "promax"):
        mean = oriented.loading.mean(axis=0)
        return np.median(np.abs(congruence(oriented.loading, mean)), axis=0)[None]
    return np.stack([np.median(axis.cosine_self, axis=0), np.median(axis.cosine_reference, axis=0)])


def _abilities(inputs: ModelInputs, drawn: Sample, seed: int) -> np.ndarray:
    v = drawn.values
    n = v["loading"].shape[0] * v["loading"].shape[1]
    return draw_abilities(
        inputs.cells,
        _flat(v["loading"]),
        _flat(v["mean"]),
        _flat(v["ability_mean"]),
        _flat(v["noise_sd"]),
        _flat(v["pair_sd"]) if "pair_sd" in v else np.zeros((n, 0)),
        np.random.default_rng([seed, 1]),
    )


def _orient(
    drawn: Sample, ability: np.ndarray, reference: np.ndarray, how: Orientation
) -> tuple[Oriented, Axes]:
    loading, mean = _flat(drawn.values["loading"]), _flat(drawn.values["mean"])
    oriented = orient(loading, ability, mean, reference, how)
    return oriented, axes(whiten(loading, ability, mean)[0], reference)


def _label(
    table: ScoreTable,
    inputs: ModelInputs,
    drawn: Sample,
    oriented: Oriented,
    axis: Axes,
    shape: tuple[int, int],
) -> xr.Dataset:
    """All draws with their labels; slopes and lineage effects turned like the abilities."""
    v = drawn.values

    def unflat(values: np.ndarray) -> np.ndarray:
        return values.reshape(*shape, *values.shape[1:])

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
        slope = _flat(v["slope"]) @ oriented.turn / predictor_scale(inputs)[None, :, None]
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
        lineage = _flat(v["lineage"]) @ oriented.turn
        more["lineage"] = (("chain", "draw", "model", "factor"), unflat(lineage))
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


def _notes(table: ScoreTable, stay: np.ndarray, identified: list[bool]) -> list[str]:
    notes = []
    for f, ok in enumerate(identified):
        if not ok:
            if len(stay) == 1:
                why = f"its loadings have median congruence {stay[0, f]:.2f} with their mean over draws"
            else:
                why = (
                    f"principal axis {f + 1} of the posterior has median |cosine| {stay[1, f]:.2f} with "
                    f"PCA's PC{f + 1} and {stay[0, f]:.2f} with its own typical direction"
                )
            notes.append(
                f"PC{f + 1} is not identified: {why} (above {IDENTIFIED} would do); "
                "do not read its loadings or correlations"
            )
    unknown = int((np.isnan(table.se) & np.isfinite(table.scores)).sum())
    if unknown:
        notes.append(
            f"{unknown} cells have no standard error: their sampling error is part of the unique noise; "
            "give 'se' or 'n_instances'"
        )
    return notes
