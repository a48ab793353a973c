"""vLLM behind the runner's protocol: an optional engine for GPUs.

Text is vLLM's strength: it writes many answers at once from paged memory. Choices are scored through its
log probabilities of prompt tokens, one text a choice, its prefix cache sharing what they begin with.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from factorlab.errors import InputError
from factorlab.eval.hf.weights import digest_of, load_tokens
from factorlab.eval.instance import ChoiceAnswer
from factorlab.eval.language_model import ChoiceRequest, ModelFacts, TakeChoices, TakeTexts, TextRequest
from factorlab.eval.tokenized import Tokenized

AT_ONCE = 1024
"""Requests that vLLM gets in one call: what a killed run loses at most."""

DTYPES = {"auto": "auto", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


class VLLMModel(Tokenized):
    """A causal language model run by vLLM.

    Parameters
    ----------
    name : str
        Folder, or name on the hub.
    dtype : str
        auto, bf16, fp16 or fp32.
    revision : str, optional
    trust_remote_code : bool

    Raises
    ------
    InputError
        vLLM is not installed, or the model cannot be had.
    """

    def __init__(
        self, name: str, *, dtype: str = "auto", revision: str | None = None, trust_remote_code: bool = False
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise InputError(
                "--engine vllm needs vLLM: pip install vllm (Linux with a GPU), or take --engine hf"
            )
        if dtype not in DTYPES:
            raise InputError(f"--dtype '{dtype}' is unknown; give {', '.join(DTYPES)}")
        import vllm

        self._tokens = load_tokens(name, revision, trust_remote_code)
        self._vllm = vllm
        self._llm = vllm.LLM(
            model=name, dtype=DTYPES[dtype], revision=revision, trust_remote_code=trust_remote_code,
            enable_prefix_caching=True, seed=0,
        )  # fmt: skip
        from pathlib import Path

        path = Path(name)
        config = self._llm.llm_engine.model_config
        self.facts = ModelFacts(
            revision=digest_of(path) if path.is_dir() else self._tokens.commit or revision or "unknown",
            engine="vllm",
            dtype=str(config.dtype).removeprefix("torch."),
            device="cuda",
            context=int(config.max_model_len),
            versions={"vllm": vllm.__version__},
        )

    def score(self, requests: Sequence[ChoiceRequest], take: TakeChoices) -> None:
        """Log-likelihoods of choices, handed on a call at a time."""
        params = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        for low in range(0, len(requests), AT_ONCE):
            items = []
            for request in requests[low : low + AT_ONCE]:
                n = len(request.choices)
                contexts = request.contexts * n if len(request.contexts) == 1 else request.contexts
                items.append(self._tokens.continuations(contexts, request.choices, request.bos))
            found = iter(self._run([c.tokens.tolist() for item in items for c in item], params))
            answers = []
            for i, item in enumerate(items, start=low):
                sums = []
                for choice in item:
                    given = next(found).prompt_logprobs
                    tokens = choice.tokens.tolist()
                    sums.append(sum(given[k][tokens[k]].logprob for k in range(choice.begin, len(tokens))))
                answers.append((i, ChoiceAnswer(tuple(sums), tuple(len(c.tokens) - c.begin for c in item))))
            take(answers)

    def write(self, requests: Sequence[TextRequest], take: TakeTexts) -> None:
        """Texts, handed on a call at a time."""
        for low in range(0, len(requests), AT_ONCE):
            part = requests[low : low + AT_ONCE]
            texts = [self._tokens.encode([request.prompt], request.bos)[0] for request in part]
            rooms = [self._room(request, len(tokens)) for request, tokens in zip(part, texts, strict=True)]
            prompts = [
                tokens[-(self.facts.context - new) :].tolist()
                for tokens, new in zip(texts, rooms, strict=True)
            ]
            params = [self._params(request, new) for request, new in zip(part, rooms, strict=True)]
            found = self._run(prompts, params)
            take([(low + i, k, out.text) for i, one in enumerate(found) for k, out in enumerate(one.outputs)])

    def _room(self, request: TextRequest, length: int) -> int:
        decoding = request.decoding
        new = decoding.max_new_tokens or self.facts.context - 1
        if decoding.max_length:
            new = min(new, max(1, decoding.max_length - length))
        return max(1, min(new, self.facts.context - 1))

    def _params(self, request: TextRequest, new: int) -> Any:
        decoding = request.decoding
        seed = int(np.random.default_rng([decoding.seed, request.key]).integers(2**31))
        return self._vllm.SamplingParams(
            n=decoding.samples,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            max_tokens=new,
            stop=list(decoding.stops) or None,
            seed=seed if decoding.temperature > 0 else None,
        )

    def _run(self, prompts: Sequence[list[int]], params: Any) -> Any:
        return self._llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
