"""One drawing, two files: a matplotlib renderer that makes pixels and SVG in the same pass.

Most of the time of a figure goes into measuring and shaping texts and into walking through ticks and
artists, for `Figure.savefig` twice a format. Here the walk is done once for both, and a text is shaped once
for all figures. Letters are filled outlines in both files, without hinting.
"""

from __future__ import annotations

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase, RendererBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.transforms import Affine2D

from factorlab.plots.letters import OUTLINES
from factorlab.plots.svg import SvgRenderer


class Canvas(FigureCanvasBase):
    """A figure's canvas with one renderer, from layout to file, while its resolution stays."""

    _renderer: Renderer | None = None

    def get_renderer(self) -> Renderer:
        width, height = self.get_width_height()
        dpi = self.figure.dpi
        if self._renderer is None or (self._renderer.width, self._renderer.height, self._renderer.dpi) != (
            width, height, dpi,
        ):  # fmt: skip
            self._renderer = Renderer(width, height, dpi)
        return self._renderer


class Renderer(RendererBase):
    """Draws everything twice: by Agg, and as SVG in the same units (pixels).

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
        self._agg = RendererAgg(width, height, dpi)
        self._svg = SvgRenderer(width, height, dpi)
        self._text2path = OUTLINES  # matplotlib asks it for texts with an outline of another colour

    def pixels(self) -> np.ndarray:
        """What was drawn, uint8 (row, column, 3), top row first; right on a white ground only."""
        return np.asarray(self._agg.buffer_rgba())[:, :, :3]

    def svg(self) -> str:
        """What was drawn, as an SVG file."""
        return self._svg.text()

    def draw_path(self, gc, path, transform, rgbFace=None):
        self._agg.draw_path(gc, path, transform, rgbFace)
        self._svg.draw_path(gc, path, transform, rgbFace)

    def draw_markers(self, gc, *args, **options):
        self._agg.draw_markers(gc, *args, **options)
        self._svg.draw_markers(gc, *args, **options)

    def draw_path_collection(self, gc, *args, **options):
        self._agg.draw_path_collection(gc, *args, **options)
        self._svg.draw_path_collection(gc, *args, **options)

    def draw_image(self, gc, x, y, im, transform=None):
        self._agg.draw_image(gc, x, y, im)
        self._svg.draw_image(gc, x, y, im)

    def draw_quad_mesh(self, gc, *args, **options):
        """Hundreds of cells of a colour bar: in the SVG a picture of them, which has no seams."""
        self._agg.draw_quad_mesh(gc, *args, **options)
        clip = gc.get_clip_rectangle()
        box = np.array([(0, 0), (self.width, self.height)]) if clip is None else clip.get_points()
        left, low = np.maximum(np.floor(box[0]), 0).astype(int)
        right, high = np.minimum(np.ceil(box[1]), (self.width, self.height)).astype(int)
        picture = self.pixels()[::-1][low:high, left:right]
        self._svg.draw_image(gc, left, low, picture)

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        letters = OUTLINES.letters(s, prop, ismath)
        scale = self._unit(prop)
        place = Affine2D().scale(scale).rotate_deg(angle).translate(x, self.height - y)
        gc.set_linewidth(0.0)
        gc.set_snap(False)
        self._agg.draw_path(gc, letters.path, place, gc.get_rgb())
        self._svg.draw_letters(gc, letters, (x, y), scale, angle)

    def get_text_width_height_descent(self, s, prop, ismath):
        return tuple(self._unit(prop) * length for length in OUTLINES.extent(s, prop, ismath))

    def _get_font_height_metrics(self, prop):
        """Ascent, descent, gap of a line; matplotlib 3.11 asks, and else reads the font at every text."""
        return tuple(None if length is None else self._unit(prop) * length for length in OUTLINES.line(prop))

    def points_to_pixels(self, points):
        return points * self.dpi / 72

    def get_canvas_width_height(self):
        return self.width, self.height

    def option_image_nocomposite(self):
        return True

    def _unit(self, prop) -> float:
        """Pixels for a hundredth of the font size."""
        return float(self.points_to_pixels(prop.get_size_in_points()) / OUTLINES.FONT_SCALE)
