"""Power: the chance that a study of a given size tells what is true, from simulated tables.

Beside the power stands the size: how often the same rule finds a difference in tables that have none. A rule
that finds it more often than its level says is not valid, and its power means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from factorlab.batch import run_batch
from factorlab.errors import InputError
from factorlab.inference.watch import Progress
from factorlab.power_options import PowerOptions, Question, Setting, check, truths
from factorlab.power_tables import NO_DIFFERENCE, difference_rows, factor_rows, failed, notes_of, rule
from factorlab.power_tasks import Interval, difference_task, draw_table, factors_task
from factorlab.scores import ScoreTable


@dataclass(frozen=True)
class PowerStudy:
    """Shares of simulated tables that tell what is true.

    Attributes
    ----------
    options : PowerOptions
    rule : str
        What finds a difference, or a number of factors: precisely which interval.
    table : pandas.DataFrame
        A row a setting and truth. ``truth`` ("difference", "no difference", or "K factors"), ``models,
        benchmarks, instances, token_log_sd, simulations`` (that ended), ``found``, ``share, lower, upper,
        level`` (Wilson). Of differences ``found`` counts intervals that exclude 0 on the true side (on any
        side where there is none), ``wrong`` is the share on the other side, ``at_size`` the share when all
        intervals are widened (or narrowed) by ``widen``, so that exactly 1 - level of those without a
        difference exclude 0; ``rho_first, rho_second`` (true), ``first, second`` (median estimates),
        ``congruence`` (median, of the factor's loadings with the true ones), ``converged`` (share). Of
        factors ``too_few, too_many``.
    failures : dict of str to str
    notes : tuple of str
    """

    options: PowerOptions
    rule: str
    table: pd.DataFrame
    failures: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def settings(self) -> pd.DataFrame:
        """A row a setting: ``models, benchmarks, instances, token_log_sd``, and ``power, size`` rows' columns
        of both truths side by side (``share, lower, upper, size, size_lower, size_upper, at_size`` ...)."""
        keys = list(Setting._fields)
        null = self.table["truth"] == NO_DIFFERENCE
        if not null.any():
            return self.table.drop(columns="truth")
        size = self.table[null][["share", "lower", "upper"]]
        size.columns = pd.Index(["size", "size_lower", "size_upper"])
        base = self.table[~null] if (~null).any() else self.table[null]
        return pd.concat([base.reset_index(drop=True), size.reset_index(drop=True)], axis=1).drop(
            columns="truth"
        )[[*keys, *[c for c in [*base.columns, *size.columns] if c not in (*keys, "truth")]]]

    def to_dataframe(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able but for NaN (`factorlab.summary.clean`)."""
        options = asdict(self.options)
        options["rho"] = {f"PC{k + 1}:{language}": value for (k, language), value in self.options.rho.items()}
        return {
            "options": options,
            "rule": self.rule,
            "table": self.table.to_dict(orient="records"),
            "failures": dict(self.failures),
            "notes": list(self.notes),
        }


def measure_power(
    question: Question = "difference",
    *,
    models: Sequence[int] = (20, 35, 70),
    benchmarks: Sequence[int] | None = None,
    instances: Sequence[int] | None = None,
    token_log_sd: Sequence[float] = (0.0,),
    factors: int = 3,
    languages: tuple[str, ...] = ("en", "ja"),
    rho: Mapping[tuple[int, str], float] | None = None,
    difference: tuple[int, str, str] = (1, "ja", "en"),
    method: str = "pca",
    interval: Interval = "jackknife",
    family_share: float = 0.0,
    level: float = 0.94,
    simulations: int = 200,
    like: ScoreTable | None = None,
    loading: np.ndarray | None = None,
    seed: int = 0,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> PowerStudy:
    """The chance to tell two correlations apart, or to find the number of factors, by simulation.

    Parameters
    ----------
    question : {"difference", "factors"}
    models, benchmarks, instances, token_log_sd : sequences
        Every combination is a setting. Without `benchmarks` 19, or those of `like`; without `instances` 1000,
        or those of `like`.
    factors : int
    languages : tuple of str
        Without `like`.
    rho : mapping, optional
        (factor from 0, language) to population correlation. Default: 0.8 and 0.2 for the two of `difference`.
    difference : (factor from 0, first, second)
        Is rho(factor, first) above or below rho(factor, second)?
    method : {"pca", "bayes"}
    interval : {"jackknife", "refit", "bootstrap"}
    family_share : float
        Share of the residual variance of abilities that members of a family have in common.
    level : float
    simulations : int
        For each setting and truth.
    like : ScoreTable, optional
        Models, budgets and benchmarks like those of a table, which are drawn again where another number is asked.
    loading : ndarray, (benchmark, factor), optional
        True loadings, with `like`.
    seed : int
    workers, cluster, progress
        As in `factorlab.batch.run_batch`.

    Returns
    -------
    PowerStudy

    Raises
    ------
    InputError
        Options out of range, or every simulation fails.
    """
    languages = tuple(like.languages) if like is not None else languages
    factor, first, second = difference
    goal = dict(rho) if rho is not None else {(factor, first): 0.8, (factor, second): 0.2}
    if question == "factors" and rho is None:
        goal = {key: value for key, value in goal.items() if key[1] in languages and key[0] < factors}
    options = PowerOptions(
        question, factors, languages, goal, factor, first, second, method, interval, family_share, level,
        simulations, seed,
    )  # fmt: skip
    have = len(like.benchmark_names) if like is not None else 19
    settings = [
        Setting(*each)
        for each in product(
            models,
            benchmarks if benchmarks is not None else (have,),
            instances if instances is not None else ((None,) if like is not None else (1000,)),
            token_log_sd,
        )
    ]
    check(options, settings, like, loading)
    tasks, place = _tasks(options, settings)
    _try_tables(tasks, place, like, loading)
    batch = run_batch(
        difference_task if question == "difference" else factors_task,
        tasks,
        shared=(like, loading),
        workers=workers,
        cluster=cluster,
        stage="simulated tables",
        progress=progress,
    )
    if not batch.results:
        raise InputError(f"every simulation failed, the first: {next(iter(batch.failures.values()))}")
    ended: dict[tuple[Setting, bool], list[dict[str, Any]]] = {}
    for name, result in batch.results.items():
        ended.setdefault(place[name], []).append(result)
    rows = (
        factor_rows(options, settings, ended)
        if question == "factors"
        else difference_rows(options, settings, ended)
    )
    table = pd.DataFrame(rows)
    notes = (*notes_of(options, table), *failed(batch.failures, len(tasks)), *batch.notes)
    return PowerStudy(options, rule(options), table, batch.failures, notes)


def _tasks(
    o: PowerOptions, settings: list[Setting]
) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[Setting, bool]]]:
    """Named simulations, and the setting and truth of each."""
    tasks: dict[str, dict[str, Any]] = {}
    place: dict[str, tuple[Setting, bool]] = {}
    asked: dict[str, Any] = {"method": o.method}
    if o.question == "difference":
        asked |= {
            "factor": o.factor,
            "first": o.first,
            "second": o.second,
            "interval": o.interval,
            "level": o.level,
        }
    for number in range(o.simulations):
        for setting in settings:
            for truth, rho in truths(o).items():
                words = ", ".join(f"{k} {v:g}" for k, v in setting._asdict().items() if v is not None)
                name = f"{words}, {'' if truth else 'no '}difference, {number + 1}"
                # The same random numbers in every setting: settings then differ by less chance.
                own = np.random.SeedSequence([o.seed, number, int(truth)]).generate_state(1)[0]
                tasks[name] = {
                    **asked,
                    **setting._asdict(),
                    "family_share": o.family_share,
                    "factors": o.factors,
                    "languages": list(o.languages),
                    "rho": [[k, language, value] for (k, language), value in rho.items()],
                    "seed": int(own),
                }
                place[name] = (setting, truth)
    return tasks, place


def _try_tables(
    tasks: Mapping[str, Mapping[str, Any]], place: Mapping[str, tuple[Setting, bool]],
    like: ScoreTable | None, loading: np.ndarray | None,
) -> None:  # fmt: skip
    """Draw the first table of each setting: what cannot be simulated at all is told before the work begins."""
    first = {place[name]: name for name in reversed(list(tasks))}
    shape = ("benchmarks", "instances", "token_log_sd", "family_share", "factors", "languages", "rho", "seed")
    for name in first.values():
        task = tasks[name]
        draw_table(like, loading, models=task["models"], **{key: task[key] for key in shape})
