"""Validation: what is hidden, that all see the same, and that numbers are those of the cells."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from made_up import make

from factorlab import plots
from factorlab.cli import main
from factorlab.errors import InputError
from factorlab.inference.predict.fold_fits import METHODS
from factorlab.inference.predict.member_fit import Effort
from factorlab.inference.predict.rivals import MEANS, PCA, gaussian, means, pca
from factorlab.inference.predict.schemes import allowed_schemes, log_compute, make_folds, masked
from factorlab.inference.predict.validation import Validation, validate
from factorlab.inference.predict.validation_options import ValidationOptions, quick
from factorlab.plots.validation import reliability
from factorlab.score_table import ScoreTable

pytestmark = pytest.mark.slow  # tens of seconds of sampling: on the lowest Python only

SHORT = Effort(20, 40, 1, 4)


@pytest.fixture(scope="module")
def table() -> ScoreTable:
    """16 models of five lineages, with sizes and tokens; a fifth of the cells missing."""
    made = make(models=16, benchmarks=6, hidden=0.2, seed=2)
    models = made.table.models.assign(
        family=[f"F{i % 5}" for i in range(16)], tokens_b_total=[100.0 * (i + 1) for i in range(16)]
    )
    models.loc[["m03", "m11"], "tokens_b_total"] = np.nan
    return replace(masked(made.table, ~made.observed), models=models)


@pytest.fixture(scope="module")
def found(table, tmp_path_factory) -> Validation:
    options = ValidationOptions(folds=2, factors=(1, 2), splits=2, effort=SHORT, workers=1)
    return validate(table, options, folder=str(tmp_path_factory.mktemp("fits")))


def test_cells_are_each_hidden_once(table):
    folds = make_folds(table, "cells", 3, 0)
    total = np.sum([f.hidden for f in folds], axis=0)
    np.testing.assert_array_equal(total, np.isfinite(table.scores).astype(int))
    assert all((f.hidden == f.scored).all() for f in folds)


def test_lineages_go_whole_and_siblings_but_for_the_smallest(table):
    observed = np.isfinite(table.scores)
    family = table.scored_models["family"].to_numpy()
    sizes = table.scored_models["params_b"].to_numpy()
    for fold in make_folds(table, "lineage", 0, 0):
        own = family == fold.name.removeprefix("lineage ")
        np.testing.assert_array_equal(fold.hidden, observed & own[:, None])
    for fold in make_folds(table, "siblings", 0, 0):
        own = np.flatnonzero(family == fold.name.removeprefix("lineage "))
        smallest = own[np.argmin(sizes[own])]
        assert not fold.hidden[smallest].any()
        np.testing.assert_array_equal(
            fold.hidden.any(axis=1), np.isin(np.arange(16), own[own != smallest]) & observed.any(axis=1)
        )


def test_larger_compute_is_predicted_from_smaller(table):
    (fold,) = make_folds(table, "compute", 0, 0)
    compute = log_compute(table)
    scored = fold.scored.any(axis=1)
    seen = (np.isfinite(table.scores) & ~fold.hidden).any(axis=1)
    assert compute[scored].min() > compute[seen].max()
    assert scored.sum() == seen.sum() == 7
    unknown = [table.model_names.index(m) for m in ("m03", "m11")]
    assert fold.hidden[unknown].sum() == np.isfinite(table.scores[unknown]).sum()
    assert not fold.scored[unknown].any()


def test_schemes_are_those_that_the_table_allows(table):
    assert allowed_schemes(table) == ("cells", "lineage", "compute")
    bare = replace(table, models=table.models[[]])
    assert allowed_schemes(bare) == ("cells",)
    with pytest.raises(InputError, match=r"declares no lineages; give columns family or base_model"):
        make_folds(bare, "lineage", 2, 0)
    with pytest.raises(InputError, match=r"0 models of table .* have a known size and number of tokens"):
        make_folds(bare, "compute", 2, 0)
    with pytest.raises(InputError, match="1 folds asked; give 2 or more"):
        make_folds(table, "cells", 1, 0)
    with pytest.raises(InputError, match="scheme 'models' is unknown"):
        make_folds(table, "models", 2, 0)  # type: ignore[arg-type]


def test_masking_takes_scores_and_errors(table):
    hidden = np.isfinite(table.scores)
    hidden[:, 3:] = False
    seen = masked(table, hidden)
    assert np.isnan(seen.scores[:, :3]).all()
    assert np.isnan(seen.se[:, :3]).all()
    np.testing.assert_array_equal(seen.scores[:, 3:], table.scores[:, 3:])
    assert np.isfinite(table.scores[:, :3]).any()


def test_means_by_hand():
    """z of a model is the mean of its other z."""
    made = make(models=8, benchmarks=3)
    z = made.table.standardised()
    hidden = np.zeros((8, 3), dtype=bool)
    hidden[2, 1] = True
    seen = masked(made.table, hidden)
    s = seen.standardised()
    want = np.nanmean(s.z[2]) * s.scale[1] + s.location[1]
    assert means(seen).mean[2, 1] == pytest.approx(want)
    np.testing.assert_allclose(means(made.table).mean[:, 0], z.z.mean(axis=1) * z.scale[0] + z.location[0])


def test_rivals_find_hidden_cells_and_budgets_those_of_models_without_scores():
    made = make(models=40, benchmarks=8, hidden=0.2, noise=0.02, seed=4)
    scores = made.table.scores
    hidden = ~made.observed
    hidden[:4] = True
    seen = masked(made.table, hidden)
    flat = np.broadcast_to(np.nanmean(seen.scores, axis=0), scores.shape)
    for guess in (gaussian(seen, 2), pca(seen, 2)):
        part = hidden.copy()
        part[:4] = False
        error = np.abs(guess.mean - scores)[part]
        assert np.median(error) < 0.4 * np.median(np.abs(flat - scores)[part])
        inside = np.mean(np.abs(guess.mean - scores)[part] < 1.645 * guess.sd[part])
        assert 0.7 <= inside <= 0.98  # of 0.9: what a point estimate leaves out makes it too sure
    by_budget, without = pca(seen, 2).mean[:4], gaussian(seen, 2).mean[:4]
    np.testing.assert_allclose(without, without[[0] * 4])  # all the same: what the average model scores
    np.testing.assert_allclose(without, flat[:4], atol=0.1)
    size = np.log10(made.table.scored_models["params_b"].to_numpy())
    assert np.corrcoef(by_budget[:, 0], size[:4])[0, 1] > 0.99


def test_every_method_sees_the_same_cells(found, table):
    for _, part in found.cells.groupby("scheme", sort=False):
        keys = [part[part["method"] == m].set_index(["fold", "model", "benchmark"])["score"] for m in METHODS]
        for other in keys[1:]:
            pd.testing.assert_series_equal(keys[0], other)
    cells = found.cells[(found.cells["scheme"] == "cells") & (found.cells["method"] == METHODS[0])]
    assert len(cells) == np.isfinite(table.scores).sum()
    assert found.cells["raw_low"].notna().all()
    assert found.cells[["log_density", "crps", "pit"]].notna().all().all()


def test_better_than_means_on_hidden_cells(found):
    rows = found.methods.set_index(["scheme", "method"])
    assert rows.loc[("cells", METHODS[0]), "crps"] < rows.loc[("cells", MEANS), "crps"]
    assert rows.loc[("lineage", MEANS), "r2"] == pytest.approx(0, abs=0.1)  # a model without scores: the mean


def test_numbers_of_factors(found):
    assert found.counts is not None
    assert found.counts["factors"].tolist() == [1, 2, 3]
    assert found.counts["difference"].max() == 0
    assert found.counts["chosen"].sum() == 1


def test_only_the_mixture_is_recalibrated_with_one_fold(found):
    part = found.cells[found.cells["scheme"] == "compute"]
    assert part[part["method"] != METHODS[0]]["low"].isna().all()
    assert any("one fold" in note for note in found.notes)
    assert any("unknown compute" in note for note in found.notes)


def test_hidden_scores_do_not_shape_their_predictions(table):
    """Another score in the only hidden cell moves its scores, not what is predicted for it or for others."""
    options = ValidationOptions(
        schemes=("compute",), factors=(1,), splits=0, counts=False, effort=SHORT, workers=1
    )
    (fold,) = make_folds(table, "compute", 2, 0)
    data = table.data.copy(deep=True)
    data["score"].values[fold.scored] = 0.5
    first, second = (validate(t, options).cells for t in (table, replace(table, data=data)))
    for name in ("median", "raw_low", "raw_high", "training_mean"):
        np.testing.assert_array_equal(first[name], second[name])
    assert (first["crps"] != second["crps"]).any()


def test_reliability_of_calibrated_predictions_is_on_the_diagonal():
    rng = np.random.default_rng(0)
    y = rng.normal(size=4000)
    cells = pd.DataFrame(
        {"score": y, "median": 0.0, "raw_low": -1.0, "raw_high": 1.0, "fold": np.arange(4000) % 4}
    )
    from scipy.stats import norm

    curve = reliability(cells.assign(pit=norm.cdf(y)))
    assert ((curve.low <= curve.raw) & (curve.raw <= curve.high)).mean() > 0.8
    np.testing.assert_allclose(curve.recalibrated, curve.level, atol=0.02)
    narrow = reliability(cells.assign(pit=norm.cdf(2 * y)))
    assert (narrow.raw < narrow.low)[3:].all()


def test_figures(found):
    for draw in (plots.validation_predictions, plots.validation_reliability, plots.validation_errors):
        figure = draw(found)
        assert [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes] == [
            "held-out cells", "lineage left out", "larger compute",
        ]  # fmt: skip
    with pytest.raises(InputError, match="method 'none' was not validated"):
        plots.validation_predictions(found, "none")
    assert PCA in [t.get_text() for t in plots.validation_errors(found).axes[0].get_yticklabels()]


def test_the_verb_writes_all_and_goes_on_from_its_fits(table, tmp_path, monkeypatch):
    table.write(tmp_path / "data")
    arguments = [
        "validate", str(tmp_path / "data" / "scores.parquet"), "--scheme", "compute", "--quick", "--draws", "20",
        "--workers", "1", "--out", str(tmp_path / "v"), "--json", "--quiet",
    ]  # fmt: skip
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [row["method"] for row in told["methods"]] == list(METHODS)
    assert json.loads((tmp_path / "v" / "validation.json").read_text(encoding="utf-8")) == told
    names = {p.relative_to(tmp_path / "v").as_posix() for p in (tmp_path / "v").rglob("*.*")}
    assert {"methods.csv", "cells.csv", "validation.json", "figures/reliability.png"} <= names
    assert "factors.csv" not in names
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "exists; give --out another folder, or --force" in again.stderr

    def no_fit(*args: object, **rest: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("factorlab.inference.predict.fold_fits.fit_mixture", no_fit)
    forced = CliRunner().invoke(main, [*arguments, "--force"])
    assert forced.exit_code == 0, forced.output


def test_mistakes_are_told_in_one_line(table, tmp_path):
    table.write(tmp_path)
    path = str(tmp_path / "scores.parquet")
    for more, message in (
        (["--factors", "two"], "--factors 'two' is no list of numbers; give auto, or 2,4,6"),
        (["--factors", "9"], "9 factors asked for a prediction; give 1 to 6, or auto"),
        (["--draws", "1"], "--draws is 1; give 4 or more"),
        (["--level", "90"], "level 90.0 is no probability"),
        (["--folds", "1"], "1 folds asked; give 2 or more"),
        (["--covariate", "nothing"], "covariate 'nothing' is no column of the models table"),
    ):
        out = tmp_path / "v"
        done = CliRunner().invoke(
            main, ["validate", path, "--out", str(out), "--workers", "1", "--quiet", *more]
        )
        assert done.exit_code == 1
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert not out.exists()


def test_quick_is_little_work():
    how = quick(ValidationOptions())
    assert (how.folds, how.splits, how.counts, how.factors) == (2, 0, False, (2,))
