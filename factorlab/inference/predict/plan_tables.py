"""Tables of a plan: from joint samples along tokens to targets, curves and strategies."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from factorlab.inference.predict.calibration import MODEL
from factorlab.inference.predict.further_tokens import scores_with_tokens
from factorlab.inference.predict.kernel import LINEAR
from factorlab.inference.predict.mixture import Mixture
from factorlab.inference.predict.planned_model import PlannedModel, stage_tokens
from factorlab.score_table import ScoreTable

POINTS = 96
"""Token counts of a curve."""

DECADES = 5.0
"""A curve begins this many powers of ten below its end."""

ALL = "all targets"

MEAN = "mean of the pairs"


def token_grid(model: PlannedModel, most: float) -> np.ndarray:
    """Further tokens of a curve in billions: evenly spaced logs, and 0 where the model can have none."""
    counts = np.geomspace(most * 10**-DECADES, most, POINTS)
    return counts if model.start[model.predictor] == 0 else np.concatenate([[0.0], counts])


def first_reached(y: np.ndarray, target: float, grid: np.ndarray) -> np.ndarray:
    """Fewest tokens at which each sample is at the target; inf where it is nowhere.

    Parameters
    ----------
    y : ndarray, (sample, count)
        Scores, higher is better.
    target : float
    grid : ndarray, (count,)
        Increasing. Between two counts the score is taken to be linear in log tokens (from 0 on, in tokens).

    Returns
    -------
    ndarray, (sample,)
    """
    above = y >= target
    at = above.argmax(axis=1)
    out = np.where(above.any(axis=1), grid[at], np.inf)
    inner = np.flatnonzero(above.any(axis=1) & (at > 0))
    k = at[inner]
    low, high = y[inner, k - 1], y[inner, k]
    share = (target - low) / (high - low)
    left, right = grid[k - 1], grid[k]
    with np.errstate(divide="ignore", invalid="ignore"):
        curved = left * (right / left) ** share
    out[inner] = np.where(left > 0, curved, share * right)
    return np.asarray(out)


def widened(y: np.ndarray, factor: float, bounded: np.ndarray) -> np.ndarray:
    """Samples (sample, cell) moved away from each cell's median by a factor; within 0 and 1 where bounded."""
    middle = np.median(y, axis=0)
    out = middle + factor * (y - middle)
    return np.asarray(np.where(bounded, np.clip(out, 0, 1), out))


def recalibration(mixture: Mixture) -> float:
    """Factor on each side of intervals of models without a score; 1 where none was found."""
    found = np.nan if mixture.calibration is None else mixture.calibration.factor[MODEL]
    return float(found) if np.isfinite(found) else 1.0


def base_scores(model: PlannedModel) -> dict[str, float]:
    """Observed scores of the base, by benchmark."""
    table = model.table
    if model.base is None or model.base not in table.model_names:
        return {}
    own = table.scores[table.model_names.index(model.base)]
    return {b: float(v) for b, v in zip(table.benchmark_names, own, strict=True) if np.isfinite(v)}


class Reached:
    """Samples of scores along tokens, and of the tokens that targets ask for.

    Attributes
    ----------
    grid : ndarray, (count,)
    y, wide, expected : ndarray, (sample, target, count)
        New scores on the model's scale, raw and recalibrated; without noise.
    tokens, wide_tokens : ndarray, (sample, target)
        Further tokens in billions; inf where the target is not reached.
    met : ndarray of bool, (target,)
        The base's observed score is at the target already: no tokens are needed.
    """

    def __init__(
        self, mixture: Mixture, model: PlannedModel, targets: Mapping[str, float], grid: np.ndarray
    ) -> None:
        columns = mixture.inputs.columns
        self.grid = grid
        self.column = np.array([mixture.table.benchmark_names.index(b) for b in targets])
        goal = columns.from_scores(np.array(list(targets.values()), dtype=float), self.column)
        cells = np.repeat(self.column, len(grid))
        further = np.tile(model.fixed, (len(cells), 1))
        further[:, model.predictor] += np.tile(grid, len(self.column))
        row = np.full(len(cells), model.row)
        drawn = scores_with_tokens(mixture, row, cells, further, model.start)
        shape = (len(drawn.samples), len(self.column), len(grid))
        bounded = columns.kind[cells] != LINEAR
        self.y = drawn.samples.reshape(shape)
        self.wide = widened(drawn.samples, recalibration(mixture), bounded).reshape(shape)
        self.expected = drawn.expected.reshape(shape)
        have = base_scores(model)
        own = columns.from_scores(np.array([have.get(b, np.nan) for b in targets]), self.column)
        self.met = np.asarray(own >= goal)
        self.tokens, self.wide_tokens = (
            np.column_stack(
                [
                    np.zeros(len(y)) if self.met[k] else first_reached(y[:, k], goal[k], grid)
                    for k in range(len(goal))
                ]
            )
            for y in (self.y, self.wide)
        )


def target_table(
    reached: Reached, model: PlannedModel, targets: Mapping[str, float], probability: float, level: float
) -> pd.DataFrame:
    """A row a target, and one for all of them; columns as in `Plan.targets`."""
    have = base_scores(model)
    names, goals = list(targets), list(targets.values())
    raw, wide = list(reached.tokens.T), list(reached.wide_tokens.T)
    if len(names) > 1:
        names, goals = [*names, ALL], [*goals, np.nan]
        raw, wide = [*raw, reached.tokens.max(axis=1)], [*wide, reached.wide_tokens.max(axis=1)]
    tail = (1 - level) / 2
    rows = []
    for k, (name, goal) in enumerate(zip(names, goals, strict=True)):
        met = bool(reached.met[k] if name != ALL else reached.met.all())
        row = {"benchmark": name, "target": goal, "base_score": have.get(name, np.nan), "met_by_base": met}
        for tokens, kind in ((raw[k], ""), (wide[k], "_recalibrated")):
            at = [0.5, tail, 1 - tail, probability]
            found = np.quantile(tokens, at, method="inverted_cdf")
            for what, value in zip(("median", "low", "high", "needed"), found, strict=True):
                row[f"tokens_{what}{kind}"] = float(value)
            row[f"out_of_reach{kind}"] = float(np.isinf(tokens).mean())
            row[f"beyond_seen{kind}"] = bool(found[3] + published_start(model) > model.seen * (1 + 1e-9))
        rows.append(row)
    return pd.DataFrame(rows)


def published_start(model: PlannedModel) -> float:
    """Tokens of the language that the planned model has before the plan, as published; 0 where unknown."""
    own = model.start[model.predictor]
    if np.isfinite(own):
        return float(own)
    published = model.table.models.get(f"tokens_b_{model.language}")
    count = np.nan if published is None else float(published.astype(float).get(model.base, np.nan))
    return count if np.isfinite(count) else 0.0


def curve_table(
    reached: Reached, mixture: Mixture, model: PlannedModel, targets: Mapping[str, float]
) -> pd.DataFrame:
    """A row a target and count; columns as in `Plan.curve`."""
    level = mixture.settings.level
    tail = (1 - level) / 2
    at = [tail, 0.5, 1 - tail]
    frames = []
    for k, (name, goal) in enumerate(targets.items()):
        column = np.full(len(reached.grid), reached.column[k])

        def turn(values: np.ndarray, column: np.ndarray = column) -> np.ndarray:
            return mixture.inputs.columns.to_scores(values, column)

        raw = np.sort(turn(np.quantile(reached.y[:, k], at, axis=0)), axis=0)
        wide = np.sort(turn(np.quantile(reached.wide[:, k], at, axis=0)), axis=0)
        frames.append(
            pd.DataFrame(
                {
                    "benchmark": name,
                    "target": goal,
                    "tokens_b": reached.grid,
                    "median": raw[1],
                    "low": wide[0],
                    "high": wide[2],
                    "raw_low": raw[0],
                    "raw_high": raw[2],
                    "expected": turn(np.median(reached.expected[:, k], axis=0)),
                    "probability": _within(reached.tokens[:, k], reached.grid),
                    "probability_recalibrated": _within(reached.wide_tokens[:, k], reached.grid),
                }
            )
        )
    if len(targets) > 1:
        both = {"benchmark": ALL, "tokens_b": reached.grid}
        both |= {"probability": _within(reached.tokens.max(axis=1), reached.grid)}
        both |= {"probability_recalibrated": _within(reached.wide_tokens.max(axis=1), reached.grid)}
        frames.append(pd.DataFrame(both))
    out = pd.concat(frames, ignore_index=True)
    return out.assign(beyond_seen=out["tokens_b"] + published_start(model) > model.seen * (1 + 1e-9))


def _within(tokens: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Share of samples that need at most so many tokens, (count,)."""
    return np.searchsorted(np.sort(tokens), grid * (1 + 1e-12), side="right") / len(tokens)


def strategy_table(mixture: Mixture, model: PlannedModel, against: int, spend: float) -> pd.DataFrame:
    """A row a benchmark: the same tokens spent on one language or the other; as in `Plan.strategies`.

    Parameters
    ----------
    against : int
        Predictor of the other language's tokens.
    spend : float
        Billions of tokens.
    """
    names = mixture.table.benchmark_names
    column = np.tile(np.arange(len(names)), 2)
    further = np.tile(model.fixed, (len(column), 1))
    further[: len(names), against] += spend
    further[len(names) :, model.predictor] += spend
    row = np.full(len(column), model.row)
    drawn = scores_with_tokens(mixture, row, column, further, model.start)
    scores = mixture.inputs.columns.to_scores(drawn.samples, column)
    first, second = scores[:, : len(names)], scores[:, len(names) :]
    tail = (1 - mixture.settings.level) / 2
    low, median, high = np.quantile(second - first, [tail, 0.5, 1 - tail], axis=0)
    better = (second - first) * mixture.inputs.columns.sign[: len(names)]
    frame = mixture.table.benchmarks
    language = frame["language"].reindex(names).to_numpy() if "language" in frame else None
    return pd.DataFrame(
        {
            "benchmark": names,
            "language": language,
            "other": np.median(first, axis=0),
            "planned": np.median(second, axis=0),
            "difference": median,
            "low": low,
            "high": high,
            "probability": (better > 0).mean(axis=0) + 0.5 * (better == 0).mean(axis=0),
        }
    ).sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def children_table(table: ScoreTable, base: str | None, language: str, benchmarks: list[str]) -> pd.DataFrame:
    """Scored models trained on from a base: model, benchmark, tokens_b (of the language, added), score."""
    rows = []
    for child, tokens in stage_tokens(table, language).items():
        if base is None or table.models["base_model"].get(child) != base:
            continue
        for b in benchmarks:
            score = table.scores[table.model_names.index(child), table.benchmark_names.index(b)]
            if np.isfinite(score):
                rows.append({"model": child, "benchmark": b, "tokens_b": tokens, "score": float(score)})
    return pd.DataFrame(rows, columns=["model", "benchmark", "tokens_b", "score"])


def contrast_table(mixture: Mixture, model: PlannedModel, benchmarks: list[str]) -> pd.DataFrame:
    """Gains of models over their bases beside what the tokens they added go with; as in `Plan.contrasts`."""
    table, columns = mixture.table, mixture.inputs.columns
    pairs = []
    for child, tokens in stage_tokens(table, model.language).items():
        base = str(table.models["base_model"].get(child))
        if base not in table.model_names:
            continue
        i, c = table.model_names.index(base), table.model_names.index(child)
        for b in benchmarks:
            j = table.benchmark_names.index(b)
            gain = table.scores[c, j] - table.scores[i, j]
            if np.isfinite(gain):
                pairs.append((child, base, b, tokens, float(gain), i, j))
    named = ["model", "base", "benchmark", "tokens_b", "observed", "expected", "low", "high"]
    if not pairs:
        return pd.DataFrame(columns=named)
    row, column = (np.array([p[k] for p in pairs] * 2) for k in (5, 6))
    further = np.zeros((len(row), len(mixture.inputs.predictors.names)))
    further[len(pairs) :, model.predictor] = [p[3] for p in pairs]
    mean = columns.to_scores(scores_with_tokens(mixture, row, column, further).expected, column)
    gain = mean[:, len(pairs) :] - mean[:, : len(pairs)]
    rows = [p[:5] for p in pairs]
    for b in benchmarks:
        own = [k for k, p in enumerate(pairs) if p[2] == b]
        if len(own) > 1:
            rows.append((MEAN, "", b, np.nan, float(np.mean([rows[k][4] for k in own]))))
            gain = np.column_stack([gain, gain[:, own].mean(axis=1)])
    out = pd.DataFrame(rows, columns=named[:5])
    tail = (1 - mixture.settings.level) / 2
    low, median, high = np.quantile(gain, [tail, 0.5, 1 - tail], axis=0)
    return out.assign(expected=median, low=low, high=high)
