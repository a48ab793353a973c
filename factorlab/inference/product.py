"""A fixed matrix times a vector, as a PyTensor Op; its derivative is the transpose times a vector.

PyTensor's own product copies the transposed matrix on every call, one number at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

VERSION = 1
"""Part of the key of PyTensor's compile cache: raise it when a function below changes."""

_compile = njit(
    cache=True, nogil=True, error_model="numpy", boundscheck=False, fastmath={"reassoc", "contract"}
)


@_compile
def _forward(matrix: Any, x: Any) -> Any:
    n, m = matrix.shape
    out = np.empty(n)
    for i in range(n):
        total = 0.0
        for j in range(m):
            total += matrix[i, j] * x[j]
        out[i] = total
    return out


@_compile
def _transposed(matrix: Any, x: Any) -> Any:
    n, m = matrix.shape
    out = np.zeros(m)
    for i in range(n):
        for j in range(m):
            out[j] += matrix[i, j] * x[i]
    return out


class Product(Op):
    """Inputs a matrix (n, m) and a vector; output their product, or that of the transposed matrix.

    Parameters
    ----------
    transposed : bool
        Whether the vector has length n, and the output length m.
    """

    __props__ = ("transposed",)

    def __init__(self, transposed: bool) -> None:
        self.transposed = transposed

    def make_node(self, *inputs: Any) -> Apply:
        matrix, x = [pt.as_tensor_variable(given) for given in inputs]
        return Apply(self, [matrix, x], [pt.vector(shape=(matrix.type.shape[int(self.transposed)],))])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        matrix, x = inputs
        output_storage[0][0] = (matrix.T if self.transposed else matrix) @ x

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Any) -> Any:
        return [(shapes[0][int(self.transposed)],)]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """Of the vector; the matrix is fixed."""
        return [disconnected_type(), Product(not self.transposed)(inputs[0], cotangents[0])]

    L_op = pullback  # type: ignore[assignment]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[False], [True]]


@register_funcify_default_op_cache_key(Product)
def _funcify(op: Product, node: Any = None, **kwargs: Any) -> Any:
    function = _transposed if op.transposed else _forward

    @numba_njit
    def product(matrix: Any, x: Any) -> Any:
        return function(np.ascontiguousarray(matrix), np.ascontiguousarray(x))

    return product, VERSION


@_vectorize_node.register(Product)
def _many(op: Product, node: Any, matrix: Any, x: Any) -> Any:
    """Vectors of many draws, (..., m), are one product and not a loop."""
    if matrix.type.ndim != 2:
        # Draws are of variables, never of data; a wrong product would be worse than none.
        raise NotImplementedError("the matrix is fixed: it cannot have a dimension of draws")
    return pt.dot(x, matrix if op.transposed else matrix.T).owner


def product(matrix: Any, x: Any) -> Any:
    """A fixed matrix times a vector.

    Parameters
    ----------
    matrix : tensor, (n, m)
        Data: no derivative is taken with respect to it.
    x : tensor, (m,)

    Returns
    -------
    tensor, (n,)
    """
    return Product(False)(matrix, x)
