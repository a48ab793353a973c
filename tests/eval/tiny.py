"""Tiny models with random weights and tokenizers trained on the spot, for the tests of `factorlab.eval.hf`.

Weights are drawn wider than usual: an untrained model would find all tokens alike, and a wrong mask or position
would not show in its numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 320
WIDE = 0.2

JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で"
    "ニャーニャー泣いていた事だけは記憶している。吾輩はここで始めて人間というものを見た。"
)
ENGLISH = (
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and "
    "nothing particular to interest me on shore, I thought I would sail about a little and see the watery part of "
    "the world. It is a way I have of driving off the spleen, and regulating the circulation."
)
EMOJI = "👩‍👩‍👧🎉 é ﬁ ½ 🇯🇵\t\u3000が"

_USUAL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": WIDE,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}

PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, grouped queries": ("Llama", {"num_key_value_heads": 2}),
    "llama, one head of keys": ("Llama", {"num_key_value_heads": 1}),
    "gpt2": ("GPT2", _GPT),
    "gpt-neox": ("GPTNeoX", {}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 32}),
    "mixtral": ("Mixtral", {"num_key_value_heads": 2, "num_local_experts": 4, "sliding_window": None}),
    "mistral, window longer than all texts": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 400}),
}
"""Architectures whose rows can be packed, and what their configuration has beside the usual."""

PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral, short window": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 24}),
    "phi3": ("Phi3", {"num_key_value_heads": 2}),
    "gemma2": ("Gemma2", {"num_key_value_heads": 2, "head_dim": 16, "attn_logit_softcapping": 5.0}),
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 4}),
    "mpt": ("Mpt", {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 512, "expansion_ratio": 2}),
    "mamba": ("Mamba", {"state_size": 8, "num_hidden_layers": 2}),
}
"""Architectures whose rows cannot."""


def tiny(kind: str, seed: int = 0, **changed: Any) -> Any:
    """A model of `PACKED` or `PLAIN`, in fp32, ready to be run."""
    name, own = {**PACKED, **PLAIN}[kind]
    config = getattr(transformers, f"{name}Config")(**{**_USUAL, **own, **changed})
    transformers.logging.set_verbosity_error()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(config)
    return made.eval()


def bpe_tokenizer(size: int = VOCABULARY, **special: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, as `benchmarks/eval_models.py` makes it; <eos> is token 0."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([ENGLISH, JAPANESE], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **{"eos_token": "<eos>", "pad_token": "<eos>", **special}
    )


def save(folder: Path, kind: str = "llama, grouped queries", seed: int = 0, **changed: Any) -> Path:
    """A model and a BPE tokenizer in a folder, as a user has them."""
    bpe_tokenizer().save_pretrained(folder)
    tiny(kind, seed, eos_token_id=0, **changed).save_pretrained(folder)
    return folder


@torch.inference_mode()
def logits_of(model: Any, tokens: np.ndarray) -> torch.Tensor:
    """Logits (n, vocabulary) after each token of one text, in a pass of its own."""
    return model(input_ids=torch.from_numpy(np.asarray(tokens))[None], use_cache=False).logits[0].float()
