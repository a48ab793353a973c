"""Compiled densities found again on disk, without the model's graph.

To build the graph and to have PyTensor rewrite it takes seconds even where the machine code is cached already.
Here a small file beside that cache says which machine code belongs to a structure
(`factorlab.inference.blueprint`) under given priors. Its name is a digest of all that shapes the graph: the
structure, the data's types, the priors, the source of this room and the versions of what compiles it.
Numbers are no part of it: they go in by pointer.
"""

from __future__ import annotations

import os
import pickle
import platform
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from factorlab.inference.blueprint import Blueprint, blueprint
from factorlab.inference.c_function import find
from factorlab.inference.density import Density, address_table, compile_density, spans
from factorlab.inference.inputs import ModelInputs
from factorlab.inference.model import build_model
from factorlab.inference.priors import Priors

COMPILERS = ("pytensor", "pymc", "numba", "llvmlite", "numpy", "scipy")


def model_density(inputs: ModelInputs, priors: Priors, folder: Path | None = None) -> Density:
    """The density of `factorlab.inference.model.build_model`, loaded where one of this structure is stored.

    Parameters
    ----------
    inputs : ModelInputs
    priors : Priors
    folder : path, optional
        Where to look and to store; beside PyTensor's cache when not given.
    """
    import pytensor

    where = folder if folder is not None else _folder()
    plan = blueprint(inputs)
    path = where / f"{structure_key(plan, priors)}.pickle" if where is not None else None
    found = load(path, plan) if path is not None else None
    if found is None:
        with pytensor.config.change_flags(traceback__limit=0):  # as in `compile_density`
            found = compile_density(build_model(inputs, priors))
        if path is not None:
            store(found, path, plan)
    return found


def structure_key(plan: Blueprint, priors: Priors) -> str:
    """Digest of all that shapes the graph of a model and the code that is made of it."""
    import pytensor

    digest = sha256()
    for part in _parts((plan.structure, priors, {name: _type(a) for name, a in plan.data.items()})):
        digest.update(part)
    digest.update(repr({name: a.shape for name, a in plan.starts.items()}).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + sha256(source.read_bytes()).digest())
    versions = [sys.version, platform.machine(), *[version(name) for name in COMPILERS]]
    settings = [pytensor.config.get_config_hash(), os.environ.get("PYTENSOR_FLAGS", "")]
    settings += [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_")]
    digest.update(repr((versions, settings)).encode())
    return digest.hexdigest()


def load(path: Path, plan: Blueprint) -> Density | None:
    """The density of a stored file with the plan's numbers; None where there is none, or it is of no use."""
    if not path.is_file():
        return None
    try:
        told = pickle.loads(path.read_bytes())
        data = tuple(np.ascontiguousarray(plan.data[name], dtype) for name, dtype in told["data"])
        slices = spans(told["shapes"])
        start = told["start"]
        for name, span in zip(told["names"], slices, strict=True):
            if name in plan.starts:
                start[span] = np.ravel(plan.starts[name])
        return Density(
            n_dim=slices[-1].stop,
            names=told["names"],
            slices=slices,
            shapes=told["shapes"],
            start=start,
            function=find(told["recipe"]),
            table=address_table(data),
            data=data,
            values=told["values"],
        )
    except Exception:  # whatever became of the caches: it is compiled again
        return None


def store(density: Density, path: Path, plan: Blueprint) -> None:
    """Write how to find a density again, where all of it can be: whole or not at all."""
    if density.recipe is None or not set(density.data_names) <= set(plan.data):
        return
    told = {
        "names": density.names,
        "shapes": density.shapes,
        "start": density.start,
        "data": [(name, a.dtype.name) for name, a in zip(density.data_names, density.data, strict=True)],
        "values": density.values,
        "recipe": density.recipe,
    }
    with suppress(OSError):  # then the next process compiles again
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
        with os.fdopen(handle, "wb") as file:
            pickle.dump(told, file, protocol=pickle.HIGHEST_PROTOCOL)
        os.replace(name, path)


def _folder() -> Path | None:
    """Beside PyTensor's numba cache; None where that is switched off."""
    from pytensor.configdefaults import config

    return Path(config.base_compiledir) / "factorlab" if config.numba__cache else None


def _type(array: np.ndarray) -> tuple[str, tuple[int, ...]]:
    return array.dtype.name, array.shape


def _parts(value: Any) -> Iterable[bytes]:
    """A nested value as bytes, such that two values that differ anywhere differ here."""
    if isinstance(value, np.ndarray):
        yield repr((value.dtype.str, value.shape)).encode() + b"|"
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        yield from _parts(tuple(value.items()))
    elif isinstance(value, tuple):
        yield f"{type(value).__name__}({len(value)}|".encode()
        for one in value:
            yield from _parts(one)
    else:
        yield repr(value).encode() + b"|"
