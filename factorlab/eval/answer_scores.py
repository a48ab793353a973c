"""Answers to scores, instance by instance: choices, texts, n-gram counts of BLEU, programs that are run.

The first score of an instance is that of the benchmark's own metric; choices have normalised ones after it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from factorlab.errors import InputError
from factorlab.eval.extraction import steps_function
from factorlab.eval.instance import ChoiceAnswer, Instance, TextAnswer
from factorlab.eval.sandbox import Sandbox
from factorlab.eval.task import Metric
from factorlab.eval.words import Encode, bleu_words, needed, rouge_words
from factorlab.text_metrics import char_f1

Answer = ChoiceAnswer | TextAnswer
Progress = Callable[[str, int, int], None]

PROGRAM_SECONDS = 3.0
"""Time of a program where a task gives none, as in bigcode's code_eval."""


@dataclass(frozen=True)
class Scored:
    """One score of one answer.

    Attributes
    ----------
    metric : str
    trial : int
        Which of the samples, from 0.
    score : float, optional
        In the metric's units; None for a corpus metric.
    stats : tuple of float, optional
        What a corpus metric adds up (`factorlab.metrics`).
    prediction, target : str
        The answer as it was given, and the gold text.
    """

    metric: str
    trial: int
    score: float | None
    stats: tuple[float, ...] | None
    prediction: str
    target: str


def score_instances(
    metric: Metric,
    instances: Sequence[Instance],
    answers: Sequence[Answer],
    *,
    encode: Encode | None = None,
    sandbox: Sandbox | None = None,
    progress: Progress | None = None,
) -> list[list[Scored]]:
    """Scores of the answers to a benchmark's instances.

    Parameters
    ----------
    metric : Metric
        Of the task.
    instances, answers : sequences of the same length
    encode : callable, optional
        Text to the evaluated model's tokens, where the metric counts those.
    sandbox : Sandbox, optional
        Where programs are run; the machine's own is looked for when it is needed and not given.
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    list of list of Scored
        For each instance: its trials with the benchmark's metric, then those with further metrics.

    Raises
    ------
    InputError
        For an unknown metric, answers or golds of another kind than the metric takes, a log-likelihood
        that is no number, a package or a sandbox that is missing.
    """
    if len(instances) != len(answers):
        raise ValueError(f"{len(instances)} instances and {len(answers)} answers")
    if metric.name == "pass@1":
        return _programs(metric, instances, answers, sandbox, progress)
    score = scorer(metric, encode=encode)
    out = []
    for i, (instance, answer) in enumerate(zip(instances, answers, strict=True)):
        out.append(score(instance, answer))
        if progress is not None:
            progress("scores", i + 1, len(instances))
    return out


def scorer(metric: Metric, *, encode: Encode | None = None) -> Callable[[Instance, Answer], list[Scored]]:
    """The function that scores one answer by a metric; all but programs, which are run many at a time.

    Raises
    ------
    InputError
        As `score_instances`, for what can be known before there is an answer.
    """
    if metric.name in CHOICE_METRICS:
        return partial(_choice, metric.name)
    if metric.name == "bleu":
        return partial(_text, metric.name, *_steps(metric), _bleu_counts(metric.words))
    if metric.name == "rouge2":
        return partial(_text, metric.name, *_steps(metric), _best(_rouge2(metric.words, encode)))
    if metric.name in TEXT_METRICS:
        return partial(_text, metric.name, *_steps(metric), _best(TEXT_METRICS[metric.name]))
    raise InputError(f"no metric '{metric.name}'; there are {', '.join(METRICS)}")


def score_answer(
    metric: Metric, instance: Instance, answer: Answer, *, encode: Encode | None = None
) -> list[Scored]:
    """Scores of one answer (`score_instances`)."""
    return score_instances(metric, [instance], [answer], encode=encode)[0]


def character_f1(prediction: str, gold: str) -> float:
    """F1 of the characters of two texts, each as often as it is there, whitespace left out.

    2 c / (|a| + |b|) with c the characters in common; 1 for two empty texts. What "character F1" says, where
    llm-jp-eval's ``char_f1`` is a longest common subsequence.
    """
    a, b = (Counter("".join(text.split())) for text in (prediction, gold))
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


def exact(prediction: str, gold: str) -> float:
    """1 where two texts are the same after their steps."""
    return float(prediction == gold)


TEXT_METRICS: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact,
    "char_f1": char_f1,
    "character_f1": character_f1,
}
"""Scores of an answer's text and one gold text."""

CHOICE_METRICS: dict[str, Callable[[str], int]] = {
    "acc": lambda choice: 1,
    "acc_norm": len,
    "acc_bytes": lambda choice: len(choice.encode()),
}
"""What a choice's sum of log probabilities is divided by."""

METRICS = (*CHOICE_METRICS, *TEXT_METRICS, "rouge2", "bleu", "pass@1")
"""Names that a task can give."""


def _choice(name: str, instance: Instance, answer: Answer) -> list[Scored]:
    """The choice of the largest log-likelihood, by itself and per character and byte of the choice.

    The first wins ties. Whitespace before a choice belongs to the prompt and is not counted, as in lm-eval.
    """
    gold, choices = instance.gold, instance.choices
    if not isinstance(answer, ChoiceAnswer) or len(answer.log_likelihoods) != len(choices) or not choices:
        raise InputError(
            f"the metric '{name}' takes log-likelihoods of choices; instance {instance.instance_id} has {_kind(answer)}"
        )
    if not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise InputError(
            f"the gold of instance {instance.instance_id} is {gold!r}; the metric '{name}' takes the index of "
            f"one of its {len(choices)} choices"
        )
    if any(math.isnan(value) for value in answer.log_likelihoods):
        raise InputError(
            f"the model's log-likelihood of a choice of instance {instance.instance_id} is no number (NaN); "
            "run it in another precision (--dtype float32)"
        )
    # Where the sentence is what differs (XWINO), the sentence is the answer.
    whole = len(instance.queries) > 1
    said = [
        (instance.queries[i] if whole else "") + (choice if whole else choice.lstrip())
        for i, choice in enumerate(choices)
    ]
    out = []
    for metric in (name, *(other for other in CHOICE_METRICS if other != name)):
        sizes = [max(CHOICE_METRICS[metric](choice.lstrip()), 1) for choice in choices]
        values = [total / size for total, size in zip(answer.log_likelihoods, sizes, strict=True)]
        chosen = values.index(max(values))
        out.append(Scored(metric, 0, float(chosen == gold), None, said[chosen], instance.target))
    return out


Measure = Callable[[str, list[str]], tuple[float | None, tuple[float, ...] | None]]
"""Answer and golds -> score, or what a corpus metric adds up."""


def _text(
    name: str,
    extract: Callable[[str], str],
    gold_steps: Callable[[str], str],
    measure: Measure,
    instance: Instance,
    answer: Answer,
) -> list[Scored]:
    """Each sample's text against the gold texts."""
    golds = [gold_steps(gold) for gold in _golds(name, instance)]
    out = []
    for trial, text in enumerate(_texts(name, instance, answer)):
        score, stats = measure(extract(text), golds)
        out.append(Scored(name, trial, score, stats, text, instance.target))
    return out


def _steps(metric: Metric) -> tuple[Callable[[str], str], Callable[[str], str]]:
    return steps_function(metric.extract, "metric.extract"), steps_function(metric.gold, "metric.gold")


def _best(function: Callable[[str, str], float]) -> Measure:
    """The largest score over the golds."""
    return lambda text, golds: (max(function(text, gold) for gold in golds), None)


def _rouge2(words: str | None, encode: Encode | None) -> Callable[[str, str], float]:
    """F measure of ROUGE-2 by rouge-score (Lin 2004), over the words of a task."""
    tokenizer = rouge_words(words, encode)
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError:
        raise needed("rouge-score", "the metric 'rouge2'") from None
    library: Any = RougeScorer(["rouge2"], tokenizer=tokenizer)
    return lambda text, gold: float(library.score(gold, text)["rouge2"].fmeasure)


def _bleu_counts(words: str | None) -> Measure:
    """sacrebleu's counts for a segment: lengths, n-grams in common, n-grams (`factorlab.metrics.bleu`)."""
    try:
        from sacrebleu.metrics import BLEU
    except ModuleNotFoundError:
        raise needed("sacrebleu", "the metric 'bleu'") from None
    before, tokenizer = bleu_words(words)
    try:
        library: Any = BLEU(tokenize=tokenizer, effective_order=True)
    except RuntimeError:
        raise needed("sacrebleu with mecab-python3", f"BLEU over '{words}'") from None

    def count(text: str, golds: list[str]) -> tuple[None, tuple[float, ...]]:
        found = library.sentence_score(before(text), [before(gold) for gold in golds])
        return None, tuple(map(float, (found.sys_len, found.ref_len, *found.counts, *found.totals)))

    return count


def _programs(
    metric: Metric,
    instances: Sequence[Instance],
    answers: Sequence[Answer],
    sandbox: Sandbox | None,
    progress: Progress | None,
) -> list[list[Scored]]:
    """Programs of prompt, answer and tests, run in a sandbox: 1 where one ends without an error.

    The mean over trials and instances is pass@1 (Chen et al. 2021, arXiv 2107.03374).
    """
    extract = steps_function(metric.extract, "metric.extract")
    programs, places = [], []
    for i, (instance, answer) in enumerate(zip(instances, answers, strict=True)):
        for text in _texts(metric.name, instance, answer):
            programs.append(program(instance, extract(text)))
            places.append(i)
    box = sandbox if sandbox is not None else Sandbox.find()
    runs = box.run_many(programs, timeout=metric.timeout or PROGRAM_SECONDS, progress=progress)
    out: list[list[Scored]] = [[] for _ in instances]
    for i, run in zip(places, runs, strict=True):
        trial, answered = len(out[i]), cast(TextAnswer, answers[i])
        score = float(run.status == "passed")
        out[i].append(Scored(metric.name, trial, score, None, answered.texts[trial], instances[i].target))
    return out


def program(instance: Instance, completion: str) -> str:
    """Prompt, completion, tests and their call, as bigcode's code_eval puts them together.

    Raises
    ------
    InputError
        When the instance's gold is not a mapping with texts `test` and `entry_point`.
    """
    gold = instance.gold
    if not isinstance(gold, Mapping) or not all(
        isinstance(gold.get(k), str) for k in ("test", "entry_point")
    ):
        raise InputError(
            f"the gold of instance {instance.instance_id} is {gold!r:.80}; the metric 'pass@1' takes a mapping "
            "with the texts test and entry_point"
        )
    return f"{instance.queries[0]}{completion}\n{gold['test']}\ncheck({gold['entry_point']})"


def _texts(name: str, instance: Instance, answer: Answer) -> tuple[str, ...]:
    if not isinstance(answer, TextAnswer) or not answer.texts:
        raise InputError(
            f"the metric '{name}' takes texts; instance {instance.instance_id} has {_kind(answer)}"
        )
    return answer.texts


def _golds(name: str, instance: Instance) -> list[str]:
    golds = [instance.gold] if isinstance(instance.gold, str) else instance.gold
    if not isinstance(golds, list | tuple) or not golds or not all(isinstance(g, str) for g in golds):
        raise InputError(
            f"the gold of instance {instance.instance_id} is {instance.gold!r:.80}; the metric '{name}' takes a "
            "text or a list of texts"
        )
    return list(golds)


def _kind(answer: Answer) -> str:
    if isinstance(answer, ChoiceAnswer):
        return f"{len(answer.log_likelihoods)} log-likelihoods"
    return f"{len(answer.texts)} texts"
