"""Held-out cells of Epoch's benchmark-stitching table, 10 folds: factorlab against the Epoch Capabilities Index.

    python benchmarks/predict_eci.py --data DIR --out FILE.json [--folds N]

DIR has scores.csv of github.com/epoch-research/benchmark-stitching. Folds are those of the authors' notebook:
KFold(10, shuffle=True, random_state=42) over the rows. Family and base model of each model are read off its name
(first word; the name without date and effort); its date is a predictor. The members of the mixture are the
defaults of `factorlab predict`.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
from prediction_protocols import LEVEL, measures, one_sigmoid, pooled, predict_hidden, told, without, write
from sklearn.model_selection import KFold

from factorlab.inference.predict.member_fit import Effort
from factorlab.inference.predict.mixture import PredictionSettings
from factorlab.scores import ScoreTable, table_from_frames

PUBLISHED = [
    {"method": "ECI, published", "r2": 0.8641, "mse": 0.0098},
    {"method": "clipped linear, published", "r2": 0.8683, "mse": 0.0095},
]

TRAILING = (
    r"_(low|medium|high|\d+k)$",
    r"-(20\d{6}|20\d\d-\d\d-\d\d|\d{4}|beta|00\d|preview.*|exp.*|hf)$",
    r"-(20\d{6}|20\d\d-\d\d-\d\d|preview.*|exp.*)$",
    r"-(instruct|chat|it|base)$",
)
"""What is no part of a base model's name: effort, date, stage."""

SAME = {"o": "openai o", "chatglm": "glm", "mixtral": "mistral", "codeqwen": "qwen"}


def family(name: str) -> str:
    plain = name.lower().strip().replace("meta-", "").replace("amazon.", "").replace("open_", "open")
    found = re.match(r"[a-z]+", plain)
    word = found.group(0) if found else plain
    return SAME.get(word, word)


def base_model(name: str) -> str:
    plain = name.lower().strip()
    for pattern in TRAILING:
        plain = re.sub(pattern, "", plain)
    return f"base {plain}"


def read(folder: Path) -> tuple[ScoreTable, pd.DataFrame]:
    cells = pd.read_csv(folder / "scores.csv")
    cells["model"] = cells["model"].str.strip()
    date = cells.groupby("model")["date"].first()
    rows = [
        {"model": m, "family": family(m), "base_model": base_model(m), "release_date": date[m]}
        for m in dict.fromkeys(cells["model"])
    ]
    bases = {row["base_model"]: row["family"] for row in rows}
    rows += [{"model": base, "family": of} for base, of in bases.items()]
    scores = cells.rename(columns={"performance": "score"})[["model", "benchmark", "score"]]
    return table_from_frames(scores, models=pd.DataFrame(rows), name="eci"), cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--draws", type=int, default=75)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    table, cells = read(args.data)
    place = {name: i for i, name in enumerate(table.model_names)}
    column = {name: j for j, name in enumerate(table.benchmark_names)}
    settings = PredictionSettings(level=LEVEL, effort=Effort(args.draws, 150, 2, 7), seed=1)
    rows, ours = [], []
    peers: dict[str, list] = {"ECI's sigmoid": [], "clipped linear": []}
    splits = list(KFold(10, shuffle=True, random_state=42).split(cells))
    for fold, (_, test) in enumerate(splits[: args.folds]):
        hidden = np.zeros(table.scores.shape, dtype=bool)
        hidden[cells["model"].iloc[test].map(place), cells["benchmark"].iloc[test].map(column)] = True
        began = time.monotonic()
        truth, found = predict_hidden(table, hidden, settings, args.workers)
        ours.append(truth)
        row = {"method": "factorlab", "fold": fold, "seconds": time.monotonic() - began}
        rows.append(row | measures(truth) | told(found))
        print(row, measures(truth), flush=True)
        train = without(table, hidden).scores
        for name, clipped in (("ECI's sigmoid", False), ("clipped linear", True)):
            peers[name].append(truth._replace(median=one_sigmoid(train, clipped=clipped)[hidden]))
        done = measures(pooled(ours))
        keep = ("cells", "r2", "mse", "median_absolute_error")
        total = [{"method": "factorlab", "fold": "all"} | done]
        for name, parts in peers.items():
            measured = measures(pooled(parts))
            total.append({"method": f"{name}, re-run", "fold": "all"} | {k: measured[k] for k in keep})
        goals = [
            ("R2", done["r2"], ">= 0.905", done["r2"] >= 0.905),
            ("MSE", done["mse"], "<= 0.0069", done["mse"] <= 0.0069),
            (
                "recalibrated 90 % coverage",
                done["coverage"],
                "0.88 to 0.92",
                0.88 <= done["coverage"] <= 0.92,
            ),
        ]
        write(args.out, rows + total + PUBLISHED, goals)
    print(total, goals)


if __name__ == "__main__":
    main()
