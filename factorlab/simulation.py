"""Simulation: known parameters in, a score table and its truth out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from factorlab.errors import InputError
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.lineage import published_log10_budget
from factorlab.scores import ScoreTable, table_from_frames


class Simulated(NamedTuple):
    """A table and what it was made from.

    Attributes
    ----------
    table : ScoreTable
    truth : FactorSolution
        ``kind`` "truth", one draw: ability is exact, its covariance over the models that of a sample.
    budget : pandas.DataFrame
        True log10(N D_l), (model, language); the table's counts carry ``token_log_sd`` of error.
    """

    table: ScoreTable
    truth: FactorSolution
    budget: pd.DataFrame


def simulate(
    *,
    models: int = 35,
    benchmarks: int = 19,
    factors: int = 3,
    languages: tuple[str, ...] = ("en", "ja"),
    like: ScoreTable | None = None,
    loading: np.ndarray | None = None,
    rho: Mapping[tuple[int, str], float] | None = None,
    token_log_sd: float = 0.0,
    family_share: float = 0.0,
    missing: float = 0.0,
    n_instances: int = 1000,
    seed: int = 0,
) -> Simulated:
    """Simulate a score table from the measurement and budget model.

        z_ij = lambda_j' theta_i + psi_j e_ij,            psi_j^2 = 1 - |lambda_j|^2, at least 0.05
        theta_ik = b_k' x_i + sqrt(1 - b_k' R b_k) u_ik,   x_il = standardised log10(N_i D_il)
        R b_k = rho_k,                                     R the correlations of x (one language: b = rho)
        y_ij ~ Binomial(n_j, location_j + scale_j z_ij) / n_j

    Parameters
    ----------
    models, benchmarks, factors : int
        Size, where neither `like` nor `loading` gives it.
    languages : tuple of str
        Languages with a budget; the first half of the benchmarks belongs to the last of them.
    like : ScoreTable, optional
        Take names, sizes, token counts, means, spreads and numbers of instances from this table.
        Counts it does not publish are drawn like the published ones; its lineage is not kept, its
        families are when ``family_share`` is positive (else every model is a family of its own).
    loading : ndarray, (benchmark, factor), optional
        Rows longer than 1 are shortened to communality 0.95.
    rho : mapping, optional
        (factor index from 0, language) to the population correlation of ability and log budget,
        given these budgets; those of one factor are met together. Default: factor 0 with the first
        language 0.9, factor 1 with the last 0.8.
    token_log_sd : float
        Standard deviation of the natural log of published over true token counts; members of a
        family share their error, as the model assumes of guessed shares.
    family_share : float
        Share of the variance of u that members of a family have in common.
    missing : float
        Share of cells taken out at random.
    n_instances : int
        Per benchmark, where `like` does not say.
    seed : int

    Returns
    -------
    Simulated

    Raises
    ------
    InputError
        When an option is out of range.
    """
    _check_size(models, benchmarks, factors, n_instances, seed)
    rng = np.random.default_rng(seed)
    _check(missing, token_log_sd, family_share, rho, like.languages if like is not None else languages)
    model_rows = _models_like(like, rng) if like is not None else _models(models, languages, rng)
    if family_share == 0:
        model_rows["family"] = [str(name) for name in model_rows.index]
    names = [c.removeprefix("tokens_b_") for c in map(str, model_rows) if c.startswith("tokens_b_")]
    bench_rows = (
        _benchmarks_like(like, n_instances)
        if like is not None
        else _benchmarks(benchmarks, names, n_instances, rng)
    )
    lam = _loadings(len(bench_rows), factors, rng) if loading is None else np.asarray(loading, dtype=float)
    if lam.shape[0] != len(bench_rows):
        raise InputError(
            f"loading has {lam.shape[0]} rows for {len(bench_rows)} benchmarks; give one row each"
        )
    norm = np.linalg.norm(lam, axis=1, keepdims=True)
    lam = np.where(norm**2 > 0.95, lam / np.maximum(norm, 1e-12) * np.sqrt(0.95), lam)
    budget = pd.DataFrame({l: published_log10_budget(model_rows, l) for l in names})
    goal = dict(rho) if rho is not None else _default_rho(names, lam.shape[1])
    ability = _ability(budget, lam.shape[1], goal, model_rows["family"], family_share, rng)
    noise = np.sqrt(np.maximum(1 - (lam**2).sum(axis=1), 0.05))
    z = ability @ lam.T + noise * rng.standard_normal((len(model_rows), len(bench_rows)))
    scores = _observe(z, bench_rows, missing, rng)
    declared = bench_rows.drop(columns=["location", "scale"])
    table = table_from_frames(
        pd.DataFrame(scores, index=model_rows.index, columns=bench_rows.index)
        .rename_axis("model")
        .reset_index(),
        models=_published(model_rows, names, token_log_sd, rng).rename_axis("model").reset_index(),
        benchmarks=declared.rename_axis("benchmark").reset_index(),
        name="simulated",
    )
    truth = _truth(lam, ability, noise, model_rows, bench_rows, goal, seed)
    return Simulated(table, truth, budget)


def _check_size(models: int, benchmarks: int, factors: int, n_instances: int, seed: int) -> None:
    least = {"models": 3, "benchmarks": 2, "factors": 1, "n_instances": 1, "seed": 0}
    given = (models, benchmarks, factors, n_instances, seed)
    for (name, low), value in zip(least.items(), given, strict=True):
        if value < low:
            raise InputError(f"{name} is {value}; give {low} or more")


def _check(
    missing: float,
    token_log_sd: float,
    family_share: float,
    rho: Mapping[tuple[int, str], float] | None,
    languages: tuple[str, ...] | list[str],
) -> None:
    for name, value, top in (("missing", missing, 0.95), ("family_share", family_share, 1.0)):
        if not 0 <= value <= top:
            raise InputError(f"{name} is {value}; give a share between 0 and {top}")
    if token_log_sd < 0:
        raise InputError(f"token_log_sd is {token_log_sd}; give 0 or more")
    for (factor, language), value in (rho or {}).items():
        if language not in languages:
            raise InputError(f"rho names language '{language}'; the languages are {', '.join(languages)}")
        if not -1 < value < 1:
            raise InputError(
                f"rho of PC{factor + 1} and '{language}' is {value}; give a number between -1 and 1"
            )


def _default_rho(languages: list[str], factors: int) -> dict[tuple[int, str], float]:
    out = {(0, languages[0]): 0.9} if languages else {}
    if len(languages) > 1 and factors > 1:
        out[1, languages[-1]] = 0.8
    return out


def _models(n: int, languages: tuple[str, ...], rng: np.random.Generator) -> pd.DataFrame:
    """Sizes from 1 to 70 B, counts spread over two factors of ten."""
    rows = pd.DataFrame(index=[f"model {i + 1:03d}" for i in range(n)])
    rows["family"] = [f"family {1 + i // 3}" for i in range(n)]
    rows["params_b"] = np.round(10 ** rng.uniform(0, 1.85, n), 3)
    for i, language in enumerate(languages):
        rows[f"tokens_b_{language}"] = np.round(10 ** rng.uniform(2 - i, 4 - i, n), 3)
    return rows


def _models_like(like: ScoreTable, rng: np.random.Generator) -> pd.DataFrame:
    source = like.scored_models
    rows = pd.DataFrame(index=source.index)
    rows["family"] = source["family"].fillna(pd.Series(source.index, index=source.index))
    for column in ["params_b", *[f"tokens_b_{l}" for l in like.languages]]:
        values = source[column].to_numpy(dtype=float)
        known = np.log10(values[values > 0])
        filled = 10 ** rng.normal(known.mean(), known.std(), len(values))
        rows[column] = np.where(values > 0, values, filled)
    return rows


def _benchmarks(n: int, languages: list[str], n_instances: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = pd.DataFrame(index=[f"benchmark {j + 1:02d}" for j in range(n)])
    rows["language"] = [languages[-1] if j < n / 2 else languages[0] for j in range(n)] if languages else None
    rows["min"], rows["max"], rows["n_instances"] = 0.0, 1.0, n_instances
    rows["location"] = rng.uniform(0.35, 0.65, n)
    rows["scale"] = rng.uniform(0.08, 0.15, n)
    return rows


def _benchmarks_like(like: ScoreTable, n_instances: int) -> pd.DataFrame:
    rows = like.benchmarks[["language", "n_instances"]].copy()
    rows["n_instances"] = rows["n_instances"].astype(float).fillna(n_instances)
    rows["min"], rows["max"] = 0.0, 1.0
    standard = like.standardised()
    rows["scale"] = np.minimum(standard.scale, 0.16)
    rows["location"] = np.clip(standard.location, 3 * rows["scale"], 1 - 3 * rows["scale"])
    return rows


def _loadings(n: int, factors: int, rng: np.random.Generator) -> np.ndarray:
    """A general factor, then factors of falling size that are orthogonal to it on average."""
    lam = rng.normal(0, 1, (n, factors)) * 0.75 * 0.6 ** np.arange(factors)
    lam[:, 0] = rng.uniform(0.6, 0.9, n)
    if factors > 1:
        lam[: n // 3, 1] = rng.uniform(0.5, 0.7, n // 3)
    return lam


def _ability(
    budget: pd.DataFrame,
    factors: int,
    rho: Mapping[tuple[int, str], float],
    family: pd.Series,
    family_share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    codes, names = pd.factorize(family)
    own = rng.standard_normal((len(family), factors))
    shared = rng.standard_normal((len(names), factors))[codes]
    out = np.sqrt(1 - family_share) * own + np.sqrt(family_share) * shared
    for factor in sorted({factor for factor, _ in rho}):
        if not 0 <= factor < factors:
            raise InputError(f"rho names factor {factor + 1} of {factors}; factors are counted from PC1")
        goal = {language: value for (k, language), value in rho.items() if k == factor}
        x = budget[list(goal)].to_numpy()
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        among, r = x.T @ x / len(x), np.array(list(goal.values()))
        slope = np.linalg.lstsq(among, r, rcond=None)[0]
        explained = float(r @ slope)
        if explained >= 1 or not np.allclose(among @ slope, r, atol=1e-9):
            told = ", ".join(f"{language} {value:g}" for language, value in goal.items())
            raise InputError(
                f"rho of PC{factor + 1} ({told}) cannot be had together: the log budgets correlate by "
                f"{among[0, -1]:.2f}; give values that are nearer to each other, or smaller"
            )
        out[:, factor] = x @ slope + np.sqrt(1 - explained) * out[:, factor]
    return out


def _observe(z: np.ndarray, rows: pd.DataFrame, missing: float, rng: np.random.Generator) -> np.ndarray:
    p = np.clip(rows["location"].to_numpy() + rows["scale"].to_numpy() * z, 0.005, 0.995)
    n = rows["n_instances"].to_numpy(dtype=int)
    scores = rng.binomial(n, p) / n
    return np.where(rng.random(z.shape) < missing, np.nan, scores)


def _published(
    rows: pd.DataFrame, languages: list[str], token_log_sd: float, rng: np.random.Generator
) -> pd.DataFrame:
    out = rows.copy()
    codes, families = pd.factorize(rows["family"])
    for language in languages:
        error = np.exp(token_log_sd * rng.standard_normal(len(families)))[codes]
        out[f"tokens_b_{language}"] = rows[f"tokens_b_{language}"] * error
        out[f"tokens_b_{language}_status"] = "guessed" if token_log_sd > 0 else "official"
    return out


def _truth(
    lam: np.ndarray,
    ability: np.ndarray,
    noise: np.ndarray,
    models: pd.DataFrame,
    benchmarks: pd.DataFrame,
    rho: Mapping[tuple[int, str], float],
    seed: int,
) -> FactorSolution:
    draws = label_draws(
        lam[None, None],
        ability[None, None],
        noise[None, None],
        np.zeros((1, 1, len(benchmarks))),
        [str(m) for m in models.index],
        [str(b) for b in benchmarks.index],
    )
    constants = xr.Dataset(
        {
            "location": ("benchmark", benchmarks["location"].to_numpy()),
            "scale": ("benchmark", benchmarks["scale"].to_numpy()),
        },
        coords={"benchmark": draws["benchmark"]},
    )
    named = {f"PC{factor + 1}~{language}": value for (factor, language), value in rho.items()}
    return FactorSolution(
        draws, constants, "truth", "truth", "none", provenance={"seed": seed}, extra={"rho": named}
    )
