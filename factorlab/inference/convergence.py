"""Convergence of a posterior, on what does not depend on the axes and on oriented draws.

Abilities are drawn afresh for every draw of the parameters, so theta = m + e with m = E[theta | parameters]
and e independent from draw to draw. Only m can mix badly. With w = var(m) / var(theta),

    R-hat^2(theta) - 1 = w (R-hat^2(m) - 1),        1 / ESS(theta) = w / ESS(m) + (1 - w) / draws

by the law of total variance (Rao-Blackwell). Measured on theta itself, the largest R-hat of 20,000 abilities
is above 1.02 even where all draws are independent: e has nothing to tell, but its chance extremes grow with
the number of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from factorlab.inference.mixing import Convergence, convergence
from factorlab.inference.modes import ability_covariance
from factorlab.inference.solution import Diagnostics
from factorlab.inference.watch import ESS_GOAL, RHAT_GOAL


def diagnose(
    draws: xr.Dataset,
    divergences: int,
    identified: Sequence[bool],
    *,
    expected: np.ndarray | None = None,
    whole: xr.Dataset | None = None,
    covariance: np.ndarray | None = None,
) -> Diagnostics:
    """R-hat and effective sample sizes of invariants and oriented draws.

    Invariants: entries of the common part Lambda cov(theta) Lambda', unique noise, pair factors,
    fitted means, standard deviations of the hierarchy. Oriented draws: loadings, abilities and slopes.
    Those of an axis that is not identified are listed, but do not count.

    Parameters
    ----------
    draws : xarray.Dataset
        As in `FactorSolution.draws` of a posterior.
    divergences : int
    identified : sequence of bool, (factor,)
    expected : ndarray, (chain, draw, model, factor), optional
        Means of the abilities given each draw's parameters, on the axes of ``draws``; abilities are measured
        like everything else when not given.
    whole : xarray.Dataset, optional
        Where ``draws`` are every n-th draw: all of them, of everything but abilities.
    covariance : ndarray, (chain, draw, factor, factor), optional
        cov(theta) over the models, of the draws of ``whole``.

    Returns
    -------
    Diagnostics
    """
    ability = draws["ability"].transpose("chain", "draw", "model", "factor")
    if covariance is None:
        # The identity for orthogonal axes, Phi for oblique ones.
        covariance = ability_covariance(ability.values)
    parts = [
        (group, names, convergence(values), counted)
        for group, names, values, counted in _quantities(
            draws if whole is None else whole, covariance, list(identified)
        )
    ]
    values = ability.values.reshape(*ability.shape[:2], -1)
    names = [f"ability[{m}, {f}]" for m in ability["model"].values for f in ability["factor"].values]
    measured = convergence(values) if expected is None else drawn_afresh(values, expected)
    parts.append(("ability", names, measured, np.tile(identified, ability.shape[2])))
    table = pd.concat(
        [
            pd.DataFrame(
                {
                    "quantity": names,
                    "group": group,
                    "rhat": measured.rhat,
                    "ess_bulk": measured.ess_bulk,
                    "ess_tail": measured.ess_tail,
                    "counted": counted,
                }
            )
            for group, names, measured, counted in parts
        ],
        ignore_index=True,
    )
    return Diagnostics(table, divergences, tuple(problems(table, divergences)))


def drawn_afresh(values: np.ndarray, expected: np.ndarray) -> Convergence:
    """Convergence of quantities that are drawn independently given parameters that are not.

    Parameters
    ----------
    values : ndarray, (chain, draw, quantity)
    expected : ndarray, (chain, draw, quantity)
        Their means given the parameters of the same draw; any shape of as many quantities.

    Returns
    -------
    Convergence
        For the tails the formula of the bulk is used.
    """
    draws = values.shape[0] * values.shape[1]
    expected = expected.reshape(values.shape)
    share = np.minimum(expected.var(axis=(0, 1)) / values.var(axis=(0, 1)), 1.0)
    mean = convergence(expected)
    rhat = np.sqrt(1 + share * (mean.rhat**2 - 1))
    bulk, tail = (1 / (share / ess + (1 - share) / draws) for ess in (mean.ess_bulk, mean.ess_tail))
    return Convergence(rhat, bulk, tail)


def problems(table: pd.DataFrame, divergences: int, *, separate: bool = False) -> list[str]:
    """What falls short of R-hat <= 1.01, ESS >= 400 and no divergences, in sentences.

    ``separate`` when chains are known to be in different solutions: more draws are not advised then.
    """
    counted = table[table["counted"]]
    more = "" if separate else ": use more draws"
    differ = "" if separate else ": the chains disagree; use more draws or another number of factors"
    out = []
    if divergences:
        out.append(
            f"{divergences} divergent transitions: the sampler could not follow the posterior everywhere"
        )
    if counted["rhat"].isna().all():
        out.append("one chain only: R-hat cannot be computed; use --chains 4")
    bad = counted[counted["rhat"] > RHAT_GOAL]
    if len(bad):
        worst = bad.iloc[int(bad["rhat"].argmax())]
        out.append(
            f"R-hat above {RHAT_GOAL} for {len(bad)} of {len(counted)} quantities (worst "
            f"{worst['rhat']:.3f}, {worst['quantity']}){differ}"
        )
    for column, name in (("ess_bulk", "bulk"), ("ess_tail", "tail")):
        few = counted[counted[column] < ESS_GOAL]
        if len(few):
            worst = few.iloc[int(few[column].argmin())]
            out.append(
                f"{name} effective sample size below {ESS_GOAL} for {len(few)} of {len(counted)} quantities "
                f"(lowest {worst[column]:.0f}, {worst['quantity']}){more}"
            )
    return out


def _quantities(
    draws: xr.Dataset, covariance: np.ndarray, identified: list[bool]
) -> Iterator[tuple[str, list[str], np.ndarray, np.ndarray]]:
    """(group, names, (chain, draw, quantity), counted) of everything that is checked, but abilities."""
    loading = draws["loading"].transpose("chain", "draw", "benchmark", "factor").values
    benchmarks = [str(b) for b in draws["benchmark"].values]
    factors = [str(f) for f in draws["factor"].values]
    common = loading @ covariance @ np.swapaxes(loading, -1, -2)
    row, column = np.tril_indices(len(benchmarks))
    names = [f"common[{benchmarks[i]}, {benchmarks[j]}]" for i, j in zip(row, column, strict=True)]
    yield "common part", names, common[:, :, row, column], np.ones(len(names), dtype=bool)
    ok = np.asarray(identified)
    for name in ("noise_sd", "pair_sd", "mean"):
        if name in draws:
            dim = str(draws[name].dims[-1])
            labels = [f"{name}[{label}]" for label in draws[dim].values]
            yield name, labels, draws[name].values, np.ones(len(labels), dtype=bool)
    for name, dim in (("loading", "benchmark"), ("slope", "predictor")):
        if name in draws:
            values = draws[name].transpose("chain", "draw", dim, "factor").values
            labels = [f"{name}[{label}, {f}]" for label in draws[dim].values for f in factors]
            yield name, labels, values.reshape(*values.shape[:2], -1), np.tile(ok, values.shape[2])
    scalars = [str(v) for v in draws.data_vars if draws[v].dims == ("chain", "draw")]
    if scalars:
        values = np.stack([draws[v].values for v in scalars], axis=-1)
        # Scales of unidentified parts (d0, spread of sources) are hyperparameters: they count too.
        yield "hyperparameter", scalars, values, np.ones(len(scalars), dtype=bool)
