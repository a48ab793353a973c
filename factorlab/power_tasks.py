"""One simulated table of a power study: what an analyst who did not know the truth would have concluded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.stats import t as student

from factorlab.errors import InputError
from factorlab.inference.bayes import fit_bayes
from factorlab.inference.budgets import published_budgets
from factorlab.inference.choose import choose_factors
from factorlab.inference.identify import congruence, match, take_factors
from factorlab.inference.joint_budgets import joint
from factorlab.inference.moments import Cells, moments, usable_cells
from factorlab.inference.priors import Priors
from factorlab.inference.resamples import resampled_table
from factorlab.lineage import build_lineage
from factorlab.scores import ScoreTable
from factorlab.simulation import Simulated, simulate

Interval = Literal["jackknife", "refit", "bootstrap"]

TRIES = 20
"""Times that budgets are drawn again where they go together too closely for the rho's asked for."""


LARGEST_RHAT = 1.05
"""Up to it a posterior counts as converged here: one interval of many need not be exact to the third digit."""


class Told(NamedTuple):
    """Difference of two correlations of one ability, with an interval."""

    first: float
    second: float
    lower: float
    upper: float
    congruence: float
    converged: bool


def draw_table(
    like: ScoreTable | None,
    loading: np.ndarray | None,
    *,
    models: int,
    benchmarks: int,
    instances: int | None,
    token_log_sd: float,
    family_share: float,
    factors: int,
    languages: list[str],
    rho: list[list[Any]],
    seed: int,
) -> Simulated:
    """A simulated table of this size.

    Parameters
    ----------
    like : ScoreTable or None
        Its models are drawn again (without replacement as far as they go, so that its own number is the
        table itself) and a random part of its benchmarks taken, where other numbers are asked for.
    loading : ndarray, (benchmark, factor), or None
        Of `like`.
    instances : int or None
        Of every benchmark; None: those of `like`.
    rho : list of [factor from 0, language, value]
    seed : int
        Others as in `factorlab.simulation.simulate`.

    Raises
    ------
    InputError
        The rho's cannot be had together, in `TRIES` draws of budgets.
    """
    for attempt in range(TRIES):
        own = int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
        table, lam = _resized(like, loading, models, benchmarks, instances, own)
        try:
            return simulate(
                models=models, benchmarks=benchmarks, factors=factors, languages=tuple(languages),
                like=table, loading=lam,
                rho={(int(k), str(language)): float(value) for k, language, value in rho},
                token_log_sd=token_log_sd, family_share=family_share, n_instances=instances or 1000, seed=own,
            )  # fmt: skip
        except InputError as error:
            if "cannot be had together" not in str(error) or attempt == TRIES - 1:
                raise
    raise AssertionError


def _resized(
    like: ScoreTable | None, loading: np.ndarray | None, models: int, benchmarks: int,
    instances: int | None, seed: int,
) -> tuple[ScoreTable | None, np.ndarray | None]:  # fmt: skip
    if like is None or loading is None:
        return like, loading
    rng = np.random.default_rng([seed, 1])
    names = like.benchmark_names
    keep = np.sort(rng.permutation(len(names))[:benchmarks])
    if len(keep) < len(names):
        like = like.select(benchmarks=[names[j] for j in keep])
    n = len(like.model_names)
    counts = np.full(n, models // n)
    counts[rng.permutation(n)[: models % n]] += 1
    if not (counts == 1).all():
        like = resampled_table(like, counts)
    if instances is not None:
        like = replace(like, benchmarks=like.benchmarks.assign(n_instances=instances))
    return like, loading[keep]


def difference_task(
    like: ScoreTable | None,
    loading: np.ndarray | None,
    *,
    factor: int,
    first: str,
    second: str,
    method: str,
    interval: Interval,
    level: float,
    **setting: Any,
) -> dict[str, Any]:
    """Simulate one table and look for rho(factor, first) - rho(factor, second).

    Returns
    -------
    dict
        Fields of `Told`.
    """
    made = draw_table(like, loading, **setting)
    truth = made.truth.stacked("loading")[0]
    if method == "bayes":
        told = bayes_difference(
            made.table, truth, factor, (first, second), level, setting["token_log_sd"], setting["seed"]
        )
    else:
        told = pca_difference(made.table, truth, factor, (first, second), level, interval, setting["seed"])
    return told._asdict()


def factors_task(
    like: ScoreTable | None, loading: np.ndarray | None, *, method: str, **setting: Any
) -> dict[str, Any]:
    """Simulate one table and choose its number of factors."""
    table = draw_table(like, loading, **setting).table
    found = choose_factors(
        table, method="bayes" if method == "bayes" else "pca", seed=setting["seed"], workers=1,
        most=min(6 + setting["factors"], 12),
    )  # fmt: skip
    return {"chosen": found.chosen}


def pca_difference(
    table: ScoreTable, truth: np.ndarray, factor: int, languages: tuple[str, str], level: float,
    interval: Interval = "jackknife", seed: int = 0, resamples: int = 400,
) -> Told:  # fmt: skip
    """Two-step difference of dependent correlations, uncertainty clustered by lineage.

    ``jackknife``: of ``D = atanh r_a - atanh r_b``, leaving out one lineage after the other, with the t quantile
    of g - 1 degrees of freedom, g lineages, ``se^2 = (g - 1) / g sum (D_(-i) - mean)^2`` (Efron & Tibshirani
    1993, chapter 11), on the scale of D; abilities are taken as known, as two steps do. ``refit``: the same with
    the components found again each time, so that their error is in the interval. ``bootstrap``: percentiles of
    ``r_a - r_b`` over lineages drawn again, components found again.

    Parameters
    ----------
    table : ScoreTable
    truth : ndarray, (benchmark, factor)
        True loadings, which name the components by order and signs (one linear assignment).
    factor : int
        From 0.
    languages : (a, b)
    level : float
    interval : {"jackknife", "refit", "bootstrap"}
    seed, resamples : int
        Of the bootstrap.
    """
    cells = usable_cells(table, "complete", "pearson")
    budgets = published_budgets(table)
    x = budgets[list(languages)].to_numpy()
    code = np.unique(build_lineage(table.models).family_of(table.model_names), return_inverse=True)[1]
    groups = int(code.max()) + 1
    whole = np.ones((1, len(code)))
    loading, score = _components(cells, whole, truth)
    r = _correlations(score[:, :, factor], x, whole)[0]
    if interval != "bootstrap":
        weights = (code != np.arange(groups)[:, None]).astype(float)
    else:
        share = np.full(groups, 1 / groups)
        drawn = np.random.default_rng([seed, 2]).multinomial(groups, share, size=resamples)
        weights = drawn[:, code].astype(float)
        weights = weights[(weights > 0).sum(axis=1) > truth.shape[1] + 2]
    if interval != "jackknife":
        score = _components(cells, weights, loading[0])[1]
    again = _correlations(np.broadcast_to(score[:, :, factor], weights.shape), x, weights)
    if interval != "bootstrap":
        z = np.arctanh(again[:, 0]) - np.arctanh(again[:, 1])
        se = np.sqrt((groups - 1) / groups * ((z - z.mean()) ** 2).sum())
        centre = np.arctanh(r[0]) - np.arctanh(r[1])
        half = student.ppf(0.5 + level / 2, groups - 1) * se
        lower, upper = centre - half, centre + half
    else:
        lower, upper = np.quantile(again[:, 0] - again[:, 1], [(1 - level) / 2, (1 + level) / 2])
    near = float(congruence(loading[0], truth)[factor])
    return Told(float(r[0]), float(r[1]), float(lower), float(upper), near, True)


def bayes_difference(
    table: ScoreTable, truth: np.ndarray, factor: int, languages: tuple[str, str], level: float,
    token_log_sd: float, seed: int,
) -> Told:  # fmt: skip
    """Equal-tailed posterior interval of the difference of population rho's, of the joint model.

    The size of the counts' error is known to the model, as a status would tell it.
    """
    priors = Priors(guessed_log_sd=max(token_log_sd, 0.01), official_log_sd=0.01)
    fit = fit_bayes(
        table, truth.shape[1], pairs=False, priors=priors, draws=500, tune=300, chains=2, max_draws=2000,
        cores=1, seed=seed,
    )  # fmt: skip
    loading = fit.loading_mean().to_numpy()
    order, sign = match(loading, truth)
    rho = joint(table, fit, level=level).draws
    assert rho is not None
    of = rho["rho_population"].isel(factor=int(order[factor])) * sign[factor]
    first, second = (of.sel(budget_population=name).values.ravel() for name in languages)
    lower, upper = np.quantile(first - second, [(1 - level) / 2, (1 + level) / 2])
    near = float(congruence(take_factors(loading, order, sign), truth)[factor])
    converged = fit.diagnostics is not None and fit.diagnostics.rhat_max <= LARGEST_RHAT
    return Told(
        float(np.median(first)), float(np.median(second)), float(lower), float(upper), near, converged
    )


def _components(cells: Cells, weights: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loadings and scores of each weighting, (draw, benchmark | model, factor), matched to the reference."""
    k = reference.shape[1]
    parts = moments(cells, weights, "complete", k)
    value, vector = np.linalg.eigh(parts.correlation)
    vector = vector[..., ::-1][..., :k]
    loading = vector * np.sqrt(np.maximum(value[..., ::-1][..., None, :k], 0.0))
    order, sign = match(loading, reference)
    return take_factors(loading, order, sign), take_factors(parts.filled @ vector, order, sign)


def _correlations(score: np.ndarray, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted correlations, (draw, column of x), of scores (draw, model) with x (model, column)."""
    w = weights / weights.sum(axis=1, keepdims=True)
    a = score - (w * score).sum(axis=1, keepdims=True)
    b = x - (w @ x)[:, None, :]
    cov = np.einsum("dm,dm,dmc->dc", w, a, b)
    spread = np.sqrt((w * a**2).sum(axis=1)[:, None] * np.einsum("dm,dmc->dc", w, b**2))
    return np.clip(cov / spread, -1 + 1e-12, 1 - 1e-12)
