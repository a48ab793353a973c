"""The report page: its numbers are those of the results, it loads nothing, it holds for partial runs."""

import base64
import functools
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from small_runs import bare_run, small_run

from factorlab.analysis import analyse
from factorlab.inference.solution import Diagnostics
from factorlab.options import FitOptions
from factorlab.page import budget_tables, findings, fit_tables
from factorlab.page.numbers import number, percent, plural, probability, significant, with_interval
from factorlab.report import embed, mark_languages, render, write_report

CAUSAL = r"\b(effect of|causes|caused|leads? to|improves?|because of the (tokens|budget))\b"


@functools.cache
def full_page() -> str:
    return render(small_run())


@functools.cache
def bare_page() -> str:
    return render(bare_run())


class Page(HTMLParser):
    """Text of a page, what it loads, its ids and links within."""

    def __init__(self, source):
        super().__init__()
        self.words, self.loaded, self.ids, self.anchors, self.open = [], [], [], [], []
        self.feed(source)
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert tag not in ("script", "iframe", "object", "embed")
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        if tag == "a" and found["href"].startswith("#"):
            self.anchors.append(found["href"][1:])
        self.loaded += [v for k, v in attrs if k in ("src", "srcset", "data", "poster")]
        self.loaded += [found["href"]] if tag == "link" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


PAGES = [full_page, bare_page]


@pytest.mark.parametrize("page", PAGES)
def test_one_file_that_loads_nothing(page):
    found = Page(page())
    assert found.loaded
    assert all(source.startswith("data:") for source in found.loaded)
    assert not re.search(r"@import|url\(", page())
    outside = re.findall(r"https?://[^\"'<\s)]+", page())
    assert {link for link in outside if "arxiv.org" not in link} == set()
    assert len(page()) < 8e6


@pytest.mark.parametrize("page", PAGES)
def test_well_formed_with_links_that_lead_somewhere(page):
    found = Page(page())
    assert not found.open
    assert set(found.anchors) <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))


@pytest.mark.parametrize("page", PAGES)
def test_no_number_that_does_not_exist(page):
    text = Page(page()).text
    assert not re.search(r"\b(nan|None|NaN|inf|NaT|<NA>|Undefined)\b", text)


@pytest.mark.parametrize("page", PAGES)
def test_never_causal(page):
    assert not re.search(CAUSAL, Page(page()).text)


def test_correlations_on_the_page_are_those_of_the_results():
    text = Page(full_page()).text
    regression = small_run().bayes_budgets
    shown = 0
    for _, row in regression.table.iterrows():
        if row["form"] in ("at_hand", "population", "partial", "all_models", "spearman"):
            assert with_interval(row["median"], row["lower"], row["upper"]) in text
            shown += 1
    assert shown > 10
    for _, row in small_run().pca_budgets.table.iterrows():
        assert with_interval(row["median"], row["lower"], row["upper"]) in text


def test_loadings_abilities_and_variances_on_the_page_are_those_of_the_results():
    text = Page(full_page()).text
    for name in ("loading", "ability"):
        for _, row in small_run().bayes.summary(name, small_run().options.level).iterrows():
            assert with_interval(row["mean"], row["lower"], row["upper"]) in text
    for ratio in small_run().pca.extra["explained_variance_ratio"]:
        assert percent(ratio, 2) in text
    diagnostics = small_run().bayes.diagnostics
    assert f"R-hat at most {number(diagnostics.rhat_max, 3)}" in text


def test_findings_state_direction_and_numbers():
    found = {f.claim: f.numbers for a in findings.answers(small_run()) for f in a.findings}
    row = (
        small_run()
        .bayes_budgets.table.query("factor == 'PC1' and budget == 'zh' and form == 'at_hand'")
        .iloc[0]
    )
    assert row["lower"] > 0
    claim = found["PC1 goes with the Chinese budget"]
    assert claim.startswith(
        f"rho = {with_interval(row['median'], row['lower'], row['upper'])} over 18 models"
    )
    assert any(text.startswith("PC2 goes") and "Swahili" in text for text in found)
    assert any("trained further with Swahili text" in text for text in found)
    assert not any("trained further with Chinese text" in text for text in found)


def test_difference_names_the_nearer_budget_first():
    run = small_run()
    regression = run.bayes_budgets
    rows = regression.table.query("form == 'difference' and factor == 'PC1'").iloc[0]
    finding = next(f for f in findings._differences(run) if "PC1" in f.claim)
    near = rows["budget"].split(" - ")[0 if rows["median"] >= 0 else 1]
    assert finding.numbers.startswith(f"rho(PC1, {near})")
    assert number(abs(rows["median"])) in finding.numbers


def test_problems_are_said_first_and_a_good_run_says_converged():
    run = small_run()
    assert run.problems, "so few draws were meant to fail"
    text = Page(full_page()).text
    assert text.index("The sampler did not converge") < text.index("Answers first")
    assert all(re.sub(r"\s+", " ", problem) in text for problem in run.problems)
    table = run.bayes.diagnostics.table.assign(rhat=1.001, ess_bulk=900.0, ess_tail=800.0)
    good = replace(run, bayes=run.bayes.with_(diagnostics=Diagnostics(table, 0)))
    text = Page(render(good, figures={})).text
    assert "The sampler converged. R-hat at most 1.001 (wanted: 1.01 or less), effective sample" in text
    assert "at least 900 in the bulk and 800 in the tails" in text


def test_axis_that_is_not_identified_is_not_read():
    run = small_run()
    loose = run.bayes.with_(extra={**run.bayes.extra, "identified": [True, False]})
    claims = [f.claim for a in findings.answers(replace(run, bayes=loose)) for f in a.findings]
    assert "Not identified: PC2; do not read its loadings or correlations" in claims
    assert not any(claim.startswith("PC2") for claim in claims)
    table = budget_tables.rho(replace(run, bayes=loose))
    assert {table.rows[i][0] for i in table.marked} == {"PC2"}
    assert fit_tables.loadings(replace(run, bayes=loose)).head[-1] == "PC2 (not identified)"


def test_flagged_cells_are_named_and_names_are_escaped():
    page = full_page()
    assert "model-6 (bench0)" in Page(page).text
    assert "<b>bold" not in page
    assert html.escape("<b>bold & brave</b>") in page
    assert '<span lang="ja">日本語モデル</span>' in page


def test_runs_with_parts_missing():
    run = small_run()
    for parts in (
        {"bayes": None, "bayes_budgets": None, "comparison": None, "sensitivity": None},
        {"pca": None, "pca_budgets": None, "comparison": None, "resamples": {}, "parallel": None, "ml": None},
        {"pca_budgets": None, "bayes_budgets": None, "sensitivity": None},
        {"pca": None, "ml": None, "bayes": None, "pca_budgets": None, "bayes_budgets": None,
         "comparison": None, "sensitivity": None, "resamples": {}, "parallel": None},
    ):  # fmt: skip
        text = Page(render(replace(run, **parts), figures={})).text
        assert "Provenance" in text
        assert not re.search(r"\b(nan|None|NaN|inf)\b", text)


@pytest.mark.parametrize("method", ["pca", "ml"])
def test_the_real_matrix_in_one_method(swallow, method):
    run = analyse(swallow, FitOptions(method=method, resamples=10))
    text = Page(render(run, figures={})).text
    assert "35 models × 19 benchmarks, every cell scored (10 Japanese, 9 English)" in text
    assert "CyberAgentLM2-7B (JHumanEval, HumanEval)" in text
    if method == "pca":
        assert "PCA: PC1 65.2 %, PC2 15.4 %, PC3 7.0 %, PC4 3.2 %." in text
        assert "PC1 goes with the English budget rho = 0.92 [0.83, 0.96] over 27 models" in text
        assert "PC2 goes with the Japanese budget rho = 0.78 [0.57, 0.89] over 25 models" in text
        assert "PC2 is carried by NIILC, WMT20-en-ja, JEMHopQA (all Japanese)" in text


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    assert write_report(bare_run(), target, figures={}) == target
    before = target.read_text(encoding="utf-8")
    assert before.startswith("<!DOCTYPE html>")
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(bare_run(), target, figures={})
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text(encoding="utf-8") == before


def test_given_figures_are_embedded_as_they_are():
    page = render(bare_run(), figures={"scree": "<svg xmlns='http://www.w3.org/2000/svg'/>", "unknown": b""})
    assert page.count("<img ") == 1
    assert 'src="data:image/svg+xml;base64,' in page


@pytest.mark.parametrize(("mode", "kept"), [("RGB", True), ("RGBA", False)])
def test_png_is_embedded_as_it_is_unless_it_has_alpha(mode, kept):
    file = io.BytesIO()
    picture = np.random.default_rng(0).integers(0, 256, (9, 9, len(mode)), dtype=np.uint8)
    picture[..., 3:] = 255
    Image.fromarray(picture).save(file, format="PNG", compress_level=0)
    (figure,) = embed(bare_run(), {"scree": file.getvalue()}).values()
    data = base64.b64decode(figure.source.removeprefix("data:image/png;base64,"))
    assert (data == file.getvalue()) == kept
    shown = Image.open(io.BytesIO(data))
    assert shown.mode == "RGB"
    assert np.array_equal(np.asarray(shown), picture[..., :3])


def test_numbers_as_text():
    assert number(-0.001) == "0.00"
    assert number(-0.25) == "\N{MINUS SIGN}0.25"
    assert number(np.nan) == number(None) == "–"
    assert with_interval(0.5, np.nan, np.nan) == "0.50"
    assert [significant(v) for v in (0.00473, 0.738, 1234.5, 0, 1e-12)] == [
        "0.00473", "0.738", "1,234", "0", "1.00e\N{MINUS SIGN}12",
    ]  # fmt: skip
    assert probability(1.0, 4000) == "> 0.999"
    assert probability(0.0, 100) == "< 0.01"
    assert probability(0.943, 4000) == "0.943"
    assert percent(0.652) == "65.2 %"
    assert plural(1, "model") == "1 model"


def test_scripts_are_marked():
    assert mark_languages("a <日本> b", "ja") == 'a &lt;<span lang="ja">日本</span>&gt; b'
    assert mark_languages("数学", "zh") == '<span lang="zh">数学</span>'
    assert mark_languages("한국", "ja") == '<span lang="ko">한국</span>'
