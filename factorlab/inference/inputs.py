"""Inputs of the Bayesian model: a score table as arrays, and the frame of its axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from factorlab.errors import InputError
from factorlab.inference.design import BudgetDesign, LanguageTokens, design_budgets
from factorlab.inference.gauge import grade
from factorlab.inference.kernel import Blocks, block_cells
from factorlab.inference.marginal import Cells
from factorlab.inference.mode import fit_mode
from factorlab.inference.priors import Priors
from factorlab.scores import ScoreTable, Standardised

BudgetForm = Literal["separate", "product", "none"]

FRAME_STEPS = 100
"""Steps of the optimiser towards the mode whose loadings are the frame; it need not be exact."""

LEAST_FRAME = 0.1
"""Norm of a column of loadings at the mode below which it is no factor."""


MOST_SHARED = 0.95
"""Part of a sampling variance that may be common to a group; the rest keeps the likelihood regular."""


class ModelInputs(NamedTuple):
    """All that `factorlab.inference.model.build_model` needs, as arrays.

    Attributes
    ----------
    cells : Cells
    design : BudgetDesign
    factors : int
        K.
    budget : {"separate", "product", "none"}
    groups : tuple of str
        Names of the declared groups of benchmarks that share items, columns of ``cells.member``.
    frame : ndarray, (benchmark, factor)
        Loadings whose axes are held while sampling (`factorlab.inference.gauge`).
    """

    cells: Cells
    design: BudgetDesign
    factors: int
    budget: BudgetForm
    groups: tuple[str, ...]
    frame: np.ndarray

    @property
    def regresses(self) -> bool:
        return self.budget != "none" and self.design.has_budgets

    def blocks(self) -> Blocks:
        """Cells and the tree of effects, laid out for the kernel."""
        if not self.design.has_roots:
            return block_cells(self.cells)
        return block_cells(self.cells, self.design.node, self.design.parent)

    @property
    def predictors(self) -> list[str]:
        languages = [tokens.language for tokens in self.design.languages]
        if not self.regresses:
            return []
        if self.budget == "product":
            return [f"log10 N*D_{language}" for language in languages]
        return ["log10 N", *[f"log10 D_{language}" for language in languages]]


def model_inputs(
    table: ScoreTable,
    factors: int,
    priors: Priors,
    *,
    budget: BudgetForm = "separate",
    pairs: bool = True,
    languages: Sequence[str] | None = None,
) -> ModelInputs:
    """A score table as arrays for the model.

    Raises
    ------
    InputError
        When the table is too small for K factors.
    """
    n_models, n_benchmarks = len(table.model_names), len(table.benchmark_names)
    table.standardised()  # refuses what cannot be standardised before anything else is said
    if not 1 <= factors <= min(n_benchmarks, n_models - 1):
        raise InputError(
            f"{factors} factors asked of {n_models} models x {n_benchmarks} benchmarks; "
            f"give --factors between 1 and {max(1, min(n_benchmarks, n_models - 1))}, and at least 2 models"
        )
    cells, groups = table_cells(table, pairs)
    design = design_budgets(table, priors, list(languages) if languages is not None else None)
    return ModelInputs(cells, design, factors, budget, groups, grade(frame_loadings(cells, factors, priors)))


def table_cells(table: ScoreTable, pairs: bool = True) -> tuple[Cells, tuple[str, ...]]:
    """The observed scores of a table for the likelihood, and the names of its groups that share items.

    Raises
    ------
    InputError
        When the table cannot be standardised.
    """
    standard = table.standardised()
    observed = np.isfinite(standard.z)
    member, groups = _groups(table) if pairs else (np.zeros((len(table.benchmark_names), 0)), ())
    variance = np.where(observed & np.isfinite(standard.z_se), standard.z_se, 0.0) ** 2
    shared = shared_errors(table, standard, variance, member)
    cells = Cells(
        z=np.where(observed, standard.z, 0.0),
        variance=variance - shared @ member.T * observed,
        observed=observed.astype(float),
        member=member,
        shared=shared,
    )
    return cells, groups


def frame_loadings(cells: Cells, factors: int, priors: Priors) -> np.ndarray:
    """Loadings near the posterior's, from the mode of the model without budgets.

    Returns
    -------
    ndarray, (benchmark, factor)
        Orthogonal columns; where the mode has fewer factors, the rest are leading axes of what is left.
    """
    u, s, _ = np.linalg.svd(fit_mode(cells, factors, priors, FRAME_STEPS).loading, full_matrices=False)
    found = u[:, s > LEAST_FRAME]
    z = cells.z * cells.observed
    rest = leading_axes(cells._replace(z=z - z @ found @ found.T), factors - found.shape[1])
    return np.hstack([found * s[s > LEAST_FRAME], rest * LEAST_FRAME])


def leading_axes(cells: Cells, factors: int) -> np.ndarray:
    """Unit-length leading eigenvectors of the observed cells' products, missing cells at 0.

    Returns
    -------
    ndarray, (benchmark, factor)
    """
    z = cells.z * cells.observed
    return np.ascontiguousarray(np.linalg.eigh(z.T @ z)[1][:, ::-1][:, :factors])


def shared_errors(
    table: ScoreTable, standard: Standardised, variance: np.ndarray, member: np.ndarray
) -> np.ndarray:
    """Known covariance c of a model's errors on the benchmarks of a group, standardised.

    Errors e_a, e_b of a pair have the covariance matrix [[s_a^2, c], [c, s_b^2]] = diag(s_a^2 - c, s_b^2 - c)
    + c 1 1', which the likelihood takes as a variance without c and a common part. It must leave something
    of both variances, so c is cut at `MOST_SHARED` of the smaller one. In a group of more than two, c is the
    mean over the pairs of the benchmarks that the model has.

    Returns
    -------
    ndarray, (model, group)
        0 where nothing is known.
    """
    n_models, n_groups = len(variance), member.shape[1]
    out = np.zeros((n_models, n_groups))
    if table.covariance is None or n_groups == 0:
        return out
    model = {name: i for i, name in enumerate(table.model_names)}
    benchmark = {name: j for j, name in enumerate(table.benchmark_names)}
    total = np.zeros((n_models, n_groups))
    rows = table.covariance
    for name, first, second, covariance in zip(
        rows["model"], rows["benchmark"], rows["benchmark_b"], rows["covariance"], strict=True
    ):
        i, a, b = model[name], benchmark[first], benchmark[second]
        both = np.flatnonzero(member[a] * member[b])
        if len(both):
            sign = standard.sign[a] * standard.sign[b]
            total[i, both[0]] += sign * covariance / (standard.scale[a] * standard.scale[b])
    known = variance > 0
    n = known @ member
    pairs = n * (n - 1) / 2
    smallest = np.min(
        np.where(known[:, :, None] & (member > 0), variance[:, :, None], np.inf), axis=1, initial=np.inf
    )
    enough = (pairs > 0) & np.isfinite(smallest)
    # Without the error of one benchmark the model would lose an unknown variance, not a known one.
    complete = n == (np.isfinite(standard.z) @ member)
    np.divide(total, pairs, out=out, where=enough & complete)
    return np.minimum(out, MOST_SHARED * np.where(enough, smallest, 0.0))


def _groups(table: ScoreTable) -> tuple[np.ndarray, tuple[str, ...]]:
    """Declared groups of at least two benchmarks that share items: (benchmark, group) and names."""
    declared = table.benchmarks["shared_items_group"]
    names = [g for g in dict.fromkeys(declared.dropna()) if (declared == g).sum() > 1]
    member = np.array([[1.0 if value == g else 0.0 for g in names] for value in declared])
    labels = tuple("+".join(str(b) for b in table.benchmarks.index[declared == g]) for g in names)
    return member.reshape(len(declared), len(names)), labels


def _sized(tokens: LanguageTokens, design: BudgetDesign) -> np.ndarray:
    return tokens.published & np.isfinite(design.log10_params)


def _published(tokens: LanguageTokens) -> np.ndarray:
    """log10 of the counts as known, errors and latents at zero, (model,)."""
    own = tokens.known * 10**tokens.log10_count
    with np.errstate(divide="ignore"):
        return np.log10(np.append(own, 0.0)[tokens.path].sum(axis=1))


def predictor_scale(inputs: ModelInputs) -> np.ndarray:
    """Standard deviation, in factors of ten, that one unit of each predictor stands for, (predictor,)."""
    design = inputs.design
    if not inputs.regresses:
        return np.zeros(0)
    if inputs.budget == "product":
        return np.array(
            [
                np.std((design.log10_params + _published(tokens))[_sized(tokens, design)])
                for tokens in design.languages
            ]
        )
    return np.array([design.params_scale, *[tokens.scale for tokens in design.languages]])
