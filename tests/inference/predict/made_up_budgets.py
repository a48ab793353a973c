"""A table whose scores follow the prediction model with a known association with Japanese tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from factorlab.inference.predict.member_fit import Effort
from factorlab.inference.predict.mixture import PredictionSettings
from factorlab.inference.predict.specification import Member
from factorlab.scores import ScoreTable, table_from_frames

QUICK = PredictionSettings(
    members=(Member(2),), splits=0, effort=Effort(draws=150, tune=200, chains=2, max_depth=6), seed=1
)

GOAL = 0.6

SLOPE = 0.9
"""Logits a factor of ten of Japanese tokens, on benchmarks ja0 to ja3."""

CEILING = 0.7

BASE_TOKENS = 10.0


def needed_tokens() -> float:
    """Further tokens with which an average model trained on from "base" is at `GOAL` on ja0."""
    return float(10 ** (np.log(GOAL / (1 - GOAL)) / SLOPE + 2.0) - BASE_TOKENS)


def make_table(seed: int = 0, n_models: int = 40) -> ScoreTable:
    """Benchmarks ja0 to ja3 go with Japanese tokens, en0 to en3 with English ones, capped with Japanese, up to 0.7.

    Model "base" is an average one with 10 billion Japanese tokens; "child-0" and "child-1" were trained on from it.
    """
    rng = np.random.default_rng(seed)
    names = ["base", "child-0", "child-1", *(f"model-{i}" for i in range(n_models - 3))]
    en = 10 ** rng.uniform(2, 4, n_models)
    ja = 10 ** rng.uniform(0.5, 3.5, n_models)
    en[:3], ja[:3] = 1000.0, [BASE_TOKENS, BASE_TOKENS + 40, BASE_TOKENS + 160]
    own = 0.25 * rng.standard_normal((n_models, 2))
    own[0] = 0.0
    japanese = SLOPE * (np.log10(ja) - 2.0) + own[:, 0]
    english = 0.8 * (np.log10(en) - 3.0) + own[:, 1]
    logit = np.column_stack([*[japanese] * 4, *[english] * 4])
    score = 1 / (1 + np.exp(-logit))
    capped = CEILING / (1 + np.exp(-3.0 * japanese - 1.0))
    score = np.column_stack([score, capped]) + 0.01 * rng.standard_normal((n_models, 9))
    wide = pd.DataFrame(
        np.clip(score, 0, 1), columns=[*(f"ja{j}" for j in range(4)), *(f"en{j}" for j in range(4)), "capped"]
    )
    wide.insert(0, "model", names)
    models = pd.DataFrame(
        {
            "model": names,
            "base_model": [None, "base", "base", *[None] * (n_models - 3)],
            "params_b": [7.0] * 3 + list(10 ** rng.uniform(0.3, 1.8, n_models - 3)),
            "tokens_b_en": en,
            "tokens_b_ja": ja,
            "tokens_b_ja_status": ["guessed", "guessed", "guessed", *["official"] * (n_models - 3)],
            "cpt_tokens_b_ja": [np.nan, 40.0, 160.0, *[np.nan] * (n_models - 3)],
            "cpt_tokens_b_ja_status": [None, "official", "official", *[None] * (n_models - 3)],
        }
    )
    benchmarks = pd.DataFrame(
        {"benchmark": wide.columns[1:], "language": ["ja"] * 4 + ["en"] * 4 + ["ja"], "min": 0.0, "max": 1.0}
    )
    return table_from_frames(wide, models=models, benchmarks=benchmarks, name="made up")
