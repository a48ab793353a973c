"""The Bayesian latent-factor model with budget regression, as a PyMC model; nothing is sampled here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from factorlab.inference.blueprint import Blueprint, blueprint
from factorlab.inference.design import BudgetDesign
from factorlab.inference.inputs import ModelInputs
from factorlab.inference.kernel import Blocks
from factorlab.inference.marginal import log_likelihood
from factorlab.inference.predictors import given, predictors
from factorlab.inference.priors import Priors

if TYPE_CHECKING:
    import pymc as pm

Gauge = Literal["held", "free"]
Likelihood = Literal["kernel", "graph"]


def build_model(
    inputs: ModelInputs,
    priors: Priors | None = None,
    *,
    gauge: Gauge = "held",
    likelihood: Likelihood = "kernel",
) -> pm.Model:
    """The model, apart from sampling it.

    With z standardised scores, abilities theta integrated out (`factorlab.inference.marginal`):

        z_ij    ~ Normal(mu_j + lambda_j' theta_i + delta_g omega_ig, s_ij^2 + psi_j^2)
        theta_i = B' x_i + a_i + u_i,           u_i ~ Normal(0, I_K)
        x_i     = [log10 N_i, log10 D_il, ...]  standardised by constants;  or log10(N_i D_il)
        a_i     = root effect of the family + sum of the steps passed on along the tree
        Lambda = H S,  H uniform on the K-frames of R^J,  S (K x K) ~ Normal(0, tau_lambda^2) times
                       |S'S / J + small^2 I|^(-K/2)
        B_pk ~ Normal(0, tau_B^2),  tau half-normal
        mu_j ~ Normal(0, mean_sd^2),  psi_j ~ LogNormal,  delta_g ~ HalfNormal
        log10 D: counts with error by status, unknown counts latent, added along the tree
        (`factorlab.inference.design`); a language with zero counts enters as log10(D + d0).

    A step is what a model hands on to its continually pre-trained children beyond its family and
    budgets; what only one model has is part of its own u_i, whose variance fixes the scale.

    Independent normal loadings would be a strong prior on the sizes of the factors: the volume element
    of Lambda = H S is |S'S|^((J-K)/2), so all K singular values crowd together, and the residual
    variance of the abilities (so R^2 on the budgets) is pushed about by a prior that nobody meant. The
    potential -(J-K)/2 log|Lambda'Lambda| cancels that element. S'S is the covariance of what budgets
    leave unexplained; a normal S alone gives it density |S'S|^(-1/2), and the second term brings
    that to Jeffreys' |S'S|^(-(K+1)/2) for factors with root mean square loading above ``small``,
    below which it is flat, so that the prior is proper.

    The posterior is invariant under rotation of the axes. While sampling, loadings are held near a
    frame, which changes nothing that does not depend on the axes (`factorlab.inference.gauge`); draws
    are oriented afterwards (`factorlab.inference.orientation`).

    Parameters
    ----------
    inputs : ModelInputs
    priors : Priors, optional
    gauge : {"held", "free"}
        Whether loadings are held to the frame, or rotate freely.
    likelihood : {"kernel", "graph"}
        The compiled kernel (`factorlab.inference.likelihood`), or the same formula as a graph of
        PyTensor operations, which is slower and is kept to check the kernel against.

    Returns
    -------
    pymc.Model
        Deterministics ``loading`` (benchmark, factor), ``slope`` (predictor, factor), ``lineage``
        (model, factor), ``ability_mean`` (model, factor), ``log10_tokens`` (model, language),
        ``predictor`` (model, predictor) carry what is read off the draws.
    """
    import pymc as pm
    import pytensor.tensor as pt

    from factorlab.inference.loading_prior import log_loading_prior
    from factorlab.inference.product import product

    p = priors or Priors()
    held = gauge == "held"
    plan = blueprint(inputs, held)
    whole, inputs = inputs, plan.structure  # numbers come from the plan's data
    n_models, n_benchmarks = inputs.cells.z.shape
    k = inputs.factors
    with pm.Model() as model:
        loading_sd = pm.HalfNormal("loading_sd", p.loading_sd)
        start = plan.starts["loading_on_slice"]
        on_slice = pm.Normal("loading_on_slice", 0.0, loading_sd, shape=len(start), initval=start)
        flat = product(given(plan, "slice_basis"), on_slice) if held else on_slice
        loading = pm.Deterministic("loading", flat.reshape((n_benchmarks, k)))
        frame = given(plan, "frame") if held else loading
        extra = log_loading_prior(loading, loading_sd, frame, small=p.small_loading, held=held)
        pm.Potential("loading_prior", extra)
        mean = pm.Normal("mean", 0.0, p.mean_sd, shape=n_benchmarks)
        noise_sd = pm.LogNormal("noise_sd", np.log(p.noise_sd_median), p.noise_sd_log_sd, shape=n_benchmarks)
        pair_sd = (
            pm.HalfNormal("pair_sd", p.pair_sd, shape=len(inputs.groups)) if inputs.groups else np.zeros(0)
        )
        ability_mean: Any = pt.zeros((n_models, k))
        if inputs.regresses:
            x = pm.Deterministic("predictor", predictors(plan, p))
            slope_sd = pm.HalfNormal("slope_sd", p.slope_sd)
            slope_raw = pm.Normal("slope_raw", 0.0, slope_sd, shape=(len(inputs.predictors), k))
            slope = pm.Deterministic("slope", 1.0 * slope_raw)
            ability_mean = pm.Deterministic("ability_mean", pt.dot(x, slope))
        effect_sd = _effect_sds(inputs.design, p)
        parts = (loading, mean, ability_mean, noise_sd, pair_sd)
        value = (
            _kernel(plan, *parts, *effect_sd) if likelihood == "kernel" else _graph(whole, *parts, effect_sd)
        )
        pm.Potential("log_likelihood", value)
    return model


def _effect_sds(design: BudgetDesign, p: Priors) -> tuple[Any, Any]:
    """Standard deviations of family effects and of steps passed on; 0 for what there is not."""
    import pymc as pm

    if not design.has_roots:
        return 0.0, 0.0
    return pm.HalfNormal("root_sd", p.root_sd), pm.HalfNormal("step_sd", p.step_sd) if design.steps else 0.0


def _kernel(plan: Blueprint, *parameters: Any) -> Any:
    """The integrated log likelihood, its cells as data of the model so that they are not compiled in."""
    import pymc as pm

    from factorlab.inference.likelihood import log_likelihood as compiled

    data = [pm.Data(f"cells_{name}", plan.data[f"cells_{name}"]) for name in Blocks._fields]
    return compiled(Blocks(*data), *parameters, factors=plan.structure.factors)


def _graph(
    inputs: ModelInputs, loading: Any, mean: Any, ability_mean: Any, noise_sd: Any, pair_sd: Any,
    effect_sd: tuple[Any, Any],
) -> Any:  # fmt: skip
    """The same by PyTensor's operations, given effects that are variables."""
    import pytensor.tensor as pt

    cells, k = inputs.cells, inputs.factors
    effect = _sampled_effects(inputs, effect_sd)
    loading = pt.specify_shape(loading, (cells.z.shape[1], k))
    return log_likelihood(cells, loading, mean, ability_mean + effect, noise_sd, pair_sd, pt).sum()


def _sampled_effects(inputs: ModelInputs, effect_sd: tuple[Any, Any]) -> Any:
    """Effects of families and steps as free variables, (model, factor)."""
    import pymc as pm
    import pytensor.tensor as pt

    design, k = inputs.design, inputs.factors
    if not design.has_roots:
        return 0.0
    effect = [
        sd * pm.Normal(name, 0.0, 1.0, shape=(count, k))
        for name, sd, count in (
            ("root_raw", effect_sd[0], len(design.families)),
            ("step_raw", effect_sd[1], len(design.steps)),
        )
        if count
    ]
    own = pt.concatenate(effect)
    total = [own[n] for n in range(len(design.families))]
    for n in range(len(design.families), len(design.parent)):
        total.append(total[design.parent[n]] + own[n])
    return pt.stack(total)[design.node]
