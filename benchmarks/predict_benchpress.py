"""Held-out cells of the BenchPress matrix, 9 published folds: factorlab against the authors' method.

    python benchmarks/predict_benchpress.py --data DIR --out FILE.json [--folds N]

DIR has scores.csv, models.csv and folds_dev.csv of github.com/microsoft/benchpress as the shared data folder holds
them. The members of the mixture are the defaults of `factorlab predict`, fixed before any fold was seen; their
weights and the recalibration come from splits of each fold's training cells.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from prediction_protocols import LEVEL, logit_als, measures, pooled, predict_hidden, told, without, write

from factorlab.inference.predict.member_fit import Effort
from factorlab.inference.predict.mixture import PredictionSettings
from factorlab.scores import table_from_frames

PUBLISHED = {"method": "BenchPress, published (9 folds)", "median_absolute_error": 4.561, "within_3": 0.369,
             "within_5": 0.530}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=9)
    parser.add_argument("--draws", type=int, default=75)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    models = pd.read_csv(args.data / "models.csv").rename(columns={"provider": "family"})
    table = table_from_frames(
        pd.read_csv(args.data / "scores.csv"),
        models=models[["model", "family", "reasoning", "release_date"]],
        name="benchpress",
    )
    folds = pd.read_csv(args.data / "folds_dev.csv")
    settings = PredictionSettings(
        covariates=("reasoning",), level=LEVEL, effort=Effort(args.draws, 150, 2, 7), seed=1
    )
    rows, ours, theirs = [], [], []
    for (seed, fold), part in list(folds.groupby(["seed", "fold"]))[: args.folds]:
        hidden = np.zeros(table.scores.shape, dtype=bool)
        hidden[
            [table.model_names.index(m) for m in part["model"]],
            [table.benchmark_names.index(b) for b in part["benchmark"]],
        ] = True
        began = time.process_time(), time.monotonic()
        truth, found = predict_hidden(table, hidden, settings, args.workers)
        seconds = time.monotonic() - began[1]
        peer = logit_als(without(table, hidden).scores)[hidden]
        ours.append(truth)
        theirs.append(truth._replace(median=peer))
        row = {"method": "factorlab", "seed": int(seed), "fold": int(fold), "seconds": seconds}
        rows.append(row | measures(truth) | told(found))
        print(row, measures(truth), flush=True)
        rows.append({"method": "logit ALS (BenchPress's method)", "seed": int(seed), "fold": int(fold),
                     "median_absolute_error": float(np.median(np.abs(peer - truth.y)))})  # fmt: skip
        done, peer_done = measures(pooled(ours)), measures(pooled(theirs))
        errors = ("cells", "median_absolute_error", "within_3", "within_5")
        total = [
            {"method": "factorlab", "fold": "all"} | done,
            {"method": "logit ALS (BenchPress's method)", "fold": "all"} | {k: peer_done[k] for k in errors},
            PUBLISHED | {"fold": "all"},
        ]
        goals = [
            ("median absolute error, points", done["median_absolute_error"], "<= 4.0",
             done["median_absolute_error"] <= 4.0),
            ("raw 90 % coverage", done["raw_coverage"], "0.88 to 0.92", 0.88 <= done["raw_coverage"] <= 0.92),
            ("recalibrated 90 % coverage", done["coverage"], "0.89 to 0.91", 0.89 <= done["coverage"] <= 0.91),
            ("recalibrated median width, points", done["width"], "< 26", done["width"] < 26),
        ]  # fmt: skip
        write(args.out, rows + total, goals)
    print(total[0], goals)


if __name__ == "__main__":
    main()
