"""Write scores.parquet, models.csv and benchmarks.csv from the published figures.

Usage: ``python data/make_data.py SOURCE [--out FOLDER]``, SOURCE being a folder with ``scores.csv``
(model, benchmark, score), ``models.csv`` (Table 1 and Table 4 of the paper) and ``benchmarks.csv``.
What those files do not say (family, base model, status of each token count, chance level, shared
items) stands in the small tables of ``data/source``; see data/README.md.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
LANGUAGES = ("en", "ja")
MODEL_COLUMNS = [
    *("model", "hf_id", "family", "base_model", "construction", "group", "params_b", "params_total_b"),
    *("tokens_b_total", "tokens_b_en", "tokens_b_en_status", "tokens_b_ja", "tokens_b_ja_status"),
    *("cpt_tokens_b_en", "cpt_tokens_b_en_status", "cpt_tokens_b_ja", "cpt_tokens_b_ja_status"),
]
BENCHMARK_COLUMNS = [
    *("benchmark", "language", "category", "metric", "chance", "min", "max", "higher_is_better"),
    *("n_instances", "se_rule", "shared_items_group", "anchor_factor"),
]


def models_table(source: pd.DataFrame, annotations: pd.DataFrame, unscored: pd.DataFrame) -> pd.DataFrame:
    """The published columns under our names, joined with the annotations; unscored parents last."""
    published = source.rename(
        columns={
            "active_params_b_table1": "params_b",
            "size_b_leaderboard": "params_total_b",
            "group_table4": "group",
            "total_tokens_b": "tokens_b_total",
            "en_tokens_b": "tokens_b_en",
            "ja_tokens_b": "tokens_b_ja",
        }
    ).drop(columns=["cpt_source", "corpus", "note"])
    # Table 1 rounds the size; where it exceeds the size on the leaderboard (7 against 6.7) the two
    # agree to rounding, and only for mixtures of experts do active and total parameters differ.
    table = pd.concat([published, unscored], ignore_index=True)
    table = table.merge(annotations, on="model", how="left", validate="one_to_one")
    if table["family"].isna().any():
        raise SystemExit(f"no annotation for {table.loc[table['family'].isna(), 'model'].tolist()}")
    for language in LANGUAGES:
        count, status = f"tokens_b_{language}", f"tokens_b_{language}_status"
        table.loc[table[status].eq("none") & table[count].isna(), count] = 0.0
        table[f"cpt_{count}"] = continual_tokens(table, language)
    return table[MODEL_COLUMNS]


def continual_tokens(table: pd.DataFrame, language: str) -> pd.Series:
    """Tokens of the continual stage: the child's total minus the parent's, 0 where the status is none."""
    totals = table.set_index("model")[f"tokens_b_{language}"]
    parent = table["base_model"].map(totals)
    stage = (table[f"tokens_b_{language}"] - parent).where(table["base_model"].notna())
    return stage.mask(table[f"cpt_tokens_b_{language}_status"].eq("none"), 0.0)


def benchmarks_table(source: pd.DataFrame, annotations: pd.DataFrame) -> pd.DataFrame:
    """Language, metric and number of instances as published; chance, range and pairs from ours."""
    table = source.rename(columns={"task_category": "category"}).merge(
        annotations, on="benchmark", how="left", validate="one_to_one"
    )
    table = table.assign(min=0.0, max=1.0, higher_is_better=True)
    table["anchor_factor"] = table["anchor_factor"].astype("Int64")
    return table[BENCHMARK_COLUMNS]


def write(table: pd.DataFrame, target: Path) -> None:
    """CSV or Parquet by the name's ending, renamed into place when whole."""
    partial = target.with_name(f".{target.name}.partial")
    if target.suffix == ".parquet":
        table.to_parquet(partial, index=False)
    else:
        table.to_csv(partial, index=False, lineterminator="\n")
    os.replace(partial, target)


def make(source: Path, out: Path) -> None:
    scores = pd.read_csv(source / "scores.csv")
    models = models_table(
        pd.read_csv(source / "models.csv"),
        pd.read_csv(HERE / "source" / "model_annotations.csv"),
        pd.read_csv(HERE / "source" / "unscored_models.csv"),
    )
    benchmarks = benchmarks_table(
        pd.read_csv(source / "benchmarks.csv"), pd.read_csv(HERE / "source" / "benchmark_annotations.csv")
    )
    if not np.isfinite(scores["score"]).all():
        raise SystemExit("scores.csv has a score that is not a finite number")
    out.mkdir(parents=True, exist_ok=True)
    write(scores[["model", "benchmark", "score"]], out / "scores.parquet")
    write(models, out / "models.csv")
    write(benchmarks, out / "benchmarks.csv")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder with scores.csv, models.csv, benchmarks.csv")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: data/)")
    options = parser.parse_args()
    make(options.source, options.out)
