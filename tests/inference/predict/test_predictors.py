"""Predictors: sizes, tokens that add along the tree, dates; errors of what is estimated or unknown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from factorlab.errors import InputError
from factorlab.inference.design import design_budgets
from factorlab.inference.predict.kin import BASE_MODEL, FAMILY, benchmark_groups, first_word, kin_of
from factorlab.inference.predict.predictors import read_predictors
from factorlab.inference.priors import Priors
from factorlab.score_table import ScoreTable
from factorlab.scores import table_from_frames

NAMES = ["base", "child", "grandchild", "other", "third", "fourth"]


def family_tree(benchmarks: tuple[str, ...] = ("a", "b"), **columns: list) -> ScoreTable:
    """base <- child <- grandchild, and three others; the child's own tokens are guessed."""
    models = {
        "model": NAMES,
        "base_model": [None, "base", "child", None, None, None],
        "family": ["F", "F", "F", "G", "H", "I"],
        "params_b": [7.0, 7.0, 7.0, 13.0, 70.0, None],
        "tokens_b_ja": [100.0, 150.0, 200.0, 30.0, 1000.0, None],
        "tokens_b_ja_status": ["official", "guessed", "official", "derived", "official", "unknown"],
        "cpt_tokens_b_ja": [None, 50.0, 50.0, None, None, None],
        "cpt_tokens_b_ja_status": [None, "guessed", "official", None, None, None],
        **columns,
    }
    rng = np.random.default_rng(0)
    scores = pd.DataFrame({"model": NAMES, **{b: rng.uniform(0.1, 0.9, len(NAMES)) for b in benchmarks}})
    return table_from_frames(scores, pd.DataFrame(models))


def test_tokens_add_along_the_tree():
    x = read_predictors(family_tree())
    assert x.names == ("log10 N", "log10 D_ja")
    tokens = 10 ** (x.x[:, 1] * x.scale[1] + x.center[1])
    np.testing.assert_allclose(tokens[:5], [100, 150, 200, 30, 1000], rtol=1e-12)
    assert x.known[:5, 1].all()
    assert not x.known[5].any()


def test_errors_are_the_derivatives_of_the_sum():
    """d log10(D) / d log10(part) = part / D: the guess of the child's 50 moves the child by 1/3, below it by 1/4."""
    x, priors = read_predictors(family_tree()), Priors()

    def moves(model: str) -> dict[int, float]:
        at = (x.error_row == NAMES.index(model)) & (x.error_predictor == 1)
        return dict(zip(x.error_index[at], x.error_weight[at] * x.scale[1], strict=True))

    unit = 1 / np.log(10)
    base, child, grandchild = moves("base"), moves("child"), moves("grandchild")
    (of_base,) = base
    assert base[of_base] == pytest.approx(priors.official_log_sd * unit)
    assert child[of_base] == pytest.approx(100 / 150 * priors.official_log_sd * unit)
    (guess,) = set(child) - {of_base}
    assert child[guess] == pytest.approx(50 / 150 * priors.guessed_log_sd * unit)
    assert grandchild[of_base] == pytest.approx(100 / 200 * priors.official_log_sd * unit)
    assert grandchild[guess] == pytest.approx(50 / 200 * priors.guessed_log_sd * unit)
    assert len(grandchild) == 3


def test_an_unknown_size_is_the_average_one_with_the_spread_of_the_others():
    x = read_predictors(family_tree())
    sizes = np.log10([7.0, 7.0, 7.0, 13.0, 70.0])
    assert x.x[5, 0] * x.scale[0] + x.center[0] == pytest.approx(sizes.mean())
    (weight,) = x.error_weight[(x.error_row == 5) & (x.error_predictor == 0)]
    assert weight * x.scale[0] == pytest.approx(sizes.std())


def test_dates_and_covariates():
    table = family_tree(
        release_date=["2023-01-01", "2023-01-11", "2023-02", "2024-01-01", None, "2024-06-01"],
        tuned=["true", "false", "true", "false", "true", None],
        width=[1.0, 2.0, 3.0, 4.0, None, 6.0],
        word=["x", "y", "z", "x", "y", "z"],
        constant=[1.0] * 6,
    )
    x = read_predictors(table, ["tuned", "width"])
    assert x.names[2:] == ("release date", "tuned", "width")
    days = x.x[:, 2] * x.scale[2] + x.center[2]
    assert days[1] - days[0] == pytest.approx(10)
    np.testing.assert_allclose(x.x[:5, 3] * x.scale[3] + x.center[3], [1, 0, 1, 0, 1], atol=1e-12)
    assert x.known[:, 4].tolist() == [True] * 4 + [False, True]
    with pytest.raises(InputError, match="covariate 'nothing' is no column of the models table"):
        read_predictors(table, ["nothing"])
    for name in ("word", "constant"):
        with pytest.raises(InputError, match=f"covariate '{name}' has fewer than"):
            read_predictors(table, [name])


def test_kin_are_families_and_bases_with_two_models_below():
    table = family_tree()
    kin = kin_of(design_budgets(table, Priors()), table.model_names)
    below: dict[str, set[str]] = {}
    for i, k in zip(kin.row, kin.node, strict=True):
        below.setdefault(kin.names[k], set()).add(NAMES[i])
    # "F" and "base" have the same models below them: one of the two is enough.
    assert below == {"F": {"base", "child", "grandchild"}, "child": {"child", "grandchild"}}
    assert kin.level.tolist() == [FAMILY, BASE_MODEL]


def test_benchmarks_of_one_name_are_a_group():
    names = ("AIME 2024", "aime_2025", "tau-bench", "tau2-bench", "MMLU", "GPQA")
    index, groups = benchmark_groups(family_tree(names))
    assert groups == ("aime", "tau")
    assert index.tolist() == [0, 0, 1, 1, -1, -1]
    assert first_word("HumanEval+") == "humaneval"
    table = family_tree(("x", "y", "z"))
    table.benchmarks["shared_items_group"] = ["s", None, "s"]
    assert benchmark_groups(table)[0].tolist() == [0, -1, 0]
