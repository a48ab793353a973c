"""Who may import whom (AGENTS.md), and what the command line loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import factorlab

PACKAGE = Path(factorlab.__file__).parent

LAYERS = [
    {"errors", "collector", "wording"},
    {
        "lineage",
        "metadata",
        "tabular",
        "layout",
        "relations",
        "standard_errors",
        "metrics",
        "text_metrics",
        "item_errors",
        "records",
        "aggregation",
        "record_writer",
        "error_covariance",
        "written_scores",
        "score_notes",
        "score_table",
        "scores",
    },
    {"run_choice", "corpus_scores", "record_scores", "importers"},
    {"worker", "kept", "cluster_backend", "cluster", "batch"},
    {"eval"},
    {"health", "health_text", "suspects"},
    {"inference"},
    {
        "simulation",
        "options",
        "analysis",
        "questions",
        "refit_tables",
        "refits",
        "changes",
        "tornado",
        "power_tasks",
        "power_options",
        "power_tables",
        "power",
    },
    {"summary"},
    {"plots"},
    {"gallery", "painter"},
    {"page"},
    {"report"},
    {"runs", "refit_folder", "plan_folder", "tornado_folder", "validation_folder"},
    {"progress", "console", "design_console", "scrutiny_text"},
    {"verbs"},
    {"cli"},
]
"""Bottom to top: a module imports from its own layer or below."""

NUMPY_ONLY = ["identify", "mixing", "orientation"]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def level(name: str) -> int:
    found = [i for i, layer in enumerate(LAYERS) if name in layer]
    assert found, f"'{name}' has no place in the import table; add it here and to AGENTS.md"
    return found[0]


def imported(path: Path) -> set[str]:
    out = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            out.add(node.module)
        elif isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
    return out


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_data_flows_one_way(path):
    for name in imported(path):
        if name.startswith("factorlab."):
            other = name.split(".")[1]
            assert level(other) <= level(room(path)), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_only_where_it_belongs_and_matplotlib_only_in_plots(path):
    names = {name.split(".")[0] for name in imported(path)}
    assert not names & {"torch", "transformers"} or path.match("eval/hf/*.py")
    assert "matplotlib" not in names or room(path) in ("plots", "gallery", "report")


@pytest.mark.parametrize("name", NUMPY_ONLY)
def test_identification_is_numpy_only(name):
    allowed = {"__future__", "collections", "typing", "numpy", "scipy", "factorlab"}
    assert {n.split(".")[0] for n in imported(PACKAGE / "inference" / f"{name}.py")} <= allowed


@pytest.mark.parametrize("name", ["factorlab", "factorlab.cli"])
def test_import_loads_neither_torch_nor_pymc(name):
    code = (
        f"import sys, {name}; "
        "print([m for m in ('torch', 'pymc', 'pytensor', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_resolves():
    for name in factorlab.__all__:
        assert getattr(factorlab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = factorlab.nothing


def test_forbidden_rooms_do_not_exist():
    for name in ("utils", "helpers", "common"):
        assert not list(PACKAGE.rglob(f"{name}*"))


def test_no_module_shadows_a_public_name():
    top = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    assert top & set(factorlab.__all__) <= {"plots"}
