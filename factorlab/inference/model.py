"""The Bayesian latent-factor model with budget regression, as a PyMC model; nothing is sampled here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from factorlab.errors import InputError
from factorlab.inference.design import BudgetDesign, LanguageTokens, design_budgets
from factorlab.inference.gauge import grade, log_orbit, slice_basis
from factorlab.inference.kernel import Blocks, block_cells
from factorlab.inference.marginal import Cells, log_likelihood
from factorlab.inference.mode import fit_mode
from factorlab.inference.priors import Priors
from factorlab.scores import ScoreTable

if TYPE_CHECKING:
    import pymc as pm

BudgetForm = Literal["separate", "product", "none"]
Gauge = Literal["held", "free"]
Likelihood = Literal["kernel", "graph"]


FRAME_STEPS = 100
"""Steps of the optimiser towards the mode whose loadings are the frame; it need not be exact."""

LEAST_FRAME = 0.1
"""Norm of a column of loadings at the mode below which it is no factor."""


class ModelInputs(NamedTuple):
    """All that `build_model` needs, as arrays.

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
    standard = table.standardised()
    n_models, n_benchmarks = standard.z.shape
    if not 1 <= factors <= min(n_benchmarks, n_models - 1):
        raise InputError(
            f"{factors} factors asked of {n_models} models x {n_benchmarks} benchmarks; "
            f"give --factors between 1 and {max(1, min(n_benchmarks, n_models - 1))}, and at least 2 models"
        )
    observed = np.isfinite(standard.z)
    member, groups = _groups(table) if pairs else (np.zeros((n_benchmarks, 0)), ())
    cells = Cells(
        z=np.where(observed, standard.z, 0.0),
        variance=np.where(observed & np.isfinite(standard.z_se), standard.z_se, 0.0) ** 2,
        observed=observed.astype(float),
        member=member,
    )
    design = design_budgets(table, priors, list(languages) if languages is not None else None)
    return ModelInputs(cells, design, factors, budget, groups, grade(frame_loadings(cells, factors, priors)))


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


def _groups(table: ScoreTable) -> tuple[np.ndarray, tuple[str, ...]]:
    """Declared groups of at least two benchmarks that share items: (benchmark, group) and names."""
    declared = table.benchmarks["shared_items_group"]
    names = [g for g in dict.fromkeys(declared.dropna()) if (declared == g).sum() > 1]
    member = np.array([[1.0 if value == g else 0.0 for g in names] for value in declared])
    labels = tuple("+".join(str(b) for b in table.benchmarks.index[declared == g]) for g in names)
    return member.reshape(len(declared), len(names)), labels


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

    p = priors or Priors()
    n_models, n_benchmarks = inputs.cells.z.shape
    k = inputs.factors
    with pm.Model() as model:
        loading_sd = pm.HalfNormal("loading_sd", p.loading_sd)
        held = gauge == "held"
        basis = slice_basis(inputs.frame) if held else np.eye(n_benchmarks * k)
        # A quarter of the size, so that the random start of a chain is not always nearest the same mode.
        axes = inputs.frame / np.linalg.norm(inputs.frame, axis=0)
        start = basis.T @ axes.ravel() * np.sqrt(n_benchmarks) / 4
        on_slice = pm.Normal("loading_on_slice", 0.0, loading_sd, shape=basis.shape[1], initval=start)
        flat = pt.dot(_given("slice_basis", basis), on_slice) if held else on_slice
        loading = pm.Deterministic("loading", flat.reshape((n_benchmarks, k)))
        if held:  # of loadings over their sd, as if that were 1
            orbit = log_orbit(loading, _given("frame", inputs.frame), k)
            pm.Potential("loading_orbit", orbit - k * (k - 1) / 2 * pt.log(loading_sd))
        pm.Potential("loading_volume", _volume(loading, loading_sd, n_benchmarks, k, p.small_loading))
        mean = pm.Normal("mean", 0.0, p.mean_sd, shape=n_benchmarks)
        noise_sd = pm.LogNormal("noise_sd", np.log(p.noise_sd_median), p.noise_sd_log_sd, shape=n_benchmarks)
        pair_sd = (
            pm.HalfNormal("pair_sd", p.pair_sd, shape=len(inputs.groups)) if inputs.groups else np.zeros(0)
        )
        ability_mean: Any = pt.zeros((n_models, k))
        if inputs.regresses:
            x = pm.Deterministic("predictor", _predictors(inputs, p))
            slope_sd = pm.HalfNormal("slope_sd", p.slope_sd)
            slope_raw = pm.Normal("slope_raw", 0.0, slope_sd, shape=(len(inputs.predictors), k))
            slope = pm.Deterministic("slope", 1.0 * slope_raw)
            ability_mean = pm.Deterministic("ability_mean", pt.dot(x, slope))
        effect_sd = _effect_sds(inputs.design, p)
        pm.Potential(
            "log_likelihood",
            _log_likelihood(inputs, loading, mean, ability_mean, noise_sd, pair_sd, effect_sd, likelihood),
        )
    return model


def _effect_sds(design: BudgetDesign, p: Priors) -> tuple[Any, Any]:
    """Standard deviations of family effects and of steps passed on; 0 for what there is not."""
    import pymc as pm

    if not design.has_roots:
        return 0.0, 0.0
    return pm.HalfNormal("root_sd", p.root_sd), pm.HalfNormal("step_sd", p.step_sd) if design.steps else 0.0


def _log_likelihood(
    inputs: ModelInputs, loading: Any, mean: Any, ability_mean: Any, noise_sd: Any, pair_sd: Any,
    effect_sd: tuple[Any, Any], how: Likelihood,
) -> Any:  # fmt: skip
    """The integrated log likelihood, its cells as data of the model so that they are not compiled in."""
    import pymc as pm
    import pytensor.tensor as pt

    from factorlab.inference import likelihood

    if how == "graph":
        cells, k = inputs.cells, inputs.factors
        effect = _sampled_effects(inputs, effect_sd)
        loading = pt.specify_shape(loading, (cells.z.shape[1], k))
        return log_likelihood(cells, loading, mean, ability_mean + effect, noise_sd, pair_sd, pt).sum()
    data = [pm.Data(f"cells_{name}", value) for name, value in inputs.blocks()._asdict().items()]
    return likelihood.log_likelihood(
        Blocks(*data), loading, mean, ability_mean, noise_sd, pair_sd, *effect_sd
    )


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


def _volume(loading: Any, sd: Any, n_benchmarks: int, k: int, small: float) -> Any:
    """-(J - K)/2 log|Lambda' Lambda / sd^2| - K/2 log|Lambda' Lambda / J + small^2 I|."""
    import pytensor.tensor as pt

    from factorlab.inference.log_det import log_det

    gram = pt.dot(loading.T, loading)
    size = gram / n_benchmarks + small**2 * np.eye(k)
    return -0.5 * (n_benchmarks - k) * (log_det(gram) - 2 * k * pt.log(sd)) - 0.5 * k * log_det(size)


def _given(name: str, values: Any) -> Any:
    """Numbers of a table as data of the model, so that other numbers of the same shape need no compiling."""
    import pymc as pm

    array = np.atleast_1d(np.asarray(values, dtype=float))
    data = pm.Data(name, array, shape=array.shape)
    return data if np.ndim(values) else data[0]


def _predictors(inputs: ModelInputs, p: Priors) -> Any:
    """Standardised predictors (model, predictor), with latent sizes and counts filled in."""
    import pymc as pm
    import pytensor.tensor as pt

    design = inputs.design
    size = (design.log10_params - design.params_center) / design.params_scale
    missing = np.flatnonzero(~np.isfinite(size))
    n = _given("params", np.where(np.isfinite(size), size, 0.0))
    if len(missing):
        latent = pm.Normal("log10_params_latent", 0.0, 1.0, shape=len(missing))
        n = pt.set_subtensor(n[missing], latent)
    center = _given("params_center", design.params_center)
    log10_n = n * _given("params_scale", design.params_scale) + center
    counts, columns = [], [] if inputs.budget == "product" else [n]
    scales = predictor_scale(inputs)
    for l, tokens in enumerate(design.languages):
        middle = _given(f"tokens_center_{tokens.language}", tokens.center)
        log10_d, floored = _tokens(tokens, middle, p)
        counts.append(log10_d)
        if inputs.budget == "product":
            scale = _given(f"budget_scale_{tokens.language}", scales[l])
            columns.append((log10_n + floored - middle - center) / scale)
        else:
            columns.append((floored - middle) / _given(f"tokens_scale_{tokens.language}", tokens.scale))
    pm.Deterministic("log10_tokens", pt.stack(counts, axis=1))
    pm.Deterministic("log10_params", log10_n)
    return pt.stack(columns, axis=1)


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


def _tokens(tokens: LanguageTokens, middle: Any, p: Priors) -> tuple[Any, Any]:
    """log10 of a language's tokens in billions (-inf for none), and the same with d0 added."""
    import pymc as pm
    import pytensor.tensor as pt

    l = tokens.language
    log10_own = _given(f"tokens_log10_{l}", tokens.log10_count)
    if tokens.error_label:
        error = pm.Normal(f"token_error_{l}", 0.0, 1.0, shape=len(tokens.error_label))
        sd = _given(f"tokens_log10_sd_{l}", tokens.known * tokens.error_sd)
        log10_own = log10_own + sd * error[tokens.error_index]
    center = pm.Normal(f"log10_tokens_center_{l}", middle, 1.0)
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
            upper = _given(f"tokens_upper_{l}", tokens.upper[bounded])
            room = (upper - latent[np.flatnonzero(bounded)]) / 0.05
            pm.Potential(f"within_total_{l}", pt.log(pt.sigmoid(room)).sum())
        offset = _given(f"tokens_offset_{l}", tokens.offset)
        log10_own = log10_own + tokens.unknown * (latent[tokens.latent_index] + offset)
    present = tokens.known + tokens.unknown
    own = pt.concatenate([present * 10.0**log10_own, np.zeros(1)])
    total = own[tokens.path].sum(axis=1)
    if not tokens.has_zero:
        log10_d = pt.log10(total)
        return log10_d, log10_d
    floor = pm.LogNormal(f"token_floor_b_{l}", np.log(p.token_floor_b), p.token_floor_log_sd)
    nothing = np.append(present, 0.0)[tokens.path].sum(axis=1) == 0
    return pt.switch(nothing, -np.inf, pt.log10(pt.maximum(total, 1e-12))), pt.log10(total + floor)
