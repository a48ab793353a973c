"""C pointers inside numba functions.

What is compiled with these is cached under the files of its callers: after a change here their caches must go.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import carray, cfunc
from numba.core import cgutils, types
from numba.extending import intrinsic


@intrinsic
def as_pointer(typingctx: Any, address: Any) -> Any:
    """An integer address as a void pointer."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


@intrinsic
def call_density(
    typingctx: Any, function: Any, dim: Any, x: Any, gradient: Any, value: Any, table: Any
) -> Any:
    """Call a C function `factorlab.inference.density.Density.function` by its address; all are integers."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        double = ir.DoubleType().as_pointer()
        kinds = [word, double, double, double, word.as_pointer()]
        called = builder.inttoptr(arguments[0], ir.FunctionType(word, kinds).as_pointer())
        given = [builder.inttoptr(a, kind) for a, kind in zip(arguments[2:], kinds[1:], strict=True)]
        return builder.call(called, [arguments[1], *given])

    return types.int64(function, types.int64, x, gradient, value, table), codegen


_DOUBLE = types.CPointer(types.double)


@cfunc(types.int64(types.uint64, types.uint64, _DOUBLE, _DOUBLE, types.CPointer(types.int64)), cache=True)
def copy_point(dim: Any, expanded: Any, x_: Any, out_: Any, table_: Any) -> Any:
    """What nutpie keeps of a draw: the point itself."""
    x = carray(x_, (dim,))
    out = carray(out_, (expanded,))
    for i in range(dim):
        out[i] = x[i]
    return 0
