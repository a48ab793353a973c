"""Options of a power study, checked before anything is simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from factorlab.errors import InputError
from factorlab.power_tasks import Interval
from factorlab.scores import ScoreTable

Question = Literal["difference", "factors"]


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


def check(
    options: PowerOptions, settings: list[Setting], like: ScoreTable | None, loading: np.ndarray | None
) -> None:
    """Refuse what cannot be simulated.

    Raises
    ------
    InputError
    """
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
    for name, number, least in (
        ("simulations", o.simulations, 1),
        ("seed", o.seed, 0),
        ("factors", o.factors, 1),
    ):
        if number < least:
            raise InputError(f"{name} is {number}; give {least} or more")
    if not 0 <= o.family_share <= 1:
        raise InputError(f"family_share is {o.family_share}; give a share between 0 and 1")
    if not settings:
        raise InputError("there is no setting; give at least one number of models")
    if like is not None and (loading is None or loading.shape != (len(like.benchmark_names), o.factors)):
        raise InputError(
            f"loading does not have a row a benchmark and {o.factors} columns; give those of the table"
        )
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
        raise InputError(
            f"the difference names PC{o.factor + 1} of {o.factors} factors; raise the number of factors"
        )
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
        raise InputError(
            f"rho of PC{o.factor + 1} and '{missing[0]}' is not given; both sides of the difference need one"
        )


def truths(o: PowerOptions) -> dict[bool, dict[tuple[int, str], float]]:
    """Whether there is a difference, to the rho's; without one both have the mean of the two."""
    if o.question == "factors":
        return {True: dict(o.rho)}
    pair = ((o.factor, o.first), (o.factor, o.second))
    level = {**o.rho, **dict.fromkeys(pair, (o.rho[pair[0]] + o.rho[pair[1]]) / 2)}
    if o.rho[pair[0]] == o.rho[pair[1]]:
        return {False: level}
    return {True: dict(o.rho), False: level}
