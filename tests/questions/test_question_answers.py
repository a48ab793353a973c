"""Answers in words: the truth of a simulation in other languages, and what is said when there is no answer."""

import functools
import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from small_runs import bare_run, small_run

from factorlab.analysis import analyse
from factorlab.cli import main
from factorlab.options import FitOptions
from factorlab.questions.answer import text_table
from factorlab.questions.ask import answer_questions
from factorlab.questions.certainty import family_weights
from factorlab.questions.drivers import ALL, guess_shifts, leave_one_benchmark_out
from factorlab.questions.languages import _against, closest_languages
from factorlab.questions.reading import Reading
from factorlab.questions.structure import factor_stability
from factorlab.questions.subsets import subset_congruence
from factorlab.questions.text import answer_lines
from factorlab.questions.token_units import token_units
from factorlab.report import render
from factorlab.runs import write_run
from factorlab.simulation import simulate
from factorlab.summary import summarise

KEYS = ["languages", "tokens", "uncertainty", "structure", "benchmarks", "families", "subsets", "ratios"]
CAUSAL = r"\b(effects?|cause[sd]?|because of|leads? to|improves?)\b"
PCA_ONLY = {"bayes": None, "bayes_budgets": None, "comparison": None, "sensitivity": None}


@functools.cache
def german_swahili(languages=("de", "sw"), rho=None):
    """A general ability with the first language's budget, a special one with the last's; PCA sees both."""
    loading = np.column_stack([np.full(12, 0.75), np.r_[np.full(4, 0.6), np.full(8, -0.3)]])
    made = simulate(models=80, loading=loading, benchmarks=12, languages=languages, seed=7)
    return analyse(made.table, FitOptions(factors=2, method="pca", resamples=200))


@pytest.fixture(scope="module")
def real(swallow):
    """The real matrix by PCA alone."""
    return analyse(swallow, FitOptions(method="pca", resamples=100))


def by_key(analysis):
    return {answer.key: answer for answer in answer_questions(analysis)}


def everything(analysis):
    return "\n".join(answer_lines(answer_questions(analysis)))


@pytest.mark.parametrize("languages", [("de", "sw"), ("de", "th", "sw")])
def test_the_right_factor_is_named_in_any_language(languages):
    answer = by_key(german_swahili(languages))["languages"]
    rest = "Swahili" if len(languages) == 2 else "any other language"
    assert re.search(rf"PC1 \([^)]*\) goes with German text more than with {rest}", answer.verdict)
    rest = "German" if len(languages) == 2 else "any other language"
    assert re.search(rf"PC2 \([^)]*\) goes with Swahili text more than with {rest}", answer.verdict)
    sure = answer.table[answer.table["goes with"] != ""]
    assert list(zip(sure["factor"], sure["goes with"], strict=True)) == [
        ("PC1", "German"),
        ("PC2", "Swahili"),
    ]
    assert not re.search(r"\b(Japanese|English|ja|en)\b", everything(german_swahili(languages)))


def test_slopes_of_a_simulation_are_near_the_truth():
    """theta = rho x_l with x standardised: the slope on log10(N D_l) is rho over the sd of the budget.

    Components carry the noise of the benchmarks, so that their slopes are somewhat smaller.
    """
    run = german_swahili()
    table = by_key(run)["tokens"].table
    budgets = Reading(run).budgets
    for factor, language, name, rho in (("PC1", "de", "German", 0.9), ("PC2", "sw", "Swahili", 0.8)):
        row = table[(table["on"] == factor) & (table["tokens"] == name)].iloc[0]
        ability = run.pca.ability_mean()[factor]
        assert row["per ×10"] == pytest.approx(np.polyfit(budgets[language], ability, 1)[0])
        assert 0.7 < row["per ×10"] / (rho / budgets[language].std(ddof=0)) < 1.05


def test_difference_of_rho_is_that_of_the_draws():
    run = small_run()
    reading = Reading(run)
    found = closest_languages(reading, *reading.rho)
    draws = run.bayes_budgets.draws["rho"].stack(sample=("chain", "draw"))
    for _, row in found.iterrows():
        near = "zh" if row["language"] == "Chinese" else "sw"
        far = "sw" if near == "zh" else "zh"
        of = draws.sel(factor=row["factor"])
        gap = of.sel(budget=near).values - of.sel(budget=far).values
        assert row["rho − other"] == pytest.approx(np.median(gap))
        assert row["rho − other lower"] == pytest.approx(np.quantile(gap, 0.03))
        assert row["probability"] == pytest.approx((gap > 0).mean())


def test_a_factor_against_a_language_does_not_go_with_the_other():
    """rho 0.2 and -0.6: nearer to the first, but what it has is less of the second."""
    reading = Reading(german_swahili())
    point = np.array([[0.9, 0.1], [0.2, -0.6]])
    draws = point + 0.01 * np.random.default_rng(0).normal(size=(200, 2, 2))
    found = closest_languages(reading, point, draws)
    assert list(found["goes with"]) == ["German", "", "", ""]
    assert _against(found[found["factor"] == "PC2"]) == {
        "PC2": "PC2 is lower where there is more Swahili text (rho −0.60 [−0.62, −0.58])"
    }


def test_points_are_slope_times_loading_times_sd():
    run = small_run()
    table = by_key(run)["tokens"].table
    rows = table[table["kind"] == "benchmark"]
    assert len(rows)
    bayes = run.bayes
    predictors = [str(p) for p in bayes.draws["predictor"].values]
    for _, row in rows.iterrows():
        code = {"Chinese": "zh", "Swahili": "sw"}[row["tokens"]]
        j = bayes.benchmarks.index(row["on"])
        place = predictors.index(f"log10 D_{code}")
        loading, slope = bayes.stacked("loading")[:, j], bayes.stacked("slope")[:, place]
        points = 100 * (loading * slope).sum(axis=1) * run.table.scores[:, j].std()
        assert row["per ×10"] == pytest.approx(np.median(points))
        assert row["per ×10 upper"] == pytest.approx(np.quantile(points, 0.97))


def test_real_matrix_answers(real):
    run = real
    answers = by_key(run)
    verdict = answers["languages"].verdict
    assert "goes with English text more than with Japanese (rho 0.92" in verdict
    japanese = "goes with Japanese text more than with English (rho 0.78"
    assert f"PC2 (NIILC, WMT20-en-ja, JEMHopQA) {japanese}" in verdict
    assert answers["structure"].verdict.startswith("PC1, PC2 stand (least congruence of all checks 0.97)")
    assert "PC4 does not stand" in answers["structure"].verdict
    assert "rho(PC2, ja) moves most without NIILC −0.09, JEMHopQA −0.06" in answers["benchmarks"].sentences[1]
    assert "Llama 3" in " ".join(answers["ratios"].sentences)
    assert not re.search(CAUSAL, everything(run))
    assert [a.key for a in answer_questions(run)] == KEYS


def test_leaving_out_changes_are_differences(real):
    table = leave_one_benchmark_out(Reading(real))
    assert len(table) == 4 * 2 * 19
    assert (table["rho without"] - table["rho with all"]).to_numpy() == pytest.approx(
        table["change"].to_numpy()
    )


def test_worst_combination_of_guesses_by_hand(real, swallow):
    """Each of three guesses at 1/2 or ×2: eight tables, the least and the largest correlation."""
    run = real
    units = token_units(swallow, "ja")
    guessed = [i for i, s in enumerate(units.status) if s == "guessed"]
    found = guess_shifts(Reading(run), "PC2", "ja", units, guessed, 2.0).set_index("guess")
    ability = run.pca.stacked("ability")[0, :, 1]
    rho = []
    for choice in np.ndindex(2, 2, 2):
        tokens = units.published_b.copy()
        for i, up in zip(guessed, choice, strict=True):
            tokens = tokens + ((2 if up else 0.5) - 1) * units.tokens_b[i]
        x = np.log10(units.params_b * tokens)
        both = np.isfinite(x)
        rho.append(np.corrcoef(ability[both], x[both])[0, 1])
    assert found.loc[ALL, "rho upper"] == pytest.approx(max(rho), abs=1e-3)
    assert found.loc[ALL, "rho lower"] == pytest.approx(min(rho))
    assert found.loc[ALL, "rho"] == pytest.approx(0.7793, abs=1e-4)


def test_ranks_and_the_least_of_leaving_out(real):
    run = real
    table, notes = factor_stability(run)
    assert not notes
    full = run.pca.stacked("loading")[0]
    loo = run.resamples["leave-one-lineage-out"].stacked("loading")
    cosine = (loo * full).sum(axis=1) / (np.linalg.norm(loo, axis=1) * np.linalg.norm(full, axis=0))
    assert table["lineage"].to_numpy() == pytest.approx(cosine.min(axis=0))
    assert list(table["stands"]) == [True, True, False, False]


def test_a_subset_that_is_all_models_agrees_fully(real):
    reading = Reading(real)
    reference = reading.analysis.pca.stacked("loading")[0]
    found = subset_congruence(reading.rows, np.ones(35, dtype=bool), reference, 0, 0.94)
    assert found.point == pytest.approx(np.ones(4))
    assert found.chance == pytest.approx(np.ones(4))
    assert (found.lower < found.upper).all()


def test_small_groups_are_named_not_read(real):
    answer = by_key(real)["subsets"]
    assert set(answer.table["group"]) == {"PT", "CPT", "English LLMs"}
    assert "Multilingual LLMs (4)" in " ".join(answer.sentences)


def test_families_are_drawn_whole():
    family = np.array(["a", "a", "b", "c", "d", "e"])
    weights = family_weights(family, np.ones(6, dtype=bool), 50, 0)
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert weights[:, 1:].sum(axis=1) == pytest.approx(5)
    assert family_weights(family[2:], np.ones(4, dtype=bool), 50, 0) is None  # no family of two


def test_no_answer_says_what_is_needed():
    bare = by_key(bare_run())
    for key in ("languages", "tokens", "benchmarks", "families", "ratios"):
        assert "params_b and tokens_b_<language>" in bare[key].cannot
        assert not bare[key].verdict
    assert "construction and group" in bare["subsets"].cannot
    one = by_key(german_swahili(("de",)))
    assert "a column tokens_b_<language> for a second language" in one["languages"].cannot
    assert one["tokens"].verdict.startswith("Ten times the German")
    assert "columns family and base_model" in one["families"].cannot


def test_every_partial_run_answers_without_holes():
    run = small_run()
    for parts in (
        {},
        PCA_ONLY,
        {**PCA_ONLY, "pca_budgets": None},
        {**PCA_ONLY, "resamples": {}, "parallel": None},
        {"pca": None, "pca_budgets": None, "comparison": None, "resamples": {}, "parallel": None, "ml": None},
        {**PCA_ONLY, "pca": None, "resamples": {}, "parallel": None},
        {**PCA_ONLY, "pca": None, "ml": None, "pca_budgets": None, "resamples": {}, "parallel": None},
    ):
        answers = answer_questions(replace(run, **parts))
        assert [a.key for a in answers] == KEYS
        assert all(bool(a.verdict) != bool(a.cannot) for a in answers)
        text = "\n".join(answer_lines(answers))
        assert not re.search(r"\b(nan|None|NaN|inf)\b", text)
        assert not re.search(CAUSAL, text)


def test_answers_are_in_the_summary_and_made_once():
    run = small_run()
    kept = summarise(run)["answers"]
    assert [a["key"] for a in json.loads(json.dumps(kept, allow_nan=False))] == KEYS
    assert run.answers is run.answers
    assert replace(run, **PCA_ONLY).answers is not run.answers
    assert kept[0]["verdict"] == run.answers[0].verdict


def test_report_prints_answers_and_writes_nothing(tmp_path):
    folder = write_run(bare_run(), tmp_path / "bare.fit", page=False)
    before = sorted(path.name for path in folder.iterdir())
    done = CliRunner().invoke(main, ["report", str(folder), "--text"])
    assert done.exit_code == 0
    assert done.output.splitlines() == answer_lines(bare_run().answers)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_page_shows_every_answer_with_links_that_lead_somewhere():
    page = render(small_run(), figures={})
    for answer in small_run().answers:
        assert f'id="answer-{answer.key}"' in page
        assert html.escape(answer.question) in page
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'id="([^"]+)"', page))


def test_a_number_and_its_interval_are_one_cell():
    answer = by_key(german_swahili())["languages"]
    shown = text_table(answer.table)
    assert "rho lower" not in shown
    assert re.fullmatch(r"0\.\d\d \[0\.\d\d, 0\.\d\d\]", shown["rho"].iloc[0])
