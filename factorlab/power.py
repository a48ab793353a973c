"""Power: the chance that a study of a given size tells what is true, from simulated tables.

Beside the power stands the size: how often the same rule finds a difference in tables that have none. A rule
that finds it more often than its level says is not valid, and its power means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from factorlab.batch import run_batch
from factorlab.errors import InputError
from factorlab.inference.sampling import Progress
from factorlab.metadata import listed
from factorlab.power_tasks import Interval, difference_task, factors_task
from factorlab.scores import ScoreTable

Question = Literal["difference", "factors"]

NO_DIFFERENCE = "no difference"

INTERVALS = {
    "jackknife": "two-step PCA, abilities taken as known; {percent} % t interval of atanh r(first) - atanh r(second), "
    "standard error by the jackknife over lineages",
    "refit": "two-step PCA; {percent} % t interval of atanh r(first) - atanh r(second), standard error by the "
    "jackknife over lineages with the components found again each time",
    "bootstrap": "two-step PCA; {percent} % percentile interval of r(first) - r(second), 400 bootstrap samples of "
    "lineages with the components found again each time",
    "bayes": "joint model; {percent} % equal-tailed posterior interval of the difference of the population rho's, "
    "300 to 1200 draws in each of 2 chains",
}

LOW_CONGRUENCE = 0.9


class Setting(NamedTuple):
    """Size of a study; ``instances`` None: those of the table it is like."""

    models: int
    benchmarks: int
    instances: int | None
    token_log_sd: float


@dataclass(frozen=True)
class PowerOptions:
    """What is simulated and asked.

    Attributes
    ----------
    question : {"difference", "factors"}
    factors : int
        True number of factors.
    languages : tuple of str
    rho : dict
        (factor from 0, language) to population correlation; other abilities go with no budget.
    factor : int
        From 0, whose two correlations differ.
    first, second : str
        Languages whose correlations are told apart.
    method : {"pca", "bayes"}
        For the number of factors parallel analysis or held-out cells.
    interval : {"jackknife", "refit", "bootstrap"}
        Of "pca".
    family_share : float
    level : float
        Of the intervals, and of the Wilson intervals of shares.
    simulations : int
        Tables of each setting and truth.
    seed : int
    """

    question: Question
    factors: int
    languages: tuple[str, ...]
    rho: Mapping[tuple[int, str], float]
    factor: int
    first: str
    second: str
    method: str
    interval: Interval
    family_share: float
    level: float
    simulations: int
    seed: int


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
        return pd.concat([base.reset_index(drop=True), size.reset_index(drop=True)], axis=1).drop(columns="truth")[
            [*keys, *[c for c in [*base.columns, *size.columns] if c not in (*keys, "truth")]]
        ]

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
    _check(options, settings, like, loading)
    tasks, place = _tasks(options, settings)
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
    rows = _factor_rows(options, settings, ended) if question == "factors" else _rows(options, settings, ended)
    table = pd.DataFrame(rows)
    notes = (*_notes(options, table, like), *_failed(batch.failures, len(tasks)), *batch.notes)
    return PowerStudy(options, _rule(options), table, batch.failures, notes)


def wilson(found: int, n: int, level: float) -> tuple[float, float]:
    """Interval of a share (Wilson 1927, JASA 22:209-212); NaN where n is 0."""
    if n == 0:
        return np.nan, np.nan
    z = float(norm.ppf(0.5 + level / 2))
    p = found / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _check(
    options: PowerOptions, settings: list[Setting], like: ScoreTable | None, loading: np.ndarray | None
) -> None:
    o = options
    for name, value, allowed in (
        ("question", o.question, ("difference", "factors")),
        ("method", o.method, ("pca", "bayes")),
        ("interval", o.interval, ("jackknife", "refit", "bootstrap")),
    ):
        if value not in allowed:
            raise InputError(f"{name} '{value}' is unknown; give {' or '.join(allowed)}")
    if not 0 < o.level < 1:
        raise InputError(f"level {o.level} is not a probability; give a number between 0 and 1, such as 0.94")
    for name, number, least in (("simulations", o.simulations, 1), ("seed", o.seed, 0), ("factors", o.factors, 1)):
        if number < least:
            raise InputError(f"{name} is {number}; give {least} or more")
    if not 0 <= o.family_share <= 1:
        raise InputError(f"family_share is {o.family_share}; give a share between 0 and 1")
    if not settings:
        raise InputError("there is no setting; give at least one number of models")
    if like is not None and (loading is None or loading.shape != (len(like.benchmark_names), o.factors)):
        raise InputError(f"loading does not have a row a benchmark and {o.factors} columns; give those of the table")
    for setting in settings:
        _check_setting(setting, o, like)
    if o.question == "difference":
        _check_difference(o)


def _check_setting(setting: Setting, o: PowerOptions, like: ScoreTable | None) -> None:
    least = o.factors + 3
    if setting.models < least:
        raise InputError(f"models is {setting.models}; {o.factors} factors need {least} models or more")
    if setting.benchmarks <= o.factors:
        raise InputError(
            f"benchmarks is {setting.benchmarks}; {o.factors} factors need {o.factors + 1} benchmarks or more"
        )
    if like is not None and setting.benchmarks > len(like.benchmark_names):
        raise InputError(
            f"benchmarks is {setting.benchmarks}, but '{like.name}' has {len(like.benchmark_names)}; give at most "
            "so many, or no table to be like"
        )
    if setting.instances is not None and setting.instances < 1:
        raise InputError(f"instances is {setting.instances}; give 1 or more")
    if not (np.isfinite(setting.token_log_sd) and setting.token_log_sd >= 0):
        raise InputError(f"token_log_sd is {setting.token_log_sd}; give 0 or more")


def _check_difference(o: PowerOptions) -> None:
    if not 0 <= o.factor < o.factors:
        raise InputError(f"the difference names PC{o.factor + 1} of {o.factors} factors; raise the number of factors")
    if o.first == o.second:
        raise InputError(f"the difference is of '{o.first}' and itself; name two languages")
    for language in (o.first, o.second):
        if language not in o.languages:
            have = ", ".join(o.languages) or "none"
            raise InputError(f"the difference names language '{language}'; those with a budget are {have}")
    for (k, language), value in o.rho.items():
        if language not in o.languages or not 0 <= k < o.factors:
            raise InputError(
                f"rho names PC{k + 1} and '{language}'; there are {o.factors} factors, and budgets of "
                f"{', '.join(o.languages)}"
            )
        if not -1 < value < 1:
            raise InputError(f"rho of PC{k + 1} and '{language}' is {value}; give a number between -1 and 1")
    missing = [language for language in (o.first, o.second) if (o.factor, language) not in o.rho]
    if missing:
        raise InputError(f"rho of PC{o.factor + 1} and '{missing[0]}' is not given; both sides of the difference need one")


def _truths(o: PowerOptions) -> dict[bool, dict[tuple[int, str], float]]:
    """Whether there is a difference, to the rho's; without one both have the mean of the two."""
    if o.question == "factors":
        return {True: dict(o.rho)}
    pair = ((o.factor, o.first), (o.factor, o.second))
    level = {**o.rho, **dict.fromkeys(pair, (o.rho[pair[0]] + o.rho[pair[1]]) / 2)}
    if o.rho[pair[0]] == o.rho[pair[1]]:
        return {False: level}
    return {True: dict(o.rho), False: level}


def _tasks(
    o: PowerOptions, settings: list[Setting]
) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[Setting, bool]]]:
    """Named simulations, and the setting and truth of each."""
    tasks: dict[str, dict[str, Any]] = {}
    place: dict[str, tuple[Setting, bool]] = {}
    asked: dict[str, Any] = {"method": o.method}
    if o.question == "difference":
        asked |= {"factor": o.factor, "first": o.first, "second": o.second, "interval": o.interval, "level": o.level}
    for number in range(o.simulations):
        for setting in settings:
            for truth, rho in _truths(o).items():
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


def _rows(
    o: PowerOptions, settings: list[Setting], ended: Mapping[tuple[Setting, bool], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    rows = []
    for setting in settings:
        null = pd.DataFrame(ended.get((setting, False), []))
        widen = float(np.quantile(np.abs(_ratio(null)), o.level)) if len(null) else np.nan
        for truth, rho in _truths(o).items():
            drawn = pd.DataFrame(ended.get((setting, truth), []))
            true = rho[o.factor, o.first], rho[o.factor, o.second]
            rows.append({"truth": "difference" if truth else NO_DIFFERENCE, **setting._asdict()})
            rows[-1] |= {"rho_first": true[0], "rho_second": true[1]}
            rows[-1] |= _shares(drawn, np.sign(true[0] - true[1]) if truth else 0.0, widen, o.level)
    return rows


def _ratio(drawn: pd.DataFrame) -> np.ndarray:
    """Centre of each interval over half its width: above 1 or below -1 it excludes 0."""
    lower, upper = drawn["lower"].to_numpy(dtype=float), drawn["upper"].to_numpy(dtype=float)
    return (lower + upper) / np.maximum(upper - lower, 1e-300)


def _shares(drawn: pd.DataFrame, side: float, widen: float, level: float) -> dict[str, Any]:
    """What a setting's intervals told; side is the sign of the true difference, 0 where there is none."""
    n = len(drawn)
    if n == 0:
        return {"simulations": 0, "found": 0, "share": np.nan, "lower": np.nan, "upper": np.nan, "level": level}
    ratio = _ratio(drawn)
    towards = ratio * side if side else np.abs(ratio)
    found = int((towards > 1).sum())
    lower, upper = wilson(found, n, level)
    return {
        "simulations": n,
        "found": found,
        "share": found / n,
        "lower": lower,
        "upper": upper,
        "level": level,
        "wrong": float((towards < -1).mean()) if side else np.nan,
        "widen": widen,
        "at_size": float((towards > widen).mean()) if np.isfinite(widen) else np.nan,
        "first": float(drawn["first"].median()),
        "second": float(drawn["second"].median()),
        "congruence": float(drawn["congruence"].median()),
        "converged": float(drawn["converged"].mean()),
    }


def _factor_rows(
    o: PowerOptions, settings: list[Setting], ended: Mapping[tuple[Setting, bool], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    rows = []
    for setting in settings:
        chosen = np.array([result["chosen"] for result in ended.get((setting, True), [])])
        n, found = len(chosen), int((chosen == o.factors).sum())
        lower, upper = wilson(found, n, o.level)
        rows.append(
            {
                "truth": f"{o.factors} factors",
                **setting._asdict(),
                "simulations": n,
                "found": found,
                "share": found / n if n else np.nan,
                "lower": lower,
                "upper": upper,
                "level": o.level,
                "too_few": float((chosen < o.factors).mean()) if n else np.nan,
                "too_many": float((chosen > o.factors).mean()) if n else np.nan,
            }
        )
    return rows


def _rule(o: PowerOptions) -> str:
    if o.question == "factors":
        return (
            "held-out cells, the fewest factors within one standard error of the best"
            if o.method == "bayes"
            else "parallel analysis, eigenvalues above the 95 % quantile of noise"
        )
    return INTERVALS["bayes" if o.method == "bayes" else o.interval].format(percent=f"{100 * o.level:g}")


def _notes(o: PowerOptions, table: pd.DataFrame, like: ScoreTable | None) -> list[str]:
    notes = [f"Rule: {_rule(o)}."]
    if o.question == "factors":
        return notes
    if o.family_share == 0:
        notes.append("Every model is a lineage of its own (family_share 0).")
    if any(k != o.factor for k, _ in o.rho):
        notes.append(
            "Other abilities go with budgets too, so true abilities correlate where budgets do; axes that are "
            "uncorrelated over the models at hand are then not quite the true ones."
        )
    null = table[table["truth"] == NO_DIFFERENCE]
    nominal = 1 - o.level
    for _, row in null[null["lower"] > nominal].iterrows():
        notes.append(
            f"NOT VALID with {_words(row)}: {100 * row['share']:.0f} % [{100 * row['lower']:.0f}, "
            f"{100 * row['upper']:.0f}] of the intervals exclude 0 where there is no difference, {100 * nominal:.0f} % "
            "would be right; read the power at the right size instead."
        )
    low = table[table["congruence"] < LOW_CONGRUENCE]
    if len(low):
        worst = low.loc[low["congruence"].idxmin()]
        notes.append(
            f"PC{o.factor + 1} is often another axis than the true one: median congruence {worst['congruence']:.2f} "
            f"with {_words(worst)}; a difference of another axis is then found or missed."
        )
    short = table[table["converged"] < 1]
    if len(short):
        notes.append(
            f"{100 * (1 - short['converged'].min()):.0f} % of the posteriors of the worst setting did not converge."
        )
    return notes


def _words(row: pd.Series) -> str:
    items = "" if row["instances"] is None or pd.isna(row["instances"]) else f", {row['instances']:.0f} instances"
    return f"{row['models']} models, {row['benchmarks']} benchmarks{items}, budget error {row['token_log_sd']:g}"


def _failed(failures: Mapping[str, str], n: int) -> list[str]:
    if not failures:
        return []
    reasons = listed(list(dict.fromkeys(failures.values())), 3)
    return [f"{len(failures)} of {n} simulations failed and are not counted: {reasons}."]
