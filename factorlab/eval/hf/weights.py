"""Finding, naming and loading a model."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from factorlab.errors import InputError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Names of `--dtype`; "auto" is that of the checkpoint."""

ASIDE = (".md", ".png", ".jpg", ".gitattributes", ".gitignore", ".lock", ".metadata")
"""Files beside the weights that change no result."""


def find_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one.

    Raises
    ------
    InputError
        A device that is not there, or no device at all.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device '{name}' is no device; give auto, cpu, cuda or cuda:0, cuda:1, ...") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"--device '{name}': torch sees no GPU here; leave --device away, or give --device cpu")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise InputError(f"--device '{name}': there are {torch.cuda.device_count()} GPUs, counted from 0")
    elif device.type not in ("cpu", "mps", "xpu"):
        raise InputError(f"--device '{name}' cannot run a model; give auto, cpu or cuda")
    return device


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
    """SHA-256 of the files of a local model (weights, configuration, tokenizer), 40 hexadecimal digits."""
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix()
        if name.startswith(".") or name.endswith(ASIDE):
            continue
        total.update(name.encode() + b"\0")
        with open(file, "rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()[:40]


def load(
    name: str, dtype: torch.dtype | str, device: torch.device, revision: str | None, trust: bool
) -> tuple[Any, Any, str]:
    """Model, tokenizer and revision of a folder or of a name on the hub.

    Raises
    ------
    InputError
        A model that is not there, that cannot be read, or that has no tokenizer.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    path = Path(name)
    local = path.is_dir()
    if not local and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise InputError(f"model '{name}' is no folder; give the folder of a model, or its name on the hub")
    if local and not (path / "config.json").exists():
        raise InputError(f"'{name}' holds no config.json; it is no folder of a transformers model")
    rest = {"revision": revision, "trust_remote_code": trust}
    try:
        config = AutoConfig.from_pretrained(name, **rest)
    except (OSError, ValueError) as error:
        raise InputError(_why(name, "model", error)) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **rest)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(_why(name, "tokenizer", error)) from None
    if not len(tokenizer):
        raise InputError(f"model '{name}' has an empty tokenizer; its folder needs tokenizer.json or tokenizer.model")
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, config=config, **rest)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(_why(name, "weights", error)) from None
    if not hasattr(model, "generation_config"):
        model.generation_config = GenerationConfig()
    found = digest_of(path) if local else str(getattr(config, "_commit_hash", None) or revision or "unknown")
    return model.eval().to(device), tokenizer, found


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
