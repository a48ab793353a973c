"""A fixed matrix times a vector: value, derivative and many vectors at once."""

from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import vectorize_graph

from factorlab.inference.product import product

MATRIX = np.random.default_rng(0).normal(size=(7, 4))
VECTOR = np.random.default_rng(1).normal(size=4)


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
def test_value_and_derivative(mode):
    matrix, x, weight = pt.dmatrix("matrix"), pt.dvector("x"), np.arange(7.0)
    out = product(matrix, x)
    slope = pytensor.grad((weight * out).sum(), x)
    value, derivative = pytensor.function([matrix, x], [out, slope], mode=mode)(MATRIX, VECTOR)
    np.testing.assert_allclose(value, MATRIX @ VECTOR)
    np.testing.assert_allclose(derivative, MATRIX.T @ weight)


def test_second_derivative_of_a_square_is_the_gram_matrix():
    x = pt.dvector("x")
    hessian = pytensor.gradient.hessian((product(MATRIX, x) ** 2).sum() / 2, x)
    np.testing.assert_allclose(pytensor.function([x], hessian)(VECTOR), MATRIX.T @ MATRIX)


def test_many_vectors_are_one_product():
    x, many = pt.dvector("x"), pt.dmatrix("many")
    graph = vectorize_graph(product(MATRIX, x), {x: many})
    draws = np.random.default_rng(2).normal(size=(5, 4))
    np.testing.assert_allclose(pytensor.function([many], graph)(draws), draws @ MATRIX.T)
    assert "Blockwise" not in str(graph.owner.op)
