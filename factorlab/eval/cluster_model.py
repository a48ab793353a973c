"""A model on the workers of a Dask or Ray cluster: requests go there in stretches, answers come back.

Prompts are built here and scores are computed here; a worker needs the model, and nothing of the data. What is
tried again when a worker dies, and how often, is decided in `factorlab.batch`.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from factorlab.batch import run_batch
from factorlab.cluster import connect
from factorlab.errors import InputError
from factorlab.eval.instance import ChoiceAnswer, Decoding
from factorlab.eval.language_model import (
    ChoiceRequest,
    LanguageModel,
    ModelFacts,
    TakeChoices,
    TakeTexts,
    TextRequest,
)
from factorlab.eval.model_spec import ModelSpec, open_here, open_model
from factorlab.eval.replicas import cut
from factorlab.eval.tokenized import Tokenized

MOST = 512
"""Requests of a stretch, at most: what is lost with a worker. One more prefix for so many requests is little."""

PROBE = "A tokenizer's probe: 日本語、かな。 0123 \n\t{x} é 😀"
"""A text that two tokenizers are told apart by."""


class ClusterModel(Tokenized):
    """A language model whose requests are answered by the workers of a cluster.

    Parameters
    ----------
    spec : ModelSpec
        As on the workers: `spec.source` is a folder there, too, or a name on the hub, and "auto" is the device
        that a worker finds.
    address : str
        ``dask://host:port`` or ``ray://host:port``.
    workers : int, optional
        Stretches at once, at most; all workers when not given.

    Attributes
    ----------
    facts : ModelFacts
        Of the first worker that answered; all others must agree with it.
    answered : Counter
        Requests that each worker ("host:process") has answered.

    Raises
    ------
    InputError
        No cluster at the address (`factorlab.cluster.connect`), several devices, a model that cannot be loaded
        on a worker, a tokenizer that cannot be had here or is another than there.
    """

    def __init__(self, spec: ModelSpec, address: str, workers: int | None = None) -> None:
        if "," in spec.device:
            raise InputError(
                f"--device '{spec.device}' with a cluster: a worker has one device; give auto, cpu or cuda, and "
                "start a worker for each GPU"
            )
        if Path(spec.source).is_dir():  # workers have other working directories
            spec = replace(spec, source=os.path.abspath(spec.source))
        self._spec, self._address, self._workers = spec, address, workers
        self._tokens = _tokens_here(spec)
        self.answered: Counter[str] = Counter()
        # One connection for all tasks: Ray ends its worker processes, and the model in them, with each.
        self._open = ExitStack()
        self._cluster = self._open.enter_context(connect(address))
        self._slots = self._cluster.slots if workers is None else min(workers, self._cluster.slots)
        try:
            self.facts = self._ask_facts()
        except BaseException:
            self.close()
            raise

    def _ask_facts(self) -> ModelFacts:
        found: list[dict[str, Any]] = []
        notes = self._run(tell, {"facts": {}}, found.append, "load")
        first = found[0]
        mine = [self.encode(PROBE, bos) for bos in (True, False)]
        if first["probe"] != mine:
            raise InputError(
                f"the tokenizer of '{self._spec.source}' here is another than on worker {first['worker']}; "
                "put the same files of the model on both"
            )
        facts = first["facts"]
        device = f"{self._slots} x {facts['device']}"
        return ModelFacts(**{**facts, "device": device, "notes": (*facts["notes"], *notes)})

    def score(self, requests: Sequence[ChoiceRequest], take: TakeChoices) -> None:
        """Log-likelihoods of choices, handed on a stretch at a time as it comes from any worker."""
        self._deal(
            "score",
            requests,
            lambda low, answers: take([(low + i, ChoiceAnswer(tuple(ll), tuple(n))) for i, ll, n in answers]),
        )

    def write(self, requests: Sequence[TextRequest], take: TakeTexts) -> None:
        """Texts, handed on a stretch at a time as it comes from any worker."""
        self._deal(
            "write", requests, lambda low, answers: take([(low + i, k, text) for i, k, text in answers])
        )

    def close(self) -> None:
        """End the connection."""
        self._open.close()

    def _deal(self, what: str, requests: Sequence[Any], take: Callable[[int, list[Any]], None]) -> None:
        tasks = {
            f"requests {part.start} to {part.stop - 1}": {
                "what": what,
                "low": part.start,
                "requests": [asdict(requests[i]) for i in part],
            }
            for part in cut(len(requests), self._slots, MOST)
        }

        def ended(result: dict[str, Any]) -> None:
            self._check_same(result)
            self.answered[result["worker"]] += result["count"]
            take(result["low"], result["answers"])

        if tasks:
            self._run(answer, tasks, ended, f"answer {{}} of {len(tasks)} stretches with")

    def _check_same(self, result: Mapping[str, Any]) -> None:
        """Refuse what another version of the model, or of the libraries, has answered."""
        told, known = result["facts"], self.facts
        new = [note for note in told.get("notes", ()) if note not in known.notes]
        if new:  # a worker had to take the plain way, or ran out of memory
            self.facts = known = replace(known, notes=(*known.notes, *new))
        for key in ("revision", "engine", "dtype", "context", "versions"):
            if told[key] != getattr(known, key):
                raise InputError(
                    f"worker {result['worker']} runs '{self._spec.name}' with {key} {told[key]}, the first one that "
                    f"answered with {getattr(known, key)}; put the same model and libraries on all workers"
                )

    def _run(
        self,
        function: Callable[..., Any],
        tasks: Mapping[str, Mapping[str, Any]],
        ended: Callable[[dict[str, Any]], None],
        doing: str,
    ) -> tuple[str, ...]:
        """Tasks through the cluster; the notes of the batch."""
        batch = run_batch(
            function,
            tasks,
            shared=(self._spec.to_dict(),),
            workers=self._workers,
            cluster=self._cluster,
            stage="stretches",
            ended=lambda _, result: ended(result),
        )
        if batch.failures:
            why = next(iter(batch.failures.values()))
            raise InputError(
                f"the workers of {self._address} could not {doing.format(len(batch.failures))} the model "
                f"'{self._spec.name}': {why}; the same command goes on from there"
            )
        return batch.notes


def _tokens_here(spec: ModelSpec) -> Any:
    from factorlab.eval.hf.weights import load_tokens

    try:
        return load_tokens(spec.source, spec.revision, spec.trust_remote_code)
    except InputError as error:
        raise InputError(
            f"{error} (with a cluster the tokenizer and config.json are needed here, too)"
        ) from None


# What follows runs on a worker.


def tell(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the model on this worker, and what its tokenizer makes of `PROBE`."""
    model = _loaded(ModelSpec(**spec))
    return {**_about(model), "probe": [model.encode(PROBE, bos) for bos in (True, False)]}


def answer(
    spec: Mapping[str, Any], what: str, low: int, requests: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Answers to a stretch.

    Parameters
    ----------
    spec : mapping
        Of a `ModelSpec`.
    what : str
        score or write.
    low : int
        Index of the first request; given back.
    requests : sequence of mapping
        Fields of `ChoiceRequest` or `TextRequest`.

    Returns
    -------
    dict
        JSON-able; `answers` are (index, log-likelihoods, tokens) or (index, sample, text), indices within the
        stretch.
    """
    model = _loaded(ModelSpec(**spec))
    answers: list[list[Any]] = []
    if what == "score":
        model.score(
            [_choice_request(request) for request in requests],
            lambda batch: answers.extend([i, list(a.log_likelihoods), list(a.tokens)] for i, a in batch),
        )
    else:
        model.write(
            [_text_request(request) for request in requests],
            lambda batch: answers.extend([i, k, text] for i, k, text in batch),
        )
    return {**_about(model), "low": low, "count": len(requests), "answers": answers}


def _choice_request(fields: Mapping[str, Any]) -> ChoiceRequest:
    return ChoiceRequest(tuple(fields["contexts"]), tuple(fields["choices"]), fields["bos"])


def _text_request(fields: Mapping[str, Any]) -> TextRequest:
    decoding = Decoding(**{**fields["decoding"], "stops": tuple(fields["decoding"]["stops"])})
    return TextRequest(fields["prompt"], decoding, fields["key"], fields["bos"], tuple(fields["only"]))


def _about(model: LanguageModel) -> dict[str, Any]:
    facts = asdict(model.facts)
    return {
        "facts": {**facts, "notes": list(facts["notes"])},
        "worker": f"{socket.gethostname()}:{os.getpid()}",
    }


# A task is a function call that finds nothing of the call before but what the module holds. Without this, the
# weights would be read anew for each stretch. One model only: a second may not fit beside it.
_HELD: dict[Any, LanguageModel] = {}


def _loaded(spec: ModelSpec) -> LanguageModel:
    """The model of this process; loaded, where the last one was another or its files have changed."""
    key = (spec, os.environ.get("CUDA_VISIBLE_DEVICES"), _stamp(spec.source))
    if key not in _HELD:
        _HELD.clear()
        gc.collect()
        if "torch" in sys.modules:
            from factorlab.eval.hf.devices import free_memory

            free_memory()
        try:
            if spec.engine == "hf":
                _check_device(spec.device)
                _HELD[key] = open_here(spec, spec.device)
            else:
                _HELD[key] = open_model(spec)
        except InputError as error:
            raise InputError(f"{error} (on worker {socket.gethostname()})") from None
    return _HELD[key]


def _stamp(source: str) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a folder's files: workers outlive a model that is trained on."""
    path = Path(source)
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else []
    return tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files)


def _check_device(name: str) -> None:
    """See that no GPU of this machine stays idle unseen.

    Raises
    ------
    InputError
        Several GPUs where the first would be taken by every worker; GPUs that are hidden from the worker.
    """
    if name not in ("auto", "cuda"):
        return
    from factorlab.eval.hf.devices import gpus_seen

    cure = "start a worker for each GPU with CUDA_VISIBLE_DEVICES=0, 1, ... (docs/eval_cluster.md)"
    if gpus_seen() > 1:
        raise InputError(f"a worker sees {gpus_seen()} GPUs, and each would take the first; {cure}")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == "" and Path("/proc/driver/nvidia/gpus").is_dir()
    if name == "auto" and hidden:
        raise InputError(f"the GPUs are hidden from a worker; {cure}, or give --device cpu")
