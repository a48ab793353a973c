"""Small made-up tables and fits of every kind, as the figures see them."""

import numpy as np
import pandas as pd
import xarray as xr

from factorlab.inference.solution import Diagnostics, FactorSolution, label_draws
from factorlab.scores import table_from_frames


def make_table(n_models=12, n_benchmarks=6, seed=0, *, metadata=True, missing=False, names=None):
    """Scores in [0, 1] from two factors, with groups, budgets and languages where ``metadata``."""
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(0, 2, n_models)
    ja = np.where(np.arange(n_models) % 3 == 0, 0.0, 10 ** rng.uniform(0, 3, n_models))
    ability = np.column_stack([np.log10(size), np.log10(ja + 1)])
    weight = rng.normal(size=(2, n_benchmarks))
    score = 1 / (
        1
        + np.exp(
            -0.7 * (ability - ability.mean(0)) @ weight - 0.3 * rng.normal(size=(n_models, n_benchmarks))
        )
    )
    if missing:
        score[1, 0] = score[2, n_benchmarks - 1] = np.nan
    models = (
        [f"モデル {i} 日本語" if i % 4 == 1 else f"model-{i}" for i in range(n_models)]
        if names is None
        else names
    )
    benchmarks = [f"評価{j}" if j % 5 == 2 else f"bench{j}" for j in range(n_benchmarks)]
    wide = pd.DataFrame(score, columns=benchmarks)
    wide.insert(0, "model", models)
    if not metadata:
        return table_from_frames(wide, name="bare")
    about = pd.DataFrame(
        {
            "model": models,
            "group": [("英語", "日本語 from scratch", None)[i % 3] for i in range(n_models)],
            "params_b": size,
            "tokens_b_en": np.where(np.arange(n_models) % 5 == 4, np.nan, 1000.0),
            "tokens_b_ja": np.where(np.arange(n_models) % 5 == 4, np.nan, ja),
        }
    )
    facts = pd.DataFrame(
        {
            "benchmark": benchmarks,
            "language": ["ja" if j % 2 else "en" for j in range(n_benchmarks)],
            "chance": [0.25 if j == 0 else 0.0 for j in range(n_benchmarks)],
            "min": 0.0,
            "max": 1.0,
            "n_instances": 200,
        }
    )
    return table_from_frames(wide, about, facts, name="made up")


def make_solution(table, n_factors=2, n_draws=40, chains=2, seed=0, *, method="bayes", identified=None):
    """Draws around the PCA of the table, with token counts where the table has budgets."""
    rng = np.random.default_rng(seed)
    standard = table.standardised()
    z = np.nan_to_num(standard.z)
    left, value, right = np.linalg.svd(z, full_matrices=False)
    loading = right[:n_factors].T * value[:n_factors] / np.sqrt(len(z))
    ability = left[:, :n_factors] * np.sqrt(len(z))
    shape = (chains, n_draws)
    wobble = 0.0 if n_draws == chains == 1 else 0.08
    draws = label_draws(
        loading + wobble * rng.normal(size=(*shape, *loading.shape)),
        ability + wobble * rng.normal(size=(*shape, *ability.shape)),
        np.full((*shape, loading.shape[0]), 0.3) + wobble * rng.random((*shape, loading.shape[0])),
        np.zeros((*shape, loading.shape[0])),
        table.model_names,
        table.benchmark_names,
    )
    posterior = method == "bayes"
    if posterior and "tokens_b_ja" in table.models:
        draws = _with_tokens(draws, table, rng)
    kind = "point" if n_draws == chains == 1 else "posterior" if posterior else "resample"
    return FactorSolution(
        draws=draws,
        constants=xr.Dataset(
            {
                "location": ("benchmark", standard.location),
                "scale": ("benchmark", standard.scale),
                "z": (("model", "benchmark"), standard.z),
                "z_se": (("model", "benchmark"), standard.z_se),
            },
            coords={"benchmark": draws["benchmark"], "model": draws["model"]},
        ),
        method=method,
        kind=kind,
        diagnostics=make_diagnostics(table) if kind == "posterior" else None,
        extra={} if identified is None else {"identified": identified},
    )


def _with_tokens(draws, table, rng):
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    rows = table.scored_models
    counts = rows[["tokens_b_en", "tokens_b_ja"]].to_numpy(dtype=float)
    with np.errstate(divide="ignore"):
        log10 = np.where(np.isnan(counts), 1.0, np.log10(counts))
    noise = 0.2 * rng.normal(size=(*shape, *log10.shape))
    return draws.assign(
        log10_tokens=(("chain", "draw", "model", "language"), log10 + noise),
        log10_params=(
            ("chain", "draw", "model"),
            np.broadcast_to(np.log10(rows["params_b"].to_numpy(dtype=float)), (*shape, len(rows))),
        ),
    ).assign_coords(language=np.array(["en", "ja"], dtype=object))


def make_diagnostics(table):
    names = [f"noise_sd[{b}]" for b in table.benchmark_names]
    frame = pd.DataFrame(
        {
            "quantity": names,
            "group": "noise_sd",
            "rhat": np.linspace(1.0, 1.02, len(names)),
            "ess_bulk": np.linspace(300, 4000, len(names)),
            "ess_tail": np.linspace(500, 4000, len(names)),
            "counted": [True] * (len(names) - 1) + [False],
        }
    )
    return Diagnostics(frame, divergences=0, problems=("R-hat above 1.01",))
