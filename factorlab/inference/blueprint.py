"""Blueprint: a model's structure apart from its numbers.

A graph that is built from the structure alone is the same for every table of that structure, so that one
compiled function serves all of them. Numbers reach the graph as data, by name; where the structure would still
show one it is NaN, so that a graph into which one had slipped would give NaN and not a wrong density.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from factorlab.inference.design import BudgetDesign, LanguageTokens
from factorlab.inference.gauge import slice_basis
from factorlab.inference.inputs import ModelInputs, predictor_scale
from factorlab.inference.marginal import Cells


class Blueprint(NamedTuple):
    """Structure and numbers of a model.

    Attributes
    ----------
    structure : ModelInputs
        Shapes, trees, which counts are known: all that shapes the graph. Numbers and labels are blank.
    data : dict of str to ndarray
        Numbers by the name under which the graph has them.
    starts : dict of str to ndarray
        Where chains begin, of the variables for which that is no constant.
    """

    structure: ModelInputs
    data: dict[str, np.ndarray]
    starts: dict[str, np.ndarray]


def blueprint(inputs: ModelInputs, held: bool = True) -> Blueprint:
    """Take the inputs of a model apart.

    Parameters
    ----------
    inputs : ModelInputs
    held : bool
        Whether loadings are held to the frame; else they have as many coordinates as numbers.
    """
    n_benchmarks, k = inputs.frame.shape
    basis = slice_basis(inputs.frame) if held else np.eye(n_benchmarks * k)
    # A quarter of the size, so that the random start of a chain is not always nearest the same mode.
    axes = inputs.frame / np.linalg.norm(inputs.frame, axis=0)
    starts = {"loading_on_slice": basis.T @ axes.ravel() * np.sqrt(n_benchmarks) / 4}
    data = {f"cells_{name}": value for name, value in inputs.blocks()._asdict().items()}
    if held:
        data |= {"slice_basis": basis, "frame": inputs.frame}
    if inputs.regresses:
        data |= _budgets(inputs)
        for tokens in inputs.design.languages:
            starts[f"log10_tokens_center_{tokens.language}"] = np.asarray(tokens.center)
    return Blueprint(_structure(inputs), data, starts)


def _budgets(inputs: ModelInputs) -> dict[str, np.ndarray]:
    """Numbers of the regression."""
    design = inputs.design
    size = (design.log10_params - design.params_center) / design.params_scale
    values = {
        "params": np.where(np.isfinite(size), size, 0.0),
        "params_center": design.params_center,
        "params_scale": design.params_scale,
    }
    for tokens, scale in zip(
        design.languages, predictor_scale(inputs)[-len(design.languages) :], strict=True
    ):
        l = tokens.language
        values |= {
            f"tokens_log10_{l}": tokens.log10_count,
            f"tokens_log10_sd_{l}": tokens.known * tokens.error_sd,
            f"tokens_upper_{l}": tokens.upper[np.isfinite(tokens.upper)],
            f"tokens_offset_{l}": tokens.offset,
            f"tokens_center_{l}": tokens.center,
            f"tokens_scale_{l}": tokens.scale,
            f"budget_scale_{l}": scale,
        }
    return {name: np.asarray(value, dtype=float) for name, value in values.items()}


def _structure(inputs: ModelInputs) -> ModelInputs:
    return inputs._replace(
        cells=Cells(*[_blank(values) for values in inputs.cells]),
        design=_bare(inputs.design),
        groups=("",) * len(inputs.groups),
        frame=_blank(inputs.frame),
    )


def _bare(design: BudgetDesign) -> BudgetDesign:
    return BudgetDesign(
        log10_params=np.where(np.isfinite(design.log10_params), 0.0, np.nan),
        params_center=np.nan,
        params_scale=np.nan,
        languages=tuple(_bare_tokens(tokens) for tokens in design.languages),
        family_index=np.full_like(design.family_index, -1),
        families=("",) * len(design.families),
        node=np.full_like(design.node, -1),  # the tree of effects is data of the kernel
        parent=np.full_like(design.parent, -1),
        steps=("",) * len(design.steps),
        notes=(),
    )


def _bare_tokens(tokens: LanguageTokens) -> LanguageTokens:
    return tokens._replace(
        log10_count=_blank(tokens.log10_count),
        error_sd=_blank(tokens.error_sd),
        error_label=("",) * len(tokens.error_label),
        error_status=("",) * len(tokens.error_status),
        offset=_blank(tokens.offset),
        upper=np.where(np.isfinite(tokens.upper), 0.0, np.inf),
        published=np.zeros_like(tokens.published),
        center=np.nan,
        scale=np.nan,
    )


def _blank(values: np.ndarray | float) -> np.ndarray:
    return np.full(np.shape(values), np.nan)
