"""The larger half of compute predicted from the smaller: the 35 models, and those of Observational Scaling Laws.

    python benchmarks/predict_compute.py --data FOLDER --out FILE.json

FOLDER has base_llm_benchmark_eval.csv of github.com/ryoungj/ObsScaling (arXiv 2405.10938); the 35 models are the
project's own ``data/``. Every score of the larger half (size x tokens) is hidden; models are predicted from their
budgets and families alone, by the prediction mixture and by what those studies do: principal components regressed
on log budgets. The members of the mixture are the defaults of `factorlab predict`; their weights and the
recalibration come from the smaller half.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
from prediction_protocols import write

import factorlab as fl
from factorlab.scores import ScoreTable, table_from_frames

ROOT = Path(__file__).resolve().parents[1]

OURS, THEIRS = "prediction mixture", "PCA + log-linear"


def observational(folder: Path) -> ScoreTable:
    """Base models of Ruan et al. with size and tokens in all."""
    frame = pd.read_csv(folder / "base_llm_benchmark_eval.csv")
    models = pd.DataFrame(
        {
            "model": frame["Model"],
            "family": frame["Model Family"],
            "params_b": frame["Model Size (B)"],
            "tokens_b_total": 1000 * frame["Pretraining Data Size (T)"],
        }
    )
    facts = ["Model Family", "Model Size (B)", "Pretraining Data Size (T)", "FLOPs (1E21)"]
    scores = frame.drop(columns=facts)
    names = [c for c in scores.columns if c != "Model"]
    limits = pd.DataFrame({"benchmark": names, "min": 0.0, "max": 1.0})
    return table_from_frames(
        scores, models=models, benchmarks=limits, name="ObsScaling", model_column="Model"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    tables = {"35 models": fl.read_scores(ROOT / "data" / "scores.parquet")}
    if args.data is not None:
        tables["ObsScaling"] = observational(args.data)
    rows: list[dict[str, Any]] = []
    goals = []
    for name, table in tables.items():
        began = time.process_time()
        options = fl.ValidationOptions(schemes=("compute",), counts=False, workers=args.workers, seed=1)
        found = fl.validate(table, options).methods
        for _, row in found.iterrows():
            rows.append({"table": name, "cpu_seconds": time.process_time() - began} | row.to_dict())
            print(row.to_dict(), flush=True)
        error = found.set_index("method")["mean_error"]
        inside = found.set_index("method").loc[OURS, "coverage"]
        ratio = float(error[OURS] / error[THEIRS])
        goals.append((f"{name}: mean error over that of {THEIRS}", ratio, "< 1", ratio < 1))
        goals.append(
            (f"{name}: recalibrated 90 % coverage", float(inside), "0.80 to 0.97", 0.80 <= inside <= 0.97)
        )
        write(args.out, rows, goals)


if __name__ == "__main__":
    main()
