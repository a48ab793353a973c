"""Density: the log density of a PyMC model and its gradient as one C function, cached on disk.

nutpie compiles a model by itself, but its function is never cached: each process pays for LLVM again (40 s
for the full model here). PyTensor's own numba cache does keep the function that it makes of a graph, if all
constants are small; so data go in by pointer, and only the wrapper with nutpie's C signature is added here,
cached in the same place. A second process then loads machine code.

Draws are kept in the unconstrained space, one vector each. What else a model defines (parameters,
deterministics) is computed from them afterwards, for many draws at once and only what is asked for
(`constrainer`).
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pymc as pm

VERSION = 2
"""Part of the cache key of the C function: raise it when the wrapper changes."""

BATCH = 256
"""Draws that `constrainer` computes at once."""


class Density(NamedTuple):
    """A compiled log density on the unconstrained space.

    Attributes
    ----------
    model : pymc.Model
    n_dim : int
    names : tuple of str
        Value variables, in the order in which they lie in a vector.
    slices : tuple of slice
    shapes : tuple of tuple of int
    start : ndarray, (dim,)
        PyMC's initial point.
    function : object
        numba C function ``(dim, x*, gradient*, value*, table*) -> status``, status 0 where all is finite.
    table : ndarray of int64
        Address, then shape, of each data array; the function's last argument.
    data : tuple of ndarray
        The data arrays themselves, kept alive.
    held : ndarray of bool, (dim,), optional
        What stays at ``start`` until sampling begins, such as the spreads of a hierarchy: the joint mode has
        them near 0, far from where the posterior's mass lies, and a short warm-up does not come back.
    starts : ndarray, (chain, dim), optional
        Where chains begin; from random points by some steps of an optimiser when not given.
    """

    model: Any
    n_dim: int
    names: tuple[str, ...]
    slices: tuple[slice, ...]
    shapes: tuple[tuple[int, ...], ...]
    start: np.ndarray
    function: Any
    table: np.ndarray
    data: tuple[np.ndarray, ...]
    held: np.ndarray | None = None
    starts: np.ndarray | None = None

    def evaluator(self) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """A Python function x -> (log density, gradient); -inf and zeros where it is not finite."""
        call = self.function.ctypes
        pointer = ctypes.POINTER(ctypes.c_double)
        table = self.table.ctypes.data_as(call.argtypes[4])
        value = np.zeros(1)

        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            at = np.ascontiguousarray(x, dtype=float)
            gradient = np.empty(self.n_dim)
            status = call(
                self.n_dim,
                at.ctypes.data_as(pointer),
                gradient.ctypes.data_as(pointer),
                value.ctypes.data_as(pointer),
                table,
            )
            return (float(value[0]), gradient) if status == 0 else (-np.inf, np.zeros(self.n_dim))

        return evaluate


def compile_density(model: pm.Model) -> Density:
    """Compile a model's log density and gradient, or load them from the cache.

    Parameters
    ----------
    model : pymc.Model
        Its `pymc.Data` become pointers, so that other numbers of the same shape need no compiling.
    """
    import pytensor

    # Where each variable of the graph was made is for debugging; recording it costs a tenth of the compiling.
    with _quiet(), pytensor.config.change_flags(traceback__limit=0):
        return _compile(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTensor warns at length when it finds no BLAS library to link; nothing here needs one.

    numba warns of products of small matrices that are not contiguous.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"np.dot\(\) is faster on contiguous arrays")
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")
        yield


def _compile(model: pm.Model) -> Density:
    import pytensor
    import pytensor.tensor as pt
    from pytensor.compile.mode import get_mode
    from pytensor.compile.sharedvalue import SharedVariable
    from pytensor.graph.replace import clone_replace
    from pytensor.graph.rewriting.utils import rewrite_graph

    values = [model.rvs_to_values[rv] for rv in model.free_RVs]
    point = model.initial_point()
    shapes = [np.shape(point[v.name]) for v in values]
    ends = np.cumsum([0, *[int(np.prod(shape)) for shape in shapes]])
    slices = [slice(int(a), int(b)) for a, b in pairwise(ends)]
    value: Any = rewrite_graph(model.logp(), include=["canonicalize", "stabilize"])
    slopes: Any = pytensor.grad(value, values)
    gradient = pt.concatenate([g.ravel() for g in slopes])
    x = pt.TensorType("float64", shape=(int(ends[-1]),))("x")
    parts = {v: x[s].reshape(shape) for v, s, shape in zip(values, slices, shapes, strict=True)}
    shared = [v for v in _ancestors([value, gradient]) if isinstance(v, SharedVariable)]
    inputs = [v.type() for v in shared]
    graphs = clone_replace([value, gradient], parts | dict(zip(shared, inputs, strict=True)))
    # A rewrite of sparse products asks for the flags of a C BLAS: half a second in which g++ runs.
    mode = get_mode("NUMBA").excluding("local_usmm")
    compiled = pytensor.function([x, *inputs], graphs, mode=mode, on_unused_input="ignore")
    data = tuple(np.ascontiguousarray(v.get_value(borrow=True)) for v in shared)
    table = [np.array([array.ctypes.data, *array.shape], dtype=np.int64) for array in data]
    return Density(
        model=model,
        n_dim=int(ends[-1]),
        names=tuple(str(v.name) for v in values),
        slices=tuple(slices),
        shapes=tuple(tuple(shape) for shape in shapes),
        start=np.concatenate([np.ravel(point[v.name]) for v in values]),
        function=_c_function(compiled.vm.jit_fn, [(a.ndim, a.dtype.name) for a in data]),
        table=np.concatenate([*table, np.zeros(1, dtype=np.int64)]),
        data=data,
    )


def _ancestors(outputs: Sequence[Any]) -> list[Any]:
    """All variables that a graph is made of, each once, in a fixed order."""
    seen: dict[Any, None] = {}
    stack = list(outputs)
    while stack:
        variable = stack.pop()
        if variable not in seen:
            seen[variable] = None
            if variable.owner is not None:
                stack.extend(reversed(variable.owner.inputs))
    return list(seen)


_INNER = """
def with_data(x, table):
    return inner(x{arguments})
"""

_SOURCE = """
def log_density(dim, x_, gradient_, value_, table_):
    try:
        value, gradient = with_data(carray(x_, (dim,)), carray(table_, ({length},)))
        carray(value_, (1,))[0] = value.item()
        out = carray(gradient_, (dim,))
        for i in range(dim):
            out[i] = gradient[i]
            if not isfinite(gradient[i]):
                return 3
        if not isfinite(value.item()):
            return 4
    except Exception:
        return 1
    return 0
"""
# The data are fetched in a function of their own: inside ``try`` numba makes a block of each call, and its
# analysis of blocks took four minutes for the 21 arrays of the full model.


def _c_function(inner: Any, kinds: list[tuple[int, str]]) -> Any:
    """Wrap PyTensor's function as a C function, cached under PyTensor's key where it has one."""
    import numba
    from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS, compile_numba_function_src

    arguments, at = "", 0
    for dims, dtype in kinds:
        shape = ", ".join(f"table[{at + 1 + d}]" for d in range(dims))
        arguments += f", carray(as_pointer(table[{at}]), ({shape},), {dtype})"
        at += 1 + dims
    key = CACHED_SRC_FUNCTIONS.get(inner.py_func)

    def compiled(source: str, name: str, **names: Any) -> Any:
        told = None if key is None else sha256(f"{VERSION} {key} {arguments} {source}".encode()).hexdigest()
        return compile_numba_function_src(
            source, name, {"__name__": __name__, "carray": numba.carray, **names}, cache_key=told
        )

    types = {dtype: getattr(np, dtype) for _, dtype in kinds}
    with_data = numba.njit(cache=key is not None)(
        compiled(
            _INNER.format(arguments=arguments), "with_data", inner=inner, as_pointer=_as_pointer(), **types
        )
    )
    function = compiled(
        _SOURCE.format(length=at + 1), "log_density", with_data=with_data, isfinite=np.isfinite
    )
    double = numba.types.CPointer(numba.types.double)
    signature = numba.types.int64(
        numba.types.uint64, double, double, double, numba.types.CPointer(numba.types.int64)
    )
    return numba.cfunc(signature, cache=key is not None)(function)


def _as_pointer() -> Any:
    """The numba intrinsic that takes an address for a pointer."""
    from factorlab.inference.pointer import as_pointer

    return as_pointer


def constrainer(density: Density, names: Sequence[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that computes named variables of the model for many unconstrained draws.

    Parameters
    ----------
    density : Density
    names : sequence of str
        Free variables and deterministics.

    Returns
    -------
    callable
        (draw, dim) -> dict of str to ndarray, (draw, ...).
    """
    import pytensor
    import pytensor.tensor as pt
    from pytensor.graph.replace import vectorize_graph

    model = density.model
    wanted = model.replace_rvs_by_values([model[name] for name in names])
    values = [model.rvs_to_values[rv] for rv in model.free_RVs]
    batched = {v: pt.tensor(f"{v.name}_draws", shape=(None, *v.type.shape), dtype=v.dtype) for v in values}
    graphs = vectorize_graph(wanted, batched)
    with _quiet():
        function = pytensor.function(
            list(batched.values()), graphs, mode="FAST_COMPILE", on_unused_input="ignore"
        )

    def compute(draws: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        for first in range(0, len(draws), BATCH):
            block = draws[first : first + BATCH]
            pieces = [
                block[:, s].reshape(-1, *shape)
                for s, shape in zip(density.slices, density.shapes, strict=True)
            ]
            parts.append(function(*pieces))
        out = {}
        for i, name in enumerate(names):
            found = [np.asarray(part[i]) for part in parts]
            constant = graphs[i].ndim == wanted[i].ndim  # does not depend on any draw
            out[name] = (
                np.broadcast_to(found[0], (len(draws), *found[0].shape))
                if constant
                else np.concatenate(found)
            )
        return out

    return compute
