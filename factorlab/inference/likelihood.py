"""The compiled likelihood as a PyTensor Op, so that PyMC stays the modelling language.

One node gives the log likelihood and all its derivatives: the gradient of its first output is the
other outputs of the same node, so value and gradient of a model cost one call of the kernel. numba
backends (nutpie, PyMC 6) call the kernel without Python; others go through ``perform``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

from factorlab.inference.kernel import Blocks, axes_of, integrated

VERSION = 6
"""Part of the key of PyTensor's compile cache: raise it when the kernel changes."""

_TYPES = (
    pt.dtensor3, pt.dtensor3, pt.dtensor3, pt.dtensor3, pt.lvector, pt.lvector, pt.lvector,
    pt.dmatrix, pt.dvector, pt.dmatrix, pt.dvector, pt.dvector, pt.dscalar, pt.dscalar,
)  # fmt: skip
_N_DATA = 7


class IntegratedLogLikelihood(Op):
    """Integrated log likelihood and its gradient.

    Parameters
    ----------
    factors : int
        K, which the kernel is compiled for.

    Notes
    -----
    Inputs: the fields of `factorlab.inference.kernel.Blocks`, then loading, mean, ability_mean, noise_sd,
    pair_sd, root_sd, step_sd as in `factorlab.inference.kernel.evaluate`. Outputs: the value, then its
    derivative with respect to each parameter.
    """

    __props__ = ("factors",)

    def __init__(self, factors: int) -> None:
        self.factors = factors

    def make_node(self, *inputs: Any) -> Apply:
        given = [
            pt.cast(pt.as_tensor_variable(x), kind.dtype) for x, kind in zip(inputs, _TYPES, strict=True)
        ]
        outputs = [pt.dscalar(), *[kind() for kind in _TYPES[_N_DATA:]]]
        return Apply(self, given, outputs)

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        contiguous = [np.ascontiguousarray(x) if np.ndim(x) else float(x) for x in inputs]
        for storage, value in zip(
            output_storage, integrated(*contiguous, axes_of(self.factors)), strict=True
        ):
            storage[0] = np.asarray(value)

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Any) -> Any:
        return [(), *shapes[_N_DATA:]]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """Vector-Jacobian product; only the value has derivatives."""
        if any(not isinstance(c.type, DisconnectedType) for c in cotangents[1:]):
            # Samplers and optimisers here ask for the gradient only; a Hessian must fail, not be wrong.
            raise NotImplementedError("second derivatives of the integrated likelihood are not available")
        slopes = self.make_node(*inputs).outputs[1:]
        return [*[disconnected_type() for _ in range(_N_DATA)], *[cotangents[0] * s for s in slopes]]

    L_op = pullback  # type: ignore[assignment]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        connected = [True] * len(node.outputs)
        return [[False] * len(node.outputs)] * _N_DATA + [connected] * (len(node.inputs) - _N_DATA)


@register_funcify_default_op_cache_key(IntegratedLogLikelihood)
def _funcify(op: IntegratedLogLikelihood, node: Any = None, **kwargs: Any) -> Any:
    axes = axes_of(op.factors)

    @numba_njit
    def integrated_log_likelihood(
        z: Any, variance: Any, observed: Any, shared: Any, group: Any, node: Any, parent: Any,
        loading: Any, mean: Any, ability_mean: Any, noise_sd: Any, pair_sd: Any, root_sd: Any, step_sd: Any,
    ) -> Any:  # fmt: skip
        out = integrated(
            np.ascontiguousarray(z), np.ascontiguousarray(variance), np.ascontiguousarray(observed),
            np.ascontiguousarray(shared), np.ascontiguousarray(group), np.ascontiguousarray(node),
            np.ascontiguousarray(parent),
            np.ascontiguousarray(loading), np.ascontiguousarray(mean), np.ascontiguousarray(ability_mean),
            np.ascontiguousarray(noise_sd), np.ascontiguousarray(pair_sd), root_sd.item(), step_sd.item(),
            axes,
        )  # fmt: skip
        return (
            np.asarray(out[0]), out[1], out[2], out[3], out[4], out[5], np.asarray(out[6]), np.asarray(out[7])
        )  # fmt: skip

    return integrated_log_likelihood, VERSION


def log_likelihood(
    blocks: Blocks,
    loading: Any,
    mean: Any,
    ability_mean: Any,
    noise_sd: Any,
    pair_sd: Any,
    root_sd: Any = 0.0,
    step_sd: Any = 0.0,
    *,
    factors: int,
) -> Any:
    """Integrated log likelihood of a table as a node of a PyMC model, for ``pm.Potential``.

    Parameters
    ----------
    blocks : Blocks
        Arrays, or tensors such as `pymc.Data`.
    loading : tensor, (benchmark, factor)
    mean : tensor, (benchmark,)
    ability_mean : tensor, (model, factor)
    noise_sd : tensor, (benchmark,)
    pair_sd : tensor, (group,)
    root_sd, step_sd : tensor, ()
    factors : int
        K.

    Returns
    -------
    tensor, ()
        Differentiable with respect to all parameters, once.
    """
    node = IntegratedLogLikelihood(factors).make_node(
        *blocks, loading, mean, ability_mean, noise_sd, pair_sd, root_sd, step_sd
    )
    return node.outputs[0]
