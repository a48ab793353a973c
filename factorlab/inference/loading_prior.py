"""What the prior of the loadings has beyond independent normal densities, with its gradient, as a PyTensor Op.

With G = Lambda' Lambda, J benchmarks, K factors, sigma the loadings' standard deviation and S = F' Lambda for a
frame F (`factorlab.inference.gauge`), the sum of

* the volume, -(J - K)/2 log|G / sigma^2| - K/2 log|G / J + small^2 I|, which keeps the sizes of the factors from
  crowding together (`factorlab.inference.model.build_model`);
* where axes are held, the size of the orbit, log|C(S / sigma)|, of loadings as if sigma were 1. C is the second
  additive compound of S,

      C_(ab)(cd) = S_ac d_bd + S_bd d_ac - S_ad d_bc - S_bc d_ad,   a < b, c < d,

  which is the matrix of A -> S A + A S on skew-symmetric A; its eigenvalues are s_k + s_l.

As a graph this is 70 nodes for matrices of K x K, and takes half as long again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

VERSION = 2
"""Part of the key of PyTensor's compile cache: raise it when a function below changes."""

_compile = njit(cache=True, nogil=True, error_model="numpy")


@_compile
def _log_det_inverse(matrix: Any) -> Any:
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


@_compile
def _cross(left: Any, right: Any) -> Any:
    """left' right, both (J, K)."""
    n, k = left.shape
    out = np.zeros((k, k))
    for j in range(n):
        for a in range(k):
            for b in range(k):
                out[a, b] += left[j, a] * right[j, b]
    return out


@_compile
def _add_times(out: Any, left: Any, right: Any) -> None:
    """out += left right, with out and left (J, K) and right (K, K)."""
    n, k = left.shape
    for j in range(n):
        for a in range(k):
            for b in range(k):
                out[j, b] += left[j, a] * right[a, b]


@_compile
def _pair(a: int, b: int, k: int) -> int:
    """Place of {a, b} among the pairs of K axes, in the order (0, 1), (0, 2), ..."""
    low, high = min(a, b), max(a, b)
    return low * k - low * (low + 1) // 2 + high - low - 1


@_compile
def _compound(s: Any, weight: Any, back: bool) -> None:
    """Add C(S) to ``weight``, or where ``back`` its transpose: d tr(weight' C(S)) / dS to ``s``.

    C takes S_ac from {a, b} to {c, b}, with a minus sign where b lies between a and c; S and weight are symmetric.
    """
    k = s.shape[0]
    for b in range(k):
        for a in range(k):
            for c in range(k):
                if a != b and c != b:
                    sign = 1.0 if (a < b) == (c < b) else -1.0
                    if back:
                        s[a, c] += sign * weight[_pair(a, b, k), _pair(c, b, k)]
                    else:
                        weight[_pair(a, b, k), _pair(c, b, k)] += sign * s[a, c]


@_compile
def volume_and_orbit(loading: Any, sd: float, frame: Any, small: float, held: bool) -> Any:
    """Value and gradient.

    Parameters
    ----------
    loading, frame : ndarray, (benchmark, factor)
        C-contiguous.
    sd, small : float
    held : bool
        Whether the orbit counts; else ``frame`` is not read.

    Returns
    -------
    value : float
        -inf beyond the edge of the slice, where s_k + s_l < 0 for some pair; infinite for loadings of lower rank.
    slope : ndarray, (benchmark, factor)
        d value / d loading.
    sd_slope : float
        d value / d sd.
    """
    n, k = loading.shape
    gram = _cross(loading, loading)
    size = gram / n
    for a in range(k):
        size[a, a] += small * small
    volume, of_gram = _log_det_inverse(gram)
    covariance, of_size = _log_det_inverse(size)
    value = -0.5 * (n - k) * (volume - 2 * k * np.log(sd)) - 0.5 * k * covariance
    slope = np.zeros((n, k))
    _add_times(slope, loading, (k - n) * of_gram - (k / n) * of_size)
    sd_slope = (n - k) * k / sd
    if held and k > 1:
        pairs = k * (k - 1) // 2
        s = _cross(frame, loading)
        compound = np.zeros((pairs, pairs))
        _compound(0.5 * (s + s.T), compound, False)
        orbit, of_compound = _log_det_inverse(compound)
        value += orbit - pairs * np.log(sd)
        sd_slope -= pairs / sd
        of_s = np.zeros((k, k))
        _compound(of_s, of_compound, True)
        _add_times(slope, frame, of_s)
    return value, slope, sd_slope


class LoadingPrior(Op):
    """Inputs loading, sd, frame; outputs the value, then its derivatives with respect to loading and sd.

    Parameters
    ----------
    held : bool
        Whether the orbit counts.
    small : float
        Root mean square loading below which a factor counts as small.
    """

    __props__ = ("held", "small")

    def __init__(self, held: bool, small: float) -> None:
        self.held = held
        self.small = small

    def make_node(self, *inputs: Any) -> Apply:
        given = [pt.as_tensor_variable(x) for x in inputs]
        return Apply(self, given, [pt.dscalar(), pt.dmatrix(), pt.dscalar()])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        loading, sd, frame = inputs
        found = volume_and_orbit(
            np.ascontiguousarray(loading), float(sd), np.ascontiguousarray(frame), self.small, self.held
        )
        for storage, value in zip(output_storage, found, strict=True):
            storage[0] = np.asarray(value)

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Any) -> Any:
        return [(), shapes[0], ()]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        if any(not isinstance(c.type, DisconnectedType) for c in cotangents[1:]):
            # Samplers and optimisers here ask for the gradient only; a Hessian must fail, not be wrong.
            raise NotImplementedError("second derivatives of the loadings' prior are not available")
        _, slope, sd_slope = self.make_node(*inputs).outputs
        return [cotangents[0] * slope, cotangents[0] * sd_slope, disconnected_type()]

    L_op = pullback  # type: ignore[assignment]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True] * 3, [True] * 3, [False] * 3]


@register_funcify_default_op_cache_key(LoadingPrior)
def _funcify(op: LoadingPrior, node: Any = None, **kwargs: Any) -> Any:
    held, small = op.held, op.small

    @numba_njit
    def loading_prior(loading: Any, sd: Any, frame: Any) -> Any:
        value, slope, sd_slope = volume_and_orbit(
            np.ascontiguousarray(loading), sd.item(), np.ascontiguousarray(frame), small, held
        )
        return np.asarray(value), slope, np.asarray(sd_slope)

    return loading_prior, VERSION


def log_loading_prior(loading: Any, sd: Any, frame: Any, *, small: float, held: bool = True) -> Any:
    """Log prior density of loadings beyond independent normal ones, for ``pm.Potential``.

    Parameters
    ----------
    loading : tensor, (benchmark, factor)
        On the slice of ``frame`` where ``held``.
    sd : tensor, ()
        Standard deviation that all loadings share.
    frame : tensor, (benchmark, factor)
    small : float
        `factorlab.inference.priors.Priors.small_loading`.
    held : bool
        Whether axes are held to the frame, so that the orbit counts.

    Returns
    -------
    tensor, ()
        Up to a constant; differentiable with respect to loading and sd, once.
    """
    return LoadingPrior(held, float(small)).make_node(loading, sd, frame).outputs[0]
