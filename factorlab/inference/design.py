"""BudgetDesign: what is known and unknown about the budgets, as arrays for the model.

Token counts add along the tree of base models, so an error in a root's count moves all its
descendants. Per language l and node n of the tree,

    own_n   = 10 ** (log10 count_n + sd_n e_{c(n)})        where the count is known
            = 10 ** (latent_{u(n)} + offset_n)             where it is unknown
            = 0                                             where there is none
    D_i     = sum over i and its ancestors of own_n.

e is standard normal; a share that was derived or guessed belongs to the family, so all roots of a
family have one e (c(n) is shared); official counts and continual stages have an e each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.inference.priors import Priors
from factorlab.lineage import Lineage, TokenSources, build_lineage, token_sources
from factorlab.scores import ScoreTable

MIN_KNOWN = 3
"""A language needs this many scored models with a known count to be a predictor."""


class LanguageTokens(NamedTuple):
    """Token counts of one language.

    Attributes
    ----------
    language : str
    path : ndarray of int, (model, depth)
        The scored model itself and its ancestors, nearest first; filled up with the number of nodes.
    log10_count : ndarray, (node,)
        log10 of the node's own tokens in billions; 0 where unknown or none.
    known, unknown : ndarray, (node,)
        1.0 where the own count is known and positive; where it is unknown.
    error_index, error_sd : ndarray, (node,)
        Which e moves the node's count, and the standard deviation in log10 units; 0 sd for none.
    error_label, error_status : tuple of str, (error,)
        What each e belongs to (a family's share or one model's count) and its status.
    latent_index, offset : ndarray, (node,)
        Which latent stands for an unknown count, and what is added to it.
    n_latents : int
    upper : ndarray, (latent,)
        log10 of the declared total in billions, which the count cannot exceed; inf where undeclared.
    unit_node, unit_index : ndarray of int, (root,)
        The known roots, and which source each belongs to: the mean log10 counts of sources are the
        population that unknown counts are drawn from.
    n_units : int
    has_zero : bool
        Some scored model has no tokens of the language, so d0 is needed.
    published : ndarray of bool, (model,)
        Scored models with a published, positive total count.
    center, scale : float
        Constants that standardise log10 D, from the published counts.
    """

    language: str
    path: np.ndarray
    log10_count: np.ndarray
    known: np.ndarray
    unknown: np.ndarray
    error_index: np.ndarray
    error_sd: np.ndarray
    error_label: tuple[str, ...]
    error_status: tuple[str, ...]
    latent_index: np.ndarray
    offset: np.ndarray
    n_latents: int
    upper: np.ndarray
    unit_node: np.ndarray
    unit_index: np.ndarray
    n_units: int
    has_zero: bool
    published: np.ndarray
    center: float
    scale: float


class BudgetDesign(NamedTuple):
    """Budgets and lineage of the scored models.

    Attributes
    ----------
    log10_params : ndarray, (model,)
        log10 of active parameters in billions; NaN where unknown.
    params_center, params_scale : float
    languages : tuple of LanguageTokens
    family_index : ndarray of int, (model,)
    families : tuple of str
    node : ndarray of int, (model,)
        Where each model hangs on the tree of effects: families first, then steps.
    parent : ndarray of int, (node,)
        Parent of each node of the tree of effects, which comes before it; -1 for a family.
    steps : tuple of str
        Names of the nodes that have scored descendants.
    notes : tuple of str
        What could not be done, in sentences.
    """

    log10_params: np.ndarray
    params_center: float
    params_scale: float
    languages: tuple[LanguageTokens, ...]
    family_index: np.ndarray
    families: tuple[str, ...]
    node: np.ndarray
    parent: np.ndarray
    steps: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def has_budgets(self) -> bool:
        return bool(self.languages)

    @property
    def has_roots(self) -> bool:
        """A family effect can be told from a model's own: some family has two scored models."""
        return len(self.families) < len(self.family_index)


def design_budgets(table: ScoreTable, priors: Priors, languages: list[str] | None = None) -> BudgetDesign:
    """Budgets and lineage of a table as arrays; what is missing becomes a note, not an error.

    Parameters
    ----------
    table : ScoreTable
    priors : Priors
        Only the standard deviations of the statuses are read.
    languages : list of str, optional
        Languages to use; all of the table's when not given.

    Raises
    ------
    InputError
        When a named language has no column.
    """
    models = table.models
    lineage = build_lineage(models)
    n_scored = len(table.model_names)
    notes: list[str] = []
    line = _fill([[i, *lineage.ancestors(i)] for i in range(n_scored)], len(models))
    log10_params = _log10(models, "params_b")[:n_scored]
    found: list[LanguageTokens] = []
    for language in languages if languages is not None else table.languages:
        if language not in table.languages:
            raise InputError(f"no column 'tokens_b_{language}'; the models table has {table.languages}")
        tokens, why = _language(models, lineage, line, language, priors)
        if tokens is None:
            notes.append(why)
        else:
            found.append(tokens)
    if not table.languages:
        notes.append("no tokens_b_<language> column in a models table: no regression on budgets")
    elif np.isfinite(log10_params).sum() < MIN_KNOWN:
        notes.append(f"fewer than {MIN_KNOWN} models have params_b: no regression on budgets")
        found = []
    if not np.isfinite(log10_params).any():
        log10_params = np.zeros(n_scored)
    family_index, families = pd.factorize(np.asarray(lineage.family_of(table.model_names), dtype=object))
    node, parent, steps = _effects(lineage, family_index, len(families), n_scored)
    if len(families) == n_scored:
        notes.append("every model is a family of its own: no lineage effects")
    return BudgetDesign(
        log10_params=log10_params,
        params_center=float(np.nanmean(log10_params)),
        params_scale=float(np.nanstd(log10_params)) or 1.0,
        languages=tuple(found),
        family_index=family_index,
        families=tuple(str(f) for f in families),
        node=node,
        parent=parent,
        steps=tuple(str(models.index[n]) for n in steps),
        notes=tuple(notes),
    )


def _fill(lists: list[list[int]], filler: int) -> np.ndarray:
    """Lists of unequal length as one array, (list, longest)."""
    out = np.full((len(lists), max(map(len, lists), default=1)), filler)
    for i, values in enumerate(lists):
        out[i, : len(values)] = values
    return out


def _effects(
    lineage: Lineage, family_index: np.ndarray, n_families: int, n_scored: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The tree of effects: node of each scored model, parent of each node, and the rows that are steps.

    A step belongs to a row with scored descendants; its parent is its base model's step, or the family.
    """
    ancestors = [lineage.ancestors(i) for i in range(n_scored)]
    family = {n: int(family_index[i]) for i, line in enumerate(ancestors) for n in line}
    steps = sorted(family, key=lambda n: (len(lineage.ancestors(n)), n))
    at = {n: n_families + s for s, n in enumerate(steps)}

    def above(n: int, own_family: int) -> int:
        base = int(lineage.parent[n])
        return at[base] if base >= 0 else own_family

    parent = [-1] * n_families + [above(n, family[n]) for n in steps]
    node = [at[i] if i in at else above(i, int(family_index[i])) for i in range(n_scored)]
    return np.asarray(node), np.asarray(parent), steps


def _language(
    models: pd.DataFrame, lineage: Lineage, line: np.ndarray, language: str, priors: Priors
) -> tuple[LanguageTokens | None, str]:
    source = token_sources(models, lineage, language)
    n_scored = len(line)
    known = np.isfinite(source.own_tokens_b) & (source.own_tokens_b > 0)
    unknown = ~np.isfinite(source.own_tokens_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        log10_count = np.where(known, np.log10(source.own_tokens_b), 0.0)
        total = np.log10(source.total_published_b[:n_scored])
    published = np.isfinite(total)
    if published.sum() < MIN_KNOWN or np.ptp(total[published]) < 1e-9:
        return None, (
            f"fewer than {MIN_KNOWN} models with a published count of '{language}' tokens, or all the "
            f"same: '{language}' is not a predictor"
        )
    error_index, error_sd, error_label, error_status = _errors(source, known, lineage, priors)
    latent_index, offset, upper = _latents(models, unknown, source.is_root, lineage)
    n_latents = len(upper)
    in_use = np.zeros(len(models) + 1, dtype=bool)
    in_use[line] = True
    unit_node = np.flatnonzero(known & source.is_root & in_use[:-1])
    unit_index, units = pd.factorize(error_index[unit_node])
    nothing = ~np.append(known | unknown, False)[line].any(axis=1)
    return LanguageTokens(
        language=language,
        path=line,
        log10_count=log10_count,
        known=known.astype(float),
        unknown=unknown.astype(float),
        error_index=error_index,
        error_sd=error_sd,
        error_label=error_label,
        error_status=error_status,
        latent_index=latent_index,
        offset=offset,
        n_latents=n_latents,
        upper=upper,
        unit_node=unit_node,
        unit_index=unit_index,
        n_units=len(units),
        has_zero=bool(nothing.any()),
        published=published,
        center=float(total[published].mean()),
        scale=float(total[published].std()),
    ), ""


def _errors(
    source: TokenSources, known: np.ndarray, lineage: Lineage, priors: Priors
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Index and log10 sd of the error of each known count; a family's share has one error."""
    index = np.zeros(len(known), dtype=int)
    sd = np.zeros(len(known))
    keys: dict[tuple[str, str], int] = {}
    for n in np.flatnonzero(known):
        status = str(source.status[n])
        shared = bool(source.is_root[n]) and status in ("derived", "guessed")
        label = f"{lineage.family[n]} (family share)" if shared else lineage.names[n]
        index[n] = keys.setdefault((label, status), len(keys))
        sd[n] = priors.token_log_sd(status) / np.log(10)
    return index, sd, tuple(k[0] for k in keys), tuple(k[1] for k in keys)


def _latents(
    models: pd.DataFrame, unknown: np.ndarray, is_root: np.ndarray, lineage: Lineage
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents of unknown counts: roots of a family whose totals are known share one (a share of the
    total belongs to the family); every other unknown count has its own."""
    total = _log10(models, "tokens_b_total")
    index = np.zeros(len(unknown), dtype=int)
    offset = np.zeros(len(unknown))
    groups: dict[object, list[int]] = {}
    for n in np.flatnonzero(unknown):
        shared = bool(is_root[n]) and np.isfinite(total[n])
        groups.setdefault(lineage.family[n] if shared else int(n), []).append(int(n))
    upper = np.full(len(groups), np.inf)
    for g, nodes in enumerate(groups.values()):
        index[nodes] = g
        bounded = bool(is_root[nodes[0]]) and np.isfinite(total[nodes]).all()
        if bounded:
            middle = total[nodes].mean()
            offset[nodes] = total[nodes] - middle
            upper[g] = middle
    return index, offset, upper


def _log10(models: pd.DataFrame, column: str) -> np.ndarray:
    if column not in models:
        return np.full(len(models), np.nan)
    values = models[column].to_numpy(dtype=float, na_value=np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log10(values), np.nan)
