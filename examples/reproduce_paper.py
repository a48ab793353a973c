"""What arXiv 2412.14471 printed, beside what its score matrix gives here.

Principal components of the 35 x 19 matrix in data/ and their correlations with log training budgets, without
sampling. Run from the repository root:

    python examples/reproduce_paper.py [--out FOLDER]

With --out the rows are also written to FOLDER/paper.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

import factorlab as fl
from factorlab.inference.pca import benchmark_correlations

DATA = Path(__file__).resolve().parents[1] / "data"

VARIANCES = {"all 35": [65.2, 15.4, 7.0, 3.2], "20 from scratch": [65.6, 17.0, 7.1, 3.0]}
CORRELATIONS = {("MMLU", "JMMLU"): 0.91, ("GSM8K", "MGSM"): 0.94, ("HumanEval", "JHumanEval"): 0.98}
RHO = {
    ("all 35", "PC1", "en"): 0.916,
    ("all 35", "PC2", "ja"): 0.779,
    ("all 35", "PC2", "en"): 0.164,
    ("all 35", "PC1", "total"): 0.938,
    ("all 35", "PC2", "total"): 0.186,
    ("20 from scratch", "PC1", "en"): 0.923,
    ("20 from scratch", "PC2", "ja"): 0.779,
}

Row = tuple[str, str, float, float]


def rows() -> Iterator[Row]:
    """(models, quantity, printed, ours)."""
    table = fl.read_scores(DATA / "scores.parquet")
    tables = {"all 35": table, "20 from scratch": table.select(where="construction == 'PT'")}
    correlation = benchmark_correlations(table)
    for (first, second), printed in CORRELATIONS.items():
        yield "all 35", f"correlation of {first} and {second}", printed, float(correlation.at[first, second])
    rho = {}
    for name, part in tables.items():
        pca = fl.fit_pca(part, 4)
        for k, printed in enumerate(VARIANCES[name]):
            ours = 100 * pca.extra["explained_variance_ratio"][k]
            yield name, f"variance of PC{k + 1} (%)", printed, ours
        found = fl.fit_budgets(part, pca).table.query("form == 'at_hand'")
        rho[name] = found.set_index(["factor", "budget"])
    for (name, factor, budget), printed in RHO.items():
        row = rho[name].loc[(factor, budget)]
        yield name, f"rho({factor}, {budget}), n = {row['n']}", printed, float(row["mean"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for paper.csv")
    out = parser.parse_args(arguments).out
    found = list(rows())
    print(f"{'models':16} {'quantity':40} {'paper':>7} {'here':>9}")
    for models, quantity, paper, here in found:
        # The paper rounds to as many digits as it prints.
        digits = 1 if "%" in quantity else 2 if "correlation" in quantity else 3
        agrees = "" if round(here, digits) == paper else "  differs"
        print(f"{models:16} {quantity:40} {paper:7.{digits}f} {here:9.4f}{agrees}")
    print("For the 20 models the paper prints the rho(PC2, ja) of all 35; their own matrix gives another.")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(found, columns=["models", "quantity", "paper", "here"])
        frame.to_csv(out / "paper.csv", index=False)


if __name__ == "__main__":
    main()
