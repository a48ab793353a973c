"""Refits: one method fitted again to each resample of a table, beside the fit to the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from factorlab import __version__
from factorlab.batch import run_batch
from factorlab.errors import InputError
from factorlab.inference.joint_budgets import fit_budgets
from factorlab.inference.ml import fit_ml
from factorlab.inference.moments import usable_cells
from factorlab.inference.pca import constants, fit_pca
from factorlab.inference.projection import project
from factorlab.inference.provenance import describe
from factorlab.inference.resamples import Resamples, Scheme, draw_resamples, resampled_table
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.inference.watch import Progress
from factorlab.options import FitOptions
from factorlab.refit_tables import Aligned, align, headline_table, summary_table
from factorlab.scores import ScoreTable

WHOLE = "whole table"
"""Name of the fit that the others are compared with."""

FORMS = ("at_hand", "population", "difference")
"""Forms of rho that are followed from refit to refit, where the method has them."""

DEFAULT_FITS = {"bootstrap": 200, "kfold": 10}

_SHAPES = {
    "pca": ("factors", "missing", "level"),
    "ml": ("factors", "missing", "level", "rotation", "convention"),
}
# Of a posterior all options count but these.
NOT_OF_BAYES = ("method", "missing", "rotation", "convention", "resamples", "cores", "workers", "cluster")


@dataclass(frozen=True)
class Refits:
    """How far a solution moves when models are left out or drawn again.

    Attributes
    ----------
    table : ScoreTable
    scheme : str
    options : FitOptions
    summary : pandas.DataFrame
        A row a resample and factor: ``unit`` (its name), ``left_out`` (models, joined by "; "; empty
        for a bootstrap), ``n_models`` (different models in it), ``factor`` (of the whole table's fit),
        ``refit_factor`` (the refit's own name for it), ``congruence`` (Tucker's, of the loadings with
        those of the whole table), ``converged`` (None where nothing was sampled), then ``share`` (of
        the variance of the scores, mean squared loading; not of oblique factors) and ``rho_<budget>``,
        ``rho_population_<budget>``, ``rho_difference_<a - b>``, each with ``_change`` from the whole
        table.
    headlines : pandas.DataFrame
        A row a number of the whole table: ``headline, factor, budget, form, whole, lower, upper, level``
        (its own interval, NaN where it has none), ``refits`` (how many have it), ``mean, sd, lowest,
        highest`` over refits, ``se`` (jackknife, or sd of the bootstrap), ``largest_change`` and
        ``moved_most_by`` (the refit).
    solution : FactorSolution
        ``kind="resample"``, a draw a refit, factors in the order and with the signs of the whole table's;
        of a posterior the means over its draws. ``extra`` has ``scheme``, ``units``, ``left_out``,
        ``left_out_lineage``.
    whole_converged : bool or None
        Whether the whole table's posterior converged; None where nothing was sampled.
    failures : dict of str to str
        Refits that could not be had, with the reason.
    reused : int
        Fits that were kept by an earlier call.
    notes : tuple of str
    """

    table: ScoreTable
    scheme: Scheme
    options: FitOptions
    summary: pd.DataFrame
    headlines: pd.DataFrame
    solution: FactorSolution
    whole_converged: bool | None
    failures: Mapping[str, str]
    reused: int
    notes: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What failed or did not converge, in sentences."""
        failed = [f"refit {name}: {text}" for name, text in self.failures.items()]
        whole = ["the fit to the whole table did not converge"] if self.whole_converged is False else []
        apart = self.summary.drop_duplicates("unit")
        loose = [str(unit) for unit in apart["unit"][apart["converged"].eq(False)]]
        few = ", ".join(loose[:5]) + (f" and {len(loose) - 5} more" if len(loose) > 5 else "")
        return (*whole, *failed, *([f"{len(loose)} refits did not converge: {few}"] if loose else []))


def refit(
    table: ScoreTable,
    scheme: Scheme,
    options: FitOptions,
    *,
    fits: int | None = None,
    folder: str | None = None,
    progress: Progress | None = None,
) -> Refits:
    """Fit one method to every resample of a table.

    Parameters
    ----------
    table : ScoreTable
    scheme : {"leave-one-model-out", "leave-one-lineage-out", "bootstrap", "kfold"}
        See `factorlab.inference.resamples.draw_resamples`.
    options : FitOptions
        ``method`` one of "pca", "ml" and "bayes", ``factors`` a number; ``workers`` and ``cluster`` say
        where the fits run.
    fits : int, optional
        Bootstrap samples (200) or folds (10).
    folder : path, optional
        Keeps finished fits, and nothing else (`factorlab.batch.run_batch`).
    progress : callable, optional

    Returns
    -------
    Refits

    Raises
    ------
    InputError
        Several methods, no number of factors, `fits` with a scheme that counts its own; the whole table
        cannot be fitted, or no refit can.
    """
    _check(scheme, options, fits)
    count = fits if fits is not None else DEFAULT_FITS.get(scheme, 0)
    used = np.ones(len(table.model_names), dtype=bool)
    if options.method != "bayes":
        used = usable_cells(table, options.missing, "pearson").used
    resamples = draw_resamples(table, used, scheme, count, options.seed)
    seeds = np.random.SeedSequence(options.seed).generate_state(len(resamples.names) + 1)
    tasks = {
        name: {
            "changed": [[int(i), int(counts[i])] for i in np.flatnonzero(counts != used)],
            **({"seed": int(seed >> 1)} if options.method == "bayes" else {}),
        }
        for name, counts, seed in zip(
            [WHOLE, *resamples.names], [used.astype(int), *resamples.counts], seeds, strict=True
        )
    }
    batch = run_batch(
        refit_one,
        tasks,
        shared=(table, options, used),
        settings=_settings(table, options),
        workers=options.workers,
        cluster=options.cluster,
        folder=folder,
        tidy=True,
        stage=f"{options.method} fits",
        progress=progress,
    )
    if WHOLE in batch.failures:
        raise InputError(f"the whole table cannot be fitted: {batch.failures[WHOLE]}")
    if len(batch.results) == 1:
        name, text = next(iter(batch.failures.items()))
        raise InputError(f"no refit ended; {name}: {text}")
    return _collect(table, scheme, options, resamples, batch.results, batch)


def refit_one(
    table: ScoreTable, options: FitOptions, used: np.ndarray, changed: list[list[int]], seed: int = 0
) -> dict[str, Any]:
    """Fit one resample: what the summary needs of it, on its own axes.

    Parameters
    ----------
    table : ScoreTable
        The whole.
    options : FitOptions
    used : ndarray of bool, (model,)
    changed : list of (index of a model, how often it enters)
        All other used models enter once.
    seed : int
        Of a posterior.

    Returns
    -------
    dict
        ``loading`` (benchmark, factor), ``ability`` (model, factor; of all models of the table),
        ``noise_sd, mean, location, scale`` (benchmark), ``rho`` (list of rows), ``n_models``,
        ``orthogonal``, ``converged``, ``notes``.
    """
    counts = used.astype(int)
    for i, times in changed:
        counts[i] = times
    resample = resampled_table(table, counts)
    solution = fit_method(resample, options, seed)
    ability = project(table, solution, counts)
    ability[~used] = np.nan
    rho, notes = _rho(resample, solution, options.level)
    converged = None
    if solution.diagnostics is not None:
        converged = not solution.diagnostics.problems
    return {
        **{name: solution.stacked(name).mean(axis=0) for name in ("loading", "noise_sd", "mean")},
        "ability": ability,
        **{name: np.asarray(solution.constants[name].values) for name in ("location", "scale")},
        "rho": rho,
        "n_models": int((counts > 0).sum()),
        "orthogonal": solution.orientation != "promax",
        "converged": converged,
        "notes": [*solution.notes, *notes],
    }


def _check(scheme: Scheme, options: FitOptions, fits: int | None) -> None:
    if options.method == "all":
        raise InputError("refits are of one method; give --method pca, ml or bayes")
    if options.factors == "auto":
        raise InputError("refits need a number of factors; give --factors 1, 2, ...")
    if fits is not None and scheme not in DEFAULT_FITS:
        raise InputError(
            f"--fits counts bootstrap samples or folds; {scheme} has a fit for each it leaves out"
        )
    if fits is not None and fits < 2:
        raise InputError(f"fits is {fits}; give 2 or more")


def _settings(table: ScoreTable, options: FitOptions) -> dict[str, Any]:
    """What shapes a fit beside the resample."""
    chosen = asdict(options)
    if options.method == "bayes":
        chosen = {name: value for name, value in chosen.items() if name not in NOT_OF_BAYES}
    else:
        chosen = {name: chosen[name] for name in _SHAPES[options.method]}
    return {"table": table.digest(), "method": options.method, "options": chosen, "factorlab": __version__}


def fit_method(table: ScoreTable, options: FitOptions, seed: int) -> FactorSolution:
    factors = int(options.factors)
    if options.method == "pca":
        return fit_pca(table, factors, missing=options.missing)
    if options.method == "ml":
        return fit_ml(
            table, factors, rotation=options.rotation, convention=options.convention, missing=options.missing
        )
    from factorlab.inference.bayes import fit_bayes

    return fit_bayes(
        table,
        factors,
        budget=options.budget,
        pairs=options.pairs,
        orientation=options.orientation,
        priors=options.priors,
        draws=options.draws,
        tune=options.tune,
        chains=options.chains,
        max_draws=options.max_draws,
        max_seconds=options.max_seconds,
        sampler=options.sampler,
        chain_weights=options.chain_weights,
        cores=1,
        seed=seed,
    )


def _rho(table: ScoreTable, solution: FactorSolution, level: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Correlations of abilities with budgets as plain rows; why there are none."""
    if not table.languages and "tokens_b_total" not in table.models:
        return [], []
    try:
        found = fit_budgets(table, solution, level=level).table
    except InputError as error:
        return [], [str(error)]
    rows = found[found["form"].isin(FORMS)].to_dict("records")
    return [
        {
            "factor": solution.factors.index(row["factor"]),
            **{name: row[name] for name in ("budget", "form")},
            **{name: row[name] if np.isfinite(row[name]) else None for name in ("median", "lower", "upper")},
        }
        for row in rows
    ], []


def _collect(
    table: ScoreTable,
    scheme: Scheme,
    options: FitOptions,
    resamples: Resamples,
    results: Mapping[str, Any],
    batch: Any,
) -> Refits:
    """All results on common axes, as tables and as labelled draws."""
    whole = results[WHOLE]
    used = np.isfinite(whole["ability"]).all(axis=1)
    base = align(whole, whole["loading"], used)
    names = [name for name in resamples.names if name in results]
    aligned = {name: align(results[name], base.loading, used) for name in names}
    labels = [f"{'F' if options.method == 'ml' else 'PC'}{k + 1}" for k in range(base.loading.shape[1])]
    counts = dict(zip(resamples.names, resamples.counts, strict=True))
    left_out = {
        name: [m for m, n, u in zip(table.model_names, counts[name], used, strict=True) if u and not n]
        for name in names
    }
    lineages = dict(zip(resamples.names, resamples.lineages, strict=True))
    return Refits(
        table=table,
        scheme=scheme,
        options=options,
        summary=summary_table(scheme, labels, base, aligned, results, left_out),
        headlines=headline_table(scheme, labels, base, aligned, options.level),
        solution=_solution(
            table, scheme, options, labels, base, whole, aligned, results,
            {
                "scheme": scheme,
                "units": names,
                "left_out": [left_out[name] for name in names],
                "left_out_lineage": [lineages[name] for name in names],
            },
        ),
        whole_converged=whole["converged"],
        failures=batch.failures,
        reused=batch.reused,
        notes=tuple(dict.fromkeys([*batch.notes, *whole["notes"], *_notes(scheme, names, batch.failures)])),
    )  # fmt: skip


def _notes(scheme: Scheme, names: list[str], failures: Mapping[str, str]) -> list[str]:
    notes = []
    if failures:
        notes.append(f"{len(failures)} of {len(names) + len(failures)} refits are missing from all numbers.")
    if scheme == "leave-one-lineage-out":
        notes.append("Lineages differ in size: the jackknife error counts each once.")
    return notes


def _solution(
    table: ScoreTable,
    scheme: Scheme,
    options: FitOptions,
    labels: list[str],
    base: Aligned,
    whole: Mapping[str, Any],
    aligned: Mapping[str, Aligned],
    results: Mapping[str, Any],
    extra: dict[str, Any],
) -> FactorSolution:
    fits = list(aligned.values())
    draws = label_draws(
        np.stack([fit.loading for fit in fits])[None],
        np.stack([fit.ability for fit in fits])[None],
        np.stack([results[name]["noise_sd"] for name in aligned])[None],
        np.stack([results[name]["mean"] for name in aligned])[None],
        table.model_names,
        table.benchmark_names,
        labels,
    )
    fixed = constants(table, whole["location"], whole["scale"]).assign(
        reference_loading=(("benchmark", "factor"), base.loading)
    )
    settings = {**_settings(table, options)["options"], "scheme": scheme, "method": options.method}
    return FactorSolution(
        draws=draws,
        constants=fixed.assign_coords(factor=draws["factor"]),
        method=options.method,
        kind="resample",
        provenance=describe(table, options.seed, settings),
        extra=extra,
    )
