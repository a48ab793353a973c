"""Every example runs from the repository root, writes only where it is told, and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import factorlab as fl

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str) -> str:
    """Standard output of an example, run as a person would."""
    before = _files()
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert _files() == before, "an example wrote into the repository"
    return done.stdout


def _files() -> set[Path]:
    folders = [ROOT, EXAMPLES, ROOT / "data"]
    return {path for folder in folders for path in folder.iterdir() if not path.name.startswith((".", "__"))}


def test_all_are_tested():
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in EXAMPLES.glob("*.py") if f'run("{path.stem}"' not in tests] == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_docstring_says_how_to_run_it(path: Path):
    assert f"python examples/{path.name}" in path.read_text(encoding="utf-8").split('"""')[1]


def test_reproduce_paper(tmp_path: Path):
    out = run("reproduce_paper", "--out", str(tmp_path))
    frame = pd.read_csv(tmp_path / "paper.csv").set_index(["models", "quantity"])
    assert len(frame) == 18
    assert frame.loc[("all 35", "rho(PC2, ja), n = 25"), "here"] == pytest.approx(0.7793, abs=1e-4)
    assert frame.loc[("all 35", "variance of PC1 (%)"), "here"] == pytest.approx(65.15, abs=0.01)
    differs = [line for line in out.splitlines() if line.endswith("differs")]
    assert len(differs) == 1
    assert re.search(r"20 from scratch +rho\(PC2, ja\), n = 10 +0\.779 +0\.80", differs[0])


def test_own_table(tmp_path: Path):
    out = run("own_table", "--out", str(tmp_path), "--draws", "400")
    assert "20 models x 6 benchmarks" in out
    assert "note: No models table: no budgets and no lineage, so no budget regression." in out
    assert "118 scores on 6 benchmarks have no standard error" in out
    rows = [
        [float(x) for x in match]
        for match in re.findall(r"(-?\d\.\d+) \[ ?(-?\d\.\d+), +(-?\d\.\d+)\] +(-?\d\.\d+)", out)
    ]
    assert len(rows) == 20
    frame = pd.DataFrame(rows, columns=["mean", "lower", "upper", "pca"])
    assert (frame["lower"] < frame["mean"]).all()
    assert (frame["mean"] < frame["upper"]).all()
    assert frame["mean"].corr(frame["pca"]) > 0.95
    assert fl.load_solution(tmp_path / "leaderboard.nc").kind == "posterior"


@pytest.mark.slow
def test_recovery(tmp_path: Path):
    out = run("recovery", "--out", str(tmp_path), "--draws", "300")
    assert all(float(c) > 0.9 for c in re.findall(r"drawn loadings (\S+)", out))
    estimated = dict(re.findall(r"(\w+): correlation of estimated and true abilities (\S+),", out))
    assert set(estimated) == {"PCA", "Bayes"}
    assert all(float(r) > 0.95 for r in estimated.values())
    # 90 % of 60 abilities: four binomial standard deviations are 0.15.
    assert int(re.search(r"intervals hold (\d+)%", out).group(1)) >= 75
    table = re.findall(r"rho\((PC\d), (\w+)\) +(-?\d\.\d+) +-?\d\.\d+ \[.*?\] +(-?\d\.\d+) \[", out)
    assert [row[:2] for row in table] == [("PC1", "en"), ("PC1", "ja"), ("PC2", "en"), ("PC2", "ja")]
    assert all(abs(float(true) - float(found)) < 0.15 for _, _, true, found in table)
    assert {path.name for path in tmp_path.iterdir()} >= {"scores.parquet", "truth.nc", "bayes.nc"}


@pytest.mark.slow
def test_another_language(tmp_path: Path):
    out = run("another_language", "--out", str(tmp_path), "--draws", "300")
    assert "languages with a budget: en, ko" in out
    rho = pd.read_csv(tmp_path / "rho.csv").set_index(["factor", "budget", "form"])
    assert rho.loc[("PC1", "en", "at_hand"), "lower"] > 0.6
    assert rho.loc[("PC2", "ko", "at_hand"), "lower"] > 0.4
    assert rho.loc[("PC2", "ko - en", "difference"), "lower"] > 0
    # Also the benchmarks' languages are data.
    assert set(pd.read_csv(tmp_path / "models.csv").filter(like="tokens_b_ko").columns) == {
        "tokens_b_ko",
        "tokens_b_ko_status",
    }


def test_from_logs():
    out = run("from_logs")
    errors = {
        name: (float(se), float(bare))
        for name, se, bare in re.findall(r"^(\w+) +(0\.\d+) +(0\.\d+)$", out, re.MULTILINE)
    }
    assert errors["arithmetic"][0] == pytest.approx(errors["arithmetic"][1], rel=0.02)
    for name in ("reading_en", "reading_ja"):
        assert errors[name][0] > 1.2 * errors[name][1]  # questions on one text are not independent
    found = re.search(r"errors of the two reading benchmarks correlate by (0\.\d\d)", out)
    assert found is not None
    assert 0.3 < float(found.group(1)) < 0.9
