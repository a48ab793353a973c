"""A model of transformers as a language model of the runner."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AttentionInterface

from factorlab.errors import InputError
from factorlab.eval.hf import weights
from factorlab.eval.hf.attention import NAME, packed_attention
from factorlab.eval.hf.budget import CPU_TOKENS, GPU_TOKENS, Budget
from factorlab.eval.hf.check import Way, find_way
from factorlab.eval.hf.devices import find_device
from factorlab.eval.hf.generation import Prompt, write_answers
from factorlab.eval.hf.head import Head
from factorlab.eval.hf.plain import score_plain, write_plain
from factorlab.eval.hf.scoring import Item, score_items
from factorlab.eval.hf.tokens import BEFORE
from factorlab.eval.instance import ChoiceAnswer
from factorlab.eval.language_model import ChoiceRequest, ModelFacts, TakeChoices, TakeTexts, TextRequest
from factorlab.eval.stops import StopFinder
from factorlab.eval.tokenized import Tokenized

ROWS = {"cpu": 128}
GPU_ROWS = 512
"""Answers that are written at once, at most."""


class HFModel(Tokenized):
    """A causal language model of transformers.

    Parameters
    ----------
    name : str
        Folder, or name on the hub.
    dtype : str
        auto (the checkpoint's), bf16, fp16 or fp32.
    device : str
        auto, cpu, cuda, cuda:1, ...
    revision : str, optional
        Of the hub.
    batch : str
        auto, or tokens of a batch.
    trust_remote_code : bool
    plain : bool
        Never pack.

    Raises
    ------
    InputError
        See `factorlab.eval.hf.weights.load`, `find_dtype`, `factorlab.eval.hf.devices.find_device`.
    """

    def __init__(
        self,
        name: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        revision: str | None = None,
        batch: str = "auto",
        trust_remote_code: bool = False,
        plain: bool = False,
    ) -> None:
        where = find_device(device)
        kind = weights.find_dtype(dtype)
        if dtype == "auto" and where.type == "cpu":
            kind = torch.float32  # halves are slower than singles there
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.model, self._tokens, found = weights.load(name, kind, where, revision, trust_remote_code)
        AttentionInterface.register(NAME, packed_attention)
        self._head = Head(self.model)
        self._ends = weights.ends_of(self.model, self._tokens.tokenizer)
        self._plain, self._tried, self._own = plain, 0, ""
        self._way: Way | None = None
        self._budget = Budget(_tokens_of(batch, where))
        self._slots = Budget(_slot_tokens(self.model.config, self._head.dtype, where, self._tokens.context))
        self._noted = ""
        self._facts = ModelFacts(
            revision=found,
            engine="hf",
            dtype=str(self._head.dtype).removeprefix("torch."),
            device=torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
            context=self._tokens.context,
            parameters=sum(p.numel() for p in self.model.parameters()),
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
        )

    @property
    def facts(self) -> ModelFacts:
        """What is written beside the results; notes are those of the run so far."""
        halved = self._budget.halved + self._slots.halved
        notes = [self._noted] if self._noted else []
        if halved:
            notes.append(
                f"memory ran out {halved} times; batches were made smaller, to {self._budget.tokens} tokens"
            )
        return replace(self._facts, notes=tuple(notes))

    def way(self, longest: int) -> Way:
        """How texts of up to `longest` tokens are run; tried when it is first needed."""
        if self._plain:
            return Way(False, False, "it was asked for")
        # What was found holds for shorter texts where texts can be packed, and for longer ones where they cannot.
        if self._way is None or (longest > self._tried if self._way.packed else longest < self._tried):
            self.model.set_attn_implementation(self._own_attention())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # A tokenizer may have tokens that the model has no embedding of.
                known = self.model.get_input_embeddings().num_embeddings
                vocabulary = min(len(self._tokens.tokenizer), known)
                self._way = find_way(self.model, self._head, vocabulary, longest)
            self._tried = longest
            if not self._way.packed:
                self._noted = f"texts of {longest} tokens are run in plain batches: {self._way.why}"
        return self._way

    def _own_attention(self) -> str:
        now = self.model.config._attn_implementation
        if now != NAME:
            self._own = now
        return self._own

    def score(self, requests: Sequence[ChoiceRequest], take: TakeChoices) -> None:
        """Log-likelihoods of choices, handed on a batch at a time."""
        items = self._items(requests)
        if not items:
            return
        way = self.way(max(len(choice.tokens) for item in items for choice in item))
        found = (
            score_items(self.model, self._head, items, self._budget, fused=way.fused)
            if way.packed
            else score_plain(self.model, self._head, items, self._budget, narrow=way.narrow)
        )
        for batch in found:
            take([(i, _answer(values, items[i])) for i, values in batch])

    def _items(self, requests: Sequence[ChoiceRequest]) -> list[Item]:
        out: list[Item] = []
        for request in requests:
            n = len(request.choices)
            contexts = request.contexts * n if len(request.contexts) == 1 else request.contexts
            out.append(self._tokens.continuations(contexts, request.choices, request.bos))
        return out

    def write(self, requests: Sequence[TextRequest], take: TakeTexts) -> None:
        """Texts, handed on as they are over."""
        finders: dict[tuple[str, ...], StopFinder] = {}
        prompts = [self._prompt(request, finders) for request in requests]
        if not prompts:
            return
        way = self.way(max(len(p.tokens) + p.max_new for p in prompts))
        found = (
            write_answers(
                self.model, self._head, prompts, self._ends, self._budget, self._slots, fused=way.fused
            )
            if way.packed
            else write_plain(self.model, self._head, prompts, self._ends, self._slots, narrow=way.narrow)
        )
        for batch in found:
            answers = []
            for i, k, tokens in batch:
                text = self._tokens.decode_after(prompts[i].tokens[-BEFORE:].tolist(), tokens)
                answers.append((i, (requests[i].only or range(k + 1))[k], prompts[i].stops.cut(text)))
            take(answers)

    def _prompt(self, request: TextRequest, finders: dict[tuple[str, ...], StopFinder]) -> Prompt:
        decoding = request.decoding
        tokens = self._tokens.encode([request.prompt], request.bos)[0]
        room = self._tokens.context - 1
        new = decoding.max_new_tokens or max(1, self._tokens.context - len(tokens))
        if decoding.max_length:
            new = min(new, max(1, decoding.max_length - len(tokens)))
        new = max(1, min(new, room))
        tokens = tokens[-(self._tokens.context - new) :]
        if not len(tokens):
            tokens = np.array([self._tokens.bos or 0])
        finder = finders.setdefault(decoding.stops, StopFinder(decoding.stops, self._tokens.decode))
        uniforms = np.zeros((decoding.samples, 0))
        if decoding.temperature > 0:
            uniforms = np.random.default_rng([decoding.seed, request.key]).random((decoding.samples, new))
        if request.only:
            uniforms = uniforms[list(request.only)]
        ends = self._tokens.tokens_of(decoding.stops)
        return Prompt(tokens, new, uniforms, finder, decoding.temperature, decoding.top_p, ends)


def _answer(values: np.ndarray, item: Item) -> ChoiceAnswer:
    return ChoiceAnswer(tuple(values.tolist()), tuple(len(c.tokens) - c.begin for c in item))


def _tokens_of(batch: str, device: torch.device) -> int:
    if batch == "auto":
        return CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
    if not batch.isdigit() or int(batch) < 1:
        raise InputError(f"--batch '{batch}' is no number of tokens; give auto, or a whole number above 0")
    return int(batch)


def _slot_tokens(config: Any, dtype: torch.dtype, device: torch.device, context: int) -> int:
    """Tokens of keys and values that are held at once: half of what a GPU has free, or some rows on a CPU."""
    if device.type != "cuda":
        return ROWS["cpu"] * min(context, 1024)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", 32)
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    each = 2 * text.num_hidden_layers * heads * size * torch.finfo(dtype).bits // 8
    free, _ = torch.cuda.mem_get_info(device)
    return max(context, min(int(0.5 * free / each), GPU_ROWS * context))
