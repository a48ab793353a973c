"""The output head: probabilities of the next token only where they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Head:
    """Lets a model's output head see chosen tokens only; what the model does after it (scaling, capping) stays.

    Parameters
    ----------
    model : module
        A causal language model of transformers.

    Attributes
    ----------
    device, dtype
        Of the model's weights.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        layer = model.get_output_embeddings()  # type: ignore[operator]
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._read: torch.Tensor | None = None
        self.found = layer is not None
        if layer is not None:
            layer.register_forward_pre_hook(self._choose)

    def _choose(self, module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._read is None:
            return None
        hidden = inputs[0]
        return (hidden.reshape(1, -1, hidden.shape[-1])[:, self._read], *inputs[1:])

    @contextmanager
    def reading(self, places: torch.Tensor | None) -> Iterator[None]:
        """Give logits (1, n, vocabulary) of the tokens `places` (n,) of all rows side by side; None: of all."""
        self._read = places
        try:
            yield
        finally:
            self._read = None
