"""Which chains agree with which, on chains made to agree, to be slow, or to be apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from factorlab.inference.chains import APART, group_chains


def slow(rng, shape, phi):
    """AR(1) chains of variance 1 from their stationary start: (chain, draw, quantity)."""
    shock = rng.normal(size=shape) * np.sqrt(1 - phi**2)
    start = phi * rng.normal(size=(shape[0], 1, shape[2]))
    return lfilter([1], [1, -phi], shock, axis=1, zi=start)[0]


def test_chains_of_one_normal_agree():
    values = np.random.default_rng(0).normal(size=(6, 200, 40))
    found = group_chains(values)
    assert found.groups == ((0, 1, 2, 3, 4, 5),)
    assert found.unsettled == ()
    assert found.verdict == "one"
    assert found.separation.max() < 0.6


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_two_modes_are_two_groups(phi):
    values = slow(np.random.default_rng(1), (6, 400, 10), phi)
    values[[1, 4], :, 3] += 6.0
    found = group_chains(values)
    assert found.verdict == "several"
    assert found.groups == ((0, 2, 3, 5), (1, 4))
    assert found.unsettled == ()
    assert found.rhat > 1.3
    assert max(found.group_rhat) < 1.1
    assert found.separation[0, 1] == pytest.approx(6, abs=1)


def test_three_modes_in_different_quantities():
    values = np.random.default_rng(2).normal(size=(5, 300, 10))
    values[0, :, 0] += 8.0
    values[3, :, 1] -= 8.0
    assert group_chains(values).groups == ((1, 2, 4), (0,), (3,))


@pytest.mark.parametrize(("draws", "phi"), [(100, 0.97), (300, 0.99), (1000, 0.997)])
def test_slow_chains_are_not_modes(draws, phi):
    """Autocorrelation over 0.66 of the run: the means differ by far more than the chains' own spread."""
    rng = np.random.default_rng(3)
    widest = []
    for _ in range(10):
        found = group_chains(slow(rng, (4, draws, 3), phi))
        assert found.verdict != "several"
        widest.append(found.separation.max())
    assert max(widest) > APART  # by separation alone some of these would have been modes


def test_chains_that_wander_are_told():
    found = group_chains(slow(np.random.default_rng(4), (4, 300, 3), 0.99))
    assert found.verdict == "slow"
    assert found.groups == ((0, 1, 2, 3),)
    assert found.unsettled
    assert found.rhat > 1.05


def test_a_chain_that_crosses_over_joins_nothing():
    """Two modes, and a chain that leaves one for the other: it must not make one group of both."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(5, 400, 8))
    values[:2, :, 2] += 9.0
    values[4, 150:, 2] += 9.0
    found = group_chains(values)
    assert found.groups == ((0, 1), (2, 3))
    assert found.unsettled == (4,)
    assert found.verdict == "several"


def test_a_late_chain_alone_is_slow():
    rng = np.random.default_rng(6)
    values = rng.normal(size=(4, 400, 8))
    values[3, :300, 2] += 9.0
    found = group_chains(values)
    assert found.verdict == "slow"
    assert found.unsettled == (3,)
    assert found.groups == ((0, 1, 2, 3),)


def test_chains_that_did_not_move_have_no_solution():
    values = np.random.default_rng(7).normal(size=(3, 100, 4))
    values[2] = 50.0
    found = group_chains(values)
    assert found.unsettled == (2,)
    assert found.verdict == "slow"


def test_one_chain_is_one_group():
    found = group_chains(np.random.default_rng(8).normal(size=(1, 50, 2)))
    assert found.groups == ((0,),)
    assert found.verdict == "one"


def test_quantities_that_do_not_vary_say_nothing():
    values = np.random.default_rng(9).normal(size=(3, 100, 4))
    values[:, :, 1] = 2.0
    assert group_chains(values).verdict == "one"
