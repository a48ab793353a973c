"""Devices: finding them by name, and what a worker needs to know of them."""

from __future__ import annotations

import torch

from factorlab.errors import InputError


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
        raise InputError(
            f"--device '{name}' is no device; give auto, cpu, cuda or cuda:0, cuda:1, ..."
        ) from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(
                f"--device '{name}': torch sees no GPU here; leave --device away, or give --device cpu"
            )
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise InputError(f"--device '{name}': there are {torch.cuda.device_count()} GPUs, counted from 0")
    elif device.type not in ("cpu", "mps", "xpu"):
        raise InputError(f"--device '{name}' cannot run a model; give auto, cpu or cuda")
    return device


def devices_of(text: str) -> list[str]:
    """Devices of a list with commas; "auto" and "cuda" are all GPUs, or the CPU.

    Raises
    ------
    InputError
        See `find_device`.
    """
    names = [name.strip() for name in text.split(",") if name.strip()] or ["auto"]
    if len(names) > 1:
        return [str(find_device(name)) for name in names]
    device = find_device(names[0])
    if device.type == "cuda" and device.index is None:
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [str(device)]


def use_threads(count: int) -> None:
    """Threads of this process on a CPU."""
    torch.set_num_threads(count)


def gpus_seen() -> int:
    """GPUs that this process sees."""
    return torch.cuda.device_count()


def free_memory() -> None:
    """Give back what a model that is gone held on a GPU; nothing where there is none."""
    torch.cuda.empty_cache()
