"""`factorlab outliers` on run folders: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from small_runs import bare_run, small_run

from factorlab.cli import main
from factorlab.inference.outliers import find_outliers
from factorlab.page.outlier_words import outlier_words
from factorlab.runs import write_results
from factorlab.summary import tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "small.fit"
    path.mkdir()
    write_results(small_run(), path)
    return path


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["outliers", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_json_and_csv_are_what_the_library_gives(folder, tmp_path):
    analysis = small_run()
    assert analysis.bayes is not None
    found = find_outliers(analysis.table, analysis.bayes)
    code, text, _ = run(str(folder), "--json", "--out", str(tmp_path / "o.csv"))
    assert code == 0
    told = json.loads(text)
    written = pd.read_csv(tmp_path / "o.csv")
    assert [row["p"] for row in told["cells"]] == pytest.approx(found.cells["p"].tolist(), rel=1e-6)
    assert written["p_adjusted"].tolist() == pytest.approx(found.cells["p_adjusted"].tolist(), rel=1e-6)
    assert len(told["models"]) == len(analysis.table.model_names)


def test_the_planted_zero_is_flagged_in_the_text_and_on_the_page(folder):
    """Model 6 scores exactly 0 on bench0 of the small table, where it should score far more."""
    code, text, _ = run(str(folder), "--strict", "--most", "3")
    assert code == 3
    first = next(line for line in text.splitlines() if line.startswith("!"))
    assert "model-6" in first
    assert "bench0" in first
    analysis = small_run()
    assert analysis.outliers is not None
    claim, numbers = next(outlier_words(analysis.outliers))
    assert "not fit what the model's other scores" in claim
    assert "model-6 on bench0 0.00, predicted" in numbers
    assert {"outliers", "outlier_models"} <= set(tables(analysis))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fdr", "0"), "fdr is 0.0; give a number between 0 and 1"),
        (("--most", "0"), "--most is 0; give 1 or more"),
        (("--draws", "0"), "draws is 0; give 1 or more"),
        (("--out", "no/such/o.csv"), "no such folder for --out"),
        (("--figure", "no/such/o"), "no such folder for --figure"),
    ],
)
def test_bad_options_are_one_line(folder, arguments, words):
    code, text, told = run(str(folder), *arguments)
    assert code == 1
    assert text == ""
    assert words in told
    assert len(told.strip().splitlines()) == 1


def test_a_run_without_a_posterior_is_refused(tmp_path):
    (tmp_path / "bare.fit").mkdir()
    write_results(bare_run(), tmp_path / "bare.fit")
    code, _, told = run(str(tmp_path / "bare.fit"))
    assert code == 1
    assert "has no posterior; fit with --method bayes or all" in told
