"""From a figure to its files: laid out once, drawn once.

`Figure.savefig` draws everything twice and lays the panels out again for each format; with tens of figures
that is most of the time a page takes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure

from factorlab.plots.png import png_bytes
from factorlab.plots.renderer import Canvas, Renderer
from factorlab.plots.style import styled

DPI = 150


def settle(figure: Figure) -> None:
    """Lay the panels out, once: they stay where they are from now on, whatever is added or saved."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def save(figure: Figure, stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``stem.png`` and ``stem.svg``: both under temporary names first, then renamed into place.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    stem : path
        Without an ending; its folder is made when absent.

    Returns
    -------
    (Path, Path)
        The PNG and the SVG.
    """
    return write(contents(figure), stem)


def contents(figure: Figure) -> dict[str, bytes]:
    """What `save` writes, by the ending of the file: "png", "svg"."""
    drawn = draw(figure, DPI)
    return {"png": png_bytes(drawn.pixels(), DPI), "svg": drawn.svg().encode("utf-8")}


def write(files: dict[str, bytes], stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write the two files of a figure; see `save`."""
    base = Path(stem)
    base.parent.mkdir(parents=True, exist_ok=True)
    written: list[tuple[str, Path]] = []
    try:
        for kind, content in files.items():
            target = base.with_name(f"{base.name}.{kind}")
            handle, name = tempfile.mkstemp(dir=base.parent, prefix=f".{target.name}.")
            written.append((name, target))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(name, 0o666 & ~_umask())
        for name, target in written:
            os.replace(name, target)
    except BaseException:
        for name, _ in written:
            Path(name).unlink(missing_ok=True)
        raise
    return written[0][1], written[1][1]


def png(figure: Figure, dpi: float = DPI) -> bytes:
    """The figure as a PNG file without alpha channel, on white; ``dpi`` are pixels an inch."""
    return png_bytes(draw(figure, dpi).pixels(), dpi)


@styled
def draw(figure: Figure, dpi: float) -> Renderer:
    """Lay the figure out where that was not done yet, and draw it on white."""
    with _resolution(figure, dpi):
        renderer = Canvas(figure).get_renderer()
        settle(figure)
        figure.draw(renderer)
        return renderer


@contextmanager
def _resolution(figure: Figure, dpi: float) -> Iterator[None]:
    """Resolution, background and canvas for a file; the figure's own afterwards."""
    before = figure.dpi, figure.get_facecolor(), figure.canvas
    figure.dpi = dpi
    figure.set_facecolor("white")
    try:
        yield
    finally:
        figure.set_canvas(before[2])
        figure.set_facecolor(before[1])
        figure.dpi = before[0]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
