"""Your own table: a wide CSV of percent scores, no metadata, to abilities with intervals.

Writes such a file first (a row a model, a column a benchmark, percent, two cells missing), then reads it as
anyone would read theirs, and fits PCA and the Bayesian model. Nothing is known of budgets, ranges or
numbers of instances: the notes say what could not be done. Run from the repository root:

    python examples/own_table.py --out FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import factorlab as fl


def write_percentages(path: Path) -> Path:
    """A wide table of simulated percentages, as a leaderboard would give it."""
    table = fl.simulate(models=20, benchmarks=6, factors=1, seed=4).table
    wide = table.to_dataframe().pivot(index="model", columns="benchmark", values="score")
    wide = (100 * wide).round(1)
    wide.iloc[3, 1] = wide.iloc[7, 4] = None
    wide.to_csv(path)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, help="folder for the table and the solution; default: a temporary one"
    )
    parser.add_argument("--draws", type=int, default=1000)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        run(folder, chosen.draws)


def run(folder: Path, draws: int) -> None:
    table = fl.read_scores(write_percentages(folder / "leaderboard.csv"))
    print(f"{len(table.model_names)} models x {len(table.benchmark_names)} benchmarks")
    for note in table.notes:
        print(f"note: {note}")

    pca = fl.fit_pca(table, 1, missing="em")
    print(f"\nPC1 of PCA accounts for {pca.extra['explained_variance_ratio'][0]:.0%} of the variance.")

    bayes = fl.fit_bayes(table, 1, draws=draws, tune=draws, chains=2, seed=1)
    for problem in bayes.diagnostics.problems:
        print(f"not converged: {problem}")
    ability = bayes.summary("ability", level=0.9).sort_values("mean", ascending=False)
    print("\nability on PC1, with 90 % intervals; PCA's beside it")
    points = pca.ability_mean()["PC1"]
    for row in ability.itertuples():
        interval = f"[{row.lower:5.2f}, {row.upper:5.2f}]"
        print(f"  {row.model:10} {row.mean:6.2f} {interval}   {points[row.model]:6.2f}")
    best, second = ability["model"].iloc[:2]
    draws_of = bayes.draws["ability"].sel(factor="PC1")
    ahead = float((draws_of.sel(model=best) > draws_of.sel(model=second)).mean())
    print(f"\nprobability that {best} is above {second}: {ahead:.2f}")
    bayes.save(folder / "leaderboard.nc")


if __name__ == "__main__":
    main()
