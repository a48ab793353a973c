"""How many factors: parallel analysis for PCA, held-out cells for the factor model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from factorlab.batch import run_batch
from factorlab.errors import InputError
from factorlab.inference.inputs import shared_errors
from factorlab.inference.marginal import Cells
from factorlab.inference.mode import fit_mode, predict_cells
from factorlab.inference.priors import Priors
from factorlab.inference.scree import parallel_analysis
from factorlab.inference.watch import Progress
from factorlab.scores import ScoreTable

CountMethod = Literal["pca", "bayes"]

FEW_CELLS = 5000
"""With fewer, starting other processes takes longer than the fits (35 x 19: 2.6 s for all of them)."""


@dataclass(frozen=True)
class FactorCount:
    """A number of factors, and what it rests on.

    Attributes
    ----------
    chosen : int
    method : {"pca", "bayes"}
        "pca": eigenvalues above those of noise (parallel analysis). "bayes": the fewest factors whose
        held-out log predictive density is within one standard error of the best.
    table : pandas.DataFrame
        A row a number of factors: ``factors, eigenvalue, threshold`` (parallel analysis), and for
        "bayes" ``elpd`` (sum of the log predictive densities of the hidden cells, in standardised
        units), ``se``, ``difference`` from the best, ``difference_se`` (both clustered by model),
        ``rmse`` (of hidden cells, standardised units), ``chosen``.
    n_hidden : int
        Hidden cells that were scored; 0 for "pca".
    notes : tuple of str
    """

    chosen: int
    method: CountMethod
    table: pd.DataFrame
    n_hidden: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict(orient="records")
        return {
            "chosen": self.chosen,
            "method": self.method,
            "n_hidden": self.n_hidden,
            "table": [{str(k): _plain(v) for k, v in row.items()} for row in rows],
            "notes": list(self.notes),
        }


def choose_factors(
    table: ScoreTable,
    *,
    most: int = 6,
    seed: int = 0,
    method: CountMethod = "bayes",
    folds: int = 10,
    pairs: bool = True,
    priors: Priors | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> FactorCount:
    """Choose a number of factors.

    Parameters
    ----------
    table : ScoreTable
    most : int
        Largest number that is tried; fewer where the table is small.
    seed : int
        Of the folds and of the random tables.
    method : {"pca", "bayes"}
        Parallel analysis only; or held-out cells, with parallel analysis beside it.
    folds : int
        Every cell is hidden in one fold.
    pairs : bool
        Give every declared group of benchmarks that share items a factor of its own, as
        `factorlab.inference.bayes.fit_bayes` does.
    priors : Priors, optional
    workers, cluster, progress
        Where the fits of "bayes" run, see `factorlab.batch.run_batch`. Not given: in this process where
        the table is small, on all cores where it is not.

    Returns
    -------
    FactorCount

    Raises
    ------
    InputError
        An unknown method, fewer than 2 folds, a table too small, a cluster that cannot be used.

    Notes
    -----
    The held-out criterion is cheap and deterministic: the factor model without budgets at its
    posterior mode (`factorlab.inference.mode`), known standard errors in it, scored by
    ``log Normal(z_ij | mean, variance)`` given the model's cells that were not hidden. The fewest
    factors within one standard error of the best are chosen (Hastie, Tibshirani & Friedman 2009,
    section 7.10), where the standard error is that of the difference, clustered by model. Scores
    are standardised once, with the hidden cells.
    """
    if method not in ("pca", "bayes"):
        raise InputError(f"method '{method}' is unknown; give 'pca' or 'bayes'")
    if folds < 2:
        raise InputError(f"{folds} folds asked; give 2 or more")
    n_models, n_benchmarks = table.scores.shape
    limit = min(most, n_benchmarks - 1, n_models - 2)
    if limit < 1:
        raise InputError(
            f"table '{table.name}' has {n_models} models x {n_benchmarks} benchmarks and at most {most} "
            "factors were asked; choosing their number needs at least 3 models, 2 benchmarks and most=1"
        )
    scree = parallel_analysis(table, seed=seed, missing="em" if np.isnan(table.scores).any() else "complete")
    factors = np.arange(1, limit + 1)
    out = pd.DataFrame(
        {
            "factors": factors,
            "eigenvalue": scree.eigenvalues[:limit],
            "threshold": scree.reference_quantile[:limit],
        }
    )
    notes = list(scree.notes)
    if method == "pca":
        if scree.n_factors > limit:
            notes.append(f"Parallel analysis finds {scree.n_factors} factors; at most {limit} can be chosen.")
        if scree.n_factors < 1:
            notes.append("No eigenvalue is above those of noise: one factor is the least that can be fitted.")
        chosen = int(np.clip(scree.n_factors, 1, limit))
        return FactorCount(chosen, method, out.assign(chosen=out["factors"] == chosen), 0, tuple(notes))
    cells = table_cells(table, pairs)
    density, error, converged = held_out(
        cells, [int(k) for k in factors], folds, seed, priors,
        workers=workers, cluster=cluster, progress=progress,
    )  # fmt: skip
    score = score_counts(density)
    if not converged:
        notes.append("The search for a posterior mode stopped at its limit of steps in some folds.")
    if score.chosen == limit == most:
        notes.append(f"The most factors that were tried, {most}, were chosen: try more.")
    out = out.assign(
        elpd=score.elpd,
        se=score.se,
        difference=score.difference,
        difference_se=score.difference_se,
        rmse=np.sqrt(np.nanmean(error**2, axis=(1, 2))),
        chosen=factors == score.chosen,
    )
    return FactorCount(score.chosen, method, out, int(np.isfinite(density[0]).sum()), tuple(notes))


def table_cells(table: ScoreTable, pairs: bool = True) -> Cells:
    """Observed cells of a table with its declared groups of benchmarks that share items."""
    standard = table.standardised()
    observed = np.isfinite(standard.z)
    declared = table.benchmarks["shared_items_group"]
    groups = [g for g in dict.fromkeys(declared.dropna()) if (declared == g).sum() > 1] if pairs else []
    member = np.array([[float(value == g) for g in groups] for value in declared])
    member = member.reshape(len(declared), len(groups))
    variance = np.where(observed & np.isfinite(standard.z_se), standard.z_se, 0.0) ** 2
    shared = shared_errors(table, standard, variance, member)
    return Cells(
        z=np.where(observed, standard.z, 0.0),
        variance=variance - shared @ member.T * observed,
        observed=observed.astype(float),
        member=member,
        shared=shared,
    )


def held_out(
    cells: Cells,
    factors: list[int],
    folds: int,
    seed: int,
    priors: Priors | None = None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Log predictive density and error of every observed cell while it is hidden.

    Parameters
    ----------
    cells : Cells
    factors : list of int
        Numbers of factors to try.
    folds : int
    seed : int
    priors : Priors, optional
    workers, cluster, progress
        As in `choose_factors`; each fold and number of factors is one fit.

    Returns
    -------
    density, error : ndarray, (count, model, benchmark)
        NaN where there is no score.
    converged : bool

    Raises
    ------
    InputError
        A fit failed.
    """
    fold = assign_folds(cells.observed > 0, folds, seed)
    tasks = {
        f"{k} factors, fold {number + 1}": {"k": k, "number": number}
        for number in range(folds)
        if (fold == number).any()
        for k in factors
    }
    if workers is None and cluster is None and cells.observed.sum() < FEW_CELLS:
        workers = 1
    batch = run_batch(
        predict_fold,
        tasks,
        shared=(cells, fold, priors),
        workers=workers,
        cluster=cluster,
        stage="number of factors by held-out cells",
        progress=progress,
    )
    for name, text in batch.failures.items():
        raise InputError(f"the fit with {name} failed: {text}")
    density = np.full((len(factors), *cells.z.shape), np.nan)
    error = np.full_like(density, np.nan)
    converged = True
    for name, (mean, variance, settled) in batch.results.items():
        hidden = fold == tasks[name]["number"]
        place = factors.index(tasks[name]["k"])
        density[place][hidden] = norm.logpdf(cells.z[hidden], mean, np.sqrt(variance))
        error[place][hidden] = cells.z[hidden] - mean
        converged &= settled
    return density, error, converged


def predict_fold(
    cells: Cells, fold: np.ndarray, priors: Priors | None, k: int, number: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Mean and variance (hidden cell,) of one fold's cells given the others; whether the mode settled."""
    hidden = fold == number
    seen = hide(cells, hidden)
    mode = fit_mode(seen, k, priors)
    mean, variance = predict_cells(seen, mode, cells.variance)
    return mean[hidden], variance[hidden], mode.converged


def assign_folds(observed: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every observed cell, -1 elsewhere: each model's cells are dealt out evenly."""
    rng = np.random.default_rng(seed)
    out = np.full(observed.shape, -1)
    for i, row in enumerate(observed):
        cells = rng.permutation(np.flatnonzero(row))
        out[i, cells] = (np.arange(len(cells)) + rng.integers(folds)) % folds
    return out


def hide(cells: Cells, hidden: np.ndarray) -> Cells:
    """The same cells with some of them hidden."""
    return cells._replace(
        z=np.where(hidden, 0.0, cells.z),
        variance=np.where(hidden, 0.0, cells.variance),
        observed=np.where(hidden, 0.0, cells.observed),
    )


class CountScore(NamedTuple):
    """Held-out score of each number of factors, (count,), and the number that is chosen."""

    elpd: np.ndarray
    se: np.ndarray
    difference: np.ndarray
    difference_se: np.ndarray
    chosen: int


def score_counts(density: np.ndarray) -> CountScore:
    """Sum densities by model, and apply the rule of one standard error.

    Parameters
    ----------
    density : ndarray, (count, model, benchmark)
        Of 1, 2, ... factors.
    """
    by_model = np.nansum(density, axis=2)
    elpd = by_model.sum(axis=1)
    best = int(np.argmax(elpd))
    apart = by_model - by_model[best]
    n_models = by_model.shape[1]
    spread = np.sqrt(n_models) * apart.std(axis=1, ddof=1)
    difference = apart.sum(axis=1)
    chosen = 1 + int(np.argmax(difference >= -spread))
    return CountScore(elpd, np.sqrt(n_models) * by_model.std(axis=1, ddof=1), difference, spread, chosen)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
