"""Log determinant of a small symmetric matrix, with its gradient, as a PyTensor Op.

PyTensor's own determinants call LAPACK, several microseconds a call; the matrices here are K x K.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

VERSION = 1
"""Part of the key of PyTensor's compile cache: raise it when the function changes."""


@njit(cache=True, nogil=True, error_model="numpy")
def log_det_inverse(matrix: Any) -> Any:
    """(log|A|, A^-1) of a symmetric positive-definite A by Cholesky; (-inf, 0) when it is not definite."""
    n = matrix.shape[0]
    lower = np.zeros((n, n))
    inverse = np.zeros((n, n))
    value = 0.0
    for k in range(n):
        for q in range(k + 1):
            x = matrix[k, q]
            for e in range(q):
                x -= lower[k, e] * lower[q, e]
            if q < k:
                lower[k, q] = x / lower[q, q]
            elif x > 0.0:
                lower[k, k] = np.sqrt(x)
                value += np.log(x)
            else:
                return -np.inf, inverse
    for k in range(n):  # lower <- L^-1
        lower[k, k] = 1.0 / lower[k, k]
        for q in range(k):
            x = 0.0
            for e in range(q, k):
                x += lower[k, e] * lower[e, q]
            lower[k, q] = -lower[k, k] * x
    for k in range(n):
        for q in range(k + 1):
            x = 0.0
            for e in range(k, n):
                x += lower[e, k] * lower[e, q]
            inverse[k, q] = x
            inverse[q, k] = x
    return value, inverse


class LogDeterminant(Op):
    """Input a symmetric matrix; outputs its log determinant and its inverse, which is the gradient."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        return Apply(self, [pt.as_tensor_variable(inputs[0])], [pt.dscalar(), pt.dmatrix()])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        value, inverse = log_det_inverse(np.ascontiguousarray(inputs[0]))
        output_storage[0][0] = np.asarray(value)
        output_storage[1][0] = inverse

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Any) -> Any:
        return [(), shapes[0]]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        if not isinstance(cotangents[1].type, DisconnectedType):
            # Samplers and optimisers here ask for the gradient only; a Hessian must fail, not be wrong.
            raise NotImplementedError("second derivatives of the log determinant are not available")
        return [cotangents[0] * self.make_node(*inputs).outputs[1]]

    L_op = pullback  # type: ignore[assignment]


@register_funcify_default_op_cache_key(LogDeterminant)
def _funcify(op: LogDeterminant, node: Any = None, **kwargs: Any) -> Any:
    @numba_njit
    def log_determinant(matrix: Any) -> Any:
        value, inverse = log_det_inverse(np.ascontiguousarray(matrix))
        return np.asarray(value), inverse

    return log_determinant, VERSION


def log_det(matrix: Any) -> Any:
    """Log determinant of a symmetric positive-definite matrix.

    Parameters
    ----------
    matrix : tensor, (n, n)
        Only the lower triangle is read.

    Returns
    -------
    tensor, ()
        -inf where the matrix is not positive definite.
    """
    return LogDeterminant().make_node(matrix).outputs[0]
