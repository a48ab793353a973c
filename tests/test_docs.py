"""The documents say what the code does: verbs, keys of summary.json, priors, flags, files, names."""

from __future__ import annotations

import inspect
import re
import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import factorlab as fl
from factorlab.analysis import Analysis, derive
from factorlab.health import KINDS, check
from factorlab.inference.pca import resample_pca
from factorlab.inference.priors import Priors
from factorlab.inference.scree import parallel_analysis
from factorlab.lineage import STATUSES
from factorlab.metadata import BENCHMARK_COLUMNS, SE_RULES
from factorlab.options import FitOptions
from factorlab.runs import write_results
from factorlab.summary import summarise, tables

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FORMATS = (DOCS / "formats.md").read_text(encoding="utf-8")
MODEL = (DOCS / "model.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def analysis(small, small_fit, swallow) -> Analysis:
    """All that an analysis can hold: flags of the real table, a declared pair, a rotated ML solution."""
    table = small.table
    pair = np.full((small_fit.draws.sizes["chain"], small_fit.draws.sizes["draw"], 1), 0.1)
    draws = small_fit.draws.assign(pair_sd=(("chain", "draw", "pair"), pair)).assign_coords(pair=["a+b"])
    pca = fl.fit_pca(table, 2)
    return derive(
        Analysis(
            table,
            FitOptions(factors=2, rotation="promax"),
            check(swallow),
            pca=pca,
            ml=fl.fit_ml(table, 2, rotation="promax"),
            bayes=small_fit.with_(draws=draws),
            resamples={"leave-one-model-out": resample_pca(table, 2)},
            parallel=parallel_analysis(table),
            notes=("a note",),
            seconds={"check": 0.1, "baselines": 0.1, "bayes": 0.1, "derived": 0.1},
        )
    )


def section(text: str, title: str) -> str:
    """Text under a heading, up to the next one of its level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section '{title}'"
    return found.group(1)


def first_cells(text: str) -> list[str]:
    """First cell of every row of the tables in a text, headers left out."""
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if not row.startswith("---") and "`" in row]


def documented_keys() -> list[tuple[str, ...]]:
    """Paths of the summary's section: ``.x`` and ``[].x`` stand for the last part of the key before."""
    out, before = [], ""
    for cell in first_cells(section(FORMATS, "summary.json")):
        for name in re.findall(r"`([^`]+)`", cell):
            if name.startswith("."):
                name = before.rsplit(".", 1)[0] + name
            elif name.startswith("[]"):
                name = before.split("[]")[0] + name
            before = name
            out.append(tuple(name.replace("[]", ".[]").split(".")))
    return out


def exists(value: Any, path: tuple[str, ...]) -> bool:
    """Whether a documented path leads somewhere: everywhere below a placeholder and in every list item."""
    if not path:
        return True
    head, rest = path[0], path[1:]
    if head == "[]":
        return isinstance(value, list) and bool(value) and all(exists(item, rest) for item in value)
    if not isinstance(value, dict) or not value:
        return False
    if head.startswith("<"):
        return all(exists(item, rest) for item in value.values())
    return head in value and exists(value[head], rest)


def undocumented(value: Any, paths: list[tuple[str, ...]], place: str = "") -> list[str]:
    """Places of a summary that no documented path reaches."""
    if () in paths:
        return []
    if isinstance(value, list):
        inner = [path[1:] for path in paths if path[0] == "[]"]
        return (
            [place] if not inner else [u for item in value for u in undocumented(item, inner, f"{place}[]")]
        )
    if not isinstance(value, dict):
        return [place]
    out = []
    for key, item in value.items():
        named = [path[1:] for path in paths if path[0] == key]
        inner = named or [path[1:] for path in paths if path[0].startswith("<")]
        where = f"{place}.{key}".removeprefix(".")
        out += undocumented(item, inner, where) if inner else [where]
    return out


def test_cli_page_is_what_the_verbs_say():
    page = runpy.run_path(str(DOCS / "make_cli.py"))["page"]
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == page(), "run python docs/make_cli.py"


def test_every_documented_key_is_in_the_summary(analysis):
    summary = summarise(analysis)
    keys = documented_keys()
    assert len(keys) > 100
    assert [".".join(key) for key in keys if not exists(summary, key)] == []


def test_every_key_of_the_summary_is_documented(analysis):
    assert undocumented(summarise(analysis), documented_keys()) == []


def test_every_prior_is_documented_with_its_default():
    rows = {
        line.split("`")[1]: line.split(" | ")[1]
        for line in section(MODEL, "Priors").splitlines()
        if line.startswith("| `")
    }
    assert {name: float(value) for name, value in rows.items()} == {f.name: f.default for f in fields(Priors)}


@pytest.mark.parametrize(
    "source",
    [
        "arXiv 2412.14471", "arXiv 2411.00640", "Schönemann 1966", "Leung & Drton 2016", "Rabe-Hesketh 2019",
        "Bürkner 2021", "Vehtari 2023",
    ],
)  # fmt: skip
def test_the_sources_are_cited(source: str):
    assert source in section(MODEL, "References")


def test_every_flag_and_status_is_documented():
    assert [cell.strip("`") for cell in first_cells(section(FORMATS, "Flags"))] == list(KINDS)
    cells = [cell.strip("`") for cell in first_cells(section(FORMATS, "Tables"))]
    assert [s for s in STATUSES if s not in cells] == []


def test_every_column_of_the_benchmarks_table_is_documented():
    named = {n for cell in first_cells(section(FORMATS, "Tables")) for n in re.findall(r"`([^`]+)`", cell)}
    assert [column for column in BENCHMARK_COLUMNS if column not in named] == []
    assert [rule for rule in SE_RULES if f"`{rule}`" not in FORMATS] == []


def test_every_file_of_a_run_is_documented(analysis, tmp_path):
    text = section(FORMATS, "The run folder")
    write_results(analysis, tmp_path)
    for path in sorted(p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != "tables"):
        assert f"`{path.relative_to(tmp_path).as_posix()}`" in text, path.name
    for name in tables(analysis):
        known = name if not name.startswith("pca_loadings_") else "pca_loadings_<scheme>"
        assert f"`{known}.csv`" in text, name


def test_columns_of_the_tables_are_as_documented(analysis):
    """Names in a row of the document are columns of that table."""
    frames = tables(analysis)
    checked = 0
    for line in section(FORMATS, "The run folder").splitlines():
        files = re.findall(r"`(\w+)\.csv`", line)
        # A table of models without a base in it has no contrasts and so no columns.
        if not line.startswith("| ") or not files or files[0] not in frames or frames[files[0]].columns.empty:
            continue
        for column in re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`.]+)`", line.split(" | ")[2]))):
            assert any(column in frames[f].columns for f in files if f in frames), (files, column)
            checked += 1
    assert checked > 40


def test_every_variable_of_a_posterior_is_documented(small_fit, tmp_path):
    text = section(FORMATS, "netCDF")
    file = small_fit.save(tmp_path / "bayes.nc")
    named = set(re.findall(r"`(\w+)`", text))
    with xr.open_dataset(file, group="posterior", engine="h5netcdf") as posterior:
        names = {re.sub(r"_(en|ja)$", "_l", str(v)) for v in posterior.data_vars}
        assert names - named == set()
        assert set(posterior.attrs) - named == set()
        dims = {re.sub(r"_(en|ja)$", "_l", str(d)) for d in posterior.dims}
        assert [d for d in dims if not re.search(rf"\b{d}\b", text)] == []
    with xr.open_dataset(file, group="constant_data", engine="h5netcdf") as constants:
        assert {str(v) for v in constants.data_vars} - named == set()


def test_every_public_name_is_documented():
    text = section(FORMATS, "Python")
    assert [name for name in fl.__all__ if not re.search(rf"`fl\.{name}[`(]", text)] == []


def test_parameters_of_public_functions_are_as_documented():
    for name, inside in re.findall(r"`fl\.(\w+)\(([^)]*)\)`", section(FORMATS, "Python")):
        if inside == "...":
            continue
        written = [part.strip().removesuffix("=") for part in inside.split(",")]
        real = list(inspect.signature(getattr(fl, name)).parameters)
        if name in ("write_report",):
            real = real[: len(written)]
        assert written == real, name


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_wording(page: Path):
    """Correlations are observational."""
    words = re.findall(r"\beffects?\b", page.read_text(encoding="utf-8").lower())
    assert words == []
