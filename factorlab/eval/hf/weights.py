"""Finding, naming and loading a model."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from factorlab.errors import InputError
from factorlab.eval.hf.tokens import Tokens

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Names of `--dtype`; "auto" is that of the checkpoint."""

FAILURES = (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError)
"""What transformers raises for a model that is not there, or that it cannot read."""

ASIDE = (".md", ".png", ".jpg", ".gitattributes", ".gitignore", ".lock", ".metadata")
"""Files beside the weights that change no result."""


def find_dtype(name: str) -> torch.dtype | str:
    """The precision of a name, for `from_pretrained`.

    Raises
    ------
    InputError
        Unknown name.
    """
    if name == "auto":
        return "auto"
    if name not in DTYPES:
        raise InputError(f"--dtype '{name}' is unknown; give auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def digest_of(folder: Path) -> str:
    """SHA-256 of the files of a local model (weights, configuration, tokenizer), 40 hexadecimal digits.

    Folders below it are left out, but for chat templates: checkpoints of its training are other models.
    """
    total = hashlib.sha256()
    own = [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
    for file in sorted(p for p in own if p.is_file()):
        name = file.relative_to(folder).as_posix()
        if name.startswith(".") or name.endswith(ASIDE):
            continue
        total.update(name.encode() + b"\0")
        with open(file, "rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()[:40]


def load_tokens(name: str, revision: str | None, trust: bool) -> Tokens:
    """Tokenizer of a folder or of a name on the hub, with the context of its model.

    Raises
    ------
    InputError
        A model that is not there, or that has no tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    path = Path(name)
    if not path.is_dir() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise InputError(f"model '{name}' is no folder; give the folder of a model, or its name on the hub")
    if path.is_dir() and not (path / "config.json").exists():
        raise InputError(f"'{name}' holds no config.json; it is no folder of a transformers model")
    rest: dict[str, Any] = {"revision": revision, "trust_remote_code": trust}
    try:
        config = AutoConfig.from_pretrained(name, **rest)
    except FAILURES as error:
        raise InputError(_why(name, "model", error)) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **rest)
    except FAILURES as error:
        raise InputError(_why(name, "tokenizer", error)) from None
    if not len(tokenizer):
        raise InputError(
            f"model '{name}' has an empty tokenizer; its folder needs tokenizer.json or tokenizer.model"
        )
    return Tokens(tokenizer, context_of(config, tokenizer), str(getattr(config, "_commit_hash", None) or ""))


def load(
    name: str, dtype: torch.dtype | str, device: torch.device, revision: str | None, trust: bool
) -> tuple[Any, Tokens, str]:
    """Model, tokenizer and revision of a folder or of a name on the hub.

    Raises
    ------
    InputError
        A model that is not there, that cannot be read, or that has no tokenizer.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    tokens = load_tokens(name, revision, trust)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, revision=revision, trust_remote_code=trust, output_loading_info=True
        )
    except (*FAILURES, RuntimeError, EOFError, SafetensorError, UnpicklingError) as error:
        raise InputError(_why(name, "weights", error)) from None
    model, report = loaded
    lacking = sorted(set(report["missing_keys"]) & {key for key, _ in model.named_parameters()})
    if lacking:  # transformers fills them with random numbers, and goes on
        raise InputError(
            f"the weights of '{name}' lack {len(lacking)} of the tensors that its config.json asks for "
            f"({lacking[0]}{', ...' if len(lacking) > 1 else ''}); give a whole causal language model"
        )
    if getattr(model, "generation_config", None) is None:
        model.generation_config = GenerationConfig()
    path = Path(name)
    found = digest_of(path) if path.is_dir() else tokens.commit or revision or "unknown"
    return model.eval().to(device), tokens, found


def _why(name: str, what: str, error: Exception) -> str:
    first = " ".join(str(error).split())[:200]
    if not os.path.isdir(name):
        return (
            f"the {what} of '{name}' cannot be had: it is no folder here, and the hub said: {first}; "
            "give the folder of a model, or a name that the hub knows"
        )
    return f"the {what} of '{name}' cannot be read: {first}"


def context_of(config: Any, tokenizer: Any) -> int:
    """Most tokens that a model takes: its positions, or what its tokenizer says, or 2048."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        found = getattr(text, name, None)
        if isinstance(found, int) and found > 0:
            return found
    said = getattr(tokenizer, "model_max_length", None)
    return int(said) if isinstance(said, int) and 0 < said < 10**7 else 2048


def ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a text: the tokenizer's and those of the generation settings."""
    said = getattr(model.generation_config, "eos_token_id", None)
    several = said if isinstance(said, (list, tuple)) else [said]
    return frozenset(int(t) for t in (*several, tokenizer.eos_token_id) if t is not None)
