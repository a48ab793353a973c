"""What all figures share: fonts, palette, colours of languages and groups, panels.

Nothing here changes matplotlib's global settings: figures are drawn inside `matplotlib.rc_context`, and the
font with Japanese glyphs is added to the font manager without importing the package that carries it (its
import would set rcParams).
"""

from __future__ import annotations

import functools
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline

from factorlab.scores import ScoreTable
from factorlab.wording import language_name as language_name

P = ParamSpec("P")
R = TypeVar("R")

# Okabe & Ito (2008), without yellow (too light for text), the light blue last; black stands for "none".
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # 7 and 6 share no divisor: 42 different pairs
INK = "#222222"
FAINT = "#8a8a8a"


@functools.cache
def font_families() -> list[str]:
    """Font families in order of use: the second has the Japanese glyphs the first lacks."""
    families = ["DejaVu Sans"]
    spec = find_spec("matplotlib_fontja")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).rglob("*.ttf")):
            font_manager.fontManager.addfont(str(path))
            families.append(font_manager.FontProperties(fname=str(path)).get_name())
    return families


def settings() -> dict[Any, Any]:
    """The rcParams every figure is drawn and saved under."""
    return {
        "font.family": font_families(),
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "axes.edgecolor": "#9a9a9a",
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": "#e3e3e3",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "hatch.linewidth": 0.5,
        "svg.hashsalt": "factorlab",  # the same figure gives the same file
        "figure.dpi": 100,
        "text.usetex": False,  # names of models hold characters that TeX would read as commands
    }


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under `settings`, leaving matplotlib's own as they were."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **options: P.kwargs) -> R:
        with matplotlib.rc_context(settings()):
            return draw(*args, **options)

    return wrapper


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure, inches; the title stands at its upper left."""
    figure = Figure(figsize=(width, height), layout="constrained")
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.07, h_pad=0.06)  # type: ignore[call-arg]
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


class Groups(NamedTuple):
    """Groups of models, with the colour and the marker of each.

    Attributes
    ----------
    names : list of str
        In order of first appearance; one empty name when nothing is declared.
    member : ndarray of int, (model,)
        Which group each model is in.
    colours, markers : list of str, (group,)
    """

    names: list[str]
    member: np.ndarray
    colours: list[str]
    markers: list[str]

    def legend(self) -> list[Line2D]:
        """Handles for a legend; none when there is one group without a name."""
        if self.names == [""]:
            return []
        return [
            Line2D([], [], linestyle="none", marker=m, color=c, markersize=6, label=short(n, 48))
            for n, c, m in zip(self.names, self.colours, self.markers, strict=True)
        ]


def group_models(models: Sequence[str], table: ScoreTable | None, by: str = "group") -> Groups:
    """Groups of the models by a column of the models table."""
    if table is None or by not in table.models or table.models[by].isna().all():
        return Groups([""], np.zeros(len(models), dtype=int), [PALETTE[1]], [MARKERS[0]])
    column = table.models[by].reindex(list(models))
    labels = ["not declared" if pd.isna(v) else str(v) for v in column]
    names = [n for n in dict.fromkeys(labels) if n != "not declared"]
    colours = [PALETTE[(k + 1) % len(PALETTE)] for k in range(len(names))]
    markers = [MARKERS[k % len(MARKERS)] for k in range(len(names))]
    if "not declared" in labels:
        names, colours, markers = [*names, "not declared"], [*colours, FAINT], [*markers, "o"]
    return Groups(names, np.array([names.index(v) for v in labels]), colours, markers)


def language_colours(table: ScoreTable | None) -> dict[str, str]:
    """Colour of each benchmark language, in order of first appearance in the table."""
    if table is None or "language" not in table.benchmarks:
        return {}
    names = [str(v) for v in table.benchmarks["language"].dropna().unique()]
    return {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(names)}


class BenchmarkNames(NamedTuple):
    """Benchmark names as they are written in figures.

    Attributes
    ----------
    labels : list of str
        With the language behind it where there are more languages than colours.
    colours : list of str
    legend : list of Line2D
        One handle a language; empty when there are fewer than two.
    """

    labels: list[str]
    colours: list[str]
    legend: list[Line2D]


def benchmark_names(benchmarks: Sequence[str], table: ScoreTable | None, width: int = 28) -> BenchmarkNames:
    """Labels of benchmarks and their colours by language."""
    colours = language_colours(table)
    language: dict[str, str] = {}
    if table is not None and colours:
        language = {str(b): str(v) for b, v in table.benchmarks["language"].items() if not pd.isna(v)}
    many = len(colours) > len(PALETTE)
    labels = [
        f"{label} ({language[b]})" if many and b in language else label
        for b, label in zip(benchmarks, short_names(benchmarks, width), strict=True)
    ]
    present = [c for c in colours if c in {language.get(b) for b in benchmarks}]
    handles = [
        Line2D([], [], linestyle="none", marker="s", color=colours[c], label=f"{language_name(c)} benchmark")
        for c in present
    ]
    shown = handles if len(present) >= 2 and not many else []
    return BenchmarkNames(labels, [colours.get(language.get(b, ""), INK) for b in benchmarks], shown)


def short(name: str, width: int = 34) -> str:
    """The name, its middle left out when it is wider than ``width`` letters; Japanese ones count two."""
    if _letters(name) <= width:
        return name
    head = tail = ""
    for step in range(len(name)):  # two letters of the head for one of the tail
        more = (
            (head + name[len(head)], tail) if step % 3 < 2 else (head, name[len(name) - len(tail) - 1] + tail)
        )
        if _letters(more[0]) + _letters(more[1]) + 1 > width:
            break
        head, tail = more
    return f"{head}…{tail}"


def short_names(names: Sequence[str], width: int = 34) -> list[str]:
    """Each name shortened, as far as they stay different."""
    longest = max(map(_letters, names), default=0)
    while width < longest:
        out = [short(name, width) for name in names]
        if len(set(out)) == len(set(names)):
            return out
        width += 6
    return list(names)


def _letters(name: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in name)


def crowding(rows: int) -> float:
    """Factor on the height and letters of rows: 1 up to 60 of them, then less, never below 0.55."""
    return max(0.55, min(1.0, 60 / max(rows, 1)))


def name_rows(axes: Axes, labels: Sequence[str], colours: Sequence[str] | None = None) -> None:
    """Row names on the y axis from the top down, each in its colour, with light bands between them."""
    blank_rows(axes, len(labels))
    axes.set_yticks(range(len(labels)), list(labels), fontsize=8 * crowding(len(labels)))
    axes.tick_params(axis="y", left=False, length=0)
    if colours is not None:
        for text, colour in zip(axes.get_yticklabels(), colours, strict=True):
            text.set_color(colour)


def blank_rows(axes: Axes, n_rows: int) -> None:
    """Rows that the panel at the left names: the same bands and limits, and no ticks, which cost time."""
    axes.set_yticks([])
    axes.set_ylim(n_rows - 0.4, -0.6)
    axes.grid(axis="x")
    top = np.arange(1, n_rows, 2) - 0.5
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) + top[:, None, None] * [0, 1]
    codes = np.tile([Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY], len(top))
    if len(top):
        bands = PathPatch(Outline(corners.reshape(-1, 2), codes), facecolor="#f5f5f5", linewidth=0, zorder=-3)
        bands.set_transform(axes.get_yaxis_transform())
        axes.add_artist(bands)


def mark_not_identified(axes: Axes) -> None:
    """Hatch a panel whose axis the data do not fix, and say so."""
    cover = Rectangle(
        (0, 0), 1, 1, transform=axes.transAxes, facecolor="#efefef", edgecolor="#cfcfcf",
        hatch="///", linewidth=0, zorder=-2,
    )  # fmt: skip
    axes.add_patch(cover)
    axes.set_title("not identified", loc="right", fontsize=8, style="italic", color="#6a6a6a")


def caption(figure: Figure, handles: Sequence[Artist], note: str = "") -> None:
    """A remark and a legend below the panels, where they cover nothing."""
    room = 13.5 * figure.get_figwidth()  # letters of 8 points that fit beside each other
    lines = "\n".join(textwrap.fill(line, int(room * 1.1)) for line in note.splitlines())
    if not handles:
        if note:
            figure.supxlabel(lines, x=0.01, ha="left", fontsize=7.5, color="#555555")
        return
    width = max(len(str(h.get_label())) for h in handles)
    legend = figure.legend(
        handles=list(handles), loc="outside lower left", borderaxespad=0.3,
        ncols=min(max(1, int(room / (width + 6))), len(handles)), title=lines or None,
        title_fontsize=7.5, alignment="left",
    )  # fmt: skip
    legend.get_title().set_color("#555555")
