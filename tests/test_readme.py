"""The README's commands work as they stand (with fewer draws, so that they end soon)."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from factorlab.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FEW_DRAWS = [
    "--max-draws",
    "50",
    "--draws",
    "60",
    "--tune",
    "100",
    "--chains",
    "2",
    "--resamples",
    "20",
    "--quiet",
]


def commands(mark: str) -> list[str]:
    block = README.split(f"<!-- {mark}:begin -->")[1].split(f"<!-- {mark}:end -->")[0]
    return [line for line in block.splitlines() if line and not line.startswith("```")]


def test_one_command_runs_the_main_job_and_one_the_tests():
    assert len(commands("main")) == 1
    assert commands("main")[0].endswith("factorlab fit data/scores.parquet")
    assert len(commands("tests")) == 1
    assert commands("tests")[0].endswith("-m pytest")
    assert "tests:begin" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_files_it_names_exist():
    for name in re.findall(r"\]\(([^)]+)\)", README):
        if not name.startswith("http"):
            assert (ROOT / name).exists(), name


@pytest.mark.slow
def test_its_commands_run(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for line in commands("use"):
        words = shlex.split(line, comments=True)
        assert words[0] == "factorlab"
        arguments = words[1:] + (FEW_DRAWS if words[1] == "fit" else [])
        out = CliRunner().invoke(main, arguments)
        assert out.exit_code == 0, f"{line}\n{out.output}"
    assert (tmp_path / "my.fit" / "figures" / "PC2_ja.png").is_file()
    assert (tmp_path / "my.fit" / "report.html").is_file()


@pytest.mark.slow
def test_its_python_runs(tmp_path):
    code = README.split("```python")[1].split("```")[0]
    assert "factors=4, seed=1" in code
    code = code.replace("factors=4, seed=1", "factors=4, seed=1, draws=50, tune=80, chains=2")
    shutil.copytree(ROOT / "data", tmp_path / "data")
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    assert "at_hand" in out.stdout
