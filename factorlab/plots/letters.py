"""Outlines and sizes of texts, each made once for all figures, whatever its size, angle and colour."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.path import Path
from matplotlib.textpath import TextToPath

_LETTERS = {1: ("M", 0), 2: ("L", 0), 3: ("Q", 1), 4: ("C", 2)}
"""Matplotlib's code to SVG's letter, and how many more points belong to it."""


class Letters(NamedTuple):
    """Outline of a text, in hundredths of its font size.

    Attributes
    ----------
    path : matplotlib.path.Path
    data : str
        The same as SVG path data, in thousandths of the font size, y downwards.
    """

    path: Path
    data: str


class Outlines(TextToPath):
    """What matplotlib makes outlines of text with, with a memory.

    Lengths are in hundredths of the font size (`FONT_SCALE`), so one outline serves all sizes.
    """

    def letters(self, text: str, prop: FontProperties, ismath: Any) -> Letters:
        return _letters(text, _sizeless(prop), ismath)

    def extent(self, text: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
        """Width, height and descent."""
        return _extent(text, _sizeless(prop), ismath)

    def line(self, prop: FontProperties) -> tuple[float, float, float] | tuple[None, None, None]:
        """Ascent, descent and gap of a line, as the font file declares them."""
        return _line(_sizeless(prop))

    def get_text_path(self, prop, s, ismath=False, **options):
        path = self.letters(s, prop, ismath).path
        return path.vertices, path.codes


OUTLINES = Outlines()


def path_data(vertices: np.ndarray, codes: np.ndarray | None, form: str = "%.2f %.2f") -> str:
    """SVG path data.

    Parameters
    ----------
    vertices : ndarray, (point, 2)
    codes : ndarray, (point,), or None
        Of `matplotlib.path.Path`; one line through all points when not given.
    form : str
        How a point is written.
    """
    points = [form % (x, y) for x, y in vertices.tolist()]
    if codes is None:
        return f"M{'L'.join(points)}" if points else ""
    out = []
    waiting = 0
    for point, code in zip(points, codes.tolist(), strict=True):
        if waiting:
            out.append(f" {point}")
            waiting -= 1
        elif code == Path.CLOSEPOLY:
            out.append("Z")
        else:
            letter, waiting = _LETTERS[code]
            out.append(letter + point)
    return "".join(out)


def _sizeless(prop: FontProperties) -> FontProperties:
    same = prop.copy()
    same.set_size(OUTLINES.FONT_SCALE)
    return same


@lru_cache(4096)
def _letters(text: str, prop: FontProperties, ismath: Any) -> Letters:
    vertices, codes = TextToPath.get_text_path(OUTLINES, prop, text, ismath)
    points = np.asarray(vertices, dtype=float).reshape(-1, 2)
    kinds = np.asarray(codes, dtype=np.uint8)
    data = path_data(np.rint(points * [10, -10]).astype(int), kinds, "%d %d")
    return Letters(Path(points, kinds), data)


@lru_cache(4096)
def _extent(text: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
    width, height, descent = OUTLINES.get_text_width_height_descent(text, prop, ismath)
    return float(width), float(height), float(descent)


@lru_cache
def _line(prop: FontProperties) -> tuple[float, float, float] | tuple[None, None, None]:
    font: Any = get_font(findfont(prop))
    names = {
        "OS/2": ("sTypoAscender", "sTypoDescender", "sTypoLineGap"),
        "hhea": ("ascent", "descent", "lineGap"),
    }
    for table, (above, below, gap) in names.items():
        found = font.get_sfnt_table(table)
        if found is not None:
            unit = OUTLINES.FONT_SCALE / font.get_sfnt_table("head")["unitsPerEm"]
            return unit * found[above], -unit * found[below], unit * found[gap]
    return None, None, None
