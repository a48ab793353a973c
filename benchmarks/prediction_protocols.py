"""What the prediction benchmarks share: tables without their test cells, scores of predictions, peers' methods.

Test scores are taken out of a table before anything is fitted (`without`): no choice can be made on them.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from factorlab.inference.predict.mixture import PredictionSettings
from factorlab.inference.predict.prediction import Prediction, predict
from factorlab.scores import ScoreTable

LEVEL = 0.9


class Truth(NamedTuple):
    """Predictions of test cells beside what was measured there, in the benchmarks' own units.

    Attributes
    ----------
    y, median, low, high, raw_low, raw_high : ndarray, (cell,)
    """

    y: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    raw_low: np.ndarray
    raw_high: np.ndarray


def without(table: ScoreTable, hidden: np.ndarray) -> ScoreTable:
    """The table with the scores of hidden cells (model, benchmark) taken out."""
    data = table.data.copy(deep=True)
    for name in ("score", "se", "n_instances"):
        data[name].values[hidden] = np.nan
    data["se_kind"].values[hidden] = "missing"
    return replace(table, data=data)


def predict_hidden(
    table: ScoreTable, hidden: np.ndarray, settings: PredictionSettings, workers: int | None
) -> tuple[Truth, Prediction]:
    """Predict hidden cells from a table that does not have them; the true scores are joined afterwards."""
    found = predict(without(table, hidden), settings, workers=workers)
    cells = found.cells.set_index(["model", "benchmark"])
    row, column = np.nonzero(hidden)
    keys = [(table.model_names[i], table.benchmark_names[j]) for i, j in zip(row, column, strict=True)]
    chosen = cells.loc[keys]
    values = [chosen[name].to_numpy() for name in ("median", "low", "high", "raw_low", "raw_high")]
    return Truth(table.scores[row, column], *values), found


def pooled(parts: Sequence[Truth]) -> Truth:
    return Truth(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def measures(t: Truth) -> dict[str, float]:
    """Errors, coverage and widths."""
    error = np.abs(t.median - t.y)
    return {
        "cells": len(t.y),
        "median_absolute_error": float(np.median(error)),
        "mean_absolute_error": float(error.mean()),
        "mse": float((error**2).mean()),
        "r2": float(1 - (error**2).sum() / ((t.y - t.y.mean()) ** 2).sum()),
        "within_3": float((error <= 3).mean()),
        "within_5": float((error <= 5).mean()),
        "raw_coverage": float(((t.y >= t.raw_low) & (t.y <= t.raw_high)).mean()),
        "raw_width": float(np.median(t.raw_high - t.raw_low)),
        "coverage": float(((t.y >= t.low) & (t.y <= t.high)).mean()),
        "width": float(np.median(t.high - t.low)),
    }


def told(found: Prediction) -> dict[str, Any]:
    """What was chosen inside the training data of one fold, and how the chains did."""
    m = found.mixture
    return {
        "weights": {f.member.name: round(float(w), 3) for f, w in zip(m.fits, m.weights, strict=True)},
        "worst_rhat": max(f.rhat for f in m.fits),
        "factor": m.calibration.factor if m.calibration is not None else None,
        "seconds_sampling": sum(f.seconds for f in m.fits),
    }


def write(out: Path, rows: list[dict[str, Any]], goals: list[tuple[str, float, str, bool]]) -> None:
    """Rows and goals as JSON, under a temporary name until whole."""
    body = {
        "machine": platform.platform(),
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
        "goals": [
            {"name": name, "value": value, "goal": goal, "holds": bool(holds)}
            for name, value, goal, holds in goals
        ],
    }
    temporary = out.with_name(f".{out.name}.tmp")
    temporary.write_text(json.dumps(body, indent=1, default=float) + "\n", encoding="utf-8")
    temporary.rename(out)


def logit_als(
    scores: np.ndarray, rank: int = 2, ridge: float = 0.1, rounds: int = 40, starts: int = 10
) -> np.ndarray:
    """BenchPress's method: alternating ridge regressions of a matrix of standardised logits.

    Z = mu + a_i + c_j + U_i V_j with one ridge on a, c, U, V, averaged over random starts; percent columns
    (all scores in [-1, 101]) as logits of scores held within 0.5 and 99.5.

    References
    ----------
    Zeng & Papailiopoulos 2026, arXiv 2606.24020, section 4.
    """
    observed = np.isfinite(scores)
    lowest = np.where(observed, scores, np.inf).min(axis=0)
    highest = np.where(observed, scores, -np.inf).max(axis=0)
    percent = observed.any(axis=0) & (lowest >= -1) & (highest <= 101)
    z = scores.copy()
    p = np.clip(z[:, percent], 0.5, 99.5) / 100
    z[:, percent] = np.log(p / (1 - p))
    some = observed.any(axis=0)
    center, scale = np.zeros(z.shape[1]), np.ones(z.shape[1])
    center[some] = np.nanmean(z[:, some], axis=0)
    spread = np.nanstd(z[:, some], axis=0)
    scale[some] = np.where(spread > 1e-8, spread, 1.0)
    z = (z - center) / scale
    total = np.zeros_like(z)
    for start in range(starts):
        total += _als(z, observed, rank, ridge, rounds, np.random.default_rng(start))
    out = total / starts * scale + center
    out[:, percent] = 100 / (1 + np.exp(-out[:, percent]))
    return out


def _als(
    z: np.ndarray, observed: np.ndarray, rank: int, ridge: float, rounds: int, rng: np.random.Generator
) -> np.ndarray:
    mu, weight = float(z[observed].mean()), np.eye(rank + 1) * ridge
    left = np.column_stack([np.zeros(len(z)), 0.01 * rng.standard_normal((len(z), rank))])
    right = np.column_stack([np.zeros(z.shape[1]), 0.01 * rng.standard_normal((z.shape[1], rank))])
    for _ in range(rounds):
        for own, other, values, seen in ((left, right, z, observed), (right, left, z.T, observed.T)):
            for i in range(len(own)):
                at = seen[i]
                if at.any():
                    x = np.column_stack([np.ones(at.sum()), other[at, 1:]])
                    own[i] = np.linalg.solve(x.T @ x + weight, x.T @ (values[i, at] - mu - other[at, 0]))
        fitted = left[:, :1] + right[:, 0] + left[:, 1:] @ right[:, 1:].T
        mu = float((z - fitted)[observed].mean())
    return np.asarray(mu + fitted)


def one_sigmoid(scores: np.ndarray, *, clipped: bool = False, ridge: float = 0.1) -> np.ndarray:
    """The Epoch Capabilities Index: logistic(slope_j (ability_i - difficulty_j)) by regularised least squares.

    Or the same with a straight line clipped to [0, 1]. The first benchmark's slope is not fixed: the ridge holds
    the scale.
    """
    observed = np.isfinite(scores)
    row, column = np.nonzero(observed)
    y = scores[row, column]
    n, m = scores.shape

    def split(q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return q[:n], q[n : n + m], q[n + m :]

    def link(eta: np.ndarray) -> np.ndarray:
        return np.clip(eta + 0.5, 0, 1) if clipped else 1 / (1 + np.exp(-eta))

    def residuals(q: np.ndarray) -> np.ndarray:
        ability, difficulty, slope = split(q)
        eta = slope[column] * (ability[row] - difficulty[column])
        # Outside [0, 1] a clipped line has no slope: the line itself is fitted.
        fit = eta + 0.5 if clipped else link(eta)
        return np.concatenate(
            [fit - y, np.sqrt(ridge / len(y)) * np.concatenate([ability, difficulty, slope - 1])]
        )

    start = np.concatenate([np.zeros(n), np.zeros(m), np.ones(m)])
    found = least_squares(residuals, start, method="trf", max_nfev=200, x_scale=1.0)
    ability, difficulty, slope = split(found.x)
    return np.asarray(link(slope * (ability[:, None] - difficulty)))
