"""The tables in data/: what the paper counts, and that the script still writes them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from factorlab.lineage import build_lineage, published_log10_budget, token_sources
from factorlab.scores import read_scores

DATA = Path(__file__).parents[1] / "data"
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="module")
def table():
    return read_scores(DATA / "scores.parquet")


def test_shape_and_order(table):
    assert table.scores.shape == (35, 19)
    assert np.isfinite(table.scores).all()
    assert len(table.models) == 36
    assert table.models.index[-1] == "Mixtral-8x7B-Instruct-v0.1"
    assert table.languages == ["en", "ja"]
    assert table.benchmarks["language"].value_counts().to_dict() == {"ja": 10, "en": 9}


def test_budgets_of_the_paper(table):
    scored = table.scored_models
    counted = [published_log10_budget(scored, b).notna().sum() for b in ("en", "ja", "total")]
    assert counted == [27, 25, 27]
    assert (scored["construction"] == "PT").sum() == 20
    scratch = scored[scored["construction"] == "PT"]
    assert published_log10_budget(scratch, "en").notna().sum() == 16
    assert published_log10_budget(scratch, "ja").notna().sum() == 10


def test_lineage_of_the_paper(table):
    lineage = build_lineage(table.models)
    families = {"Llama 2", "Llama 3", "Mistral", "Qwen", "Yi", "Sarashina2"}
    assert set(lineage.families) == families | {"Command-R", "CyberAgentLM2", "Fugaku", "LLM-jp"}
    names = lineage.names
    chain = [names[a] for a in lineage.ancestors(names.index("Swallow-MX 8x7B v0.1"))]
    assert chain == ["Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B-v0.1"]
    japanese = published_log10_budget(table.scored_models, "ja").dropna().index
    of_llama2 = [m for m in japanese if lineage.family_of([m])[0] == "Llama 2"]
    assert len(of_llama2) == 11  # Llama 2 and its children


def test_stages_add_up_to_the_published_totals(table):
    lineage = build_lineage(table.models)
    for language in table.languages:
        sources = token_sources(table.models, lineage, language)
        for i in range(len(lineage.names)):
            total = sources.own_tokens_b[[i, *lineage.ancestors(i)]].sum()
            if np.isfinite(sources.total_published_b[i]):
                assert total == pytest.approx(sources.total_published_b[i])
            else:
                assert np.isnan(total)


def test_statuses(table):
    japanese = table.scored_models["tokens_b_ja_status"].value_counts().to_dict()
    assert japanese == {"official": 16, "unknown": 7, "derived": 5, "guessed": 4, "none": 3}
    english = table.scored_models["tokens_b_en_status"].value_counts().to_dict()
    assert english == {"derived": 18, "guessed": 8, "unknown": 8, "official": 1}


def test_instances_and_anchors(table):
    n = table.benchmarks["n_instances"]
    assert (n["JMMLU"], n["HumanEval"], n["MGSM"], n["GSM8K"]) == (3541, 164, 250, 1319)
    # Published accuracies are multiples of 1 / n (of 1 / 1640 for ten samples a problem).
    for benchmark, unit in (("JMMLU", 3541), ("MGSM", 250), ("GSM8K", 1319), ("HumanEval", 1640)):
        counts = table.data["score"].sel(benchmark=benchmark).values * unit
        np.testing.assert_allclose(counts, np.round(counts), atol=0.5e-4 * unit + 1e-9)
    anchors = table.benchmarks["anchor_factor"].dropna().to_dict()
    assert anchors == {"NIILC": 2, "HumanEval": 3}
    groups = table.benchmarks.groupby("shared_items_group").groups
    assert {k: sorted(v) for k, v in groups.items()} == {
        "gsm8k": ["GSM8K", "MGSM"],
        "humaneval": ["HumanEval", "JHumanEval"],
        "mmlu": ["JMMLU", "MMLU"],
    }


def test_standard_errors_against_the_printed_ratios(table):
    ratio = np.median(table.se, axis=0) / table.scores.std(axis=0, ddof=1)
    by_name = dict(zip(table.benchmark_names, ratio, strict=True))
    expected = {
        **{"JEMHopQA": 0.68, "OpenBookQA": 0.55, "WMT20-ja-en": 0.36, "XWINO": 0.32, "XL-Sum": 0.28},
        **{"NIILC": 0.26, "HumanEval": 0.20, "MGSM": 0.13, "MMLU": 0.03},
    }
    assert {k: by_name[k] for k in expected} == pytest.approx(expected, abs=0.03)
    assert (table.se > 0).all()
    bounds = table.data["se_kind"].values[0] == "binomial (upper bound)"
    assert sorted(np.asarray(table.benchmark_names)[bounds]) == sorted(
        ["JEMHopQA", "NIILC", "JSQuAD", "XL-Sum", "WMT20-en-ja", "WMT20-ja-en"]
    )


def test_columns_are_explained():
    text = (DATA / "README.md").read_text(encoding="utf-8")
    for name in ("models.csv", "benchmarks.csv"):
        for column in pd.read_csv(DATA / name).columns:
            named = f"`{column}`" in text or column.endswith("_status")
            assert named, f"data/README.md does not explain {column} of {name}"


@pytest.mark.shared
def test_the_script_writes_what_is_here(tmp_path):
    source = SHARED / "data" / "swallow35"
    if not source.is_dir():
        # Third parties' material lies outside the project, whose tests must pass without it.
        pytest.skip(f"the source tables are not at {source}")
    command = [sys.executable, str(DATA / "make_data.py"), str(source), "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    for name in ("models.csv", "benchmarks.csv"):
        assert (tmp_path / name).read_text() == (DATA / name).read_text()
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "scores.parquet"), pd.read_parquet(DATA / "scores.parquet")
    )
