"""Predictors of the regression in the PyMC model: sizes and token counts with errors and unknowns.

Numbers of a table are data of the model, so that other numbers of the same shape need no compiling.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from factorlab.inference.blueprint import Blueprint
from factorlab.inference.design import LanguageTokens
from factorlab.inference.priors import Priors


def given(plan: Blueprint, name: str) -> Any:
    """Numbers of a table as data of the model being built; a single number comes as a scalar."""
    import pymc as pm

    values = plan.data[name]
    array = np.atleast_1d(values)
    data = pm.Data(name, array, shape=array.shape)
    return data if np.ndim(values) else data[0]


def predictors(plan: Blueprint, p: Priors) -> Any:
    """Standardised predictors (model, predictor), with latent sizes and counts filled in."""
    import pymc as pm
    import pytensor.tensor as pt

    budget, design = plan.structure.budget, plan.structure.design
    missing = np.flatnonzero(~np.isfinite(design.log10_params))
    n = given(plan, "params")
    if len(missing):
        latent = pm.Normal("log10_params_latent", 0.0, 1.0, shape=len(missing))
        n = pt.set_subtensor(n[missing], latent)
    center = given(plan, "params_center")
    log10_n = n * given(plan, "params_scale") + center
    counts, columns = [], [] if budget == "product" else [n]
    for tokens in design.languages:
        middle = given(plan, f"tokens_center_{tokens.language}")
        log10_d, floored = _tokens(plan, tokens, middle, p)
        counts.append(log10_d)
        if budget == "product":
            scale = given(plan, f"budget_scale_{tokens.language}")
            columns.append((log10_n + floored - middle - center) / scale)
        else:
            columns.append((floored - middle) / given(plan, f"tokens_scale_{tokens.language}"))
    pm.Deterministic("log10_tokens", pt.stack(counts, axis=1))
    pm.Deterministic("log10_params", log10_n)
    return pt.stack(columns, axis=1)


def _tokens(plan: Blueprint, tokens: LanguageTokens, middle: Any, p: Priors) -> tuple[Any, Any]:
    """log10 of a language's tokens in billions (-inf for none), and the same with d0 added."""
    import pymc as pm
    import pytensor.tensor as pt

    l = tokens.language
    log10_own = given(plan, f"tokens_log10_{l}")
    if tokens.error_label:
        error = pm.Normal(f"token_error_{l}", 0.0, 1.0, shape=len(tokens.error_label))
        log10_own = log10_own + given(plan, f"tokens_log10_sd_{l}") * error[tokens.error_index]
    name = f"log10_tokens_center_{l}"
    center = pm.Normal(name, middle, 1.0, initval=plan.starts[name])
    spread = pm.HalfNormal(f"log10_tokens_sd_{l}", p.tokens_log10_sd)
    if tokens.n_units:
        share = 1.0 / np.bincount(tokens.unit_index)[tokens.unit_index]
        units = pt.inc_subtensor(
            pt.zeros(tokens.n_units)[tokens.unit_index], share * log10_own[tokens.unit_node]
        )
        pm.Potential(f"sources_{l}", pm.logp(pm.Normal.dist(center, spread), units).sum())
    if tokens.n_latents:
        raw = pm.Normal(f"token_latent_{l}", 0.0, 1.0, shape=tokens.n_latents)
        latent = center + spread * raw
        bounded = np.isfinite(tokens.upper)
        if bounded.any():
            room = (given(plan, f"tokens_upper_{l}") - latent[np.flatnonzero(bounded)]) / 0.05
            pm.Potential(f"within_total_{l}", pt.log(pt.sigmoid(room)).sum())
        unknown = latent[tokens.latent_index] + given(plan, f"tokens_offset_{l}")
        log10_own = log10_own + tokens.unknown * unknown
    present = tokens.known + tokens.unknown
    own = pt.concatenate([present * 10.0**log10_own, np.zeros(1)])
    total = own[tokens.path].sum(axis=1)
    if not tokens.has_zero:
        log10_d = pt.log10(total)
        return log10_d, log10_d
    floor = pm.LogNormal(f"token_floor_b_{l}", np.log(p.token_floor_b), p.token_floor_log_sd)
    nothing = np.append(present, 0.0)[tokens.path].sum(axis=1) == 0
    return pt.switch(nothing, -np.inf, pt.log10(pt.maximum(total, 1e-12))), pt.log10(total + floor)
