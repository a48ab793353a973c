"""Candidates of a measurement: benchmarks with the instances that would be run, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.metadata import listed
from factorlab.scores import ScoreTable

Amount = int | Literal["all", "enough", "best"]

NEW, MORE = "new", "more instances"

WORDS = ("all", "enough", "best")

GRID = 60
"""Numbers of instances that are tried where the best is searched for."""


class Candidates(NamedTuple):
    """Benchmarks that could be measured, (benchmark,) each.

    Attributes
    ----------
    keep : ndarray of int
        Which of them are candidates.
    n : ndarray
        Instances to run.
    n_known : ndarray
        Instances that the model has already, NaN where unknown.
    size : ndarray
        Instances that the benchmark has.
    tau2 : ndarray
        Sampling variance of one instance, standardised; 0 where unknown.
    known : ndarray
        Sampling variance of the score that the model has; infinite where it has none.
    cost : ndarray
    kind, source : list of str
        New or more instances; how tau2 is known.
    cost_unit : str
    notes : list of str
    """

    keep: np.ndarray
    n: np.ndarray
    n_known: np.ndarray
    size: np.ndarray
    tau2: np.ndarray
    known: np.ndarray
    cost: np.ndarray
    kind: list[str]
    source: list[str]
    cost_unit: str
    notes: list[str]


class Sampling(NamedTuple):
    """Sampling variance of one instance and the usual number of them, (benchmark,).

    Where the number is unknown the whole benchmark is taken for one instance: ``size`` is 1 and ``sized`` False.
    """

    tau2: np.ndarray
    size: np.ndarray
    sized: np.ndarray
    source: list[str]


def sampling(table: ScoreTable) -> Sampling:
    """tau_j^2 = mean over models of s_ij^2 n_ij, on the standardised scale.

    With given standard errors this is the mean variance of an instance's score within models; with binomial
    ones the mean of p (1 - p).
    """
    standard = table.standardised()
    n = np.where(np.isfinite(standard.z), table.data["n_instances"].values, np.nan)
    kinds = table.data["se_kind"].values
    tau2, size, sized, source = [], [], [], []
    for j, _ in enumerate(table.benchmark_names):
        counted = n[:, j][n[:, j] > 0]
        known = np.isfinite(standard.z_se[:, j]) & np.isfinite(standard.z[:, j])
        both = known & (n[:, j] > 0)
        has_size = bool(len(counted)) and bool(both.any() or not known.any())
        used = both if has_size else known
        each = standard.z_se[used, j] ** 2 * (n[used, j] if has_size else 1.0)
        tau2.append(float(each.mean()) if used.any() else 0.0)
        size.append(float(np.median(counted)) if has_size else 1.0)
        sized.append(has_size)
        source.append(str(pd.Series(kinds[used, j]).mode().iloc[0]) if used.any() else "unknown")
    return Sampling(np.array(tau2), np.array(size), np.array(sized), source)


def find_candidates(
    table: ScoreTable,
    noise_var: np.ndarray,
    known: np.ndarray,
    model: str | None,
    *,
    instances: Mapping[str, Amount] | Amount,
    cost: Mapping[str, float] | None,
    fixed_cost: Mapping[str, float] | float,
    information: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Candidates:
    """Benchmarks with the instances that would be run.

    Parameters
    ----------
    table : ScoreTable
    noise_var : ndarray, (draw, benchmark)
    known : ndarray, (benchmark,)
        Sampling variance of the scores that the model has; infinite where none.
    model : str or None
    instances, cost, fixed_cost
        As in `factorlab.inference.information.next_benchmarks`.
    information : callable
        (n, tau2) to expected information, (benchmark,) each.

    Raises
    ------
    InputError
        An unknown benchmark; numbers or costs out of range; "best" without a fixed cost; none is left.
    """
    names = table.benchmark_names
    about = sampling(table)
    each = _by_benchmark(names, cost if cost is not None else {}, 1.0, "cost", least=0.0)
    base = fixed_cost if isinstance(fixed_cost, Mapping) else {"*": fixed_cost}
    once = _by_benchmark(names, base, 0.0, "fixed cost", least=0.0)
    given = dict(instances) if isinstance(instances, Mapping) else {"*": instances}
    _check_names(given, names, "instances")
    notes: list[str] = []
    priced = {*(cost or {}), *(base if isinstance(fixed_cost, Mapping) else {})}
    out = _unsized(names, about, priced, notes)
    n = np.full(len(names), np.nan)
    ends = np.isfinite(known)
    with np.errstate(divide="ignore", invalid="ignore"):
        has = np.where(ends & (known > 0) & (about.tau2 > 0), about.tau2 / known, np.nan)
    for j, name in enumerate(names):
        if out[j]:
            continue
        amount = given.get(name, given.get("*", "all"))
        n[j] = _amount(name, amount, j, about, noise_var, has[j])
        if amount == "best" and once[j] <= 0:
            raise InputError(
                f"instances 'best' of '{name}' needs a fixed cost: without one the first instance always tells "
                "most per unit; give --fixed-cost, or 'enough'"
            )
    sought = [given.get(name, given.get("*")) == "best" for name in names]
    if any(sought):
        n = np.where(sought & np.isfinite(n), _best(about, each, once, information), n)
    done = ~out & ~(n > 0)
    if done.any():
        notes.append(
            "Enough instances were run already, as unique variance is the larger part: "
            f"{listed([names[j] for j in np.flatnonzero(done)], 20)}."
        )
    exact = ~out & ~done & ends & ((known == 0) | (about.tau2 == 0))
    if exact.any():
        notes.append(
            "Without a standard error nothing says what more instances would tell: "
            f"{listed([names[j] for j in np.flatnonzero(exact)], 20)}."
        )
    keep = np.flatnonzero(~out & ~done & ~exact)
    if not len(keep):
        raise InputError("no benchmark is left to measure; give --instances a number. " + " ".join(notes))
    spent = once + each * n
    if (spent[keep] <= 0).any():
        name = names[keep[np.argmax(spent[keep] <= 0)]]
        raise InputError(f"'{name}' costs nothing; give a cost above 0, as information is divided by it")
    _more_than_it_has(names, n, about, keep, notes)
    bounds = [names[j] for j in keep if "upper bound" in about.source[j]]
    if bounds:
        notes.append(
            f"Sampling variance is an upper bound, so fewer instances do as well: {listed(bounds, 20)}."
        )
    unknown = [names[j] for j in keep if about.tau2[j] == 0]
    if unknown:
        notes.append(
            f"No standard error of {listed(unknown, 20)}: the unique noise holds the sampling error too, and "
            "what other numbers of instances would tell is unknown."
        )
    run = np.full(len(names), np.nan)
    if model is not None:
        run = np.where(ends, table.data["n_instances"].values[table.model_names.index(model)], np.nan)
    return Candidates(
        keep, n, run, about.size, about.tau2, known, spent,
        [MORE if e else NEW for e in ends], about.source,
        _cost_unit(about, keep, cost, fixed_cost), notes,
    )  # fmt: skip


def _by_benchmark(
    names: list[str], given: Mapping[str, float], default: float, what: str, least: float
) -> np.ndarray:
    _check_names(given, names, what)
    for name, value in given.items():
        if not (np.isfinite(value) and value >= least):
            raise InputError(f"{what} of '{name}' is {value}; give {least:g} or more")
    return np.array([float(given.get(name, given.get("*", default))) for name in names])


def _check_names(given: Mapping[str, object], names: list[str], what: str) -> None:
    unknown = [name for name in given if name != "*" and name not in names]
    if unknown:
        raise InputError(f"{what}: '{unknown[0]}' is no benchmark of the run; it has {listed(names, 20)}")


def _unsized(names: list[str], about: Sampling, priced: set[str], notes: list[str]) -> np.ndarray:
    """Benchmarks of unknown size whose cost does not compare with that of the others, (benchmark,)."""
    if about.sized.all():
        return np.zeros(len(names), dtype=bool)
    if not about.sized.any():
        notes.append(
            "The table has no numbers of instances: a whole benchmark counts as one, and costs 1 where no cost "
            "is given."
        )
        return np.zeros(len(names), dtype=bool)
    out = np.array([not s and name not in priced for name, s in zip(names, about.sized, strict=True)])
    if out.any():
        gone = listed([names[j] for j in np.flatnonzero(out)], 20)
        notes.append(f"Left out, as their n_instances and so their cost is unknown: {gone}.")
    return out


def _amount(name: str, amount: Amount, j: int, about: Sampling, noise_var: np.ndarray, has: float) -> float:
    """Instances of one benchmark that would be run, all where the best are asked for; 0 where enough were."""
    if isinstance(amount, int):
        if amount < 1:
            raise InputError(f"instances of '{name}' is {amount}; give 1 or more, or {', '.join(WORDS)}")
        if not about.sized[j]:
            raise InputError(
                f"instances of '{name}' is {amount}, but the table does not say how many it has; give "
                "n_instances in the benchmarks table and fit again"
            )
        return float(amount)
    if amount not in WORDS:
        raise InputError(f"instances of '{name}' is '{amount}'; give a number, or {', '.join(WORDS)}")
    size = float(about.size[j])
    if amount != "enough" or about.tau2[j] == 0 or not about.sized[j]:
        return size
    need = float(np.median(about.tau2[j] / noise_var[:, j]))
    return float(np.clip(np.ceil(need - np.nan_to_num(has)), 0, size))


def _best(
    about: Sampling, each: np.ndarray, once: np.ndarray,
    information: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:  # fmt: skip
    """Instances of every benchmark that tell most per unit of cost, at most all, (benchmark,)."""
    grid = [np.ceil(about.size**share) for share in np.linspace(0, 1, GRID)]
    value = [information(n, about.tau2) / np.maximum(once + each * n, 1e-300) for n in grid]
    return np.array(grid)[np.argmax(value, axis=0), np.arange(len(each))]


def _more_than_it_has(
    names: list[str], n: np.ndarray, about: Sampling, keep: np.ndarray, notes: list[str]
) -> None:
    more = [names[j] for j in keep if about.sized[j] and n[j] > about.size[j]]
    if more:
        notes.append(
            f"More instances than there are now, so new ones have to be written: {listed(more, 20)}."
        )


def _cost_unit(
    about: Sampling,
    keep: np.ndarray,
    cost: Mapping[str, float] | None,
    fixed_cost: Mapping[str, float] | float,
) -> str:
    if cost or (fixed_cost if isinstance(fixed_cost, Mapping) else fixed_cost > 0):
        return "unit of cost"
    return "instance" if about.sized[keep].all() else "benchmark"
