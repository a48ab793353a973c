"""Gallery: which figures an analysis has, by name."""

from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from small_runs import bare_run, small_run

from factorlab.errors import InputError
from factorlab.gallery import Drawing, figure, figures

DEFAULT = [
    "scores_by_group", "correlations", "correlations_spearman", "scree", "leave_one_out",
    "leave_one_lineage_out", "loadings_heatmap", "loadings_forest", "abilities", "PC1_scores",
    "PC2_scores", "ranks_PC1", "differences_PC1", "ranks_PC2", "differences_PC2", "axes", "PC1_zh",
    "PC2_zh", "PC1_sw", "PC2_sw", "rho_difference", "lineage_contrasts", "pca_vs_bayes",
    "predictive_correlations", "predictive_floor", "predictive_outliers", "outliers",
    "prior_sensitivity", "convergence", "chain_ranks",
]  # fmt: skip


def test_a_full_run_has_every_figure_for_its_own_languages():
    assert list(figures(small_run())) == DEFAULT


def test_scores_alone_have_the_figures_that_need_no_metadata():
    assert list(figures(bare_run())) == [
        "scores_by_group", "correlations", "correlations_spearman", "scree", "leave_one_out",
        "leave_one_lineage_out", "loadings_heatmap", "loadings_forest", "abilities", "PC1_scores",
        "PC2_scores",
    ]  # fmt: skip


def test_without_any_fit_there_are_the_figures_of_the_data():
    nothing = replace(bare_run(), pca=None, parallel=None, resamples={})
    assert list(figures(nothing)) == ["scores_by_group", "correlations", "correlations_spearman"]


@pytest.mark.parametrize("run", [small_run, bare_run])
def test_every_figure_can_be_drawn_and_has_a_caption(run):
    for name, drawing in figures(run(), every=True).items():
        assert isinstance(drawing, Drawing)
        assert isinstance(drawing(), Figure), name
        assert drawing.title
        assert "{" not in drawing.title + drawing.caption
        assert drawing.caption.endswith(".")


def test_chains_that_found_several_solutions_have_a_figure_more():
    run = small_run()
    modes = {"modes": {"groups": [[1, 2], [3]]}}
    disputed = replace(run, bayes=run.bayes.with_(extra={**run.bayes.extra, **modes}))
    assert [name for name in figures(disputed) if name not in DEFAULT] == ["chain_modes"]


def test_more_figures_on_request():
    asked = set(figures(small_run(), every=True)) - set(DEFAULT)
    assert asked == {"rho_difference_PC1_sw_zh", "lineage_contrasts_PC1"}
    assert isinstance(figure(small_run(), "lineage_contrasts_PC1"), Figure)


def test_unknown_name_lists_the_names():
    with pytest.raises(
        InputError, match=r"no figure 'PC9_ja' in this run; it has scores_by_group, .*PC1_scores"
    ):
        figure(bare_run(), "PC9_ja")
