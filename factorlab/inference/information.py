"""What each benchmark would tell of an ability of a model, from a posterior; the algebra is in `gain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.inference.candidates import Amount, Candidates, find_candidates
from factorlab.inference.choose import table_cells
from factorlab.inference.gain import State, added_weight, expected, gain, information, measured
from factorlab.inference.solution import FactorSolution
from factorlab.scores import ScoreTable

MOST_DRAWS = 2000
"""Draws that are used, evenly spaced; of more only the interval's third digit would gain."""

CURVE_POINTS = 41


@dataclass(frozen=True)
class NextBenchmarks:
    """What each benchmark would tell of one ability of one model.

    Attributes
    ----------
    ability : str
    model : str or None
        A model of the run, whose scores are known; None for a new one.
    level : float
        Of the equal-tailed intervals ``_lower``, ``_upper``, over the posterior draws of the parameters.
    now : dict
        ``sd, sd_lower, sd_upper`` of the ability before anything more is measured.
    candidates : pandas.DataFrame
        A row a benchmark, best first: ``rank, benchmark, kind`` ("new" or "more instances"), ``n_known``,
        ``n`` (instances to run), ``cost``, ``information`` (nats), ``gain`` (fall of the ability's variance),
        ``sd`` (afterwards), ``per_cost`` (nats per unit of cost; each with ``_lower, _upper``),
        ``prob_best`` (share of the draws in which it has the most per unit of cost, or the most),
        ``enough`` (instances in all at which sampling variance equals unique variance, with bounds),
        ``ceiling`` (information as n grows without end), ``share_of_ceiling``, ``unique_sd`` (psi),
        ``sampling_sd`` (tau, of one instance), ``sampling`` (how it is known).
    sequence : pandas.DataFrame
        A row a step of the greedy design, each given those before: ``step, benchmark, kind, n, cost,
        total_cost, information`` (of the step), ``total_information, sd, sd_lower, sd_upper, prob_best``.
    curves : pandas.DataFrame
        ``benchmark, n, information, lower, upper``.
    cost_unit : str
    by : str
        "cost" or "information": what ranks.
    notes : tuple of str
    """

    ability: str
    model: str | None
    level: float
    now: Mapping[str, float]
    candidates: pd.DataFrame
    sequence: pd.DataFrame
    curves: pd.DataFrame
    cost_unit: str
    by: str
    notes: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """The candidates, with columns ``model`` and ``ability``."""
        out = self.candidates.copy()
        out.insert(0, "ability", self.ability)
        out.insert(0, "model", self.model)
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-able but for NaN (`factorlab.summary.clean`)."""
        return {
            "ability": self.ability,
            "model": self.model,
            "level": self.level,
            "now": dict(self.now),
            "cost_unit": self.cost_unit,
            "by": self.by,
            "candidates": self.candidates.to_dict(orient="records"),
            "sequence": self.sequence.to_dict(orient="records"),
            "notes": list(self.notes),
        }


def next_benchmarks(
    solution: FactorSolution,
    table: ScoreTable,
    ability: str,
    *,
    model: str | None = None,
    instances: Mapping[str, Amount] | Amount = "all",
    cost: Mapping[str, float] | None = None,
    fixed_cost: Mapping[str, float] | float = 0.0,
    by: str = "cost",
    steps: int = 5,
    level: float = 0.94,
) -> NextBenchmarks:
    """Which benchmark tells most of an ability, per unit of cost.

    Parameters
    ----------
    solution : FactorSolution
        A factor model with unique noise: a posterior (or the truth of a simulation).
    table : ScoreTable
        That it was fitted to.
    ability : str
        A factor of the solution, such as "PC2".
    model : str, optional
        A model of the table; a new one, of which nothing was measured, when not given.
    instances : int, "all", "enough" or "best", or a mapping
        How many instances of a benchmark would be run, for all or by benchmark with "*" for the others:
        a number; as many as the benchmark has; as many as make sampling variance equal unique variance (at
        most all); as many as tell most per unit of cost (needs a fixed cost, at most all). Of a benchmark
        that the model has they are further instances.
    cost : mapping, optional
        Benchmark to cost of an instance, "*" for the others; 1 where not given.
    fixed_cost : float or mapping
        Cost of running a benchmark at all.
    by : {"cost", "information"}
        Rank by information per unit of cost, or by information.
    steps : int
        Length of the greedy design.
    level : float

    Returns
    -------
    NextBenchmarks

    Raises
    ------
    InputError
        PCA, which has no noise; an unknown ability, model or benchmark; numbers or costs out of range.
    """
    factor = _factor(solution, ability)
    if not 0 < level < 1:
        raise InputError(f"level {level} is not a probability; give a number between 0 and 1, such as 0.94")
    if by not in ("cost", "information"):
        raise InputError(f"by '{by}' is unknown; give 'cost' or 'information'")
    if steps < 0:
        raise InputError(f"steps is {steps}; give 0 or more")
    state, known = _state(solution, table, factor, model)
    found = find_candidates(
        table, state.noise_var, known, model,
        instances=instances, cost=cost, fixed_cost=fixed_cost,
        information=lambda n, tau2: expected(state, added_weight(state.noise_var, known, tau2, n)),
    )  # fmt: skip
    keep = found.keep
    weight = added_weight(state.noise_var, known, found.tau2, found.n)
    told = information(state, weight)
    candidates = _table(table, state, found, weight, told, keep, by, level)
    return NextBenchmarks(
        ability=ability,
        model=model,
        level=level,
        now=_interval("sd", np.sqrt(state.variance), level),
        candidates=candidates,
        sequence=_greedy(table, state, found, weight, keep, by, steps, level),
        curves=_curves(table, state, found, known, keep, level),
        cost_unit=found.cost_unit,
        by=by,
        notes=(*_notes(solution, table, ability, model, factor), *found.notes),
    )


def _factor(solution: FactorSolution, ability: str) -> int:
    if solution.method == "pca":
        raise InputError(
            "principal components have no noise model, so nothing says what a score would tell; "
            "give a Bayesian solution (factorlab fit --method bayes)"
        )
    if ability not in solution.factors:
        raise InputError(f"'{ability}' is no ability of the run; it has {', '.join(solution.factors)}")
    return solution.factors.index(ability)


def _state(
    solution: FactorSolution, table: ScoreTable, factor: int, model: str | None
) -> tuple[State, np.ndarray]:
    """State of a new or a known model, and the sampling variance of the scores that it has."""
    if solution.benchmarks != table.benchmark_names:
        raise InputError(f"the solution's benchmarks are not those of table '{table.name}'; fit it again")
    keep = np.unique(np.linspace(0, solution.n_draws - 1, min(MOST_DRAWS, solution.n_draws)).astype(int))
    loading, psi, theta = (solution.stacked(name)[keep] for name in ("loading", "noise_sd", "ability"))
    theta = theta[:, np.isfinite(theta).all(axis=(0, 2))]
    centred = theta - theta.mean(axis=1, keepdims=True)
    prior = np.einsum("dmk,dml->dkl", centred, centred) / theta.shape[1]
    direction = loading
    if "pair_sd" in solution.draws:
        member = table_cells(table).member
        delta = solution.stacked("pair_sd")[keep]
        direction = np.concatenate([loading, member * delta[:, None, :]], axis=2)
    n_state, k = direction.shape[2], loading.shape[2]
    precision = np.broadcast_to(np.eye(n_state), (len(keep), n_state, n_state)).copy()
    precision[:, :k, :k] = np.linalg.inv(prior)
    known = np.full(len(table.benchmark_names), np.inf)
    if model is not None:
        if model not in table.model_names:
            raise InputError(
                f"'{model}' is no model of the run; its names are in the table's models, and without --model "
                "a new one is meant"
            )
        standard = table.standardised()
        row = table.model_names.index(model)
        seen = np.isfinite(standard.z[row])
        se = np.nan_to_num(standard.z_se[row])  # an unknown error is part of psi
        known = np.where(seen, se**2, np.inf)
        precision += np.einsum("dj,djs,djt->dst", 1 / (psi**2 + known), direction, direction, optimize=True)
    return State(np.linalg.inv(precision), direction, psi**2, factor), known


def _interval(name: str, draws: np.ndarray, level: float) -> dict[str, float]:
    lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return {name: float(draws.mean()), f"{name}_lower": float(lower), f"{name}_upper": float(upper)}


def _value(told: np.ndarray, found: Candidates, by: str) -> np.ndarray:
    """What ranks, per draw: information, per unit of cost where asked."""
    return told / found.cost if by == "cost" else told


def _table(
    table: ScoreTable, state: State, found: Candidates, weight: np.ndarray, told: np.ndarray,
    keep: np.ndarray, by: str, level: float,
) -> pd.DataFrame:  # fmt: skip
    """The candidates, best first."""
    fall = gain(state, weight)
    after = np.sqrt(state.variance[:, None] - fall)
    top = expected(state, added_weight(state.noise_var, found.known, found.tau2, np.inf))
    value = _value(told, found, by)
    best = np.bincount(keep[np.argmax(value[:, keep], axis=1)], minlength=len(top)) / len(told)
    rows: list[dict[str, Any]] = []
    for j in keep[np.argsort(-value[:, keep].mean(axis=0), kind="stable")]:
        enough = found.tau2[j] / state.noise_var[:, j] if found.tau2[j] > 0 else np.full(len(told), np.nan)
        middle = {"enough": float(np.median(enough))} if found.tau2[j] > 0 else {}
        rows.append(
            {
                "rank": len(rows) + 1,
                "benchmark": table.benchmark_names[j],
                "kind": found.kind[j],
                "n_known": found.n_known[j],
                "n": found.n[j],
                "cost": found.cost[j],
                **_interval("information", told[:, j], level),
                **_interval("gain", fall[:, j], level),
                **_interval("sd", after[:, j], level),
                **_interval("per_cost", told[:, j] / found.cost[j], level),
                "prob_best": best[j],
                **_interval("enough", enough, level),
                **middle,
                "ceiling": top[j],
                "share_of_ceiling": told[:, j].mean() / top[j] if top[j] > 0 else np.nan,
                "unique_sd": float(np.sqrt(state.noise_var[:, j]).mean()),
                "sampling_sd": float(np.sqrt(found.tau2[j])),
                "sampling": found.source[j],
            }
        )
    return pd.DataFrame(rows)


def _greedy(
    table: ScoreTable, state: State, found: Candidates, weight: np.ndarray, keep: np.ndarray, by: str,
    steps: int, level: float,
) -> pd.DataFrame:  # fmt: skip
    """One benchmark after the other, each the best given those before."""
    rows: list[dict[str, Any]] = []
    left, start, spent = list(keep), state.variance, 0.0
    for step in range(min(steps, len(left))):
        told = information(state, weight)
        value = _value(told, found, by)[:, left]
        place = int(np.argmax(value.mean(axis=0)))
        share = float((np.argmax(value, axis=1) == place).mean())
        j = left.pop(place)
        state = measured(state, weight, j)
        spent += found.cost[j]
        rows.append(
            {
                "step": step + 1,
                "benchmark": table.benchmark_names[j],
                "kind": found.kind[j],
                "n": found.n[j],
                "cost": found.cost[j],
                "total_cost": spent,
                "information": float(told[:, j].mean()),
                "total_information": float(0.5 * np.log(start / state.variance).mean()),
                **_interval("sd", np.sqrt(state.variance), level),
                "prob_best": share,
            }
        )
    return pd.DataFrame(rows)


def _curves(
    table: ScoreTable, state: State, found: Candidates, known: np.ndarray, keep: np.ndarray, level: float
) -> pd.DataFrame:
    """Information against instances, of every candidate on one grid of powers of ten."""
    most = float(np.nanmax(np.append(found.size[keep], found.n[keep])))
    grid = np.geomspace(min(10.0, most / 10), most * 2, CURVE_POINTS)
    parts = []
    ends = [(1 - level) / 2, (1 + level) / 2]
    for n in grid:
        told = information(state, added_weight(state.noise_var, known, found.tau2, float(n)))[:, keep]
        lower, upper = np.quantile(told, ends, axis=0)
        names = [table.benchmark_names[j] for j in keep]
        parts.append(
            pd.DataFrame(
                {"benchmark": names, "n": n, "information": told.mean(axis=0), "lower": lower, "upper": upper}
            )
        )
    return pd.concat(parts, ignore_index=True).sort_values(["benchmark", "n"], ignore_index=True)


def _notes(
    solution: FactorSolution, table: ScoreTable, ability: str, model: str | None, factor: int
) -> list[str]:
    notes = []
    identified = solution.extra.get("identified")
    if identified is not None and not identified[factor]:
        notes.append(f"{ability} is not identified in this run: what tells of it may be of another axis.")
    if solution.diagnostics is not None and solution.diagnostics.problems:
        notes.append(f"The posterior did not converge: {solution.diagnostics.problems[0]}.")
    who = "a new model" if model is None else f"'{model}'"
    notes.append(
        f"Before any score {who} is taken for one of the models at hand (ability with standard deviation 1 "
        "over them); its budget and lineage are not used."
    )
    if table.covariance is not None:
        notes.append("Sampling errors of benchmarks that share items are taken as independent here.")
    if model is not None:
        notes.append("Of a benchmark that it has, instances are further ones, not those run already.")
    return notes
