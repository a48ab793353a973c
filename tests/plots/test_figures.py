"""Every figure draws on real-shaped and degenerate tables, with axes named and numbers those of the input."""

import io
import re
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from made_up_fits import make_diagnostics, make_solution, make_table
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from factorlab import plots
from factorlab.errors import InputError
from factorlab.inference.budgets import two_step
from factorlab.inference.pca import benchmark_correlations, fit_pca, resample_pca
from factorlab.inference.scree import parallel_analysis
from factorlab.plots.predictive import pairwise_correlations, replicate


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text() and t.get_visible()]


def drawn(figure: Figure) -> Figure:
    """Rendered once, as a file would be: raises what only shows at drawing."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def named(figure: Figure) -> Figure:
    """Every panel with data says what its x axis is; some axis says what y is, or names rows."""
    for axes in figure.axes:
        if axes.get_label() == "<colorbar>":
            assert axes.get_ylabel()
        elif axes.images:
            assert [t for t in axes.get_xticklabels() if t.get_text()]
        else:
            below = [a for a in figure.axes if a.get_shared_x_axes().joined(a, axes)]
            has_words = [t for t in axes.get_xticklabels() if re.search("[a-z]", t.get_text())]
            column = [a for a in figure.axes if abs(a.get_position().x0 - axes.get_position().x0) < 0.02]
            assert any(a.get_xlabel() for a in [*below, *column]) or has_words
    words = [a.get_ylabel() for a in figure.axes if a.get_label() != "<colorbar>"]
    assert any(words) or any(re.search(r"\w", t.get_text()) for t in figure.axes[0].get_yticklabels())
    return figure


BARE = {"metadata": False}
SHAPES = [
    {},
    BARE,
    {"missing": True},
    {"n_models": 2, "n_benchmarks": 2, **BARE},
    {"n_models": 3, "n_benchmarks": 9},
]


def every_figure(table, first, second):
    """All figures that need no draws, as (name, function)."""
    factor = second.factors[0]
    yield "scores", lambda: plots.scores_by_group(table)
    yield "correlations", lambda: plots.correlation_heatmap(table)
    for s in (first, second):
        yield "heatmap", lambda s=s: plots.loadings_heatmap(s, table)
        yield "abilities", lambda s=s: plots.ability_intervals(s, table)
        yield "against scores", lambda s=s: plots.ability_against_scores(s, table, factor)
        yield "ranks", lambda s=s: plots.rank_intervals(s, factor, table)
        yield "pairs", lambda s=s: plots.paired_differences(s, factor)
        yield "replicated", lambda s=s: plots.predictive_correlations(s, table, draws=20)
        yield "floor", lambda s=s: plots.predictive_floor(s, table, draws=20)
        yield "outliers", lambda s=s: plots.predictive_outliers(s, table, draws=20)
        if "params_b" in table.models and table.models["tokens_b_ja"].notna().any():
            yield "budget", lambda s=s: plots.ability_against_budget(s, table, factor, "ja")
            yield "budget", lambda s=s: plots.ability_against_budget(s, table, factor, "en")
    yield "forest", lambda: plots.loadings_forest([first, second], table)
    yield "agreement", lambda: plots.ability_agreement(first, second, table)
    yield "convergence", lambda: plots.convergence(second)
    yield "chains", lambda: plots.chain_ranks(second)
    yield "axes", lambda: plots.axis_identification(second)


@pytest.mark.parametrize("shape", SHAPES, ids=["whole", "bare", "missing", "2x2", "3x9"])
def test_every_figure_draws_and_names_its_axes(shape):
    table = make_table(**shape)
    k = 1 if shape.get("n_models") == 2 else 2
    point = make_solution(table, k, n_draws=1, chains=1, method="pca")
    posterior = make_solution(table, k, identified=[True, False][:k])
    for name, draw in every_figure(table, point, posterior):
        figure = named(drawn(draw()))
        assert isinstance(figure, Figure), name


def test_large_tables_draw():
    table = make_table(150, 120)
    solution = make_solution(table, 3, n_draws=10)
    drawn(plots.scores_by_group(table))
    heat = drawn(plots.correlation_heatmap(table))
    assert not heat.axes[0].texts  # no numbers in cells too small for them
    drawn(plots.loadings_forest([solution, solution], table))
    drawn(plots.ability_intervals(solution, table))
    drawn(plots.paired_differences(solution, "PC1"))
    drawn(plots.ability_against_budget(solution, table, "PC1", "ja"))


def test_nothing_global_changes(table, posterior):
    before = dict(matplotlib.rcParams)
    drawn(plots.ability_intervals(posterior, table))
    assert dict(matplotlib.rcParams) == before


def test_scores_are_those_of_the_table(table):
    figure = drawn(plots.scores_by_group(table))
    shown = np.concatenate(
        [c.get_offsets()[:, 0] for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    )
    assert np.isin(np.round(table.scores.ravel(), 9), np.round(shown, 9)).all()
    assert "日本語 from scratch" in texts(figure)
    assert "not declared" in texts(figure)


def test_scores_on_different_scales_are_standardised():
    frame = pd.DataFrame({"model": list("abc"), "acc": [0.1, 0.2, 0.4], "elo": [900.0, 1000.0, 1300.0]})
    from factorlab.scores import table_from_frames

    figure = plots.scores_by_group(table_from_frames(frame))
    assert figure.axes[0].get_xlabel() == "standardised score (sd over models)"


def test_bubble_area_is_proportional_to_parameters(table):
    figure = plots.scores_by_group(table)
    sizes = {
        round(float(s), 6)
        for c in figure.axes[0].collections
        if isinstance(c, PathCollection)
        for s in c.get_sizes()
    }
    b = table.scored_models["params_b"]
    assert {round(float(s), 6) for s in np.clip(150 * b / b.max(), 6, None)} <= sizes


def test_correlations_are_written(table):
    r = benchmark_correlations(table).to_numpy()
    figure = plots.correlation_heatmap(table)
    written = {t.get_text() for t in figure.axes[0].texts}
    assert f"{r[1, 0]:.2f}".replace("0.", ".", 1).replace("-", "−") in written
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), r)


def test_scree_shows_eigenvalues_and_shares(table):
    parallel = parallel_analysis(table, draws=20)
    figure = drawn(plots.scree(parallel))
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, parallel.eigenvalues)
    share = 100 * parallel.eigenvalues[0] / parallel.eigenvalues.sum()
    assert f"{share:.1f} %" in texts(figure)


def test_loadings_heatmap_marks_what_is_sure_and_what_is_not_identified(table):
    solution = make_solution(table, identified=[True, False])
    figure = drawn(plots.loadings_heatmap(solution, table))
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), solution.loading_mean())
    lower, upper = np.quantile(solution.stacked("loading"), [0.03, 0.97], axis=0)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in dots) == int((lower * upper > 0).sum())
    assert any("PC2 is not identified" in t for t in texts(figure))


def test_forest_bars_are_the_intervals(table, posterior, point):
    figure = drawn(plots.loadings_forest([point, posterior], table, level=0.9))
    lower, upper = np.quantile(posterior.stacked("loading")[:, :, 0], [0.05, 0.95], axis=0)
    bars = [c for c in figure.axes[0].collections if len(c.get_segments()) == len(posterior.benchmarks)]
    assert len(bars) == 1  # the point has no interval
    ends = np.array([[s[0, 0], s[1, 0]] for s in bars[0].get_segments()])
    np.testing.assert_allclose(ends, np.column_stack([lower, upper]))
    assert "Bayes, 90 % interval" in texts(figure)
    assert "PCA" in texts(figure)


def test_not_identified_is_said_on_every_factor_panel(table):
    solution = make_solution(table, identified=[True, False])
    for figure in (
        plots.loadings_forest([solution], table),
        plots.ability_intervals(solution, table),
        plots.rank_intervals(solution, "PC2", table),
        plots.paired_differences(solution, "PC2"),
        plots.ability_agreement(solution, solution, table),
        plots.axis_identification(solution),
    ):
        assert "not identified" in texts(figure)
    figure = plots.ability_against_budget(solution, table, "PC2", "ja")
    assert any("PC2 is not identified" in t for t in texts(figure))


def test_leave_one_out_names_the_largest_move(table):
    resample = resample_pca(table, 2)
    figure = drawn(plots.leave_one_out_loadings(resample, table))
    loading = resample.stacked("loading")[:, :, 0]
    far = np.unravel_index(np.abs(loading - np.median(loading, axis=0)).argmax(), loading.shape)[0]
    assert f"without {resample.extra['left_out'][far][0]}" in texts(figure)
    with pytest.raises(
        InputError, match="leave-one-out loadings need a resampled fit, this one is of kind 'point'"
    ):
        plots.leave_one_out_loadings(fit_pca(table, 2))


def test_leave_one_out_bars_are_ranges_not_intervals(table):
    figure = plots.loadings_forest([resample_pca(table, 2)], table)
    assert "PCA, range, leave one model out" in texts(figure)


def test_benchmark_names_have_the_colour_of_their_language(table, posterior):
    figure = drawn(plots.loadings_heatmap(posterior, table))
    colours = {t.get_text(): t.get_color() for t in figure.axes[0].get_yticklabels()}
    by_language = {
        lang: {colours[b] for b in table.benchmarks.index[table.benchmarks["language"] == lang]}
        for lang in ("en", "ja")
    }
    assert all(len(c) == 1 for c in by_language.values())
    assert by_language["en"] != by_language["ja"]
    assert {"English benchmark", "Japanese benchmark"} <= set(texts(figure))


def test_abilities_are_ordered_within_groups(table, posterior):
    figure = plots.ability_intervals(posterior, table)
    shown = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    mean = posterior.ability_mean()["PC1"]
    group = table.scored_models["group"]
    first = [m for m in shown if group[m] == "英語"]
    assert first == sorted(first, key=lambda m: -mean[m])
    assert sorted(shown) == sorted(posterior.models)


def test_ranks_run_from_one(posterior):
    figure = plots.rank_intervals(posterior, "PC1")
    best = posterior.ability_mean()["PC1"].idxmax()
    assert figure.axes[0].get_yticklabels()[0].get_text() == best
    x = np.concatenate([line.get_xdata() for line in figure.axes[0].lines if line.get_marker() == "o"])
    assert x.min() >= 1
    assert x.max() <= len(posterior.models)


def test_paired_differences_show_the_share_of_draws(posterior):
    models = posterior.models[:4]
    figure = drawn(plots.paired_differences(posterior, "PC1", models=models))
    order = posterior.ability_mean()["PC1"][models].sort_values(ascending=False).index
    a, b = (posterior.stacked("ability")[:, posterior.models.index(m), 0] for m in order[:2])
    assert f"{(a > b).mean():.2f}" in {t.get_text() for t in figure.axes[1].texts}
    with pytest.raises(InputError, match="paired differences need two models, 1 given"):
        plots.paired_differences(posterior, "PC1", models=models[:1])


def test_budget_rho_of_a_posterior_is_that_of_its_draws(table, posterior):
    figure = drawn(plots.ability_against_budget(posterior, table, "PC1", "ja"))
    known = (table.scored_models["tokens_b_ja"] > 0).to_numpy()
    x = (posterior.stacked("log10_tokens")[:, :, 1] + posterior.stacked("log10_params"))[:, known]
    y = posterior.stacked("ability")[:, known, 0]
    r = [np.corrcoef(u, v)[0, 1] for u, v in zip(x, y, strict=True)]
    lower, middle, upper = np.quantile(r, [0.03, 0.5, 0.97])
    expected = f"rho = {middle:.2f} [{lower:.2f}, {upper:.2f}] (94 %, n = {known.sum()})".replace("-", "−")
    assert expected in texts(figure)
    assert "log10(parameters × Japanese tokens)" in texts(figure)
    assert any("No Japanese tokens: model-0" in t for t in texts(figure))


def test_budget_of_a_point_is_published_and_hollow_where_unknown(table, point):
    regression = two_step(table, point)
    row = regression.table.query("factor == 'PC1' and budget == 'ja' and form == 'at_hand'").iloc[0]
    expected = (
        f"rho = {row['mean']:.2f} [{row['lower']:.2f}, {row['upper']:.2f}] (94 %, n = {row['n']})".replace(
            "-", "−"
        )
    )
    for given in (None, regression):
        figure = drawn(plots.ability_against_budget(point, table, "PC1", "ja", regression=given))
        assert expected in texts(figure)
        assert any(
            (t.startswith("No Japanese tokens:") and "\nNot published: " in t) or "Not published" in t
            for t in texts(figure)
        )


def test_budget_points_stand_at_log10_parameters_times_tokens(table, point):
    figure = plots.ability_against_budget(point, table, "PC1", "ja")
    rows = table.scored_models
    known = rows["tokens_b_ja"] > 0
    expected = np.log10(rows["params_b"][known] * rows["tokens_b_ja"][known]) + 18
    panel = figure.axes[1]
    x = np.concatenate([line.get_xdata() for line in panel.lines if line.get_linestyle() == "None"])
    np.testing.assert_allclose(np.sort(x), np.sort(expected))


def test_no_name_covers_another(table, posterior):
    figure = plots.ability_against_budget(posterior, table, "PC1", "ja")
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    names = [t for t in figure.axes[-1].texts if t.get_text() in posterior.models]
    assert len(names) >= 5
    boxes = [t.get_window_extent(renderer) for t in names]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            overlap = (min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0))
            assert min(overlap) < 1.0


def test_unknown_language_is_one_line(table, posterior):
    with pytest.raises(InputError, match="has no column 'tokens_b_ko'"):
        plots.ability_against_budget(posterior, table, "PC1", "ko")


def test_rho_difference(table):
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.8, 0.05, (4, 250)), rng.normal(0.2, 0.1, (4, 250))
    figure = drawn(plots.rho_difference(a, b))
    lower, middle, upper = np.quantile((a - b).ravel(), [0.03, 0.5, 0.97])
    assert f"difference: {middle:.2f} [{lower:.2f}, {upper:.2f}]" in texts(figure)
    assert "probability that it is positive: above 0.999" in texts(figure)
    with pytest.raises(InputError, match="the same draws of both, 1000 and 1 given"):
        plots.rho_difference(a, np.array([0.2]))


def test_lineage_contrasts(table):
    frame = pd.DataFrame(
        {
            "model": ["b", "c"], "base_model": ["a", "a"], "factor": "PC2",
            "mean": [1.0, 0.2], "median": [1.0, 0.2],
            "lower": [0.5, -0.3], "upper": [1.5, 0.7], "level": 0.94, "prob_positive": [0.99, 0.7],
            "log10_tokens_ja": [2.0, np.inf], "log10_tokens_en": [0.0, np.nan],
        }
    )  # fmt: skip
    figure = drawn(plots.lineage_contrasts(SimpleNamespace(contrasts=frame, method="joint"), "PC2"))
    assert {"Japanese ×100", "Japanese from none"} <= {t.strip() for t in texts(figure)}
    with pytest.raises(InputError, match="no contrasts within lineages of 'PC2' in this two-step regression"):
        plots.lineage_contrasts(two_step(make_table(), make_solution(make_table())), "PC2")


def test_prior_sensitivity():
    frame = pd.DataFrame(
        [
            {"setting": s, "quantity": q, "mean": 0.5, "lower": 0.4, "upper": 0.6}
            for s in ("default", "広い")
            for q in "abcde"
        ]
    )
    figure = drawn(plots.prior_sensitivity(frame.drop(index=3)))
    assert {"default", "広い", "a", "e"} <= set(texts(figure))
    with pytest.raises(InputError, match="missing: lower"):
        plots.prior_sensitivity(frame.drop(columns="lower"))
    with pytest.raises(InputError, match="no setting 'x' in the frame; it has default, 広い"):
        plots.prior_sensitivity(frame, reference="x")


def test_convergence_counts_what_falls_short(table, posterior):
    figure = drawn(plots.convergence(posterior))
    rhat = make_diagnostics(table).table
    bad = int(((rhat["rhat"] > 1.01) & rhat["counted"]).sum())
    squares = [line for line in figure.axes[0].lines if line.get_marker() == "s"]
    assert sum(len(line.get_xdata()) for line in squares) == bad
    assert any("1 thing to mend" in t for t in texts(figure))


def test_point_solutions_say_what_they_cannot_show(point):
    for draw, message in (
        (plots.convergence, "convergence needs a posterior, this solution is a point"),
        (plots.chain_ranks, "traces need draws, this solution has one"),
        (plots.axis_identification, "one draw cannot show how far axes turn"),
    ):
        with pytest.raises(InputError, match=message):
            draw(point)


def test_chain_ranks_of_named_quantities(posterior):
    b = posterior.benchmarks[2]
    figure = drawn(plots.chain_ranks(posterior, [f"noise_sd[{b}]", f"loading[{b}, PC2]"]))
    np.testing.assert_allclose(
        figure.axes[0].lines[1].get_ydata(), posterior.draws["noise_sd"].values[1, :, 2]
    )
    with pytest.raises(InputError, match="no quantity 'tau' in this solution"):
        plots.chain_ranks(posterior, ["tau"])
    with pytest.raises(InputError, match="no benchmark 'x' in this solution"):
        plots.chain_ranks(posterior, ["noise_sd[x]"])


@pytest.mark.parametrize("draw", [plots.rank_intervals, plots.paired_differences])
def test_unknown_factor_is_one_line(posterior, draw):
    with pytest.raises(InputError, match="no factor 'PC9' in this solution; it has PC1, PC2"):
        draw(posterior, "PC9")


def test_level_must_be_a_probability(table, posterior):
    with pytest.raises(InputError, match=r"level 94 is no probability"):
        plots.ability_intervals(posterior, table, level=94)


def test_replicates_have_the_spread_of_the_model():
    table = make_table(40, 4)
    solution = make_solution(table, n_draws=1, chains=1)
    made = replicate(solution, table, draws=4000)
    fitted = solution.stacked("ability")[0] @ solution.stacked("loading")[0].T
    sd = np.sqrt(solution.stacked("noise_sd")[0] ** 2 + solution.constants["z_se"].values ** 2)
    np.testing.assert_allclose(made.drawn.mean(axis=0), fitted, atol=5 * sd.max() / np.sqrt(4000))
    np.testing.assert_allclose(made.drawn.std(axis=0) / sd, 1, atol=0.06)


def test_replicates_of_pairs_share_their_factor():
    table = make_table(30, 4)
    grouped = table.benchmarks.assign(shared_items_group=["g", "g", None, None])
    table = type(table)(table.data, table.models, grouped, table.name)
    solution = make_solution(table, n_draws=1, chains=1)
    label = "+".join(table.benchmark_names[:2])
    draws = solution.draws.assign(pair_sd=(("chain", "draw", "pair"), np.array([[[2.0]]]))).assign_coords(
        pair=[label]
    )
    noise = (made := replicate(solution.with_(draws=draws), table, draws=3000)).drawn - made.drawn.mean(
        axis=0
    )
    covariance = np.einsum("dmj,dmk->jk", noise, noise) / noise.shape[0] / noise.shape[1]
    assert covariance[0, 1] == pytest.approx(4.0, rel=0.05)
    assert abs(covariance[2, 3]) < 0.05


def test_pairwise_correlations_match_pandas():
    z = np.random.default_rng(0).normal(size=(12, 5))
    z[2, 1] = z[5, 3] = z[6, 3] = np.nan
    np.testing.assert_allclose(pairwise_correlations(z), pd.DataFrame(z).corr(min_periods=3), atol=1e-12)
