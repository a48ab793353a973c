"""A ladder of small models that can be trained in a minute, and the world of two languages they live in.

English is written in lower-case Latin letters, Japanese in kana (three bytes a letter). Each language has five
benchmarks of lines `question=answer`. Facts (`home`, `food`) are about names of one language only and have to be
memorised; rules (`more`, `most`) are about digits and the same in both, but for the word that names them;
`plural` copies a word of the language and inflects it. What a model knows hence depends on how long it was
trained and on the share of Japanese in its text: a general axis and a language axis.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

LANGUAGES = ("en", "ja")
PAD, BOS, EOS = 0, 1, 2
SPECIALS = ("<pad>", "<s>", "</s>")
CONTEXT = 4096
SHARES = (0.1, 0.5, 0.9)
STEPS = (100, 240, 500)
ROWS, WIDTH = 8, 192
N_EVALUATION, N_SHOTS = 120, 8
QUESTION_WEIGHT, FACTS_WEIGHT = 0.1, 2
RATE, WARM_UP = 4e-3, 30

WORDS = {
    "en": {
        "home": ("home", "town"),
        "food": ("eats", "food"),
        "more": "more",
        "most": "most",
        "plural": "many",
    },
    "ja": {
        "home": ("いえ", "まち"),
        "food": ("くう", "めし"),
        "more": "より",
        "most": "さい",
        "plural": "たち",
    },
}
"""The word that each question starts with; facts are asked in two ways."""


@dataclass(frozen=True)
class Line:
    """A question, its answer, wrong answers where there is a choice, and whom a fact is about."""

    question: str
    answer: str
    others: tuple[str, ...] = ()
    subject: str | None = None

    @property
    def text(self) -> str:
        """The line as it stands in the training text and among the shots."""
        return f"{self.question}={self.answer}\n"


@dataclass(frozen=True)
class Benchmark:
    """Lines of one kind: what is asked, worked examples, and what a model is trained on.

    Facts are trained on in full, for they can't be guessed. The evaluated lines of a rule are held out.
    """

    name: str
    language: str
    category: str
    evaluation: tuple[Line, ...]
    shots: tuple[Line, ...]
    training: tuple[Line, ...]

    @property
    def choice(self) -> bool:
        """Whether the answer is chosen (else it is written)."""
        return bool(self.evaluation[0].others)

    @property
    def chance(self) -> float:
        """The score of guessing."""
        return 1 / (1 + len(self.evaluation[0].others)) if self.choice else 0.0


def syllables(language: str) -> tuple[list[str], list[str]]:
    """Syllables of names, and of things."""
    if language == "en":
        names = [c + v for c, v in product("bdgklmnprst", "aeiou")]
        return names, [c + v for c, v in product("fhjvwz", "aeiou")]
    hiragana = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろ"
    return list(hiragana), list("アイウエオカキクケコサシスセソタチツテトナニヌネノ")


def words(rng: np.random.Generator, pieces: Sequence[str], n: int) -> list[str]:
    """n different words of two pieces."""
    every = ["".join(pair) for pair in product(pieces, pieces)]
    return [every[i] for i in rng.permutation(len(every))[:n]]


def rule(name: str, language: str, category: str, lines: list[Line], rng: np.random.Generator) -> Benchmark:
    """A benchmark of all lines of a rule, the evaluated ones and the shots held out."""
    order = [lines[i] for i in rng.permutation(len(lines))]
    cut = N_EVALUATION + N_SHOTS
    return Benchmark(
        f"{name}_{language}",
        language,
        category,
        tuple(order[:N_EVALUATION]),
        tuple(order[N_EVALUATION:cut]),
        tuple(order[cut:]),
    )


def facts(
    name: str, language: str, names: list[str], things: list[str], choices: int, rng: np.random.Generator
) -> Benchmark:
    """A benchmark of one fact about each name, asked in two ways; the last names are those of the shots."""
    lines = []
    for subject in names:
        answer, *others = (things[i] for i in rng.permutation(len(things))[: max(choices, 1)])
        lines += [Line(f"{word} {subject}", answer, tuple(others), subject) for word in WORDS[language][name]]
    cut = N_EVALUATION
    return Benchmark(
        f"{name}_{language}", language, "facts", tuple(lines[:cut]), tuple(lines[cut:]), tuple(lines)
    )


def world(seed: int = 0) -> tuple[Benchmark, ...]:
    """The ten benchmarks of the two languages."""
    out = []
    for code, language in enumerate(LANGUAGES):
        rng = np.random.default_rng([seed, code])
        word = WORDS[language]
        of_names, of_things = syllables(language)
        names = words(rng, of_names, (N_EVALUATION + N_SHOTS) // 2)
        things = words(rng, of_things, 24)
        out.append(facts("home", language, names, things[:16], 4, rng))
        out.append(facts("food", language, names, things[16:], 0, rng))
        pairs = [
            Line(f"{word['more']} {x} {y}", "a" if x > y else "b", ("b" if x > y else "a",))
            for x, y in product(range(10, 100), repeat=2)
            if x != y
        ]
        out.append(rule("more", language, "reasoning", pairs, rng))
        triples = [
            Line(f"{word['most']} {x}{y}{z}", str(max(x, y, z))) for x, y, z in product(range(10), repeat=3)
        ]
        out.append(rule("most", language, "reasoning", triples, rng))
        ending = {"en": ("s", "n"), "ja": ("ら", "ン")}[language]
        plurals = [
            Line(f"{word['plural']} {stem}", stem + ending[of_names.index(last) % 2])
            for first, last in product(of_names, of_names)
            for stem in (first + last,)
        ]
        out.append(rule("plural", language, "form", plurals, rng))
    return tuple(out)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte (its value + 3), <pad>, <s> at the front, </s>."""
    alphabet = byte_letters()
    vocabulary = {name: i for i, name in enumerate(SPECIALS)}
    vocabulary |= {letter: len(SPECIALS) + byte for byte, letter in enumerate(alphabet)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level vocabularies (the table of GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def encode(text: str) -> list[int]:
    """Tokens of a text, without <s>: faster than the tokenizer, and the same."""
    return [byte + len(SPECIALS) for byte in text.encode()]


class Stream:
    """Training rows: documents of 4 to 8 lines of one benchmark, one after the other.

    Parameters
    ----------
    benchmarks : sequence of Benchmark
        What the lines are taken from.
    share : float
        Of the documents that are Japanese.
    seed : int
        Of the order.
    """

    def __init__(self, benchmarks: Sequence[Benchmark], share: float, seed: int) -> None:
        self.rng = np.random.default_rng([seed, round(1000 * share)])
        self.share = share
        self.lines = {
            language: [
                [self.tokens_of(line) for line in b.training]
                for b in benchmarks
                if b.language == language
                for _ in range(FACTS_WEIGHT if b.category == "facts" else 1)
            ]
            for language in LANGUAGES
        }
        self.counts = dict.fromkeys(LANGUAGES, 0)

    @staticmethod
    def tokens_of(line: Line) -> tuple[list[int], list[float]]:
        """Tokens of a line and the weight of each in the loss."""
        question, whole = encode(line.question + "="), encode(line.text)
        return whole, [QUESTION_WEIGHT] * len(question) + [1.0] * (len(whole) - len(question))

    def row(self) -> tuple[list[int], list[float]]:
        """A row of WIDTH tokens that starts with a document, and their weights."""
        tokens: list[int] = []
        weights: list[float] = []
        while len(tokens) < WIDTH:
            language = LANGUAGES[int(self.rng.random() < self.share)]
            pools = self.lines[language]
            pool = pools[self.rng.integers(len(pools))]
            start = len(tokens)
            tokens.append(BOS)
            weights.append(0.0)
            for i in self.rng.integers(len(pool), size=self.rng.integers(4, 9)):
                tokens += pool[i][0]
                weights += pool[i][1]
            tokens.append(EOS)
            weights.append(QUESTION_WEIGHT)
            self.counts[language] += min(len(tokens), WIDTH) - start
        return tokens[:WIDTH], weights[:WIDTH]

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """ROWS rows."""
        rows = [self.row() for _ in range(ROWS)]
        return torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])


def new_model(seed: int) -> LlamaForCausalLM:
    """A Llama of 250k parameters that knows nothing."""
    config = LlamaConfig(
        vocab_size=256 + len(SPECIALS),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def one_step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, stream: Stream) -> float:
    """One step of training; the loss before it, a weighted mean over tokens."""
    tokens, weights = stream.batch()
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    losses = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    loss = (losses * weight).sum() / weight.sum()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def train_run(
    folder: Path, benchmarks: Sequence[Benchmark], share: float, steps: Sequence[int], seed: int
) -> list[dict[str, object]]:
    """Train one model and save it after each number of steps; its rows of models.csv."""
    model, stream, tokenizer = new_model(seed), Stream(benchmarks, share, seed), byte_tokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    rows, losses = [], []
    for done in range(1, max(steps) + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, done / WARM_UP)
        losses.append(one_step(model, optimizer, stream))
        if done not in steps:
            continue
        name = f"ja{round(100 * share):02d}-step{done}"
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        counts = {f"tokens_b_{language}": stream.counts[language] / 1e9 for language in LANGUAGES}
        statuses = {f"{key}_status": "official" if count else "none" for key, count in counts.items()}
        rows.append(
            {"model": name, "family": f"ja{round(100 * share):02d}", "params_b": model.num_parameters() / 1e9}
            | {"tokens_b_total": sum(counts.values())}
            | counts
            | statuses
            | {"steps": done, "share_ja": share, "loss": float(np.mean(losses[-20:]))}
        )
    return rows


def one_thread() -> None:
    """Set a process up: threads that wait for each other on busy cores cost four times what they save."""
    torch.set_num_threads(1)
    disable_progress_bar()


def train_ladder(
    folder: Path, steps: Sequence[int] = STEPS, shares: Sequence[float] = SHARES, seed: int = 0
) -> list[Path]:
    """Train a model for each share of Japanese, a process each, and save it after each number of steps.

    Parameters
    ----------
    folder : Path
        Gets `models/NAME` (weights and tokenizer) and `models.csv` (budgets in the columns of docs/formats.md;
        `loss`: the mean of the last 20 steps).
    steps : sequence of int
        Steps of training, of ROWS x WIDTH tokens.
    shares : sequence of float
        Shares of documents in Japanese.
    seed : int
        Of the weights and of the order of the text; the world is always the same.

    Returns
    -------
    list of Path
        Model folders, in the order of models.csv.
    """
    with ProcessPoolExecutor(len(shares), get_context("spawn"), one_thread) as pool:
        runs = [pool.submit(train_run, folder / "models", world(), share, steps, seed) for share in shares]
        rows = [row for run in runs for row in run.result()]
    write_csv(folder / "models.csv", rows)
    return [folder / "models" / str(row["model"]) for row in rows]


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    """A table, one row a mapping."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def document(line: Line, rng: np.random.Generator) -> dict[str, object]:
    """A line as an item of a data file; the right choice is at a random place."""
    item: dict[str, object] = {"question": line.question, "answer": line.answer}
    if line.others:
        choices = sorted((line.answer, *line.others))
        if len(choices) > 2:
            choices = [choices[i] for i in rng.permutation(len(choices))]
        item |= {"choices": choices, "label": choices.index(line.answer)}
    return item | ({"subject": line.subject} if line.subject else {})


def metric_of(benchmark: Benchmark) -> dict[str, object]:
    """Keys of the task file that depend on how a benchmark is scored."""
    if benchmark.choice:
        return {"gold": "label", "gold_text": "{{ answer }}", "scoring": "choices", "metric": {"name": "acc"}}
    name = "char_f1" if benchmark.name == "plural_ja" else "exact_match"
    steps: list[dict[str, object]] = [{"step": "strip"}]
    if benchmark.name.startswith("most"):
        steps = [{"step": "regex", "pattern": "[0-9]", "which": "first", "fallback": "[invalid]"}]
    return {
        "gold": "[answer]",
        "scoring": "text",
        "decoding": {"max_new_tokens": 16, "stops": ["\n"]},
        "metric": {"name": name, "extract": steps},
    }


def task_of(benchmark: Benchmark) -> dict[str, object]:
    """The task file of a benchmark (docs/eval_tasks.md)."""
    names = ["question", "answer", *(["choices", "label"] if benchmark.choice else [])]
    subject = benchmark.evaluation[0].subject is not None
    fields = {name: name for name in [*names, *(["subject"] if subject else [])]}

    def source(part: str) -> dict[str, object]:
        return {
            "local": {"files": [f"{benchmark.name}/{part}.jsonl"], "format": "jsonl"},
            "fields": dict(fields),
        }

    prompt: dict[str, object] = {"query": "{{ question }}=", "delimiter": "", "separator": "\n"}
    prompt |= {"choices": "choices"} if benchmark.choice else {"target": "{{ answer }}"}
    return {
        "benchmark": benchmark.name,
        "language": benchmark.language,
        "licence": "CC0",
        "reference": "none; made by tests/eval/ladder.py",
        "chance": benchmark.chance,
        "data": source("test"),
        "shots": {"count": 3, **source("train"), "draw": "lm_eval", "seed": 1234},
        "prompt": prompt,
        **metric_of(benchmark),
        **({"cluster": "{{ subject }}"} if subject else {}),
    }


def write_world(folder: Path, benchmarks: Sequence[Benchmark]) -> list[Path]:
    """Write the benchmarks as data files, task files and a table.

    Parameters
    ----------
    folder : Path
        Gets `data/NAME/test.jsonl`, `data/NAME/train.jsonl` (the shots), `tasks/NAME.yaml` and `benchmarks.csv`.
    benchmarks : sequence of Benchmark
        As `world` gives them.

    Returns
    -------
    list of Path
        The task files.
    """
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for i, benchmark in enumerate(benchmarks):
        rng = np.random.default_rng(i)
        place = folder / "data" / benchmark.name
        place.mkdir(parents=True)
        for part, lines in (("test", benchmark.evaluation), ("train", benchmark.shots)):
            texts = (json.dumps(document(line, rng), ensure_ascii=False) + "\n" for line in lines)
            (place / f"{part}.jsonl").write_text("".join(texts), encoding="utf-8")
        task = task_of(benchmark)
        text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
        (tasks / f"{benchmark.name}.yaml").write_text(text, encoding="utf-8")
        metric = metric_of(benchmark)["metric"]["name"]
        rows.append(
            {"benchmark": benchmark.name, "language": benchmark.language, "category": benchmark.category}
            | {"metric": metric, "chance": benchmark.chance, "min": 0.0, "max": 1.0}
            | {"n_instances": len(benchmark.evaluation)}
            | {"se_rule": "upper_bound" if metric == "char_f1" else "binomial"}
        )
    write_csv(folder / "benchmarks.csv", rows)
    return [tasks / f"{benchmark.name}.yaml" for benchmark in benchmarks]


@torch.no_grad()
def accuracy(
    model: LlamaForCausalLM, benchmark: Benchmark, shots: int = 3, limit: int = N_EVALUATION
) -> float:
    """Share of right answers to the first lines, after the first shots, computed without the runner.

    A choice is right where its sum of log probabilities is the largest; a text where each of its bytes and the
    end of the line are the most probable after the right ones before them, as greedy generation would write it.
    """
    head = "".join(line.text for line in benchmark.shots[:shots])
    rows, starts = [], []
    for line in benchmark.evaluation[:limit]:
        before = [BOS, *encode(f"{head}{line.question}=")]
        for answer in (line.answer, *line.others) if benchmark.choice else (line.answer + "\n",):
            rows.append(before + encode(answer))
            starts.append(len(before))
    tokens = torch.full((len(rows), max(map(len, rows))), PAD)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    log_p = model(input_ids=tokens, use_cache=False).logits.log_softmax(-1)
    value = []
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        here, gold = log_p[i, start - 1 : len(row) - 1], tokens[i, start : len(row)]
        each = here.gather(1, gold[:, None]).sum() if benchmark.choice else (here.argmax(1) == gold).all()
        value.append(float(each))
    table = np.reshape(value, (len(benchmark.evaluation[:limit]), -1))
    return float(np.mean(table.argmax(1) == 0) if benchmark.choice else table.mean())
