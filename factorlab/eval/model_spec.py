"""Which model is evaluated, and how: what the command line is told, sent to workers as it is."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.language_model import LanguageModel

ENGINES = ("hf", "vllm")
DTYPES = ("auto", "bf16", "fp16", "fp32")


@dataclass(frozen=True)
class ModelSpec:
    """A model and how to run it.

    Attributes
    ----------
    name : str
        In the records.
    source : str
        Folder, or name on the hub.
    revision : str, optional
        Of the hub.
    engine : str
        hf or vllm.
    dtype : str
        auto, bf16, fp16 or fp32.
    device : str
        auto, cpu, cuda, cuda:0, ...; several with commas: a copy of the model on each.
    batch : str
        auto, or tokens of a batch.
    trust_remote_code, plain : bool
        See `factorlab.eval.hf.model.HFModel`.
    """

    name: str
    source: str
    revision: str | None = None
    engine: str = "hf"
    dtype: str = "auto"
    device: str = "auto"
    batch: str = "auto"
    trust_remote_code: bool = False
    plain: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def name_models(texts: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """Name, source and revision of models given as ``[NAME=]PATH_OR_ID[@REVISION]``.

    A folder is named by its last part, a model of the hub by its name there.

    Raises
    ------
    InputError
        No model, or two of the same name.
    """
    if not texts:
        raise InputError("no model is given; give --model with a folder or a name on the hub")
    out: list[tuple[str, str, str | None]] = []
    for text in texts:
        name, sign, source = text.partition("=")
        if not sign or Path(text).exists():  # a folder may be called "step=100"
            name, sign, source = "", "", text
        if source.startswith("~"):
            source = os.path.expanduser(source)  # the shell leaves it in NAME=~/folder
        revision = None
        if not Path(source).exists() and "@" in source:
            source, _, revision = source.rpartition("@")
        if not source.strip() or (sign and not name.strip()):
            raise InputError(f"--model '{text}' is not of the form [NAME=]PATH_OR_ID[@REVISION]")
        if not name:
            name = Path(source).resolve().name if Path(source).is_dir() else source
        if any(name == other for other, _, _ in out):
            raise InputError(f"two models are called '{name}'; name them apart with --model NAME={source}")
        out.append((name, source, revision))
    return out


def check_specs(specs: Sequence[ModelSpec], cluster: str | None = None) -> None:
    """What can be known to fail before anything is loaded or written.

    Parameters
    ----------
    specs : sequence of ModelSpec
    cluster : str, optional
        Folders and devices are those of its workers, so they are not looked for here.

    Raises
    ------
    InputError
        An engine, precision or batch that there is not; a library, device or folder that is not here.
    """
    for spec in specs:
        if spec.engine not in ENGINES:
            raise InputError(f"--engine '{spec.engine}' is unknown; there are {', '.join(ENGINES)}")
        if spec.dtype not in DTYPES:
            raise InputError(f"--dtype '{spec.dtype}' is unknown; give {', '.join(DTYPES)}")
        if spec.batch != "auto" and not (spec.batch.isdecimal() and int(spec.batch)):
            raise InputError(
                f"--batch '{spec.batch}' is no number of tokens; give auto, or a whole number above 0"
            )
        if cluster is None and _is_path(spec.source) and not Path(spec.source).is_dir():
            raise InputError(
                f"--model '{spec.source}' is no folder; give the folder of a model, or its name on the hub"
            )
    _needed("torch", "transformers")
    if cluster is None:
        from factorlab.eval.hf.devices import devices_of

        for device in dict.fromkeys(spec.device for spec in specs if spec.engine == "hf"):
            devices_of(device)


def _is_path(source: str) -> bool:
    """Whether a text cannot be a name on the hub, which has one slash at most."""
    return Path(source).is_absolute() or source.startswith((".", "~")) or source.count("/") > 1


def open_model(spec: ModelSpec, cluster: str | None = None, workers: int | None = None) -> LanguageModel:
    """Load a model.

    Parameters
    ----------
    spec : ModelSpec
    cluster : str, optional
        ``dask://host:port`` or ``ray://host:port``: its workers load and run the model.
    workers : int, optional
        Workers of the cluster, at most; all when not given.

    Raises
    ------
    InputError
        A library, device, model, tokenizer or cluster that is not there.
    """
    if spec.engine not in ENGINES:
        raise InputError(f"--engine '{spec.engine}' is unknown; there are {', '.join(ENGINES)}")
    _needed("torch", "transformers")
    if cluster is not None:
        from factorlab.eval.cluster_model import ClusterModel

        return ClusterModel(spec, cluster, workers)
    if spec.engine == "vllm":
        from factorlab.eval.vllm_engine import VLLMModel

        return VLLMModel(
            spec.source, dtype=spec.dtype, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    from factorlab.eval.hf.devices import devices_of

    devices = devices_of(spec.device)
    if len(devices) > 1:
        from factorlab.eval.replicas import Replicas

        return Replicas(spec, devices)
    return open_here(spec, devices[0])


def forget() -> None:
    """Give back the memory of a model that nobody holds any more, before another one is loaded."""
    gc.collect()
    if "torch" in sys.modules:
        from factorlab.eval.hf.devices import free_memory

        free_memory()


def open_here(spec: ModelSpec, device: str) -> LanguageModel:
    """Load a model of transformers on one device, in this process."""
    from factorlab.eval.hf.model import HFModel

    return HFModel(
        spec.source,
        dtype=spec.dtype,
        device=device,
        revision=spec.revision,
        batch=spec.batch,
        trust_remote_code=spec.trust_remote_code,
        plain=spec.plain,
    )


def _needed(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"factorlab eval needs {package}: pip install 'factorlab[eval]'")
