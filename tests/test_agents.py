"""AGENTS.md names every room that exists, and none that does not."""

from __future__ import annotations

import re
from pathlib import Path

import factorlab

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(factorlab.__file__).parent
TEXT = (ROOT / "AGENTS.md").read_text(encoding="utf-8")


def test_every_module_is_on_the_map():
    top = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    inner = [path.name for path in (PACKAGE / "inference").glob("*.py") if path.name != "__init__.py"]
    folders = [
        f"{path.name}/" for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")
    ]
    missing = [name for name in [*top, *inner, *folders] if f"`{name}`" not in TEXT]
    assert missing == []


def test_every_file_it_names_exists():
    names = set(re.findall(r"`([a-z_]+\.py)`", TEXT))
    have = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    assert names - have == set()


def test_it_is_one_page():
    assert len(TEXT.splitlines()) < 100
