"""A matplotlib renderer that writes SVG in pixels."""

from __future__ import annotations

import base64
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Transform

from factorlab.plots.letters import Letters, path_data
from factorlab.plots.png import png_bytes

CAPS = {"butt": "butt", "projecting": "square", "round": "round"}


class SvgRenderer(RendererBase):
    """Writes SVG elements; what it is told has y upwards, as matplotlib has, the file downwards.

    A shape, a text or a clip that returns is written once and used by its name.

    Parameters
    ----------
    width, height : int
        Pixels.
    dpi : float
        Pixels an inch.
    """

    def __init__(self, width: int, height: int, dpi: float) -> None:
        super().__init__()
        self.width, self.height, self.dpi = width, height, dpi
        self._body: list[str] = []
        self._items: list[tuple[str, str]] | None = None  # of a collection: element up to its style, style
        self._shapes: dict[tuple[int, bytes], str] | None = None  # of a collection of one path: their names
        self._names: dict[str, str] = {}  # a shared element, with {} for its name: its name

    def text(self) -> str:
        """The whole file."""
        points = 72 / self.dpi
        return (
            '<?xml version="1.0" encoding="utf-8" standalone="no"?>\n'
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'version="1.1" width="{self.width * points:g}pt" height="{self.height * points:g}pt" '
            f'viewBox="0 0 {self.width} {self.height}">\n'
            '<g stroke-linejoin="round">\n' + "\n".join(self._body) + "\n</g>\n</svg>\n"
        )

    def points_to_pixels(self, points):
        return points * self.dpi / 72

    def draw_path(self, gc, path, transform, rgbFace=None):
        if self._shapes is not None:
            element = self._again(path, transform.get_matrix(), self._shapes)
        else:
            data = self._data(path, transform, simplify=rgbFace is None and gc.get_hatch() is None)
            element = f'<path d="{data}"' if data else ""
        style = f"{self._style(gc, rgbFace)}{self._clip(gc)}"
        if element and self._items is not None:
            self._items.append((element, style))
        elif element:
            self._body.append(f"{element}{style}/>")

    def draw_path_collection(self, gc, master_transform, paths, *args, **options):
        """One shape in many places is written once; a style that many share, once around them."""
        self._items = []
        self._shapes = {} if len(paths) == 1 else None
        super().draw_path_collection(gc, master_transform, paths, *args, **options)
        for style, group in groupby(self._items, key=itemgetter(1)):
            elements = [f"{element}/>" for element, _ in group]
            self._body += [f"<g{style}>", *elements, "</g>"]
        self._items = self._shapes = None

    def _again(self, path: Path, matrix: np.ndarray, names: dict[tuple[int, bytes], str]) -> str:
        """A path that was defined before, maybe elsewhere."""
        key = (id(path), matrix[:2, :2].tobytes())
        if key not in names:
            unmoved = matrix.copy()
            unmoved[:2, 2] = 0
            data = self._data(path, Affine2D(unmoved), height=0)
            names[key] = self._define(f'<path id="{{}}" d="{data}"/>') if data else ""
        x, y = matrix[:2, 2]
        return f'<use xlink:href="#{names[key]}" x="{x:.2f}" y="{self.height - y:.2f}"' if names[key] else ""

    def draw_markers(self, gc, marker_path, marker_trans, path, trans, rgbFace=None):
        places = trans.transform(path.vertices)
        places = places[np.isfinite(places).all(axis=1)]
        if not len(places):
            return
        shape = self._data(marker_path, marker_trans, height=0)
        name = self._define(f'<path id="{{}}" d="{shape}"/>')
        self._body.append(f"<g{self._style(gc, rgbFace)}{self._clip(gc)}>")
        self._body += [
            f'<use xlink:href="#{name}" x="{x:.2f}" y="{self.height - y:.2f}"/>' for x, y in places.tolist()
        ]
        self._body.append("</g>")

    def draw_image(self, gc, x, y, im, transform=None):
        """Pixels (row, column, channel), lowest row first; x, y is the lower left corner."""
        height, width = im.shape[:2]
        if not height or not width:
            return
        source = base64.b64encode(png_bytes(im[::-1], self.dpi)).decode("ascii")
        self._body.append(
            f'<image x="{x:.2f}" y="{self.height - y - height:.2f}" width="{width}" height="{height}" '
            f'xlink:href="data:image/png;base64,{source}"{self._clip(gc)}/>'
        )

    def draw_letters(
        self,
        gc: GraphicsContextBase,
        letters: Letters,
        place: tuple[float, float],
        scale: float,
        angle: float,
    ) -> None:
        """A text's outline.

        Parameters
        ----------
        gc : GraphicsContextBase
        letters : Letters
        place : (float, float)
            Where the baseline begins; y downwards, as matplotlib passes it for texts.
        scale : float
            Pixels for a hundredth of the font size.
        angle : float
            Degrees anticlockwise.
        """
        if letters.data:
            name = self._define(f'<path id="{{}}" d="{letters.data}"/>')
            turn = f" rotate({-angle:g})" if angle else ""
            self._body.append(
                f'<use xlink:href="#{name}" transform="translate({place[0]:.2f} {place[1]:.2f}){turn} '
                f'scale({scale / 10:.4f})"{_paint("fill", gc.get_rgb(), gc)}{self._clip(gc)}/>'
            )

    def _data(
        self, path: Path, transform: Transform | None, simplify: bool = False, height: float | None = None
    ) -> str:
        """Path data; a line that is not filled is simplified and cut at the canvas, as matplotlib does."""
        simplify = simplify and path.should_simplify
        clean = path.cleaned(
            transform,
            remove_nans=True,
            clip=(0.0, 0.0, float(self.width), float(self.height)) if simplify else None,
            simplify=simplify,
            curves=True,
        )
        vertices, codes = np.asarray(clean.vertices), np.asarray(clean.codes)
        keep = codes != Path.STOP
        flipped = vertices[keep] * [1, -1] + [0, self.height if height is None else height]
        return path_data(flipped, codes[keep])

    def _define(self, element: str) -> str:
        """The name of a shared element, which is written where it is first needed."""
        if element not in self._names:
            self._names[element] = f"s{len(self._names)}"
            self._body.append(f"<defs>{element.format(self._names[element])}</defs>")
        return self._names[element]

    def _clip(self, gc: GraphicsContextBase) -> str:
        path, transform = gc.get_clip_path()
        box = gc.get_clip_rectangle()
        if path is not None:
            shape = f'<path d="{self._data(path, transform)}"/>'  # type: ignore[arg-type]
        elif box is not None:
            shape = (
                f'<rect x="{box.x0:.2f}" y="{self.height - box.y1:.2f}" width="{box.width:.2f}" '
                f'height="{box.height:.2f}"/>'
            )
        else:
            return ""
        name = self._define(f'<clipPath id="{{}}">{shape}</clipPath>')
        return f' clip-path="url(#{name})"'

    def _style(self, gc: GraphicsContextBase, face: Any) -> str:
        if gc.get_hatch() is not None:
            out = f' fill="url(#{self._hatch(gc, face)})"'
        else:
            out = ' fill="none"' if face is None else _paint("fill", face, gc)
        width = self.points_to_pixels(gc.get_linewidth())
        if not width:
            return out
        out += _paint("stroke", gc.get_rgb(), gc) + f' stroke-width="{width:.3g}"'
        offset, dashes = gc.get_dashes()
        if dashes is not None:
            lengths = " ".join(f"{self.points_to_pixels(float(d)):.3g}" for d in np.asarray(dashes))
            out += f' stroke-dasharray="{lengths}" stroke-dashoffset="{self.points_to_pixels(offset):.3g}"'
        if gc.get_capstyle() != "butt":
            out += f' stroke-linecap="{CAPS[str(gc.get_capstyle())]}"'
        if gc.get_joinstyle() != "round":
            out += f' stroke-linejoin="{gc.get_joinstyle()!s}"'
        return out

    def _hatch(self, gc: GraphicsContextBase, face: Any) -> str:
        """A pattern of an inch, as in Agg."""
        side = int(self.dpi)
        lines = self._data(gc.get_hatch_path(), Affine2D().scale(side), height=side)
        ink = gc.get_hatch_color()
        ground = (
            ""
            if face is None
            else f'<rect width="{side + 1}" height="{side + 1}"{_paint("fill", face, gc)}/>'
        )
        return self._define(
            f'<pattern id="{{}}" patternUnits="userSpaceOnUse" width="{side}" height="{side}">{ground}'
            f'<path d="{lines}"{_paint("fill", ink, gc)}{_paint("stroke", ink, gc)} '
            f'stroke-width="{self.points_to_pixels(gc.get_hatch_linewidth()):.3g}"/></pattern>'
        )


def _paint(what: str, colour: Any, gc: GraphicsContextBase) -> str:
    """Attributes of a fill or a stroke."""
    red, green, blue = (round(255 * float(c)) for c in colour[:3])
    alpha = gc.get_alpha() if gc.get_forced_alpha() or len(colour) < 4 else colour[3]
    see_through = f' {what}-opacity="{alpha:.3g}"' if alpha != 1 else ""
    return f' {what}="#{red:02x}{green:02x}{blue:02x}"{see_through}'
