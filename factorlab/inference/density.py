"""Density: the log density of a PyMC model and its gradient as one C function, cached on disk.

nutpie compiles a model by itself, but its function is never cached: each process pays for LLVM again (40 s
for the full model here). A C function made of PyTensor's own (`factorlab.inference.c_function`) is: a second
process loads machine code.

Draws are kept in the unconstrained space, one vector each. What else a model defines (parameters,
deterministics) is computed from them afterwards, for many draws at once and only what is asked for
(`constrainer`).
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from factorlab.inference.c_function import Recipe, make

if TYPE_CHECKING:
    import pymc as pm


BATCH = 256
"""Draws that `constrainer` computes at once."""


class Values(NamedTuple):
    """Free variables and deterministics of a model, as graphs of many draws.

    Attributes
    ----------
    names : tuple of str
    inputs : list of tensor
        Draws of each value variable of the density, (draw, ...), then its data.
    outputs : list of tensor
        (draw, ...); without the dimension of draws where it depends on none.
    fixed : tuple of bool
        Which have none.
    """

    names: tuple[str, ...]
    inputs: list[Any]
    outputs: list[Any]
    fixed: tuple[bool, ...]


class Density(NamedTuple):
    """A compiled log density on the unconstrained space.

    Attributes
    ----------
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
    values : Values, optional
        What the model names; None where it is no PyMC model.
    data_names : tuple of str
        Of the data arrays in the model.
    recipe : Recipe, optional
        To find ``function`` again.
    """

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
    values: Values | None = None
    data_names: tuple[str, ...] = ()
    recipe: Recipe | None = None

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

    variables = [model.rvs_to_values[rv] for rv in model.free_RVs]
    point = model.initial_point()
    shapes = [np.shape(point[v.name]) for v in variables]
    slices = spans(shapes)
    dim = slices[-1].stop
    value: Any = rewrite_graph(model.logp(), include=["canonicalize", "stabilize"])
    slopes: Any = pytensor.grad(value, variables)
    gradient = pt.concatenate([g.ravel() for g in slopes])
    named = [*model.free_RVs, *model.deterministics]
    wanted = model.replace_rvs_by_values(named)
    x = pt.TensorType("float64", shape=(dim,))("x")
    parts = {v: x[s].reshape(shape) for v, s, shape in zip(variables, slices, shapes, strict=True)}
    shared = [v for v in _ancestors([value, gradient, *wanted]) if isinstance(v, SharedVariable)]
    inputs = [v.type() for v in shared]
    given: dict[Any, Any] = dict(zip(shared, inputs, strict=True))
    graphs = clone_replace([value, gradient], parts | given)
    # A rewrite of sparse products asks for the flags of a C BLAS: half a second in which g++ runs.
    mode = get_mode("NUMBA").excluding("local_usmm")
    compiled = pytensor.function([x, *inputs], graphs, mode=mode, on_unused_input="ignore")
    data = tuple(np.ascontiguousarray(v.get_value(borrow=True)) for v in shared)
    function, recipe = make(compiled.vm.jit_fn, [(a.ndim, a.dtype.name) for a in data])
    return Density(
        n_dim=dim,
        names=tuple(str(v.name) for v in variables),
        slices=slices,
        shapes=tuple(tuple(shape) for shape in shapes),
        start=np.concatenate([np.ravel(point[v.name]) for v in variables]),
        function=function,
        table=address_table(data),
        data=data,
        values=_values([str(v.name) for v in named], clone_replace(wanted, given), variables, inputs),
        data_names=tuple(str(v.name) for v in shared),
        recipe=recipe,
    )


def _values(names: list[str], outputs: Sequence[Any], variables: list[Any], data: list[Any]) -> Values:
    import pytensor.tensor as pt
    from pytensor.graph.replace import vectorize_graph

    draws = {v: pt.tensor(f"{v.name}_draws", shape=(None, *v.type.shape), dtype=v.dtype) for v in variables}
    many: list[Any] = list(vectorize_graph(list(outputs), draws))
    fixed = tuple(a.ndim == b.ndim for a, b in zip(many, outputs, strict=True))
    return Values(tuple(names), [*draws.values(), *data], many, fixed)


def spans(shapes: Sequence[tuple[int, ...]]) -> tuple[slice, ...]:
    """Where arrays lie that are put one after the other into a vector."""
    ends = np.cumsum([0, *[int(np.prod(shape)) for shape in shapes]])
    return tuple(slice(int(a), int(b)) for a, b in pairwise(ends))


def address_table(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Address, then shape, of each array: (integer,) of int64, with a 0 at the end."""
    told = [np.array([array.ctypes.data, *array.shape], dtype=np.int64) for array in arrays]
    return np.concatenate([*told, np.zeros(1, dtype=np.int64)])


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


def constrainer(density: Density, names: Sequence[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that computes named variables of the model for many unconstrained draws.

    Parameters
    ----------
    density : Density
        Of a PyMC model.
    names : sequence of str
        Free variables and deterministics.

    Returns
    -------
    callable
        (draw, dim) -> dict of str to ndarray, (draw, ...).
    """
    import pytensor
    from pytensor.compile.mode import Mode

    values = density.values
    if values is None:
        raise TypeError("the density is not of a PyMC model")
    chosen = [values.names.index(name) for name in names]
    # As the graph is: rewriting costs more than it saves, and merges sums that NumPy then adds one by one.
    plain = Mode("py", "None")
    with _quiet(), pytensor.config.change_flags(traceback__limit=0):
        function = pytensor.function(
            values.inputs, [values.outputs[i] for i in chosen], mode=plain, on_unused_input="ignore"
        )

    def compute(draws: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        for first in range(0, len(draws), BATCH):
            block = draws[first : first + BATCH]
            pieces = [
                block[:, s].reshape(-1, *shape)
                for s, shape in zip(density.slices, density.shapes, strict=True)
            ]
            parts.append(function(*pieces, *density.data))
        out = {}
        for o, i in enumerate(chosen):
            found = [np.asarray(part[o]) for part in parts]
            out[values.names[i]] = (
                np.broadcast_to(found[0], (len(draws), *found[0].shape))
                if values.fixed[i]
                else np.concatenate(found)
            )
        return out

    return compute
