"""A log density as a C function, in machine code that a later process finds again.

PyTensor's numba cache keeps the function that it makes of a graph, under a key, if all constants are
small; so data go in by pointer, and only a wrapper with a C signature is added here, cached in the same place.
The wrapper's machine code holds all that it calls: who has its source and key needs no graph.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

VERSION = 3
"""Part of the cache key: raise it when a source below changes."""

_WITH_DATA = """
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


class Recipe(NamedTuple):
    """How to find a C function's machine code again.

    Attributes
    ----------
    source : str
        Of the wrapper.
    key : str
        Of PyTensor's numba cache.
    """

    source: str
    key: str


def make(inner: Any, kinds: list[tuple[int, str]]) -> tuple[Any, Recipe | None]:
    """The C function ``(dim, x*, gradient*, value*, table*) -> status`` of a log density.

    Parameters
    ----------
    inner : callable
        PyTensor's function (x, data) -> (value, gradient), compiled by numba.
    kinds : list of (int, str)
        Dimensions and dtype of each data array.

    Returns
    -------
    function : object
        numba C function; status 0 where all is finite.
    recipe : Recipe or None
        None where PyTensor does not cache ``inner``.
    """
    import numba
    from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS

    from factorlab.inference.pointer import as_pointer

    arguments, at = "", 0
    for dims, dtype in kinds:
        shape = ", ".join(f"table[{at + 1 + d}]" for d in range(dims))
        arguments += f", carray(as_pointer(table[{at}]), ({shape},), {dtype})"
        at += 1 + dims
    key = CACHED_SRC_FUNCTIONS.get(inner.py_func)

    def recipe(source: str) -> Recipe:
        return Recipe(source, sha256(f"{VERSION} {key} {arguments} {source}".encode()).hexdigest())

    types = {dtype: getattr(np, dtype) for _, dtype in kinds}
    fetching = recipe(_WITH_DATA.format(arguments=arguments))
    outer = recipe(_SOURCE.format(length=at + 1))
    names = {"inner": inner, "as_pointer": as_pointer, **types}
    cached = key is not None
    with_data = numba.njit(cache=cached)(_python(fetching, "with_data", cached, names))
    function = _c_function(outer, cached, {"with_data": with_data})
    return function, outer if cached else None


def find(recipe: Recipe) -> Any:
    """The C function of a recipe; fails where its machine code is gone."""
    return _c_function(recipe, True, {})  # without ``with_data``: numba cannot compile this, only load it


def _c_function(recipe: Recipe, cached: bool, names: dict[str, Any]) -> Any:
    from numba import cfunc, types

    double = types.CPointer(types.double)
    signature = types.int64(types.uint64, double, double, double, types.CPointer(types.int64))
    return cfunc(signature, cache=cached)(
        _python(recipe, "log_density", cached, {"isfinite": np.isfinite, **names})
    )


def _python(recipe: Recipe, name: str, cached: bool, names: dict[str, Any]) -> Any:
    """The Python function of a source, tied to its place in PyTensor's cache."""
    from numba import carray
    from pytensor.link.numba.cache import compile_numba_function_src

    return compile_numba_function_src(
        recipe.source,
        name,
        {"__name__": __name__, "carray": carray, **names},
        cache_key=recipe.key if cached else None,
    )
