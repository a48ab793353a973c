"""Report: one self-contained HTML page of an analysis.

Nothing is loaded from anywhere: styles are in the page, figures are data URIs.
"""

from __future__ import annotations

import base64
import io
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from factorlab.analysis import Analysis
from factorlab.gallery import figures as drawings
from factorlab.gallery import main_solution
from factorlab.inference.convergence import ESS_GOAL, RHAT_GOAL
from factorlab.page import answer_blocks, budget_tables, data_tables, findings, fit_tables
from factorlab.page.numbers import count, number, percent

Figures = Mapping[str, bytes | str]

PAGE_DPI = 130
PAGE_BYTES = 5_700_000
"""Of all figures; above it they get a palette, so that the page stays below about 8 MB."""

COLOURS = 256
PNG = b"\x89PNG"
COLOUR_TYPE, RGBA = 25, b"\x06"  # place in the header of a PNG, and its value for an alpha channel

# Kana are Japanese, Hangul Korean; Han alone is either, so it gets the language the table declares.
_EAST_ASIAN = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+")
_KANA = re.compile(r"[\u3040-\u30ff]")
_HANGUL = re.compile(r"[\uac00-\ud7af]")


@dataclass(frozen=True)
class PageFigure:
    """A figure as it is embedded.

    Attributes
    ----------
    name, title, caption, source : str
        ``source`` is a data URI.
    """

    name: str
    title: str
    caption: str
    source: str


def write_report(analysis: Analysis, path: str | os.PathLike[str], *, figures: Figures | None = None) -> Path:
    """Write the page of an analysis: one HTML file that opens offline, in place whole or not at all.

    Parameters
    ----------
    analysis : Analysis
    path : path
        Of the HTML file; its folder must exist.
    figures : mapping of str to bytes or str, optional
        Figures already drawn, by their names in `factorlab.gallery.figures`: PNG as bytes, SVG as bytes
        or text. Names that are absent are left out of the page; all are drawn when not given.

    Returns
    -------
    Path
        The file.
    """
    text = render(analysis, figures)
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


def render(analysis: Analysis, figures: Figures | None = None) -> str:
    """The page as text; see `write_report`."""
    languages = list(analysis.table.languages)
    han = next((code for code in ("ja", "zh") if code in languages), "ja")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("factorlab"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spoken"] = lambda text: mark_languages(str(text), han)
    return environment.get_template("report.html").render(**content(analysis, figures))


def content(analysis: Analysis, figures: Figures | None = None) -> dict[str, Any]:
    """All that the template needs."""
    level = analysis.options.level
    solution = main_solution(analysis)
    sensitivity, moved = budget_tables.sensitivity(analysis)
    pictures = embed(analysis, figures)
    return {
        "analysis": analysis,
        "name": analysis.table.name,
        "shape": data_tables.shape(analysis),
        "languages": data_tables.languages(analysis),
        "level": percent(level, 0),
        "methods": _methods(analysis),
        "status": _status(analysis),
        "not_converged": bool(analysis.problems),
        "answers": answer_blocks.blocks(analysis, {name: f.title for name, f in pictures.items()}),
        "findings": findings.answers(analysis),
        "cautions": data_tables.cautions(analysis),
        "factors": [] if solution is None else solution.factors,
        "figures": pictures,
        "data": data_tables,
        "fit": fit_tables,
        "budgets": budget_tables,
        "sensitivity": sensitivity,
        "moved": moved,
        "floor_notes": budget_tables.floor_notes(analysis),
    }


def embed(analysis: Analysis, given: Figures | None) -> dict[str, PageFigure]:
    """Figures as data URIs: those given, or all drawn here."""
    from factorlab.plots.saving import png

    known = drawings(analysis, every=given is not None)
    images = {
        name: _bytes(given[name]) if given is not None else png(drawing(), PAGE_DPI)
        for name, drawing in known.items()
        if given is None or name in given
    }
    heavy = sum(map(len, images.values())) > PAGE_BYTES
    return {
        name: PageFigure(name, known[name].title, known[name].caption, data_uri(image, heavy))
        for name, image in images.items()
    }


def _bytes(image: bytes | str) -> bytes:
    """PNG as it is, but without an alpha channel, which figures do not use; SVG in UTF-8."""
    data = image.encode("utf-8") if isinstance(image, str) else image
    has_alpha = data.startswith(PNG) and data[COLOUR_TYPE : COLOUR_TYPE + 1] == RGBA
    return _repacked(data) if has_alpha else data


def data_uri(image: bytes, heavy: bool = False) -> str:
    """A PNG or an SVG as a data URI.

    Parameters
    ----------
    image : bytes
    heavy : bool
        Give a PNG a palette: colours shift a little, and it takes less than half the bytes.
    """
    if not image.startswith(PNG):
        return f"data:image/svg+xml;base64,{base64.b64encode(image).decode('ascii')}"
    data = _repacked(image, colours=COLOURS) if heavy else image
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def _repacked(png: bytes, colours: int = 0) -> bytes:
    """The PNG without alpha, with a palette when so many colours are given, when that is smaller."""
    from PIL import Image  # matplotlib brings it; only the page needs it

    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        flat = image.convert("RGB")
        if colours:
            flat = flat.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        flat.save(out, format="PNG", compress_level=6)  # 9 takes 7 times as long for 9 % fewer bytes
    return out.getvalue() if out.tell() < len(png) else png


def mark_languages(text: str, han: str) -> Markup:
    """Runs of Japanese, Korean or Chinese characters in a span with their language, so that glyphs fit."""
    out, end = Markup(""), 0
    for match in _EAST_ASIAN.finditer(text):
        run = match.group()
        code = "ja" if _KANA.search(run) else "ko" if _HANGUL.search(run) else han
        out += escape(text[end : match.start()]) + Markup('<span lang="{}">{}</span>').format(code, run)
        end = match.end()
    return out + escape(text[end:])


def _methods(analysis: Analysis) -> str:
    """ "PCA, maximum likelihood and Bayes", those that the run has."""
    words = {
        "principal components": analysis.pca,
        "maximum-likelihood factor analysis": analysis.ml,
        "a Bayesian factor model": analysis.bayes,
    }
    has = [word for word, solution in words.items() if solution is not None]
    return " and ".join(filter(None, [", ".join(has[:-1]), *has[-1:]]))


def _status(analysis: Analysis) -> dict[str, Any]:
    """The box on convergence: its kind ("bad", "good", "plain"), a head, sentences."""
    diagnostics = analysis.bayes.diagnostics if analysis.bayes is not None else None
    if diagnostics is None:
        why = "This run has no Bayesian fit" if analysis.bayes is None else "Convergence was not recorded"
        return {
            "kind": "plain",
            "head": f"{why}.",
            "lines": ["Point estimates carry no posterior uncertainty."],
        }
    figures = (
        f"R-hat at most {number(diagnostics.rhat_max, 3)} (wanted: {RHAT_GOAL} or less), effective sample "
        f"size at least {count(diagnostics.ess_bulk_min)} in the bulk and "
        f"{count(diagnostics.ess_tail_min)} in the tails (wanted: {ESS_GOAL} or more), "
        f"{diagnostics.divergences} divergent transitions."
    )
    if diagnostics.problems:
        head = "The sampler did not converge: do not rely on the Bayesian results."
        return {"kind": "bad", "head": head, "lines": [*diagnostics.problems, figures]}
    return {"kind": "good", "head": "The sampler converged.", "lines": [figures]}
