"""One drawing, two files: pixels are matplotlib's, and the SVG says the same in numbers."""

import io
import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, Rectangle
from PIL import Image

from factorlab import plots
from factorlab.plots.letters import OUTLINES, path_data
from factorlab.plots.png import png_bytes
from factorlab.plots.saving import draw, settle
from factorlab.plots.style import font_families, styled

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


@styled
def wordless() -> Figure:
    """Every kind of thing a figure draws, but no letters."""
    figure = Figure(figsize=(4, 3), facecolor="white")
    left, right = figure.subplots(1, 2)
    x = np.linspace(0, 1, 400)
    left.plot(x, np.where(x > 0.9, np.nan, np.sin(20 * x)), "--", linewidth=1.3)
    left.plot(x[::50], x[::50], "o", color="#D55E00", markeredgecolor="white")
    left.hlines([0.2, 0.4], 0.1, [0.7, 0.9], color="#0072B2", alpha=0.5)
    left.fill_between(x, 0, x, alpha=0.3, color="#009E73", linewidth=0)
    left.scatter(x[::80], x[::80] - 0.5, s=[20, 40, 60, 80, 100], alpha=0.4, edgecolor="#222222")
    left.add_patch(Rectangle((0.1, -0.9), 0.4, 0.3, hatch="///", facecolor="#efefef", edgecolor="#cfcfcf"))
    (clipped,) = left.plot([0, 1], [1, -1], color="#CC79A7")
    clipped.set_clip_path(Circle((0.5, 0), 0.3, transform=left.transData))
    cells = np.ma.masked_invalid([[0.1, np.nan], [0.5, 0.9]])
    bar = figure.colorbar(right.imshow(cells, cmap="RdBu_r"), ax=right)
    for axes in (left, right, bar.ax):
        axes.tick_params(labelleft=False, labelbottom=False, labelright=False)
    return figure


@styled
def agg(figure: Figure, dpi: float) -> np.ndarray:
    figure.dpi = dpi
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]


def ink(pixels: np.ndarray) -> tuple[float, np.ndarray]:
    """How dark the picture is, and first and last row and column of what is dark."""
    dark = 255.0 - pixels.mean(axis=2)
    rows, columns = np.nonzero(dark > 100)
    return dark.sum(), np.array([rows.min(), rows.max(), columns.min(), columns.max()])


@pytest.mark.parametrize("dpi", [72, 150])
def test_pixels_without_letters_are_matplotlibs_own(dpi):
    assert np.array_equal(draw(wordless(), dpi).pixels(), agg(wordless(), dpi))


@pytest.mark.parametrize("angle", [0, 60, 90])
@pytest.mark.parametrize("words", ["Llama 3 70B (−0.52)", "日本語のモデル", "two\nlines", "$10^{3}$ tokens"])
def test_letters_stand_where_matplotlib_puts_them(words, angle):
    @styled
    def figure():
        out = Figure(figsize=(3, 3), facecolor="white")
        out.text(0.5, 0.5, words, fontsize=11, rotation=angle, ha="center", va="center")
        return out

    (ours, at), (theirs, there) = (ink(p) for p in (draw(figure(), 150).pixels(), agg(figure(), 150)))
    assert theirs > 1e4
    assert abs(ours / theirs - 1) < 0.1
    turned_loosely = angle and matplotlib.__version_info__ < (3, 11)  # by up to 6 pixels
    np.testing.assert_allclose(at, there, atol=7 if turned_loosely else 2)  # pixels: theirs are hinted


def test_an_outline_serves_all_sizes():
    font = FontProperties(family=font_families())
    small, large = font.copy(), font.copy()
    small.set_size(6)
    large.set_size(24)
    assert OUTLINES.letters("PC2", small, False) is OUTLINES.letters("PC2", large, False)
    width, height, descent = OUTLINES.extent("PC2", large, False)
    corners = OUTLINES.letters("PC2", large, False).path.get_extents()
    assert 10 < width - corners.width < 25  # hundredths of the font size: the room left and right of letters
    assert abs(corners.height - height) < 2
    assert 0 <= descent < 5


def test_svg_holds_the_same_places():
    figure = wordless()
    drawn = draw(figure, 100)
    root = ET.fromstring(drawn.svg())
    assert (root.get("width"), root.get("viewBox")) == ("288pt", "0 0 400 300")
    figure.dpi = 100
    left = figure.axes[0]
    x = np.linspace(0, 1, 400)[::50]
    expected = left.transData.transform(np.column_stack([x, x]))
    groups = [g for g in root.iter(f"{SVG}g") if g.get("fill") == "#d55e00"]
    assert len(groups) == 1
    found = np.array([[float(u.get("x")), 300 - float(u.get("y"))] for u in groups[0].iter(f"{SVG}use")])
    np.testing.assert_allclose(found, expected, atol=0.01)
    shapes = {e.get("id"): e for e in root.iter() if e.get("id")}
    clip = shapes[re.fullmatch(r"url\(#(\w+)\)", groups[0].get("clip-path")).group(1)][0]
    box = left.get_window_extent()
    assert [float(clip.get(k)) for k in ("x", "y", "width", "height")] == pytest.approx(
        [box.x0, 300 - box.y1, box.width, box.height], abs=0.01
    )
    used = {u.get(HREF)[1:] for u in root.iter(f"{SVG}use")}
    used |= {name for e in root.iter() for v in e.attrib.values() for name in re.findall(r"url\(#(\w+)\)", v)}
    assert used == set(shapes)  # nothing named that is not there, nothing there that is not used
    assert {shapes[name].tag for name in used} == {f"{SVG}path", f"{SVG}clipPath", f"{SVG}pattern"}


def test_svg_writes_the_shape_and_the_style_of_a_collection_once():
    figure = Figure(figsize=(2, 2))
    axes = figure.subplots()
    axes.set_axis_off()
    x, y = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.8, 0.4])
    axes.scatter(x, y, s=[30, 60, 30], color="#0072B2", alpha=0.5)
    axes.hlines(y, 0, x, color="#D55E00")
    root = ET.fromstring(draw(figure, 100).svg())
    figure.dpi = 100
    groups = {g.get("fill") + (g.get("stroke") or ""): g for g in root.iter(f"{SVG}g") if g.get("fill")}
    assert set(groups) == {"#0072b2#0072b2", "none#d55e00"}
    uses = list(groups["#0072b2#0072b2"])
    assert {tuple(u.attrib) for u in uses} == {(HREF, "x", "y")}
    assert [u.get(HREF) == uses[0].get(HREF) for u in uses] == [True, False, True]
    found = np.array([[float(u.get("x")), 200 - float(u.get("y"))] for u in uses])
    np.testing.assert_allclose(found, axes.transData.transform(np.column_stack([x, y])), atol=0.01)
    assert [tuple(line.attrib) for line in groups["none#d55e00"]] == [("d",)] * 3


def test_svg_pictures_are_those_of_the_pixels():
    drawn = draw(wordless(), 100)
    pictures = [e for e in ET.fromstring(drawn.svg()).iter(f"{SVG}image")]
    assert len(pictures) == 2  # the cells and the colour bar
    for picture in pictures:
        x, y, width, height = (round(float(picture.get(k))) for k in ("x", "y", "width", "height"))
        shown = _decoded(picture.get(HREF))
        assert shown.size == (width, height)
        solid = np.asarray(shown.convert("RGBA"))[4:-4, 4:-4]  # the frame is drawn over the margin
        behind = drawn.pixels()[y + 4 : y + height - 4, x + 4 : x + width - 4]
        opaque = solid[:, :, 3] == 255
        assert opaque.mean() > 0.7
        assert np.array_equal(solid[opaque, :3], behind[opaque])


def _decoded(uri: str) -> Image.Image:
    import base64

    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_letters_in_the_svg_are_turned_and_coloured():
    figure = Figure(figsize=(2, 2))
    figure.text(0.25, 0.75, "a<b & c", fontsize=10, rotation=30, color="#0072B2", alpha=0.5)
    root = ET.fromstring(draw(figure, 144).svg())
    (use,) = root.iter(f"{SVG}use")
    assert (use.get("fill"), use.get("fill-opacity")) == ("#0072b2", "0.5")
    numbers = [float(v) for v in re.findall(r"-?[\d.]+", use.get("transform"))]
    assert numbers[2:] == [-30, pytest.approx(10 * 144 / 72 / 1000)]
    assert abs(numbers[0] - 72) < 10
    assert abs(numbers[1] - 72) < 10


def test_path_data():
    points = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [0.0, 0.0]])
    assert path_data(points, None, "%d %d") == "M0 1L2 3L4 5L6 7L0 0"
    assert path_data(points, np.array([1, 3, 3, 2, 79]), "%d %d") == "M0 1Q2 3 4 5L6 7Z"
    assert path_data(points[:4], np.array([1, 4, 4, 4]), "%d %d") == "M0 1C2 3 4 5 6 7"
    assert path_data(points[:0], None) == ""


@pytest.mark.parametrize("channels", [3, 4])
def test_png_bytes_are_the_pixels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, channels), dtype=np.uint8)
    image = Image.open(io.BytesIO(png_bytes(pixels, 150)))
    assert np.array_equal(np.asarray(image), pixels)
    assert image.info["dpi"] == pytest.approx((150, 150), abs=0.02)


def test_settled_panels_stay_and_a_saved_figure_is_left_as_it_was(tmp_path):
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel("one\ntwo")
    settle(figure)
    before = axes.get_position().bounds
    axes.set_ylabel("one\ntwo\nthree\nfour")
    canvas, dpi = figure.canvas, figure.dpi
    plots.save(figure, tmp_path / "a")
    assert axes.get_position().bounds == before
    assert (figure.canvas, figure.dpi) == (canvas, dpi)
