"""The Bayesian latent-factor model with budget regression: the model, and its fit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from factorlab.errors import InputError
from factorlab.inference.convergence import diagnose
from factorlab.inference.design import BudgetDesign, LanguageTokens, design_budgets
from factorlab.inference.identify import congruence
from factorlab.inference.marginal import Cells, cholesky, draw_abilities, log_likelihood
from factorlab.inference.orientation import Axes, Orientation, Oriented, axes, orient, whiten
from factorlab.inference.pca import fit_pca
from factorlab.inference.priors import Priors
from factorlab.inference.provenance import describe
from factorlab.inference.sampling import Progress, Sample, sample
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.scores import ScoreTable

if TYPE_CHECKING:
    import pymc as pm

BudgetForm = Literal["separate", "product", "none"]

IDENTIFIED = 0.8
"""An axis counts as identified when the median |cosine| of the draws' principal axis is above this
both with the posterior's typical axis and with the PCA axis that gives it its name."""


class ModelInputs(NamedTuple):
    """All that `build_model` needs, as arrays.

    Attributes
    ----------
    cells : Cells
    design : BudgetDesign
    factors : int
        K.
    budget : {"separate", "product", "none"}
    groups : tuple of str
        Names of the declared groups of benchmarks that share items, columns of ``cells.member``.
    """

    cells: Cells
    design: BudgetDesign
    factors: int
    budget: BudgetForm
    groups: tuple[str, ...]

    @property
    def regresses(self) -> bool:
        return self.budget != "none" and self.design.has_budgets

    @property
    def predictors(self) -> list[str]:
        languages = [tokens.language for tokens in self.design.languages]
        if not self.regresses:
            return []
        if self.budget == "product":
            return [f"log10 N*D_{language}" for language in languages]
        return ["log10 N", *[f"log10 D_{language}" for language in languages]]


def model_inputs(
    table: ScoreTable,
    factors: int,
    priors: Priors,
    *,
    budget: BudgetForm = "separate",
    pairs: bool = True,
    languages: Sequence[str] | None = None,
) -> ModelInputs:
    """A score table as arrays for the model.

    Raises
    ------
    InputError
        When the table is too small for K factors.
    """
    standard = table.standardised()
    n_models, n_benchmarks = standard.z.shape
    if not 1 <= factors <= min(n_benchmarks, n_models - 1):
        raise InputError(
            f"{factors} factors asked of {n_models} models x {n_benchmarks} benchmarks; "
            f"give --factors between 1 and {max(1, min(n_benchmarks, n_models - 1))}, and at least 2 models"
        )
    observed = np.isfinite(standard.z)
    member, groups = _groups(table) if pairs else (np.zeros((n_benchmarks, 0)), ())
    cells = Cells(
        z=np.where(observed, standard.z, 0.0),
        variance=np.where(observed & np.isfinite(standard.z_se), standard.z_se, 0.0) ** 2,
        observed=observed.astype(float),
        member=member,
    )
    design = design_budgets(table, priors, list(languages) if languages is not None else None)
    return ModelInputs(cells, design, factors, budget, groups)


def _groups(table: ScoreTable) -> tuple[np.ndarray, tuple[str, ...]]:
    """Declared groups of at least two benchmarks that share items: (benchmark, group) and names."""
    declared = table.benchmarks["shared_items_group"]
    names = [g for g in dict.fromkeys(declared.dropna()) if (declared == g).sum() > 1]
    member = np.array([[1.0 if value == g else 0.0 for g in names] for value in declared])
    labels = tuple("+".join(str(b) for b in table.benchmarks.index[declared == g]) for g in names)
    return member.reshape(len(declared), len(names)), labels


def build_model(inputs: ModelInputs, priors: Priors | None = None) -> pm.Model:
    """The model, apart from sampling it.

    With z standardised scores, abilities theta integrated out (`factorlab.inference.marginal`):

        z_ij    ~ Normal(mu_j + lambda_j' theta_i + delta_g omega_ig, s_ij^2 + psi_j^2)
        theta_i = B' x_i + a_i + u_i,           u_i ~ Normal(0, I_K)
        x_i     = [log10 N_i, log10 D_il, ...]  standardised by constants;  or log10(N_i D_il)
        a_i     = root effect of the family + sum of the steps passed on along the tree
        Lambda = H S,  H uniform on the K-frames of R^J,  S (K x K) ~ Normal(0, tau_lambda^2) times
                       |S'S / J + small^2 I|^(-K/2)
        B_pk ~ Normal(0, tau_B^2),  tau half-normal
        mu_j ~ Normal(0, mean_sd^2),  psi_j ~ LogNormal,  delta_g ~ HalfNormal
        log10 D: counts with error by status, unknown counts latent, added along the tree
        (`factorlab.inference.design`); a language with zero counts enters as log10(D + d0).

    A step is what a model hands on to its continually pre-trained children beyond its family and
    budgets; what only one model has is part of its own u_i, whose variance fixes the scale.

    Independent normal loadings would be a strong prior on the sizes of the factors: the volume element
    of Lambda = H S is |S'S|^((J-K)/2), so all K singular values crowd together, and the residual
    variance of the abilities (so R^2 on the budgets) is pushed about by a prior that nobody meant. The
    potential -(J-K)/2 log|Lambda'Lambda| cancels that element. S'S is the covariance of what budgets
    leave unexplained; a normal S alone gives it density |S'S|^(-1/2), and the second term brings
    that to Jeffreys' |S'S|^(-(K+1)/2) for factors with root mean square loading above ``small``,
    below which it is flat, so that the prior is proper.

    Loadings are free: the posterior is invariant under rotation and is oriented after sampling
    (`factorlab.inference.orientation`).

    Parameters
    ----------
    inputs : ModelInputs
    priors : Priors, optional

    Returns
    -------
    pymc.Model
        Deterministics ``loading`` (benchmark, factor), ``slope`` (predictor, factor), ``lineage``
        (model, factor), ``ability_mean`` (model, factor), ``log10_tokens`` (model, language),
        ``predictor`` (model, predictor) carry what is read off the draws.
    """
    import pymc as pm
    import pytensor.tensor as pt

    p = priors or Priors()
    n_models, n_benchmarks = inputs.cells.z.shape
    k = inputs.factors
    with pm.Model() as model:
        loading_sd = pm.HalfNormal("loading_sd", p.loading_sd)
        raw = pm.Normal("loading_raw", 0.0, 1.0, shape=(n_benchmarks, k))
        loading = pm.Deterministic("loading", loading_sd * raw)
        pm.Potential("loading_volume", _volume(raw, loading, n_benchmarks, k, p.small_loading))
        mean = pm.Normal("mean", 0.0, p.mean_sd, shape=n_benchmarks)
        noise_sd = pm.LogNormal("noise_sd", np.log(p.noise_sd_median), p.noise_sd_log_sd, shape=n_benchmarks)
        pair_sd = (
            pm.HalfNormal("pair_sd", p.pair_sd, shape=len(inputs.groups)) if inputs.groups else np.zeros(0)
        )
        parts = []
        if inputs.regresses:
            x = pm.Deterministic("predictor", _predictors(inputs, p))
            slope_sd = pm.HalfNormal("slope_sd", p.slope_sd)
            slope_raw = pm.Normal("slope_raw", 0.0, 1.0, shape=(len(inputs.predictors), k))
            slope = pm.Deterministic("slope", slope_sd * slope_raw)
            parts.append(pt.dot(x, slope))
        if inputs.design.has_roots:
            parts.append(pm.Deterministic("lineage", _lineage(inputs.design, k, p)))
        ability_mean = sum(parts[1:], parts[0]) if parts else pt.zeros((n_models, k))
        pm.Deterministic("ability_mean", ability_mean)
        pm.Potential(
            "log_likelihood",
            log_likelihood(
                inputs.cells,
                pt.specify_shape(loading, (n_benchmarks, k)),
                mean,
                ability_mean,
                noise_sd,
                pair_sd,
                pt,
            ).sum(),
        )
    return model


def _volume(raw: Any, loading: Any, n_benchmarks: int, k: int, small: float) -> Any:
    """-(J - K)/2 log|Lambda' Lambda| - K/2 log|Lambda' Lambda / J + small^2 I|."""
    import pytensor.tensor as pt

    def half_log_det(columns: Any, scale: float, ridge: float) -> Any:
        products = [
            [(columns[:, i] * columns[:, j]).sum() * scale + (ridge if i == j else 0.0) for j in range(i + 1)]
            for i in range(k)
        ]
        return sum(pt.log(row[-1]) for row in cholesky(products, pt))

    return -(n_benchmarks - k) * half_log_det(raw, 1.0, 0.0) - k * half_log_det(
        loading, 1.0 / n_benchmarks, small**2
    )


def _predictors(inputs: ModelInputs, p: Priors) -> Any:
    """Standardised predictors (model, predictor), with latent sizes and counts filled in."""
    import pymc as pm
    import pytensor.tensor as pt

    design = inputs.design
    size = (design.log10_params - design.params_center) / design.params_scale
    missing = np.flatnonzero(~np.isfinite(size))
    n = pt.as_tensor(np.where(np.isfinite(size), size, 0.0))
    if len(missing):
        latent = pm.Normal("log10_params_latent", 0.0, 1.0, shape=len(missing))
        n = pt.set_subtensor(n[missing], latent)
    log10_n = n * design.params_scale + design.params_center
    counts, columns = [], [] if inputs.budget == "product" else [n]
    for tokens in design.languages:
        log10_d, floored = _tokens(tokens, p)
        counts.append(log10_d)
        if inputs.budget == "product":
            center = tokens.center + design.params_center
            scale = float(np.std((design.log10_params + _published(tokens))[_sized(tokens, design)]))
            columns.append((log10_n + floored - center) / scale)
        else:
            columns.append((floored - tokens.center) / tokens.scale)
    pm.Deterministic("log10_tokens", pt.stack(counts, axis=1))
    pm.Deterministic("log10_params", log10_n)
    return pt.stack(columns, axis=1)


def _sized(tokens: LanguageTokens, design: BudgetDesign) -> np.ndarray:
    return tokens.published & np.isfinite(design.log10_params)


def _published(tokens: LanguageTokens) -> np.ndarray:
    """log10 of the counts as known, errors and latents at zero, (model,)."""
    own = tokens.known * 10**tokens.log10_count
    with np.errstate(divide="ignore"):
        return np.log10(tokens.path @ own)


def predictor_scale(inputs: ModelInputs) -> np.ndarray:
    """Standard deviation, in factors of ten, that one unit of each predictor stands for, (predictor,)."""
    design = inputs.design
    if not inputs.regresses:
        return np.zeros(0)
    if inputs.budget == "product":
        return np.array(
            [
                np.std((design.log10_params + _published(tokens))[_sized(tokens, design)])
                for tokens in design.languages
            ]
        )
    return np.array([design.params_scale, *[tokens.scale for tokens in design.languages]])


def _tokens(tokens: LanguageTokens, p: Priors) -> tuple[Any, Any]:
    """log10 of a language's tokens in billions (-inf for none), and the same with d0 added."""
    import pymc as pm
    import pytensor.tensor as pt

    l = tokens.language
    log10_own = pt.as_tensor(tokens.log10_count)
    if tokens.error_label:
        error = pm.Normal(f"token_error_{l}", 0.0, 1.0, shape=len(tokens.error_label))
        log10_own = log10_own + tokens.known * tokens.error_sd * error[tokens.error_index]
    center = pm.Normal(f"log10_tokens_center_{l}", tokens.center, 1.0)
    spread = pm.HalfNormal(f"log10_tokens_sd_{l}", p.tokens_log10_sd)
    if len(tokens.unit_weight):
        units = pt.dot(tokens.unit_weight, log10_own)
        pm.Potential(f"sources_{l}", pm.logp(pm.Normal.dist(center, spread), units).sum())
    if tokens.n_latents:
        raw = pm.Normal(f"token_latent_{l}", 0.0, 1.0, shape=tokens.n_latents)
        latent = center + spread * raw
        bounded = np.isfinite(tokens.upper)
        if bounded.any():
            room = (tokens.upper[bounded] - latent[np.flatnonzero(bounded)]) / 0.05
            pm.Potential(f"within_total_{l}", pt.log(pt.sigmoid(room)).sum())
        log10_own = log10_own + tokens.unknown * (latent[tokens.latent_index] + tokens.offset)
    present = tokens.known + tokens.unknown
    total = pt.dot(tokens.path, present * 10.0**log10_own)
    if not tokens.has_zero:
        log10_d = pt.log10(total)
        return log10_d, log10_d
    floor = pm.LogNormal(f"token_floor_b_{l}", np.log(p.token_floor_b), p.token_floor_log_sd)
    nothing = tokens.path @ present == 0
    return pt.switch(nothing, -np.inf, pt.log10(pt.maximum(total, 1e-12))), pt.log10(total + floor)


def _lineage(design: BudgetDesign, k: int, p: Priors) -> Any:
    """a_i: effect of the family, plus steps passed on along the tree, (model, factor)."""
    import pymc as pm
    import pytensor.tensor as pt

    root_sd = pm.HalfNormal("root_sd", p.root_sd)
    root = pm.Normal("root_raw", 0.0, 1.0, shape=(len(design.families), k))
    out = root_sd * root[design.family_index]
    if design.steps:
        step_sd = pm.HalfNormal("step_sd", p.step_sd)
        step = pm.Normal("step_raw", 0.0, 1.0, shape=(len(design.steps), k))
        out = out + step_sd * pt.dot(design.step_path, step)
    return out


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
