"""The fit of the Bayesian latent-factor model: sampled, oriented, labelled, diagnosed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from factorlab.inference.bridge import masses
from factorlab.inference.convergence import diagnose, problems
from factorlab.inference.copies import Copies
from factorlab.inference.density import Density, compile_density, constrainer
from factorlab.inference.design import LanguageTokens
from factorlab.inference.identify import congruence
from factorlab.inference.kernel import draw_latents
from factorlab.inference.laplace import KHAT_GOAL, approximate
from factorlab.inference.left_out import kin, left_out_density
from factorlab.inference.model import BudgetForm, ModelInputs, build_model, model_inputs, predictor_scale
from factorlab.inference.modes import Modes, ability_covariance, find_modes
from factorlab.inference.orientation import Axes, Orientation, Oriented, axes, orient, whiten
from factorlab.inference.pca import fit_pca
from factorlab.inference.priors import Priors
from factorlab.inference.provenance import describe
from factorlab.inference.sampling import RHAT_GOAL, Length, Progress, Sample, Standing, sample, silent
from factorlab.inference.solution import Diagnostics, FactorSolution, label_draws
from factorlab.inference.stacking import pick_draws, stack_chains
from factorlab.scores import ScoreTable

IDENTIFIED = 0.8
"""An axis counts as identified when the median |cosine| of the draws' principal axis is above this
both with the posterior's typical axis and with the PCA axis that gives it its name."""

MOST_CELLS = 100_000
"""Observed cells up to which "auto" samples exactly."""

Sampler = Literal["auto", "nuts", "laplace"]
ChainWeights = Literal["none", "stacking", "posterior"]

MOST_ABILITIES = 2**25
"""Abilities (draws x models x factors) kept at most, 256 MiB; of more draws every n-th is kept."""


def fit_bayes(
    table: ScoreTable,
    factors: int = 4,
    *,
    budget: BudgetForm = "separate",
    pairs: bool = True,
    orientation: Orientation = "procrustes",
    languages: Sequence[str] | None = None,
    priors: Priors | None = None,
    draws: int = 500,
    tune: int = 300,
    chains: int = 4,
    max_draws: int = 10_000,
    max_seconds: float | None = None,
    sampler: Sampler = "auto",
    chain_weights: ChainWeights = "none",
    cores: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> FactorSolution:
    """Sample the Bayesian factor model until its draws will do, and orient them.

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
        Draws of each chain before convergence is first checked, warm-up draws, chains.
    max_draws : int
        Sampling goes on until R-hat <= 1.01 and effective sample sizes >= 400 hold for all that
        `factorlab.inference.convergence.diagnose` counts, but for at most this many draws a chain; what
        then falls short is told in the diagnostics. Give it equal to ``draws`` for a fixed length.
    max_seconds : float, optional
        Limit of the sampling time, in seconds.
    sampler : {"auto", "nuts", "laplace"}
        Exact sampling, or a normal approximation at the mode (`factorlab.inference.laplace`) with
        ``draws`` draws a chain; "auto" takes the second above `MOST_CELLS` observed cells, and the
        notes say so.
    chain_weights : {"none", "stacking", "posterior"}
        What to do when chains settle on different solutions: say so and nothing else; or draw from the
        chains again, weighted by how well their solutions predict left-out models, or by the posterior
        mass that they hold (`factorlab.inference.modes`).
    cores : int, optional
        Chains that run at once; fewer than ``chains`` fixes the length at ``draws``.
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
        ``extra`` tells why sampling stopped (``stopped``), gradient evaluations and seconds.

    Raises
    ------
    InputError
        When the table is too small for K factors.
    KeyboardInterrupt
        When interrupted before there are 50 draws a chain; later what was drawn is returned, and
        ``extra["stopped"]`` is "interrupted".
    """
    began = time.perf_counter()
    p = priors or Priors()
    inputs = model_inputs(table, factors, p, budget=budget, pairs=pairs, languages=languages)
    tell = progress or silent
    tell("compiling the model", 0, 0)
    with threadpool_limits(limits=1, user_api="blas"):  # matrices this small are slower on several threads
        density = compile_density(build_model(inputs, p))
        work = _Posterior(table, inputs, density, reference_loadings(table, factors), orientation, seed)
        compiled = time.perf_counter()
        how = sampler if sampler != "auto" else choose_sampler(inputs)
        if how == "laplace":
            drawn = _approximated(density, draws, chains, seed, tell)
        else:
            drawn = sample(
                density,
                Length(draws, max_draws, max_seconds, tune),
                chains=chains,
                cores=cores,
                seed=seed,
                standing=work.standing,
                progress=tell,
            )
        tell("turning draws to common axes", 0, 0)
        found = work.judge(drawn.points, drawn.divergences)
        diagnostics = found.diagnostics
        found, modes, told = work.separate(found, drawn.points, chain_weights)
        if modes is not None:
            short = problems(diagnostics.table, drawn.divergences, separate=True)
            diagnostics = replace(diagnostics, problems=tuple(short))
        diagnostics = _with_limit(diagnostics, drawn, max_draws, max_seconds)
    standard = table.standardised()
    settings = {
        "factors": factors, "budget": inputs.budget if inputs.regresses else "none",
        "pairs": bool(inputs.groups),
        "orientation": orientation, "draws": draws, "tune": tune, "chains": chains,
        "max_draws": max_draws, "max_seconds": max_seconds, "sampler": how, "priors": asdict(p),
    }  # fmt: skip
    return FactorSolution(
        draws=found.draws,
        constants=xr.Dataset(
            {
                "location": ("benchmark", standard.location),
                "scale": ("benchmark", standard.scale),
                "z": (("model", "benchmark"), standard.z),
                "z_se": (("model", "benchmark"), standard.z_se),
                "reference_loading": (("benchmark", "factor"), work.reference),
            },
            coords={
                "benchmark": found.draws["benchmark"],
                "model": found.draws["model"],
                "factor": found.draws["factor"],
            },
        ),
        method="bayes",
        kind="posterior",
        orientation=orientation,
        diagnostics=replace(diagnostics, problems=(*told, *diagnostics.problems)),
        provenance=describe(table, seed, settings),
        notes=(
            *inputs.design.notes,
            *_notes(table, found),
            *_kept(drawn, found.draws),
            *_chosen(sampler, how, inputs),
        ),
        extra={
            "identified": found.identified,
            "sampler": how,
            **({} if modes is None else {"modes": modes.to_dict()}),
            **({} if drawn.khat is None else {"khat": drawn.khat}),
            "leapfrog_steps": drawn.leapfrog_steps,
            "gradients": drawn.gradients,
            "stopped": drawn.stopped,
            "draws": int(drawn.points.shape[1]),
            "seconds": time.perf_counter() - began,
            "seconds_compiling": compiled - began,
            "seconds_sampling": drawn.seconds,
        },
    )


class _Found(NamedTuple):
    """Oriented, labelled and diagnosed draws."""

    draws: xr.Dataset
    diagnostics: Diagnostics
    stay: np.ndarray
    identified: list[bool]
    values: dict[str, np.ndarray]
    ability: np.ndarray


class _Posterior:
    """From points in the unconstrained space to labelled draws; remembers the last it made."""

    def __init__(
        self, table: ScoreTable, inputs: ModelInputs, density: Density, reference: np.ndarray,
        how: Orientation, seed: int,
    ) -> None:  # fmt: skip
        self.table, self.inputs, self.density = table, inputs, density
        self.reference, self.how, self.seed = reference, how, seed
        model = density.model
        names = [v.name for v in (*model.free_RVs, *model.deterministics) if v.name not in _RAW]
        self._constrain = constrainer(density, names)
        self._last: tuple[tuple[int, ...], _Found] | None = None

    def standing(self, points: np.ndarray) -> Standing:
        found = self.judge(points, 0)
        d = found.diagnostics
        ess = [value for value in (d.ess_bulk_min, d.ess_tail_min) if np.isfinite(value)]
        return Standing(d.rhat_max, min(ess, default=0.0), d.rhat_max > RHAT_GOAL and self._apart(found))

    def _modes(self, found: _Found) -> Modes:
        return find_modes(
            found.values["loading"], ability_covariance(found.ability), found.values["noise_sd"],
            self.table.benchmark_names,
        )  # fmt: skip

    def _apart(self, found: _Found) -> bool:
        modes = self._modes(found)
        return modes.several and not modes.chains.unsettled

    def judge(self, points: np.ndarray, divergences: int) -> _Found:
        """Orient, label and diagnose."""
        n_chains, n_draws, n_dim = points.shape
        if self._last is None or self._last[0] != points.shape:
            kept = points[:, :: thinning(self.inputs, n_chains, n_draws)]
            shape = kept.shape[:2]
            flat = self._constrain(kept.reshape(-1, n_dim))
            ability, effect = _latents(self.inputs, flat, self.seed)
            oriented, axis = _orient(flat, ability, self.reference, self.how)
            draws = _label(self.table, self.inputs, flat, effect, oriented, axis, shape)
            stay = _staying(oriented, axis, self.how)
            identified = [bool(value > IDENTIFIED) for value in stay.min(axis=0)]
            values = {name: array.reshape(*shape, *array.shape[1:]) for name, array in flat.items()}
            self._last = points.shape, _Found(
                draws, diagnose(draws, 0, identified), stay, identified, values,
                ability.reshape(*shape, *ability.shape[1:]),
            )  # fmt: skip
        found = self._last[1]
        told = tuple(problems(found.diagnostics.table, divergences))
        return found._replace(diagnostics=replace(found.diagnostics, divergences=divergences, problems=told))

    def separate(
        self, found: _Found, points: np.ndarray, weights: ChainWeights
    ) -> tuple[_Found, Modes | None, list[str]]:
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


def choose_sampler(inputs: ModelInputs) -> Literal["nuts", "laplace"]:
    """Exact sampling where it is affordable."""
    return "nuts" if inputs.cells.observed.sum() <= MOST_CELLS else "laplace"


def _approximated(density: Density, draws: int, chains: int, seed: int, tell: Progress) -> Sample:
    found = approximate(density, draws=draws, chains=chains, seed=seed, progress=tell)
    return Sample(found.points, 0, 0.0, found.gradients, found.seconds, "approximated", found.khat)


def _chosen(asked: Sampler, how: str, inputs: ModelInputs) -> list[str]:
    if how != "laplace":
        return []
    cells = int(inputs.cells.observed.sum())
    why = f"{cells} cells are more than {MOST_CELLS}" if asked == "auto" else "asked for"
    return [
        f"Laplace approximation ({why}): a normal distribution at the mode, not exact draws; "
        "--sampler nuts samples exactly"
    ]


def _with_limit(
    diagnostics: Diagnostics, drawn: Sample, max_draws: int, max_seconds: float | None
) -> Diagnostics:
    """Say which limit was reached, where the goals were not."""
    if drawn.khat is not None and drawn.khat <= KHAT_GOAL:
        return replace(diagnostics, problems=())  # independent draws: R-hat and ESS have nothing to say
    if drawn.khat is not None:
        told = (
            f"Pareto k-hat {drawn.khat:.2f} above {KHAT_GOAL}: importance sampling cannot confirm the "
            "Laplace approximation; intervals may be off, use --sampler nuts"
        )
        return replace(diagnostics, problems=(told,))
    why = {
        "draws": f"the limit of {max_draws} draws a chain was reached first; raise --max-draws",
        "seconds": f"the limit of {max_seconds:g} seconds was reached first; raise --max-seconds"
        if max_seconds is not None
        else "",
        "modes": "sampling stopped there, as chains in different solutions do not meet with more draws",
        "interrupted": f"sampling was interrupted after {drawn.points.shape[1]} draws a chain",
    }.get(drawn.stopped, "")
    if not why or not diagnostics.problems:
        return diagnostics
    return replace(diagnostics, problems=(*diagnostics.problems, why))


def _kept(drawn: Sample, draws: xr.Dataset) -> list[str]:
    kept, made = draws.sizes["draw"], drawn.points.shape[1]
    if kept == made:
        return []
    return [f"{kept} of {made} draws a chain are kept, evenly spaced, so that abilities fit into memory"]


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


def _latents(inputs: ModelInputs, flat: dict[str, np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Abilities and lineage effects, one exact draw for each draw of the parameters."""
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


def _notes(table: ScoreTable, found: _Found) -> list[str]:
    notes = []
    stay = found.stay
    for f, ok in enumerate(found.identified):
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
