"""Coverage of the population rho(PC2, ja): joint posterior beside the two-step interval.

Tables are simulated with the PCA loadings, sizes, token counts and numbers of instances of the 35 x 19
matrix; the true population correlation of PC1 with the English and of PC2 with the Japanese budget is
set, and published token counts carry a log error of known size. Run from the repository root:

    python benchmarks/coverage_rho.py --out coverage_rho.json --datasets 200

Data sets are fitted one a core, or on a cluster (--cluster dask://host:port or ray://host:port). Each is
written as it ends, so that an interrupted study goes on where it stopped.
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
from factorlab.inference.bayes import fit_bayes
from factorlab.inference.budgets import two_step
from factorlab.inference.joint_budgets import joint
from factorlab.inference.pca import fit_pca
from factorlab.inference.priors import Priors
from factorlab.scores import ScoreTable, read_scores
from factorlab.simulation import simulate
from factorlab.tabular import write_atomically

LEVEL = 0.90
RHO = {(0, "en"): 0.90, (1, "ja"): 0.85}
FACTORS = 3


def one(
    real: ScoreTable, loading: np.ndarray, draws: int, tune: int, error: float, seed: int
) -> dict[str, object]:
    """Fit one simulated table both ways."""
    began, cpu = time.perf_counter(), time.process_time()
    simulated = simulate(like=real, loading=loading, rho=RHO, token_log_sd=error, seed=seed)
    # The size of the error is known to the model, as a status would tell it.
    priors = Priors(guessed_log_sd=max(error, 0.01), official_log_sd=0.01)
    fit = fit_bayes(
        simulated.table, FACTORS, budget="product", pairs=False, priors=priors,
        draws=draws, tune=tune, chains=2, cores=1, seed=seed,
    )  # fmt: skip
    rows = joint(simulated.table, fit, level=LEVEL).table.set_index(["factor", "budget", "form"])
    plain = two_step(simulated.table, fit_pca(simulated.table, FACTORS), level=LEVEL).table
    plain = plain.set_index(["factor", "budget", "form"])
    out: dict[str, object] = {
        "token_log_sd": error,
        "seed": seed,
        "true_population": RHO[1, "ja"],
        "true_at_hand": float(
            np.corrcoef(simulated.truth.stacked("ability")[0, :, 1], simulated.budget["ja"])[0, 1]
        ),
        "rhat_max": float(rows.loc["PC2", "ja", "population"]["rhat"]),
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
    }
    for name, source, form in (
        ("joint_population", rows, "population"),
        ("joint_at_hand", rows, "at_hand"),
        ("two_step", plain, "at_hand"),
    ):
        row = source.loc["PC2", "ja", form]
        out[name] = [float(row[q]) for q in ("lower", "median", "upper")]
    return out


def summarise(rows: list[dict], errors: list[float]) -> tuple[list[dict], list[dict]]:
    """Coverage table and goals: coverage within the central 95 % band of a binomial at the level."""
    table, goals = [], []
    for error in errors:
        part = [row for row in rows if row["token_log_sd"] == error]
        if not part:
            continue
        low, high = binom.interval(0.95, len(part), LEVEL)
        entry: dict[str, object] = {"token_log_sd": error, "datasets": len(part)}
        for name, truth in (
            ("joint_population", "true_population"),
            ("joint_at_hand", "true_at_hand"),
            ("two_step", "true_population"),
        ):
            inside = [row[name][0] <= row[truth] <= row[name][2] for row in part]
            entry[f"{name}_coverage"] = float(np.mean(inside))
            entry[f"{name}_median"] = float(np.mean([row[name][1] for row in part]))
            entry[f"{name}_width"] = float(np.mean([row[name][2] - row[name][0] for row in part]))
        table.append(entry)
        value = float(entry["joint_population_coverage"])  # type: ignore[arg-type]
        goals.append(
            {
                "name": f"coverage of the population rho(PC2, ja), log error {error}",
                "value": value,
                "goal": f"within [{low / len(part):.3f}, {high / len(part):.3f}] ({len(part)} data sets)",
                "holds": bool(low <= value * len(part) <= high),
            }
        )
    return table, goals


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--datasets", default=200, show_default=True)
@click.option(
    "--first-seed",
    default=1000,
    show_default=True,
    help="Seeds below 1000 were looked at while the priors were chosen.",
)
@click.option("--errors", default="0,0.7,1.0", show_default=True, help="Log errors of the token counts.")
@click.option("--draws", default=300, show_default=True)
@click.option("--tune", default=400, show_default=True)
@click.option(
    "--data", type=click.Path(path_type=Path), default=Path("data/scores.parquet"), show_default=True
)
@click.option("--minutes", type=float, help="Start no fit after this long; run again to go on.")
@click.option("--workers", type=int, help="Fits at once; default: the machine's cores, or all of a cluster.")
@click.option("--cluster", metavar="URL", help="dask://host:port or ray://host:port.")
def main(
    out: Path,
    datasets: int,
    first_seed: int,
    errors: str,
    draws: int,
    tune: int,
    data: Path,
    minutes: float | None,
    workers: int | None,
    cluster: str | None,
) -> None:
    """Run the study and write rows, table and goals."""
    levels = [float(value) for value in errors.split(",")]
    rows = json.loads(out.read_text())["rows"] if out.is_file() else []
    done = {(row["token_log_sd"], row["seed"]) for row in rows}
    real = read_scores(data)
    loading = fit_pca(real, FACTORS).loading_mean().to_numpy()

    def keep(name: str, row: dict) -> None:
        rows.append(row)
        rows.sort(key=lambda row: (row["seed"], row["token_log_sd"]))
        table, goals = summarise(rows, levels)
        text = json.dumps({"rows": rows, "table": table, "goals": goals}, indent=1) + "\n"
        write_atomically(out, lambda partial: Path(partial).write_text(text))
        click.echo(f"{len(rows)} fits: {json.dumps(table)}")

    try:
        batch = run_batch(
            one,
            {
                f"log error {error}, seed {seed}": {"error": error, "seed": seed}
                for seed in range(first_seed, first_seed + datasets)
                for error in levels
                if (error, seed) not in done
            },
            shared=(real, loading, draws, tune),
            workers=workers,
            cluster=cluster,
            seconds=None if minutes is None else 60 * minutes,
            ended=keep,
        )
    except InputError as error:
        raise click.ClickException(str(error)) from None
    for name, text in batch.failures.items():
        click.echo(f"{name} failed: {text}", err=True)


if __name__ == "__main__":
    main()
