"""Another pair of languages: Korean and English instead of Japanese and English.

Languages are data, not code: every column tokens_b_<language> of the models table is a budget. Here the table
is simulated, with a second factor that goes with the Korean budget (rho 0.8); yours would be a file with
columns tokens_b_ko and tokens_b_en. Run from the repository root:

    python examples/another_language.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import factorlab as fl

KOREAN, ENGLISH = 4, 6
LOADING = np.column_stack(
    [np.full(KOREAN + ENGLISH, 0.7), np.repeat([0.6, -0.4], [KOREAN, ENGLISH])]
)  # (benchmark, factor): what all ask for, and what the Korean ones ask for beyond it


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for the table and rho.csv")
    parser.add_argument("--draws", type=int, default=400)
    chosen = parser.parse_args(arguments)

    table = fl.simulate(
        models=28,
        benchmarks=KOREAN + ENGLISH,
        languages=("en", "ko"),
        loading=LOADING,
        rho={(0, "en"): 0.85, (1, "ko"): 0.8},
        seed=5,
    ).table
    print(f"languages with a budget: {', '.join(table.languages)}")

    pca = fl.fit_pca(table, 2)
    bayes = fl.fit_bayes(table, 2, draws=chosen.draws, tune=chosen.draws, chains=2, seed=2)
    two_step, joint = (fl.fit_budgets(table, solution, level=0.9) for solution in (pca, bayes))
    rho = joint.to_dataframe()
    points = two_step.table.query("form == 'at_hand'").set_index(["factor", "budget"])["mean"]

    print(f"\n{'factor':7} {'budget':8} {'two-step':>8}   posterior with 90 % interval")
    for row in rho[rho["form"].isin(["at_hand", "difference"])].itertuples():
        point = points.get((row.factor, row.budget))
        shown = f"{point:8.2f}" if point is not None else " " * 8
        print(
            f"{row.factor:7} {row.budget:8} {shown}   {row.median:5.2f} [{row.lower:5.2f}, {row.upper:5.2f}]"
        )
    if chosen.out is not None:
        table.write(chosen.out)
        rho.to_csv(chosen.out / "rho.csv", index=False)


if __name__ == "__main__":
    main()
