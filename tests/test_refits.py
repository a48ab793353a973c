"""Refits: the same as the resamples PCA has of its own, errors that are known, folders that go on."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.text import Text

import factorlab as fl
from factorlab import refits as refits_module
from factorlab.cli import main
from factorlab.errors import InputError
from factorlab.inference.choose import held_out, table_cells
from factorlab.inference.moments import usable_cells
from factorlab.inference.pca import resample_pca
from factorlab.inference.projection import project, regression_scores
from factorlab.inference.resamples import draw_resamples, resampled_table
from factorlab.lineage import build_lineage
from factorlab.options import FitOptions
from factorlab.plots.refits import choose_headlines
from factorlab.refit_tables import align, jackknife_se
from factorlab.refits import refit
from factorlab.scores import table_from_frames
from factorlab.simulation import simulate

ROOT = Path(__file__).resolve().parents[1]
SCORES = str(ROOT / "data" / "scores.parquet")
PCA = FitOptions(factors=3, method="pca", workers=1)


@pytest.fixture(scope="module")
def one_out(swallow):
    return refit(swallow, "leave-one-model-out", PCA)


@pytest.mark.parametrize(
    ("scheme", "count"),
    [("leave-one-model-out", None), ("leave-one-lineage-out", None), ("bootstrap", 20), ("kfold", 6)],
)
def test_pca_refits_are_the_resamples_of_pca(swallow, scheme, count):
    own = resample_pca(swallow, 3, scheme=scheme, draws=count or 0, seed=4)
    again = refit(swallow, scheme, replace(PCA, seed=4), fits=count)
    assert again.solution.n_draws == own.n_draws > 5
    for name in ("loading", "ability", "noise_sd"):
        np.testing.assert_allclose(again.solution.stacked(name), own.stacked(name), atol=1e-9)
    for name in ("left_out", "left_out_lineage", "scheme"):
        assert again.solution.extra[name] == own.extra[name]
    assert not again.failures


def test_numbers_of_a_refit_are_those_of_a_fit_to_what_is_left(swallow, one_out):
    gone = "Llama 2 7B"
    rest = swallow.select(models=[name for name in swallow.model_names if name != gone])
    solution = fl.fit_pca(rest, 3)
    rho = fl.fit_budgets(rest, solution).table.set_index(["factor", "budget", "form"])["median"]
    row = one_out.summary.set_index(["unit", "factor"]).loc[f"without {gone}"]
    assert row["left_out"].tolist() == [gone] * 3
    assert row["n_models"].tolist() == [34] * 3
    for factor in ("PC1", "PC2"):
        for budget in ("en", "ja"):
            assert row.loc[factor, f"rho_{budget}"] == pytest.approx(rho[factor, budget, "at_hand"])
    whole = one_out.headlines.set_index("headline")["whole"]
    assert whole["rho(PC2, ja)"] == pytest.approx(0.779, abs=5e-4)
    change = row.loc["PC2", "rho_ja"] - whole["rho(PC2, ja)"]
    assert row.loc["PC2", "rho_ja_change"] == pytest.approx(change)
    share = fl.fit_pca(swallow, 3).extra["explained_variance_ratio"]
    assert whole["share of variance, PC1"] == pytest.approx(share[0])


def test_headlines_are_the_extremes_of_the_summary(one_out):
    for _, row in one_out.headlines.iterrows():
        rows = one_out.summary[one_out.summary["factor"] == row["factor"]].set_index("unit")
        values = rows["share" if row["form"] == "share" else f"rho_{row['budget']}"]
        assert (row["lowest"], row["highest"]) == (values.min(), values.max())
        furthest = (values - row["whole"]).abs().idxmax()
        assert row["moved_most_by"] == furthest
        assert row["largest_change"] == pytest.approx(values[furthest] - row["whole"])
        assert row["refits"] == 35
        assert row["se"] == pytest.approx(jackknife_se(values.to_numpy()))
    assert one_out.headlines["lower"].notna().sum() == 9  # every rho, no share


def test_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=40)
    without = (x.sum() - x) / 39
    assert jackknife_se(without) == pytest.approx(x.std(ddof=1) / np.sqrt(40))
    assert np.isnan(jackknife_se(x[:1]))


def test_bootstrap_error_is_the_spread(swallow):
    found = refit(swallow, "bootstrap", PCA, fits=25)
    assert found.headlines["se"].tolist() == found.headlines["sd"].tolist()
    assert (found.summary["left_out"] == "").all()
    assert found.summary["n_models"].between(15, 30).all()  # 35 (1 - 1/e) = 22 are expected


def test_folds_deal_every_model_once(swallow):
    used = np.ones(35, dtype=bool)
    used[3] = False
    folds = draw_resamples(swallow, used, "kfold", 5, seed=1)
    assert folds.names == [f"fold {i}" for i in range(1, 6)]
    out = (folds.counts == 0) & used
    assert (out.sum(axis=0) == used).all()
    assert sorted(out.sum(axis=1)) == [6, 7, 7, 7, 7]
    assert (folds.counts[:, 3] == 0).all()
    other = draw_resamples(swallow, used, "kfold", 5, seed=2)
    assert (other.counts != folds.counts).any()
    with pytest.raises(InputError, match="40 folds asked of 34 models; give 2 to 34"):
        draw_resamples(swallow, used, "kfold", 40)


def test_a_model_drawn_twice_is_two_rows_of_its_lineage(swallow):
    counts = np.zeros(35, dtype=int)
    names = swallow.model_names
    child = names.index("Swallow 7B")
    counts[[child, names.index("Qwen2-7B"), names.index("Yi-1.5 9B")]] = [3, 1, 2]
    drawn = resampled_table(swallow, counts)
    assert sorted(drawn.model_names) == sorted(
        ["Swallow 7B", "Swallow 7B (2)", "Swallow 7B (3)", "Qwen2-7B", "Yi-1.5 9B", "Yi-1.5 9B (2)"]
    )
    rows = [drawn.model_names.index(f"Swallow 7B{n}") for n in ("", " (2)", " (3)")]
    for row in rows:
        np.testing.assert_array_equal(drawn.scores[row], swallow.scores[child])
        np.testing.assert_array_equal(drawn.se[row], swallow.se[child])
    families = build_lineage(drawn.models).family_of(drawn.model_names)
    assert len(set(families[rows])) == 1
    assert drawn.scored_models["base_model"].iloc[rows].nunique() == 1
    assert list(drawn.scored_models.index) == drawn.model_names


def test_axes_that_changed_place_and_sign_are_put_back():
    reference = np.array([[0.9, 0.1], [0.8, -0.2], [0.7, 0.6], [0.6, -0.5]])
    turned = reference[:, ::-1] * [-1, 1]  # its first axis is our second, turned round
    ability = np.random.default_rng(1).normal(size=(6, 2))
    result = {
        "loading": turned,
        "ability": ability,
        "orthogonal": True,
        "rho": [
            {"factor": 0, "form": "at_hand", "budget": "ja", "median": -0.7, "lower": -0.9, "upper": -0.2},
            {"factor": 1, "form": "at_hand", "budget": "ja", "median": 0.1, "lower": None, "upper": None},
        ],
    }
    fit = align(result, reference, np.ones(6, dtype=bool))
    np.testing.assert_allclose(fit.loading, reference)
    assert fit.order.tolist() == [1, 0]
    assert fit.numbers[1, "at_hand", "ja"] == (0.7, 0.2, 0.9)
    assert fit.numbers[0, "at_hand", "ja"][0] == 0.1
    assert np.isnan(fit.numbers[0, "at_hand", "ja"][1:]).all()
    assert fit.numbers[0, "share", ""][0] == pytest.approx((reference[:, 0] ** 2).mean())
    assert np.corrcoef(fit.ability[:, 1], ability[:, 0])[0, 1] == pytest.approx(-1)
    np.testing.assert_allclose(fit.ability.std(axis=0), 1)


def test_regression_scores_against_the_dense_formula():
    rng = np.random.default_rng(2)
    loading, z = rng.normal(size=(6, 2)), rng.normal(size=(4, 6))
    variance = rng.uniform(0.2, 1, size=(4, 6))
    z[1, [0, 3]] = np.nan
    z[3] = np.nan
    found = regression_scores(z, loading, variance)
    for i in range(3):
        seen = np.isfinite(z[i])
        sigma = loading[seen] @ loading[seen].T + np.diag(variance[i, seen])
        np.testing.assert_allclose(found[i], loading[seen].T @ np.linalg.solve(sigma, z[i, seen]))
    assert np.isnan(found[3]).all()


@pytest.mark.parametrize("method", ["pca", "ml"])
def test_a_left_out_model_gets_the_ability_its_scores_say(method):
    """Where it is in the fit after all, the projection is the fit's own ability."""
    table = simulate(models=60, benchmarks=9, factors=2, seed=3).table
    solution = fl.fit_pca(table, 2) if method == "pca" else fl.fit_ml(table, 2)
    counts = np.ones(60, dtype=int)
    counts[:5] = 0
    own = solution.ability_mean().to_numpy()
    found = project(table, solution, counts)
    np.testing.assert_allclose(found[5:], own[5:])
    # The five were in the fit, so only the scale, taken over the other 55, is a little off.
    assert np.abs(found[:5] - own[:5]).max() < 0.15
    assert np.abs(own[:5]).max() > 0.5


def test_ml_refits(swallow):
    found = refit(swallow, "kfold", FitOptions(factors=2, method="ml", workers=1), fits=4)
    assert set(found.summary["factor"]) == {"F1", "F2"}
    for fold, row in enumerate(found.solution.extra["left_out"]):
        rest = swallow.select(models=[name for name in swallow.model_names if name not in row])
        own = fl.fit_ml(rest, 2, missing="em").loading_mean().to_numpy()
        cosine = np.abs(own.T @ found.solution.stacked("loading")[fold])
        cosine /= np.outer(
            *(np.linalg.norm(m, axis=0) for m in (own, found.solution.stacked("loading")[fold]))
        )
        np.testing.assert_allclose(cosine.max(axis=0), 1)
    assert found.solution.method == "ml"
    assert found.summary["converged"].isna().all()


def test_promax_has_no_shares(swallow):
    options = FitOptions(factors=2, method="ml", rotation="promax", workers=1)
    found = refit(swallow, "kfold", options, fits=3)
    assert "share" not in found.summary
    assert (found.headlines["form"] == "at_hand").all()


def test_models_with_gaps_are_left_out_of_complete_fits():
    table = simulate(models=40, benchmarks=6, factors=2, missing=0.03, seed=1).table
    used = usable_cells(table, "complete", "pearson").used
    assert 10 < used.sum() < 40
    found = refit(table, "leave-one-model-out", replace(PCA, factors=2, missing="complete"))
    assert found.solution.n_draws == used.sum()
    assert (found.summary["n_models"] == used.sum() - 1).all()
    gaps = ~np.isfinite(found.solution.stacked("ability")).all(axis=(0, 2))
    assert (gaps == ~used).all()
    em = refit(table, "leave-one-model-out", replace(PCA, factors=2))
    assert em.solution.n_draws == 40
    assert np.isfinite(em.solution.stacked("ability")).all()


def fragile_table():
    """A benchmark on which one model alone differs: without it there is nothing to standardise."""
    rng = np.random.default_rng(5)
    wide = pd.DataFrame(rng.normal(size=(12, 5)), columns=list("abcde"))
    wide["c"] = 0.5
    wide.loc[7, "c"] = 0.9
    wide.insert(0, "model", [f"m{i}" for i in range(12)])
    return table_from_frames(wide, name="fragile")


def test_a_refit_that_cannot_be_is_named_and_the_others_stay():
    found = refit(fragile_table(), "leave-one-model-out", replace(PCA, factors=2))
    assert list(found.failures) == ["without m7"]
    assert "'c' has one and the same score for all 11 models" in found.failures["without m7"]
    assert found.solution.n_draws == 11
    assert "1 of 12 refits are missing from all numbers." in found.notes
    assert found.problems[0].startswith("refit without m7: benchmark 'c' has one")


def test_what_cannot_be_asked_is_one_line(swallow):
    for options, scheme, fits, message in [
        (FitOptions(method="all"), "kfold", None, "refits are of one method; give --method pca, ml or bayes"),
        (FitOptions(method="pca", factors="auto"), "kfold", None, "refits need a number of factors"),
        (PCA, "leave-one-model-out", 5, "--fits counts bootstrap samples or folds"),
        (PCA, "bootstrap", 1, "fits is 1; give 2 or more"),
        (replace(PCA, factors=30), "kfold", 3, "the whole table cannot be fitted: 30 factors asked"),
        (PCA, "jackknife", None, "scheme 'jackknife' is unknown; give 'leave-one-model-out'"),
    ]:
        with pytest.raises(InputError, match=message):
            refit(swallow, scheme, options, fits=fits)


def test_every_refit_failing_is_an_error(swallow, monkeypatch):
    def fail(table, options, seed):
        if len(table.model_names) < 35:
            raise InputError("too small")
        return fl.fit_pca(table, 3)

    monkeypatch.setattr(refits_module, "fit_method", fail)
    with pytest.raises(InputError, match="no refit ended; fold 1: too small"):
        refit(swallow, "kfold", PCA, fits=3)


@pytest.mark.slow
def test_bayesian_refits(small, tmp_path):
    """Means of posteriors on the whole table's axes; no refit is taken for another's."""
    options = FitOptions(
        factors=2, method="bayes", draws=200, tune=300, chains=2, workers=2, seed=3, max_draws=400
    )
    found = refit(small.table, "kfold", options, fits=3, folder=str(tmp_path))
    assert found.solution.kind == "resample"
    assert found.solution.n_draws == 3
    assert found.summary["congruence"].min() > 0.9
    assert {"rho_en", "rho_population_en", "rho_difference_ja - en"} <= set(found.summary)
    assert found.summary["converged"].notna().all()
    truth = small.truth.ability_mean().to_numpy()
    for draw in found.solution.stacked("ability"):  # those of left-out models are projections
        assert np.corrcoef(draw[:, 0], truth[:, 0])[0, 1] > 0.85
    again = refit(small.table, "kfold", options, fits=3, folder=str(tmp_path))
    assert again.reused == 4
    other = refit(small.table, "kfold", replace(options, workers=1, cores=1), fits=3, folder=str(tmp_path))
    assert other.reused == 4  # where it ran is no part of the question
    pd.testing.assert_frame_equal(again.summary, found.summary)


# The verb and its folder.


def call(*arguments: object, code: int = 0):
    out = CliRunner().invoke(main, [str(a) for a in arguments])
    assert out.exit_code == code, out.output + (repr(out.exception) if out.exception else "")
    return out


def small_call(table: object, out: Path, *more: object, code: int = 0):
    return call(
        "refit", table, "--out", out, "--factors", 2, "--workers", 1, "--quiet", *more, code=code
    )  # fmt: skip


def test_the_verb_writes_the_folder(tmp_path):
    target = tmp_path / "x.refit"
    text = small_call(SCORES, target, "--scheme", "leave-one-lineage-out").stdout
    assert "rho(PC2, ja)" in text
    assert "Least congruence" in text
    assert {p.name for p in tmp_path.iterdir()} == {"x.refit"}
    assert {p.name for p in target.iterdir()} == {
        "summary.csv", "headlines.csv", "refits.nc", "refit.json", "figures", "fits",
    }  # fmt: skip
    facts = json.loads((target / "refit.json").read_text(encoding="utf-8"))
    assert facts["scheme"] == "leave-one-lineage-out"
    solution = fl.load_solution(target / "refits.nc")
    assert solution.n_draws == facts["refits"] == len(list((target / "fits").iterdir())) - 1
    summary = pd.read_csv(target / "summary.csv")
    assert len(summary) == 2 * facts["refits"]
    assert (target / "figures" / "headlines.png").stat().st_size > 1000


def test_the_default_folder_is_named_after_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("refit", SCORES, "--scheme", "kfold", "--fits", 3, "--factors", 2, "--workers", 1, "--quiet")
    assert (tmp_path / "scores.refit" / "summary.csv").is_file()


def test_a_folder_is_replaced_by_force_only_and_its_fits_are_used_again(tmp_path):
    target = tmp_path / "x.refit"
    small_call(SCORES, target, "--scheme", "kfold", "--fits", 3)
    before = {p.name: p.stat().st_mtime_ns for p in (target / "fits").iterdir()}
    message = small_call(SCORES, target, "--scheme", "kfold", "--fits", 3, code=1).stderr
    assert "exists; give --out another folder, or --force to replace it" in message
    text = small_call(SCORES, target, "--scheme", "kfold", "--fits", 3, "--force").stdout
    assert "4 fits kept from before" in text
    assert {p.name for p in (target / "fits").iterdir()} == set(before)
    small_call(SCORES, target, "--scheme", "kfold", "--fits", 4, "--force")
    assert len(list((target / "fits").iterdir())) == 5  # those of three folds are gone, the whole one stays
    assert {p.name for p in tmp_path.iterdir()} == {"x.refit"}
    (tmp_path / "mine").mkdir()
    message = small_call(SCORES, tmp_path / "mine", "--force", code=1).stderr
    assert "is not a folder of refits" in message


def test_a_failure_is_told_and_strict_exits_with_three(tmp_path):
    fragile_table().write(tmp_path / "t")
    out = small_call(tmp_path / "t" / "scores.parquet", tmp_path / "f.refit", "--strict", code=3)
    assert "! refit without m7:" in " ".join(out.stdout.split())
    facts = json.loads((tmp_path / "f.refit" / "refit.json").read_text(encoding="utf-8"))
    assert list(facts["failures"]) == ["without m7"]
    assert any(note.startswith("no figure: no correlation with a budget") for note in facts["notes"])
    assert not (tmp_path / "f.refit" / "figures").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fits", "5"], "--fits counts bootstrap samples or folds"),
        (["--factors", "30"], "the whole table cannot be fitted: 30 factors asked"),
        (["--workers", "0"], "workers is 0; give 1 or more"),
        (["--cluster", "slurm://x"], "cluster 'slurm://x' is of no known kind; give dask://host:port"),
        (["--cluster", "dask://127.0.0.1:1"], "no cluster answers at dask://127.0.0.1:1"),
        (["--out", "no/such/x.refit"], "no such folder: 'no/such'; make it first"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, message, tmp_path, monkeypatch):
    if "127" in message:
        pytest.importorskip("distributed", reason="Dask is not installed (factorlab[cluster])")
    monkeypatch.chdir(tmp_path)
    out = call("refit", SCORES, *arguments, code=1)
    assert out.stdout == ""
    [line] = [line for line in out.stderr.strip().splitlines() if not line.startswith("pca fits")]
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_verb_says_what_it_keeps_and_goes_on(tmp_path):
    """With a real signal, while fits run."""
    target = tmp_path / "x.refit"
    command = [
        sys.executable, "-m", "factorlab.cli", "refit", SCORES, "--scheme", "bootstrap", "--fits", "4000",
        "--factors", "2", "--workers", "1", "--out", str(target),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    kept = tmp_path / "x.refit.partial" / "fits"
    end = time.monotonic() + 60
    while time.monotonic() < end and (not kept.is_dir() or len(list(kept.glob("*.npz"))) < 5):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Interrupted: finished fits are kept in" in stderr
    assert "the same command goes on from there" in stderr
    assert "Traceback" not in stderr
    assert not target.exists()
    saved = len(list(kept.glob("*.npz")))
    assert 5 <= saved < 4000
    # The first samples of a longer bootstrap are those of a shorter one.
    text = small_call(SCORES, target, "--scheme", "bootstrap", "--fits", 6).stdout
    assert "fits kept from before" in text
    assert {p.name for p in tmp_path.iterdir()} == {"x.refit"}


def test_a_cluster_gives_the_same_numbers(tmp_path):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (factorlab[cluster])")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as local:
        url = local.scheduler_address.replace("tcp://", "dask://")
        asked = ["--scheme", "kfold", "--fits", 6, "--factors", 3]
        call("refit", SCORES, *asked, "--cluster", url, "--out", tmp_path / "d.refit", "--quiet")
    call("refit", SCORES, *asked, "--workers", 1, "--out", tmp_path / "h.refit", "--quiet")
    found, here = (pd.read_csv(tmp_path / name / "summary.csv") for name in ("d.refit", "h.refit"))
    numbers = [c for c in found if pd.api.types.is_float_dtype(found[c]) and c != "converged"]
    assert "rho_ja" in numbers
    np.testing.assert_allclose(found[numbers], here[numbers], atol=1e-9)


# The figure.


def words(figure) -> list[str]:
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return [t.get_text() for t in figure.findobj(Text) if t.get_text() and t.get_visible()]


def test_the_figure_names_who_was_left_out_with_the_interval_as_band(one_out):
    figure = fl.plots.headline_moves(one_out.summary, one_out.headlines, scheme=one_out.scheme)
    text = words(figure)
    assert {"PC1 ~ en", "PC2 ~ ja", "Llama 2 7B", "rho with the log budget"} <= set(text)
    for axes, headline in zip(figure.axes, ("rho(PC1, en)", "rho(PC2, ja)"), strict=True):
        row = one_out.headlines.set_index("headline").loc[headline]
        low, high = axes.get_xlim()
        assert low < row["lower"] < row["upper"] < high
        assert low < row["lowest"] < row["highest"] < high
        assert any(np.allclose(line.get_xdata(), row["whole"]) for line in axes.lines)
        dots = max((line.get_xdata() for line in axes.lines), key=len)
        assert len(dots) == 35


def test_the_figure_of_a_bootstrap_and_of_many_units(swallow, one_out):
    boot = refit(swallow, "bootstrap", PCA, fits=20)
    assert "fits" in words(fl.plots.headline_moves(boot.summary, boot.headlines, scheme="bootstrap"))
    many = pd.concat(
        [one_out.summary.assign(unit=one_out.summary["unit"] + tail) for tail in (" x", " y", " z")]
    )
    figure = fl.plots.headline_moves(many, one_out.headlines, scheme=one_out.scheme)
    assert any("The other 45 refits move every panel by" in text for text in words(figure))


def test_headlines_drawn_are_the_closest_of_each_language(one_out):
    chosen = choose_headlines(one_out.headlines)
    assert chosen["headline"].tolist() == ["rho(PC1, en)", "rho(PC2, ja)"]
    alone = one_out.headlines[one_out.headlines["budget"] == "total"]
    assert choose_headlines(alone)["headline"].tolist() == ["rho(PC1, total)"]
    with pytest.raises(InputError, match="no correlation with a budget in these refits"):
        choose_headlines(one_out.headlines[one_out.headlines["form"] == "share"])


# The number of factors.


@pytest.mark.parametrize("workers", [1, 2])
def test_held_out_cells_are_the_same_however_many_workers(swallow, workers):
    cells = table_cells(swallow)
    told = []
    found = held_out(
        cells, [1, 2], 3, 0, workers=workers, progress=lambda stage, done, total: told.append((done, total))
    )
    assert told[-1] == (6, 6)
    reference = held_out(cells, [1, 2], 3, 0)
    for one, two in zip(found[:2], reference[:2], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-8)
    assert np.isfinite(found[0]).sum() == 2 * np.isfinite(swallow.scores).sum()


@pytest.mark.slow
def test_fit_takes_workers_and_cluster_for_the_number_of_factors(tmp_path):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (factorlab[cluster])")
    shutil.copytree(ROOT / "data", tmp_path / "data")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as local:
        url = local.scheduler_address.replace("tcp://", "dask://")
        out = call(
            "fit", SCORES, "--factors", "auto", "--method", "bayes", "--cluster", url, "--no-page",
            "--draws", 50, "--tune", 100, "--chains", 2, "--max-draws", 50, "--out", tmp_path / "x.fit",
        )  # fmt: skip
    assert "number of factors by held-out cells: 60 of 60" in out.stderr
    summary = json.loads((tmp_path / "x.fit" / "summary.json").read_text(encoding="utf-8"))
    assert len(summary["bayes"]["factors"]) == 3


# The document.


def block(mark: str) -> str:
    text = (ROOT / "docs" / "many_fits.md").read_text(encoding="utf-8")
    return text.split(f"<!-- {mark}:begin -->")[1].split(f"<!-- {mark}:end -->")[0].strip().strip("`")


def test_commands_of_the_document_run(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    lines = block("commands").splitlines()[1:]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[:2] == ["factorlab", "refit"]
        call(*words[1:], "--workers", 1, "--quiet")
    assert {path.name for path in tmp_path.glob("*.refit")} == {
        "scores.refit", "lineages.refit", "bootstrap.refit", "folds.refit",
    }  # fmt: skip


def test_python_of_the_document_runs(tmp_path):
    (tmp_path / "areas.py").write_text(block("batch").removeprefix("python"), encoding="utf-8")
    out = subprocess.run(
        [sys.executable, "areas.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert out.stdout == "{'area': 24} {}\n"
    assert len(list((tmp_path / "areas").iterdir())) == 8
