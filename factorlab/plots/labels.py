"""Names beside points, placed so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from factorlab.plots.renderer import Canvas
from factorlab.plots.saving import settle

# Where a name may stand relative to its point: direction, then distance in points.
_DIRECTIONS = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)])
_DISTANCES = (5.0, 11.0, 18.0, 27.0)
_STEPS = np.concatenate([d * np.array([0.7] * 4 + [1.0] * 4)[:, None] * _DIRECTIONS for d in _DISTANCES])
# Share of a name's width and height that lies left of and below where it is held.
_ANCHORS = np.tile((1 - _DIRECTIONS) / 2, (len(_DISTANCES), 1))
_COSTS = 1.5 * np.repeat(np.arange(len(_DISTANCES)), len(_DIRECTIONS))

Box = tuple[float, float, float, float]


def name_points(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    colours: Sequence[str],
    *,
    order: np.ndarray | None = None,
    lines: np.ndarray | None = None,
    size: float = 6.5,
) -> int:
    """Write each name near its point where there is room; crowded ones are left out.

    Call it last: room is measured on the laid-out figure, whose panels stay where they are from then on.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    x, y : ndarray, (point,)
        In data units; points that are not finite get no name.
    names, colours : sequence of str, (point,)
    order : ndarray of int, optional
        Which names are placed first.
    lines : ndarray, (line, 4), optional
        Corners x0, y0, x1, y1 in data units of what a name had better not cross, such as error bars.
    size : float
        Of the letters, in points.

    Returns
    -------
    int
        How many names found room.
    """
    figure = axes.figure
    if not isinstance(figure, Figure):
        return 0
    settle(figure)
    axes.autoscale_view()
    renderer = (figure.canvas if isinstance(figure.canvas, Canvas) else Canvas(figure)).get_renderer()
    scale = figure.dpi / 72
    pixels = axes.transData.transform(np.column_stack([x, y]))
    finite = np.isfinite(pixels).all(axis=1)
    taken = [(px - 3 * scale, py - 3 * scale, px + 3 * scale, py + 3 * scale) for px, py in pixels[finite]]
    frame = axes.get_window_extent()
    bounds = (frame.x0, frame.y0, frame.x1, frame.y1)
    soft = _in_pixels(axes, lines)
    placed = 0
    for i in range(len(names)) if order is None else order:
        if not finite[i] or not _within((*pixels[i], *pixels[i]), bounds):
            continue
        text = axes.annotate(
            names[i], (x[i], y[i]), (0, 0), textcoords="offset points", fontsize=size, color=colours[i],
            ha="left", va="bottom", path_effects=[withStroke(linewidth=1.6, foreground="#ffffffcc")],
        )  # fmt: skip
        text.set_in_layout(False)
        extent = text.get_window_extent(renderer)
        box = _spot(pixels[i], extent.width, extent.height, scale, bounds, taken, soft)
        if box is None:
            text.remove()
            continue
        text.set_position(((box[0] - pixels[i][0]) / scale, (box[1] - pixels[i][1]) / scale))
        _lead(axes, (x[i], y[i]), pixels[i], box, scale)
        taken.append(box)
        placed += 1
    return placed


def _in_pixels(axes: Axes, lines: np.ndarray | None) -> np.ndarray:
    """Boxes (line, 4) in pixels, lower left and upper right corner; those not finite left out."""
    if lines is None or not len(lines):
        return np.zeros((0, 4))
    corners = axes.transData.transform(np.asarray(lines, dtype=float).reshape(-1, 2)).reshape(-1, 2, 2)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return boxes[np.isfinite(boxes).all(axis=1)]


def _spot(
    point: np.ndarray,
    width: float,
    height: float,
    scale: float,
    bounds: Box,
    taken: list[Box],
    soft: np.ndarray,
) -> Box | None:
    """The free box nearest to a point that crosses the fewest lines; None when all are taken."""
    boxes = np.empty((len(_STEPS), 4))
    boxes[:, :2] = np.asarray(point) + scale * _STEPS - _ANCHORS * (width, height)
    boxes[:, 2:] = boxes[:, :2] + (width, height)
    inside = (boxes[:, :2] >= bounds[:2]).all(axis=1) & (boxes[:, 2:] <= bounds[2:]).all(axis=1)
    free = np.flatnonzero(inside & (_crossings(boxes, np.array(taken)) == 0))
    if not len(free):
        return None
    cost = _crossings(boxes[free], soft) + _COSTS[free]
    left, low, right, high = boxes[free[np.argmin(cost)]].tolist()
    return left, low, right, high


def _crossings(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the others (other, 4) each box (box, 4) touches, (box,)."""
    box = boxes[:, None, :]
    apart = (
        (others[:, 2] <= box[..., 0])
        | (others[:, 0] >= box[..., 2])
        | (others[:, 3] <= box[..., 1])
        | (others[:, 1] >= box[..., 3])
    )
    return (~apart).sum(axis=1)


def _lead(axes: Axes, at: tuple[float, float], point: np.ndarray, box: Box, scale: float) -> None:
    """A hairline from a point to a name that stands off."""
    near = (min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3]))
    if np.hypot(near[0] - point[0], near[1] - point[1]) > 7 * scale:
        line = axes.annotate(
            "", at, ((near[0] - point[0]) / scale, (near[1] - point[1]) / scale), textcoords="offset points",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#8a8a8a", "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
        line.set_in_layout(False)


def _within(box: Box, bounds: Box) -> bool:
    return box[0] >= bounds[0] and box[1] >= bounds[1] and box[2] <= bounds[2] and box[3] <= bounds[3]
