"""Rotations against R, and what must not change under them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from factorlab.errors import InputError
from factorlab.inference.identify import (
    congruence,
    fix_signs,
    match,
    principal_angles,
    procrustes,
    promax,
    take_factors,
    turn_ability,
    varimax,
)

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(5, 20), st.integers(2, 5))


def random_loading(seed, size):
    return np.random.default_rng(seed).normal(size=size)


def random_rotation(seed, k):
    rotation, upper = np.linalg.qr(np.random.default_rng(seed).normal(size=(k, k)))
    return rotation * np.sign(np.diagonal(upper))


def simple_structure(seed, per_factor=6, k=3, noise=0.05):
    """Loadings with one factor a row, which varimax must find again whatever the rotation."""
    rng = np.random.default_rng(seed)
    loading = np.kron(np.eye(k), np.ones((per_factor, 1))) * rng.uniform(0.5, 0.9, (per_factor * k, 1))
    return loading + noise * rng.normal(size=loading.shape)


@given(seeds, sizes, st.booleans())
@settings(max_examples=40, deadline=None)
def test_varimax_leaves_the_common_part_alone(seed, size, normalize):
    loading = random_loading(seed, size)
    rotated, rotation = varimax(loading, normalize)
    np.testing.assert_allclose(rotated @ rotated.T, loading @ loading.T, atol=1e-10)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(size[1]), atol=1e-10)
    np.testing.assert_allclose(loading @ rotation, rotated, atol=1e-12)


@given(seeds, sizes)
@settings(max_examples=40, deadline=None)
def test_varimax_does_not_lower_its_criterion(seed, size):
    loading = random_loading(seed, size)

    def criterion(b):
        return np.sum(np.var(b**2, axis=0))

    rotated, _ = varimax(loading, normalize=False)
    assert criterion(rotated) >= criterion(loading) - 1e-12


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_varimax_finds_simple_structure_again(seed):
    loading = simple_structure(seed)
    base, _ = varimax(loading)
    rotated, _ = varimax(loading @ random_rotation(seed, 3))
    np.testing.assert_allclose(take_factors(rotated, *match(rotated, base)), base, atol=1e-4)
    assert np.abs(congruence(take_factors(rotated, *match(rotated, loading)), loading)).min() > 0.98


@pytest.mark.parametrize("convention", ["stats", "psych"])
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_promax_leaves_the_common_part_alone(convention, seed):
    loading = simple_structure(seed, noise=0.15)
    pattern, rotation, phi = promax(loading, convention=convention)
    np.testing.assert_allclose(pattern @ phi @ pattern.T, loading @ loading.T, atol=1e-9)
    np.testing.assert_allclose(loading @ rotation, pattern, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(phi), 1, atol=1e-9)  # factors of unit variance


def test_promax_conventions_differ_unless_communalities_are_equal():
    loading = simple_structure(1, noise=0.3)
    stats, psych = (promax(loading, convention=c)[0] for c in ("stats", "psych"))
    assert np.abs(stats - psych).max() > 0.005
    equal = loading / np.linalg.norm(loading, axis=1, keepdims=True)
    stats, psych = (promax(equal, convention=c)[0] for c in ("stats", "psych"))
    np.testing.assert_allclose(stats, psych, atol=1e-9)


def test_promax_refuses_an_unknown_convention():
    with pytest.raises(InputError, match="promax convention 'oblimin' is unknown; give 'stats' or 'psych'"):
        promax(simple_structure(0), convention="oblimin")


@given(seeds, sizes)
@settings(max_examples=40, deadline=None)
def test_procrustes_recovers_a_known_rotation(seed, size):
    target = random_loading(seed, size)
    rotation = random_rotation(seed + 1, size[1])
    np.testing.assert_allclose(procrustes(target @ rotation.T, target), rotation, atol=1e-8)


@given(seeds, sizes)
@settings(max_examples=40, deadline=None)
def test_procrustes_is_nearest_of_all_rotations(seed, size):
    loading, target = random_loading(seed, size), random_loading(seed + 1, size)
    best = procrustes(loading, target)
    other = random_rotation(seed + 2, size[1])
    np.testing.assert_allclose(best @ best.T, np.eye(size[1]), atol=1e-10)
    assert np.linalg.norm(loading @ best - target) <= np.linalg.norm(loading @ other - target) + 1e-9


@given(seeds, sizes)
@settings(max_examples=40, deadline=None)
def test_match_recovers_permutation_and_signs(seed, size):
    reference = random_loading(seed, size)
    rng = np.random.default_rng(seed + 1)
    shuffle, flips = rng.permutation(size[1]), rng.choice([-1.0, 1.0], size[1])
    loading = (reference * flips)[:, shuffle]
    order, sign = match(loading, reference)
    np.testing.assert_array_equal(take_factors(loading, order, sign), reference)
    np.testing.assert_array_equal(np.argsort(shuffle), order)
    np.testing.assert_array_equal(sign, flips)


def test_match_picks_the_columns_of_a_smaller_reference():
    loading = random_loading(0, (12, 6))
    order, sign = match(loading, -loading[:, [4, 1]])
    np.testing.assert_array_equal(order, [4, 1])
    np.testing.assert_array_equal(sign, [-1, -1])


def test_match_never_uses_a_factor_twice():
    """Both factors resemble the first of the reference; the assignment as a whole decides."""
    reference = np.eye(4)[:, :2]
    loading = np.array([[1.0, 0.9], [0.0, 0.5], [0, 0], [0, 0]])
    assert match(loading, reference)[0].tolist() == [0, 1]


@given(seeds, sizes)
@settings(max_examples=25, deadline=None)
def test_abilities_turn_with_the_loadings(seed, size):
    loading, ability = random_loading(seed, size), random_loading(seed + 1, (7, size[1]))
    for rotation in (
        random_rotation(seed, size[1]),
        random_loading(seed + 2, (size[1],) * 2) + 3 * np.eye(size[1]),
    ):
        fitted = (loading @ rotation) @ turn_ability(ability, rotation).T
        np.testing.assert_allclose(fitted, loading @ ability.T, rtol=1e-6, atol=1e-6)


def test_a_stack_is_the_same_as_one_at_a_time():
    stack = np.stack([simple_structure(seed, noise=0.3) @ random_rotation(seed, 3) for seed in range(5)])
    target = simple_structure(9)
    order, sign = match(stack, target)
    for draw, loading in enumerate(stack):
        np.testing.assert_allclose(varimax(stack)[0][draw], varimax(loading)[0], atol=1e-4)
        np.testing.assert_allclose(promax(stack)[0][draw], promax(loading)[0], atol=1e-3)
        np.testing.assert_allclose(procrustes(stack, target)[draw], procrustes(loading, target), atol=1e-12)
        np.testing.assert_array_equal(order[draw], match(loading, target)[0])
        np.testing.assert_array_equal(
            take_factors(stack, order, sign)[draw], take_factors(loading, order[draw], sign[draw])
        )
        np.testing.assert_allclose(congruence(stack, target)[draw], congruence(loading, target))


@given(seeds, sizes)
@settings(max_examples=25, deadline=None)
def test_principal_angles_see_the_space_only(seed, size):
    loading = random_loading(seed, (size[0] + 5, size[1]))
    mixed = loading @ (random_loading(seed + 1, (size[1],) * 2) + 4 * np.eye(size[1]))
    np.testing.assert_allclose(principal_angles(loading, mixed), 1, atol=1e-7)


def test_principal_angles_of_orthogonal_and_tilted_axes():
    tilted = np.array([[1, 0], [0, np.cos(0.3)], [0, np.sin(0.3)]])
    np.testing.assert_allclose(principal_angles(np.eye(3)[:, :2], tilted), [1, np.cos(0.3)])
    np.testing.assert_allclose(principal_angles(np.eye(4)[:, :2], np.eye(4)[:, 2:]), 0, atol=1e-12)


@given(hnp.arrays(float, (8, 2), elements=st.floats(0.1, 2)))
@settings(max_examples=25, deadline=None)
def test_congruence_ignores_scale_and_keeps_sign(loading):
    np.testing.assert_allclose(congruence(loading, 3 * loading), 1)
    np.testing.assert_allclose(congruence(loading, -loading), -1)


def test_signs_first_by_sum_then_anchor_then_largest():
    loading = np.array([[-0.9, 0.2, -0.8, 0.1], [-0.1, -0.7, 0.5, 0.2], [0.3, 0.1, 0.6, -0.3]])
    signs = fix_signs(loading, ["a", "b", "c"], {1: "a", 2: "b"})
    np.testing.assert_array_equal(signs, [-1, 1, 1, -1])
    np.testing.assert_array_equal(fix_signs(loading, ["a", "b", "c"]), [-1, -1, -1, -1])


def test_anchors_of_factors_that_are_not_kept_are_ignored():
    assert fix_signs(np.ones((2, 1)), ["a", "b"], {2: "b"}).tolist() == [1]


def test_signs_refuse_an_anchor_that_is_no_benchmark():
    with pytest.raises(
        InputError, match="anchor 'z' of factor 2 is not a benchmark of this table; benchmarks: a, b"
    ):
        fix_signs(np.ones((2, 2)), ["a", "b"], {1: "z"})
