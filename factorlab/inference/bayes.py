"""The fit of the Bayesian latent-factor model: sampled, oriented, labelled, diagnosed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Literal

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from factorlab.collector import seldom_collected
from factorlab.errors import InputError
from factorlab.inference.convergence import problems
from factorlab.inference.copies import Copies
from factorlab.inference.density import Density
from factorlab.inference.density_store import model_density
from factorlab.inference.inputs import BudgetForm, ModelInputs, model_inputs
from factorlab.inference.laplace import KHAT_GOAL, approximate
from factorlab.inference.orientation import Orientation
from factorlab.inference.posterior import IDENTIFIED, ChainWeights, Found, Posterior, reference_loadings
from factorlab.inference.priors import Priors
from factorlab.inference.provenance import describe
from factorlab.inference.sampling import Sample, sample, start_point
from factorlab.inference.solution import Diagnostics, FactorSolution
from factorlab.inference.watch import Length, Progress, Standing, silent
from factorlab.inference.whitening import sample_whitened
from factorlab.scores import ScoreTable

MOST_CELLS = 250_000
"""Observed cells up to which "auto" samples exactly."""

WHITENED_CELLS = 5_000
"""Observed cells above which exact sampling takes its metric from the mode."""

Sampler = Literal["auto", "nuts", "laplace"]


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
        Draws of each chain before convergence is first checked, warm-up draws (at most; large tables need
        fewer), chains.
    max_draws : int
        Sampling goes on until R-hat <= 1.01 and effective sample sizes >= 400 hold for all that
        `factorlab.inference.convergence.diagnose` counts, but for at most this many draws a chain; what
        then falls short is told in the diagnostics. Give it equal to ``draws`` for a fixed length.
    max_seconds : float, optional
        Limit of the sampling time, in seconds.
    sampler : {"auto", "nuts", "laplace"}
        Exact sampling (by NUTS; above `WHITENED_CELLS` observed cells in quarter turns,
        `factorlab.inference.whitening`), or a normal approximation at the mode
        (`factorlab.inference.laplace`) with ``draws`` draws a chain; "auto" takes the second above
        `MOST_CELLS` observed cells. The notes say what was taken.
    chain_weights : {"none", "stacking", "posterior"}
        What to do when chains settle on different solutions: say so and nothing else; or draw from the
        chains again, weighted by how well their solutions predict left-out models, or by the posterior
        mass that they hold (`factorlab.inference.modes`).
    cores : int, optional
        Chains that run at once; fewer than ``chains`` fixes the length at ``draws``.
    seed : int
        The same seed gives the same draws up to Monte Carlo error, not bit for bit.
    progress : callable, optional
        See `factorlab.inference.watch.Progress`.

    Returns
    -------
    FactorSolution
        ``kind`` "posterior". Beside loading, ability, noise_sd and mean its draws hold ``pair_sd``
        (chain, draw, pair), ``slope`` (chain, draw, predictor, factor), in sd of ability per factor
        of ten, ``lineage`` (chain, draw, model, factor), ``log10_tokens`` (chain, draw, model,
        language) in log10 billions, ``predictor_log10`` (chain, draw,
        model, predictor; log10, up to a constant), ``axis_cosine``, ``axis_cosine_pca`` and
        ``axis_eigenvalue`` (chain, draw, factor), and the standard deviations of the hierarchy.
        ``extra`` tells how it was sampled (``sampler``: "nuts", "turns", "laplace"), why it stopped
        (``stopped``), gradient evaluations and seconds.

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
        with seldom_collected():
            density = model_density(inputs, p)
        work = Posterior(table, inputs, density, reference_loadings(table, factors), orientation, seed)
        compiled = time.perf_counter()
        how = sampler if sampler != "auto" else choose_sampler(inputs)
        if how == "laplace":
            drawn = _approximated(density, draws, chains, seed, tell)
        else:
            length = Length(draws, max_draws, max_seconds, tune)
            drawn = _sampled(density, inputs, length, chains, cores, seed, work.standing, tell)
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
            *_chosen(sampler, drawn, inputs),
        ),
        extra={
            "identified": found.identified,
            "sampler": drawn.sampler,
            **({} if modes is None else {"modes": modes.to_dict()}),
            **({} if drawn.khat is None else {"khat": drawn.khat}),
            "leapfrog_steps": drawn.leapfrog_steps,
            "gradients": drawn.gradients,
            "stopped": drawn.stopped,
            "draws": int(drawn.points.shape[1]),
            "seconds": time.perf_counter() - began,
            "seconds_compiling": compiled - began,
            "seconds_sampling": drawn.seconds,
            "seconds_checking": drawn.seconds_checking,
        },
    )


def choose_sampler(inputs: ModelInputs) -> Literal["nuts", "laplace"]:
    """Exact sampling where it is affordable."""
    return "nuts" if inputs.cells.observed.sum() <= MOST_CELLS else "laplace"


def _sampled(
    density: Density, inputs: ModelInputs, length: Length, chains: int, cores: int | None, seed: int,
    standing: Callable[[np.ndarray], Standing], tell: Progress,
) -> Sample:  # fmt: skip
    """Exact draws; with the metric of the mode where the posterior is nearly normal."""
    if inputs.cells.observed.sum() > WHITENED_CELLS:
        with suppress(InputError):  # no downward curvature: the metric is learned, as for small tables
            return sample_whitened(
                density, inputs.frame, length, chains=chains, seed=seed, cores=cores, standing=standing,
                progress=tell,
            )  # fmt: skip
    rng, evaluate = np.random.default_rng([seed, 5]), density.evaluator()
    starts = np.stack([start_point(evaluate, density.start, own) for own in rng.spawn(chains)])
    # The edge of the slice, where a chain can get stuck, is nearer to the mirror copy.
    begun = density._replace(starts=Copies(density, inputs.frame).positive(starts))
    return sample(begun, length, chains=chains, cores=cores, seed=seed, standing=standing, progress=tell)


def _approximated(density: Density, draws: int, chains: int, seed: int, tell: Progress) -> Sample:
    found = approximate(density, draws=draws, chains=chains, seed=seed, progress=tell)
    return Sample(
        found.points,
        0,
        0.0,
        found.gradients,
        found.seconds,
        "approximated",
        khat=found.khat,
        sampler="laplace",
    )


def _chosen(asked: Sampler, drawn: Sample, inputs: ModelInputs) -> list[str]:
    """What was chosen by the size of the table."""
    cells = int(inputs.cells.observed.sum())
    if drawn.sampler == "turns":
        return [
            f"sampled exactly in quarter turns, on the curvature of the posterior: {cells} cells are more than "
            f"{WHITENED_CELLS}"
        ]
    if drawn.sampler == "nuts":
        return []
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


def _notes(table: ScoreTable, found: Found) -> list[str]:
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
