"""Models, a tokenizer and questions for `eval_speed.py`, made on the spot: no hub, no data of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

WORDS = 6000
VOCABULARY = 6144
LAYERS = 6
HIDDEN = 384
INNER = 1024
HEADS = 6


def words(rng: np.random.Generator) -> list[str]:
    """Made-up words of two to four syllables."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    made: dict[str, None] = {}
    while len(made) < WORDS:
        made["".join(rng.choice(syllables, rng.integers(2, 5)))] = None
    return list(made)


class Writer:
    """Sentences of made-up words whose frequencies fall as 1 / rank."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.words = words(np.random.default_rng(0))
        weight = 1 / (np.arange(WORDS) + 10)
        self.weight = weight / weight.sum()

    def text(self, count: int) -> str:
        return " ".join(self.rng.choice(self.words, count, p=self.weight))


def build(
    folder: Path,
    seed: int = 0,
    *,
    hidden_size: int = HIDDEN,
    intermediate_size: int = INNER,
    num_hidden_layers: int = LAYERS,
    num_attention_heads: int = HEADS,
) -> Path:
    """A Llama of about 15.7 million parameters with random weights, and a byte-level BPE tokenizer trained here."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    writer = Writer(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The words of the questions are there, too, so that " A" is one token as in any real vocabulary.
    frame = "\n\nQuestion: ?\nA. \nB. \nC. \nD. \nAnswer: A B C D"
    tokenizer.train_from_iterator((writer.text(200) + frame * 5 for _ in range(2000)), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        num_key_value_heads=num_attention_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        eos_token_id=0,
        bos_token_id=None,
        # Wider than usual: choices of an untrained model would all be the same within rounding.
        initializer_range=0.06,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def choice_questions(count: int, shots: int, seed: int, *, letters: bool) -> list[dict[str, Any]]:
    """Four-choice questions after fixed worked examples; choices are texts, or letters after the question."""
    writer = Writer(seed)

    def question() -> tuple[str, list[str]]:
        text = f"Question: {writer.text(int(writer.rng.integers(20, 45)))}?"
        texts = [" " + writer.text(int(writer.rng.integers(4, 10))) for _ in range(4)]
        if letters:
            lines = "".join(f"\n{letter}.{choice}" for letter, choice in zip("ABCD", texts, strict=True))
            return text + lines + "\nAnswer:", [f" {letter}" for letter in "ABCD"]
        return text + "\nAnswer:", texts

    worked = []
    for _ in range(shots):
        text, choices = question()
        worked.append(text + choices[0] + "\n\n")
    before = "".join(worked)
    out = []
    for _ in range(count):
        text, choices = question()
        out.append({"context": before + text, "choices": choices})
    return out


def prompts(count: int, shots: int, seed: int) -> list[str]:
    """Prompts after fixed worked examples."""
    writer = Writer(seed)
    worked = "".join(f"Question: {writer.text(40)}?\nAnswer: {writer.text(30)}\n\n" for _ in range(shots))
    return [
        f"{worked}Question: {writer.text(int(writer.rng.integers(20, 45)))}?\nAnswer:" for _ in range(count)
    ]
