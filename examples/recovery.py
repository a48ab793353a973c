"""Does the model find what is there? A table is simulated from known abilities, fitted, and compared.

A rotation fits as well as the truth, so the truth is put on the posterior's axes before single numbers are
compared. Run from the repository root:

    python examples/recovery.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import factorlab as fl
from factorlab.inference.orientation import orient

# A general factor and a contrast of two halves of the benchmarks.
LOADING = np.column_stack([np.full(8, 0.75), np.repeat([0.5, -0.5], 4)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for the table, truth.nc and bayes.nc")
    parser.add_argument("--draws", type=int, default=400)
    chosen = parser.parse_args(arguments)

    rho = {(0, "en"): 0.85, (1, "ja"): 0.7}
    made = fl.simulate(models=30, benchmarks=8, loading=LOADING, rho=rho, seed=7)
    pca = fl.fit_pca(made.table, 2)
    size = {"draws": chosen.draws, "tune": chosen.draws, "chains": 2}
    bayes = fl.fit_bayes(made.table, 2, seed=1, **size)

    # The truth is a solution like any other: a recovery check is a comparison.
    agreement = fl.compare(made.truth, bayes, align="procrustes", names=("truth", "Bayes"))
    for row in agreement.factors.itertuples():
        print(
            f"{row.factor}: congruence of true and drawn loadings {row.congruence_median:.3f} "
            f"[{row.congruence_lower:.2f}, {row.congruence_upper:.2f}]"
        )

    truth = true_abilities(made.truth, bayes)
    for name, solution in (("PCA", pca), ("Bayes", bayes)):
        r = truth.corrwith(solution.ability_mean())
        print(f"{name}: correlation of estimated and true abilities {r['PC1']:.3f}, {r['PC2']:.3f}")
    found = bayes.summary("ability", level=0.9).set_index(["model", "factor"])
    true = truth.stack().reindex(found.index)
    inside = ((found["lower"] <= true) & (true <= found["upper"])).mean()
    print(f"90 % intervals hold {inside:.0%} of the {len(true)} true abilities.")

    two_step, joint = (fl.fit_budgets(made.table, solution, level=0.9).table for solution in (pca, bayes))
    keys = ["factor", "budget"]
    naive, posterior = (t.query("form == 'at_hand'").set_index(keys) for t in (two_step, joint))
    print(f"\n{'':13} {'true':>6}   {'two-step':20}   posterior")
    for factor, language in naive.index:
        here = truth[factor].corr(made.budget[language])
        cells = [naive.loc[(factor, language)], posterior.loc[(factor, language)]]
        shown = [f"{c['median']:5.2f} [{c['lower']:5.2f}, {c['upper']:5.2f}]" for c in cells]
        print(f"rho({factor}, {language}) {here:8.2f}   {shown[0]:20}   {shown[1]}")
    print("The posterior's intervals are for these models, the two-step ones for models drawn anew.")
    if chosen.out is not None:
        made.table.write(chosen.out)
        made.truth.save(chosen.out / "truth.nc")
        bayes.save(chosen.out / "bayes.nc")


def true_abilities(truth: fl.FactorSolution, bayes: fl.FactorSolution) -> pd.DataFrame:
    """True abilities on the axes that the posterior's draws were turned to, (model, factor)."""
    loading, ability, mean = (truth.stacked(name) for name in ("loading", "ability", "mean"))
    turned = orient(loading, ability, mean, bayes.constants["reference_loading"].values)
    return pd.DataFrame(turned.ability[0], index=truth.models, columns=truth.factors)


if __name__ == "__main__":
    main()
