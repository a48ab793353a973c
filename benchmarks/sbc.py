"""Simulation-based calibration of the student member of the prediction model.

Parameters are drawn from the prior, scores from the parameters, and the member is fitted to the scores: the rank
of a true quantity among its posterior draws is then uniform (Talts et al. 2018, arXiv 1804.06788). Quantities are
those that no change of sign or order moves. Ranks are judged by the simultaneous bands of their ECDF (Säilynoja,
Bürkner & Vehtari 2022, Statistics and Computing 32:32). Limits of floors and ceilings are given, as are those of a
real table by its scores. Run from the repository root:

    python benchmarks/sbc.py --out sbc.json --replications 200

Replications run one a core, or on a cluster, and are written as they end: an interrupted study goes on.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import numpy as np
from scipy.stats import binom

from factorlab.batch import run_batch
from factorlab.errors import InputError
from factorlab.inference.predict.columns import Columns
from factorlab.inference.predict.kernel import BLOCKS, LINK, Arrays, cell_moments, natural
from factorlab.inference.predict.kin import BASE_MODEL, FAMILY, Kin
from factorlab.inference.predict.layout import Inputs, lay_out
from factorlab.inference.predict.member_fit import Effort, fit_member
from factorlab.inference.predict.predictors import Predictors
from factorlab.inference.predict.specification import Member
from factorlab.tabular import write_atomically

MODELS, BENCHMARKS = 14, 6

MEMBER = Member(2, floor=True, ceiling=True, residual=False)

RANKS = 50
"""Draws that a true value is ranked among, thinned so far that they hardly know of each other."""

EFFORT = Effort(draws=400, tune=400, chains=2, max_depth=8)

CELLS = {"mean of an observed cell": (1, 0), "mean of a hidden cell": (1, 5), "mean without a score": (0, 2)}

BAND = 0.95
"""Of all quantities together."""


def make_inputs(rng: np.random.Generator) -> Inputs:
    """A table without scores: which cells are seen, predictors with errors, kin, a group of benchmarks."""
    shape = (MODELS, BENCHMARKS)
    seen = rng.random(shape) > 0.3
    seen[0], seen[1] = False, [True, True, True, True, False, False]
    one, zero = np.ones(BENCHMARKS), np.zeros(BENCHMARKS)
    chance = np.array([0.25, *[np.nan] * (BENCHMARKS - 1)])
    columns = Columns(
        np.where(seen, 0.5, np.nan), np.full(shape, 0.02), np.full(shape, np.nan), np.full(BENCHMARKS, LINK),
        zero, one, one, 0.2 * one, 0.8 * one, chance, (),
    )  # fmt: skip
    estimated = np.arange(0, MODELS, 3)
    predictors = Predictors(
        ("log10 N", "log10 D"), rng.normal(size=(MODELS, 2)), zero[:2], one[:2], estimated,
        np.ones(len(estimated), dtype=int), np.arange(len(estimated)), np.full(len(estimated), 0.4),
        len(estimated), np.ones((MODELS, 2), dtype=bool),
    )  # fmt: skip
    kin = Kin(
        np.array([*range(7), *range(3)]), np.array([0] * 7 + [1] * 3), np.array([FAMILY, BASE_MODEL]),
        ("family", "base"),
    )  # fmt: skip
    return Inputs(columns, predictors, kin, np.array([0, 0, -1, -1, -1, -1]), ("pair",))


def draw_truth(arrays: Arrays, rng: np.random.Generator) -> np.ndarray:
    """A point from the prior."""
    centred = ~np.isfinite(arrays.prior_sd)
    q = arrays.prior_mean + np.where(centred, 0.0, arrays.prior_sd) * rng.standard_normal(len(centred))

    def block(name: str) -> slice:
        b = BLOCKS.index(name)
        return slice(arrays.offsets[b], arrays.offsets[b + 1])

    for name in ("mean", "general", "noise"):
        center, spread = q[block(f"{name}_center")][0], np.exp(q[block(f"{name}_spread")][0])
        q[block(name)] = center + spread * rng.standard_normal(BENCHMARKS)
    n = natural(q, arrays)
    q[block("ability")] = (n.expected + n.residual * rng.standard_normal(n.expected.shape)).ravel()
    return q


def moments(
    draws: np.ndarray, arrays: Arrays, row: np.ndarray, column: np.ndarray, index: np.ndarray
) -> tuple:
    return cell_moments(
        draws, arrays, row.astype(np.int64), column.astype(np.int64), index.astype(np.int64),
        np.zeros((len(draws), 1)), np.zeros((len(row), 0)),
    )  # fmt: skip


def quantities(draws: np.ndarray, arrays: Arrays) -> dict[str, np.ndarray]:
    """What is ranked, (draw,) each; groups' own parts of unseen cells are left out."""
    row, column = np.array(list(CELLS.values())).T
    mean, _, nu = moments(draws, arrays, row, column, np.full(len(row), -1))
    out = {name: mean[:, k] for k, name in enumerate(CELLS)}

    def first(name: str, at: int = 0) -> np.ndarray:
        return draws[:, arrays.offsets[BLOCKS.index(name)] + at]

    slopes = [first("slope", p * MEMBER.factors) for p in range(2)]
    return {
        **out,
        "nu": nu,
        "gamma": first("slope_of_noise"),
        "slope of size on the general factor": slopes[0],
        "slope of tokens on the general factor": slopes[1],
        "general loading": first("general"),
        "centre of the general loadings": first("general_center"),
        "spread of the other loadings": first("loading_scale"),
        "centre of the noise": first("noise_center"),
        "ceiling": first("ceiling", 2),
        "spread of families": first("level"),
    }


def one(seed: int) -> dict[str, object]:
    """Ranks of one replication."""
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    inputs = make_inputs(rng)
    arrays = lay_out(inputs, MEMBER).arrays
    truth = draw_truth(arrays, rng)
    mean, sd, nu = moments(truth[None], arrays, arrays.row, arrays.column, arrays.specific_index)
    y = inputs.columns.y.copy()
    noise = rng.standard_t(nu[0], len(arrays.row)) * np.sqrt(sd[0] ** 2 + arrays.variance)
    y[arrays.row, arrays.column] = mean[0] + noise
    made = inputs._replace(columns=inputs.columns._replace(y=y))
    fit = fit_member(made, MEMBER, seed=seed, effort=EFFORT)
    flat = fit.draws.reshape(-1, fit.draws.shape[-1])
    thin = flat[np.linspace(0, len(flat) - 1, RANKS).astype(int)]
    posterior, true = quantities(thin, arrays), quantities(truth[None], arrays)
    return {
        "seed": seed,
        "ranks": {name: int((values < true[name][0]).sum()) for name, values in posterior.items()},
        "rhat": fit.rhat,
        "ess": fit.ess,
        "divergences": fit.divergences,
        "seconds": time.perf_counter() - began,
    }


def farthest(ranks: np.ndarray, most: int = RANKS) -> np.ndarray:
    """How improbable the least probable point of each rank ECDF is, (..., replication) to (...).

    The smaller tail, doubled, of the binomial number of ranks up to each value, were ranks uniform on 0 ... most.
    """
    n = ranks.shape[-1]
    points = np.arange(most)
    count = (ranks[..., None, :] <= points[:, None]).sum(axis=-1)
    share = (points + 1) / (most + 1)
    tail = np.minimum(binom.cdf(count, n, share), binom.sf(count - 1, n, share))
    return np.minimum(2 * tail, 1.0).min(axis=-1)


def p_value(ranks: np.ndarray, most: int = RANKS, simulations: int = 1000, seed: int = 0) -> float:
    """Share of uniform samples whose rank ECDF goes as far from the diagonal somewhere as this one's.

    Below 1 - level: the ECDF leaves the simultaneous band of that level.
    """
    uniform = np.random.default_rng(seed).integers(0, most + 1, (simulations, ranks.shape[-1]))
    return float((1 + (farthest(uniform, most) <= farthest(ranks, most)).sum()) / (1 + simulations))


def summarise(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Table of quantities, and a goal each: inside the band that all together leave with 5 %."""
    names = list(rows[0]["ranks"])
    table, goals = [], []
    for name in names:
        ranks = np.array([row["ranks"][name] for row in rows])
        p = p_value(ranks)
        table.append(
            {
                "quantity": name,
                "replications": len(ranks),
                "mean_rank": float(ranks.mean() / RANKS),
                "in_central_90": float(np.mean((ranks >= 0.05 * RANKS) & (ranks <= 0.95 * RANKS))),
                "p": p,
            }
        )
        least = (1 - BAND) / len(names)
        goals.append(
            {
                "name": f"ranks of {name}",
                "value": p,
                "goal": f"p of the ECDF >= {least:.4f}",
                "holds": p >= least,
            }
        )
    return table, goals


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--replications", default=200, show_default=True)
@click.option("--first-seed", default=0, show_default=True)
@click.option("--minutes", type=float, help="Start no fit after this long; run again to go on.")
@click.option("--workers", type=int, help="Fits at once; default: the machine's cores, or all of a cluster.")
@click.option("--cluster", metavar="URL", help="dask://host:port or ray://host:port.")
def main(
    out: Path,
    replications: int,
    first_seed: int,
    minutes: float | None,
    workers: int | None,
    cluster: str | None,
) -> None:
    """Run the study and write rows, table and goals."""
    rows = json.loads(out.read_text())["rows"] if out.is_file() else []
    done = {row["seed"] for row in rows}

    def keep(name: str, row: dict) -> None:
        rows.append(row)
        rows.sort(key=lambda row: row["seed"])
        keep_rows(rows, out)

    try:
        batch = run_batch(
            one,
            {f"seed {s}": {"seed": s} for s in range(first_seed, first_seed + replications) if s not in done},
            workers=workers,
            cluster=cluster,
            seconds=None if minutes is None else 60 * minutes,
            ended=keep,
        )
    except InputError as error:
        raise click.ClickException(str(error)) from None
    for name, text in batch.failures.items():
        click.echo(f"{name} failed: {text}", err=True)
    if rows:
        for entry in write(rows, out):
            click.echo(json.dumps(entry))


def keep_rows(rows: list[dict], out: Path) -> None:
    """Rows as JSON, without the table, which takes as long as a fit."""
    write_atomically(out, lambda partial: Path(partial).write_text(json.dumps({"rows": rows}) + "\n"))


def write(rows: list[dict], out: Path) -> list[dict]:
    """Rows, table and goals as JSON; gives back the table."""
    table, goals = summarise(rows)
    text = json.dumps({"rows": rows, "table": table, "goals": goals}, indent=1) + "\n"
    write_atomically(out, lambda partial: Path(partial).write_text(text))
    return table


if __name__ == "__main__":
    main()
