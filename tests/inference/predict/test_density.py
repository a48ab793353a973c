"""The compiled density of the prediction model, against the same model stated in PyMC."""

from __future__ import annotations

import ctypes

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

from factorlab.inference.predict.columns import Columns
from factorlab.inference.predict.kernel import (
    BETA_BINOMIAL,
    BINOMIAL,
    BLOCKS,
    LINEAR,
    LINK,
    cell_moments,
    digamma,
    log_density,
    value_and_gradient,
)
from factorlab.inference.predict.kin import Kin
from factorlab.inference.predict.layout import Inputs, Layout, lay_out
from factorlab.inference.predict.member_fit import density_of
from factorlab.inference.predict.predictors import Predictors
from factorlab.inference.predict.specification import Member, PredictionPriors

MODELS, BENCHMARKS = 6, 7
KINDS = np.array([LINK, LINK, LINEAR, BETA_BINOMIAL, BINOMIAL, LINK, BETA_BINOMIAL])


def made_up_inputs() -> Inputs:
    """Every kind of column, a declared chance, groups of two, two levels of kin, errors of predictors."""
    rng = np.random.default_rng(5)
    shape = (MODELS, BENCHMARKS)
    counted = np.isin(KINDS, (BETA_BINOMIAL, BINOMIAL))
    trials = np.where(counted, 40.0, np.nan) * np.ones(shape)
    y = rng.uniform(0.3, 0.9, shape)
    y[:, 2] = rng.normal(size=MODELS)
    y = np.where(counted, np.round(y * 40) / 40, y)
    y[rng.random(shape) < 0.2] = np.nan
    y[0] = np.nan  # a model without a score
    bounded = np.where(KINDS == LINEAR, 0.0, 1.0)
    low = np.clip(np.nanmin(y, axis=0), 0, 1) * bounded
    high = np.where(KINDS == LINEAR, 1.0, np.clip(np.nanmax(y, axis=0), 0, 1))
    chance = np.array([0.25, np.nan, np.nan, 0.2, np.nan, 0.0, np.nan])
    se = np.where(rng.random(shape) < 0.3, np.nan, 0.02)
    one, zero = np.ones(BENCHMARKS), np.zeros(BENCHMARKS)
    columns = Columns(y, se, trials, KINDS.copy(), zero, one, one, low, high, chance, ())
    predictors = Predictors(
        names=("log10 N", "log10 D_ja"),
        x=rng.normal(size=(MODELS, 2)),
        center=np.zeros(2),
        scale=np.ones(2),
        error_row=np.array([0, 1, 1, 3]),
        error_predictor=np.array([1, 1, 0, 1]),
        error_index=np.array([0, 0, 1, 2]),
        error_weight=np.array([0.3, 0.2, 0.5, 0.1]),
        n_errors=3,
        known=np.ones((MODELS, 2), dtype=bool),
    )
    kin = Kin(np.array([0, 1, 2, 3, 1, 2]), np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1]), ("F", "F 7B"))
    return Inputs(columns, predictors, kin, np.array([0, 0, -1, 1, 1, -1, -1]), ("aime", "tau"))


def in_pymc(inputs: Inputs, member: Member, layout: Layout) -> pm.Model:
    """The formulas at the head of kernel.py; of the layout only which omega is whose is used."""
    prior, k = PredictionPriors(), member.factors
    c, x, kin = inputs.columns, inputs.predictors, inputs.kin
    M, J = c.y.shape
    known = np.nan_to_num(c.chance) > 0
    link = c.kind != LINEAR
    with pm.Model() as model:

        def normal(name: str, center=0.0, sd=1.0, shape=()):
            return pm.Normal(name, center, sd, shape=shape)

        def hyper(name: str, given: tuple[float, float]):
            return normal(name, *given, shape=(1,))[0]

        mean_center, mean_spread = (
            hyper("mean_center", prior.mean_center),
            hyper("mean_spread", prior.mean_spread),
        )
        mu = normal("mean", pt.where(link, mean_center, 0.0), pt.where(link, pt.exp(mean_spread), 1.0), (J,))
        general = normal(
            "general",
            hyper("general_center", prior.general_center),
            pt.exp(hyper("general_spread", prior.general_spread)),
            (J,),
        )
        log_sigma = normal(
            "noise",
            hyper("noise_center", prior.noise_center),
            pt.exp(hyper("noise_spread", prior.noise_spread)),
            (J,),
        )
        lam = [pt.exp(general)]
        if k > 1:
            steps = prior.loading_scale[0] - prior.loading_step * np.arange(k - 1)
            scale = pt.exp(normal("loading_scale", steps, prior.loading_scale[1], (k - 1,)))
            raw = normal("loading", shape=(J, k - 1))
            lam += [raw[:, l] * scale[l] for l in range(k - 1)]
        lam = pt.stack(lam, axis=1)
        kappa = pt.exp(pt.exp(hyper("shape_spread", prior.shape_spread)) * normal("shape", shape=(J,)))
        tau = pt.exp(
            pt.exp(hyper("model_noise_spread", prior.model_noise_spread)) * normal("model_noise", shape=(M,))
        )
        nu = 1.5 + pt.exp(hyper("tail", prior.tail))
        gamma = pm.math.sigmoid(hyper("slope_of_noise", prior.slope_of_noise))
        floor = np.where(known, np.nan_to_num(c.chance), c.lowest if member.floor else 0.0)
        if member.floor:
            logit = normal(
                "floor", np.where(known, 4.0, prior.floor[0]), np.where(known, 0.5, prior.floor[1]), (J,)
            )
            floor = floor * pm.math.sigmoid(logit)
        ceiling = 1.0
        if member.ceiling:
            share = pm.math.sigmoid(normal("ceiling", *prior.ceiling, shape=(J,)))
            ceiling = c.highest + (1 - c.highest) * share
        residual = pt.exp(normal("residual", *prior.residual, shape=(k,))) if member.residual else pt.ones(k)
        expected = pt.zeros((M, k))
        if member.predictors:
            weight = np.zeros((*x.x.shape, x.n_errors))
            weight[x.error_row, x.error_predictor, x.error_index] = x.error_weight
            moved = x.x + pt.dot(weight, normal("error", shape=(x.n_errors,)))
            expected = expected + moved @ normal("slope", *prior.slope, shape=(len(x.names), k))
        if member.kin:
            spread = [prior.family, prior.base_model]
            level = normal("level", [s[0] for s in spread], [s[1] for s in spread], (2,))
            below = np.zeros((M, len(kin.names)))
            below[kin.row, kin.node] = 1
            expected = expected + below @ (
                pt.exp(level[kin.level])[:, None] * normal("effect", shape=(len(kin.names), k))
            )
        theta = normal("ability", expected, residual, (M, k))
        eta = mu + theta @ lam.T
        if member.groups:
            specific = normal("specific", shape=(len(layout.specific),))
            delta = pt.exp(
                hyper("specific_center", prior.specific_center)
                + 0.5 * normal("specific_scale", shape=(len(inputs.groups),))
            )
            which = np.array([[layout.specific.get((i, g), -1) for g in inputs.group] for i in range(M)])
            eta = eta + np.where(which >= 0, 1.0, 0.0) * specific[which] * delta[inputs.group]
        # One half at eta = 0, whatever kappa: (1 + (2 ** (1 / kappa) - 1) exp(-eta)) ** -kappa.
        s = (1 + (2 ** (1 / kappa) - 1) * pt.exp(-eta)) ** (-kappa)
        m = floor + (ceiling - floor) * s
        se2 = np.where(np.isfinite(c.se), c.se, 0.003) ** 2
        noise = pt.exp(log_sigma) * tau[:, None]
        seen = np.isfinite(c.y)
        bent = (4 * s * (1 - s) + 0.01) ** gamma
        phi = 1 / (4 * noise**2)
        for kind, name in enumerate(("link", "linear", "beta_binomial", "binomial")):
            at = np.nonzero(seen & (c.kind == kind))
            y, hits = c.y[at], np.round(40 * c.y[at]).astype(int)
            if kind == LINK:
                pm.StudentT(name, nu, m[at], sigma=pt.sqrt((noise * bent)[at] ** 2 + se2[at]), observed=y)
            elif kind == LINEAR:
                pm.StudentT(name, nu, eta[at], sigma=pt.sqrt((5 * noise[at]) ** 2 + se2[at]), observed=y)
            elif kind == BINOMIAL:
                pm.Binomial(name, 40, m[at], observed=hits)
            else:
                pm.BetaBinomial(name, (m * phi)[at], ((1 - m) * phi)[at], 40, observed=hits)
    return model


def as_point(model: pm.Model, layout: Layout, q: np.ndarray) -> dict[str, np.ndarray]:
    """The vector cut into PyMC's variables; a block that one lacks must be empty in the other, too."""
    out = {}
    shapes = {v.name: tuple(v.type.shape) for v in model.value_vars}
    for b, name in enumerate(BLOCKS):
        part = q[layout.arrays.offsets[b] : layout.arrays.offsets[b + 1]]
        if name in shapes:
            out[name] = part.reshape(shapes[name])
        else:
            assert not len(part), f"PyMC's model has no {name}"
    assert set(out) == set(shapes)
    return out


def by_vector(model: pm.Model, layout: Layout, gradient: np.ndarray) -> np.ndarray:
    """PyMC's gradient in the order of the vector."""
    out, at = np.zeros(len(layout.start)), 0
    for v in model.value_vars:
        n = int(np.prod(v.type.shape))
        first = layout.arrays.offsets[BLOCKS.index(v.name)]
        out[first : first + n] = gradient[at : at + n]
        at += n
    return out


@pytest.mark.parametrize(
    "member",
    [
        Member(3, floor=True, ceiling=True, residual=True),
        Member(1, kin=False, groups=False, ceiling=False, predictors=False),
    ],
    ids=lambda m: m.name,
)
def test_value_and_gradient_are_those_of_the_model_in_pymc(member):
    inputs = made_up_inputs()
    layout = lay_out(inputs, member)
    model = in_pymc(inputs, member, layout)
    log_p = model.compile_logp(mode="FAST_COMPILE", sum=False)
    slope = model.compile_dlogp(mode="FAST_COMPILE")
    rng = np.random.default_rng(0)
    ours, theirs, out = [], [], np.empty(len(layout.start))
    for _ in range(4):
        q = layout.start + 0.6 * rng.normal(size=len(layout.start))
        ours.append(value_and_gradient(q, layout.arrays, out))
        point = as_point(model, layout, q)
        theirs.append(sum(float(np.sum(part)) for part in log_p(point)))
        other = by_vector(model, layout, slope(point))
        np.testing.assert_allclose(out, other, rtol=1e-8, atol=1e-8 * np.abs(other).max())
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-8)


@pytest.mark.parametrize("far", [0.5, 2.0])
def test_gradient_is_that_of_finite_differences(far):
    layout = lay_out(made_up_inputs(), Member(3, floor=True, residual=True))
    rng = np.random.default_rng(1)
    q = layout.start + far * rng.normal(size=len(layout.start))
    gradient, scratch = np.empty(len(q)), np.empty(len(q))
    value_and_gradient(q, layout.arrays, gradient)

    def value(at: np.ndarray) -> float:
        return value_and_gradient(at, layout.arrays, scratch)

    for d in range(len(q)):
        step = np.zeros(len(q))
        step[d] = 1e-4
        # Fourth order: the error is that of rounding, not of the step.
        slope = (8 * (value(q + step) - value(q - step)) - value(q + 2 * step) + value(q - 2 * step)) / 1.2e-3
        assert gradient[d] == pytest.approx(slope, rel=2e-6, abs=2e-6)


def test_digamma_against_scipy():
    from scipy.special import psi

    for v in (1e-3, 0.4, 1.0, 5.99, 6.0, 37.5, 1e6):
        assert digamma(v) == pytest.approx(psi(v), rel=1e-10)


def test_a_score_is_one_half_way_up_where_its_predictor_is_zero_whatever_the_shape():
    inputs = made_up_inputs()
    layout = lay_out(inputs, Member(1, predictors=False, kin=False, groups=False))
    a = layout.arrays
    q = layout.start.copy()
    for name in ("mean", "ability"):
        b = BLOCKS.index(name)
        q[a.offsets[b] : a.offsets[b + 1]] = 0.0
    first = a.offsets[BLOCKS.index("shape")]
    means = []
    for shape in (-2.0, 0.0, 3.0):
        q[first : first + BENCHMARKS] = shape
        mean, _, _ = cell_moments(
            q[None], a, np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64), np.full(1, -1), np.zeros((1, 1)),
            np.zeros((1, 0)),
        )  # fmt: skip
        means.append(mean[0, 0])
    ceiling = a.high[1] + (1 - a.high[1]) * 0.5
    assert means == pytest.approx([0.5 * ceiling] * 3)


def test_a_parameter_that_overflows_gives_no_number_and_no_exception():
    """An exception cannot leave the C function that the sampler calls: it would go on with what is in memory."""
    layout = lay_out(made_up_inputs(), Member(1))
    density = density_of(layout)
    out, value = np.ones(len(layout.start)), np.zeros(1)
    double, whole = ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_int64)
    offsets = layout.arrays.offsets
    for name, size in (
        ("shape", 1e4),
        ("shape", -1e4),
        ("noise", -1e4),
        ("tail", 1e4),
        ("model_noise", -1e5),
    ):
        q = layout.start.copy()
        q[offsets[BLOCKS.index(name)] : offsets[BLOCKS.index(name) + 1]] = size
        status = log_density.ctypes(
            len(q), q.ctypes.data_as(double), out.ctypes.data_as(double), value.ctypes.data_as(double),
            density.table.ctypes.data_as(whole),
        )  # fmt: skip
        expected = value_and_gradient(q, layout.arrays, out)
        assert (status == 0) == (np.isfinite(expected) and np.isfinite(out).all())
        if status == 0:
            assert value[0] == expected
