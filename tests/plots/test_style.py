"""Fonts, colours, names and files."""

import os
import subprocess
import sys

import matplotlib
import pytest
from made_up_fits import make_table
from matplotlib.figure import Figure

from factorlab import plots
from factorlab.plots.style import (
    PALETTE,
    benchmark_names,
    font_families,
    group_models,
    language_colours,
    short,
    short_names,
)


def test_save_writes_both_kinds_and_leaves_nothing_else(tmp_path, table, posterior):
    png, svg = plots.save(plots.ability_intervals(posterior, table), tmp_path / "new" / "abilities.PC1")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()
    assert [p.name for p in sorted((tmp_path / "new").iterdir())] == [
        "abilities.PC1.png",
        "abilities.PC1.svg",
    ]


def test_save_is_whole_or_nothing(tmp_path, monkeypatch):
    figure = Figure()
    plots.save(figure, tmp_path / "a")
    before = (tmp_path / "a.png").read_bytes()
    real = os.chmod

    def fails_on_svg(name, mode):
        real(name, mode)
        if ".svg" in name:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "chmod", fails_on_svg)
    figure.suptitle("changed")
    with pytest.raises(KeyboardInterrupt):
        plots.save(figure, tmp_path / "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_svg_is_the_same_each_time(tmp_path, table):
    first, second = (plots.save(plots.correlation_heatmap(table), tmp_path / n)[1].read_text() for n in "ab")
    assert first == second


def test_japanese_font_is_found_without_changing_settings():
    before = list(matplotlib.rcParams["font.family"])
    assert font_families() == ["DejaVu Sans", "IPAexGothic"]
    assert list(matplotlib.rcParams["font.family"]) == before


def test_importing_the_package_loads_no_matplotlib():
    code = "import sys, factorlab.plots; dir(factorlab.plots); assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_is_there():
    for name in plots.__all__:
        assert callable(getattr(plots, name)), name
    with pytest.raises(AttributeError, match="no attribute 'pie'"):
        plots.pie  # noqa: B018


def test_more_languages_than_colours_are_told_by_their_code():
    table = make_table(5, 12)
    codes = ["ja", "en", "zh", "ko", "de", "fr", "th", "sw", "te", "bn", "ru", "es"]
    table = type(table)(table.data, table.models, table.benchmarks.assign(language=codes), table.name)
    assert len(language_colours(table)) == 12
    names = benchmark_names(table.benchmark_names, table)
    assert names.labels[0] == "bench0 (ja)"
    assert not names.legend
    few = benchmark_names(table.benchmark_names[:3], make_table(5, 12))
    assert few.labels[0] == "bench0"
    assert set(few.colours) <= set(PALETTE)


def test_groups_are_told_by_colour_and_marker():
    table = make_table(60)
    many = table.models.assign(group=[f"g{i % 30}" for i in range(60)])
    groups = group_models(table.model_names, type(table)(table.data, many, table.benchmarks, table.name))
    assert len({*zip(groups.colours, groups.markers, strict=True)}) == 30


def test_long_names_keep_both_ends():
    assert short("model", 10) == "model"
    long = short("a-very-long-name-of-a-model-70B-instruct", 20)
    assert len(long) == 20
    alike = [f"a-very-long-name-of-model-{i}-70B-instruct" for i in range(3)]
    assert len(set(short_names(alike, 12))) == 3
    assert long.startswith("a-very")
    assert long.endswith("struct")
    assert len(short("日本語の大規模言語モデルの長い名前", 20)) <= 12
