"""Budgets as arrays: what adds along the tree, what shares an error, what is latent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from factorlab.errors import InputError
from factorlab.inference.design import design_budgets
from factorlab.inference.priors import Priors
from factorlab.scores import table_from_frames

ROWS = [
    # model, family, base_model, params_b, tokens_b_total, en, status, ja, status, cpt ja, status
    ("a-7b", "A", None, 7, 1000, 900, "derived", 1.0, "derived", None, None),
    ("a-70b", "A", None, 70, 1000, 900, "derived", 1.0, "derived", None, None),
    ("a-7b-ja", "A", "a-7b", 7, None, 900, "derived", 101.0, "official", 100.0, "official"),
    ("b-8b", "B", None, 8, 15000, 14000, "guessed", 0.0, "none", None, None),
    ("c-9b", "C", None, 9, 3000, 2000, "official", None, "unknown", None, None),
    ("c-34b", "C", None, 34, 3600, 2500, "official", None, "unknown", None, None),
    ("d-1b", "D", None, 1, None, None, "unknown", 300.0, "guessed", None, None),
]  # fmt: skip
COLUMNS = [
    "model", "family", "base_model", "params_b", "tokens_b_total", "tokens_b_en", "tokens_b_en_status",
    "tokens_b_ja", "tokens_b_ja_status", "cpt_tokens_b_ja", "cpt_tokens_b_ja_status",
]  # fmt: skip


def table(rows=ROWS):
    models = pd.DataFrame(rows, columns=COLUMNS)
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.uniform(0.2, 0.8, (len(rows), 4)), columns=list("wxyz"))
    scores.insert(0, "model", models["model"])
    return table_from_frames(scores, models=models)


def language(design, name):
    return next(tokens for tokens in design.languages if tokens.language == name)


def test_counts_add_along_the_tree():
    tokens = language(design_budgets(table(), Priors()), "ja")
    own = tokens.known * 10**tokens.log10_count
    total = np.append(own, 0)[tokens.path].sum(axis=1)
    assert total[2] == pytest.approx(101.0)
    assert total[3] == 0
    assert tokens.has_zero
    assert not language(design_budgets(table(), Priors()), "en").has_zero


def test_a_derived_share_is_one_error_for_the_family_and_an_official_count_its_own():
    tokens = language(design_budgets(table(), Priors()), "ja")
    assert tokens.error_index[0] == tokens.error_index[1]
    assert tokens.error_index[2] != tokens.error_index[0]
    labels = dict(zip(tokens.error_label, tokens.error_status, strict=True))
    assert labels == {"A (family share)": "derived", "a-7b-ja": "official", "D (family share)": "guessed"}


def test_error_sd_follows_the_status():
    tokens = language(design_budgets(table(), Priors(derived_log_sd=0.2, guessed_log_sd=0.9)), "ja")
    assert tokens.error_sd[0] * np.log(10) == pytest.approx(0.2)
    assert tokens.error_sd[6] * np.log(10) == pytest.approx(0.9)


def test_unknown_share_belongs_to_the_family_and_stays_below_the_total():
    tokens = language(design_budgets(table(), Priors()), "ja")
    assert tokens.n_latents == 1
    assert tokens.latent_index[4] == tokens.latent_index[5]
    assert tokens.offset[5] - tokens.offset[4] == pytest.approx(np.log10(3600 / 3000))
    assert tokens.upper[0] + tokens.offset[4] == pytest.approx(np.log10(3000))


def test_published_models_are_those_with_a_positive_count():
    tokens = language(design_budgets(table(), Priors()), "ja")
    assert tokens.published.tolist() == [True, True, True, False, False, False, True]


def test_the_real_matrix(swallow):
    design = design_budgets(swallow, Priors())
    assert [tokens.published.sum() for tokens in design.languages] == [27, 25]
    assert len(design.families) == 10
    assert "Llama 2 7B" in design.steps
    assert "Mixtral-8x7B-Instruct-v0.1" in design.steps
    own = language(design, "ja")
    total = np.append(own.known * 10**own.log10_count, 0)[own.path].sum(axis=1)
    published = swallow.scored_models["tokens_b_ja"].to_numpy(dtype=float)
    np.testing.assert_allclose(total[own.published], published[own.published])


def test_no_models_table_is_a_note():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.uniform(0.2, 0.8, (6, 4)), columns=list("wxyz"))
    scores.insert(0, "model", [f"m{i}" for i in range(6)])
    design = design_budgets(table_from_frames(scores), Priors())
    assert not design.has_budgets
    assert not design.has_roots
    assert any("no regression on budgets" in note for note in design.notes)


def test_a_language_with_too_few_counts_is_left_out_and_named():
    rows = [
        (*row[:7], None, "unknown", None, None) if row[0] not in ("a-7b", "a-70b") else row for row in ROWS
    ]
    design = design_budgets(table(rows), Priors())
    assert [tokens.language for tokens in design.languages] == ["en"]
    assert any("'ja' is not a predictor" in note for note in design.notes)


def test_unknown_language_is_an_error():
    with pytest.raises(InputError, match="no column 'tokens_b_fr'"):
        design_budgets(table(), Priors(), ["fr"])
