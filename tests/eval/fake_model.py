"""A language model without torch, and a small task for it to answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from factorlab.errors import InputError
from factorlab.eval.instance import ChoiceAnswer
from factorlab.eval.language_model import ChoiceRequest, ModelFacts, TakeChoices, TakeTexts, TextRequest

BOS = 1
FACTS = ModelFacts("r1", "hf", "float32", "cpu", 2048, 1000, {"torch": "0"}, ())


@dataclass
class FakeModel:
    """A token for each byte and one that begins a text; answers by functions of the request.

    `asked` holds every request that it was ever asked; after `dies` answers it raises `error`. Answers are
    handed on in batches of two, the last ones first.
    """

    text: Callable[[TextRequest, int], str] = lambda request, sample: "yes"
    likes: Callable[[ChoiceRequest], Sequence[float]] = lambda request: [0.0] * len(request.choices)
    facts: ModelFacts = FACTS
    template: str | None = None
    has_bos: bool = True
    adds_bos: bool = True
    dies: int | None = None
    error: BaseException = field(default_factory=lambda: InputError("the model has died"))
    asked: list[Any] = field(default_factory=list)
    closed: int = 0

    def encode(self, text: str, bos: bool = True) -> list[int]:
        written = text.startswith("<s>")
        tokens = [byte + 3 for byte in text.removeprefix("<s>").encode("utf-8", "surrogatepass")]
        return [BOS] * (written + (bos and self.adds_bos)) + tokens

    def begin_of_text(self, tokens: Sequence[int]) -> int | None:
        if not self.has_bos:
            return None
        return next((i for i, token in enumerate(tokens) if token != BOS), len(tokens))

    def chat(self, text: str) -> str:
        if self.template is None:
            raise InputError("the model has no chat template; leave --chat out")
        return self.template.format(text)

    def score(self, requests: Sequence[ChoiceRequest], take: TakeChoices) -> None:
        found = [
            (i, ChoiceAnswer(tuple(self.likes(r)), tuple(len(self.encode(c, False)) for c in r.choices)))
            for i, r in enumerate(requests)
        ]
        self._hand_on(requests, found, take)

    def write(self, requests: Sequence[TextRequest], take: TakeTexts) -> None:
        found = [(i, s, self.text(r, s)) for i, r in enumerate(requests) for s in range(r.decoding.samples)]
        self._hand_on(requests, found, take)

    def close(self) -> None:
        self.closed += 1

    def _hand_on(self, requests: Sequence[Any], found: list[Any], take: Callable[[Any], None]) -> None:
        found = found[::-1]
        for start in range(0, len(found), 2):
            batch = found[start : start + 2]
            if self.dies is not None and len(self.asked) >= self.dies:
                raise self.error
            self.asked += [requests[answer[0]] for answer in batch]
            take(batch)

    def with_facts(self, **changed: Any) -> FakeModel:
        """The same with other facts, nothing asked."""
        return replace(self, facts=replace(self.facts, **changed), asked=[])


def write_task(folder: Path, name: str = "sums", items: int = 12, **changes: Any) -> Path:
    """A task of sums `1+2=` (text) with its data in ``folder/data``; keys of the file may be changed."""
    write_items(folder, name, [{"id": i, "q": f"{i}+{i % 3}", "a": str(i + i % 3)} for i in range(items)])
    write_items(folder, name, [{"id": i, "q": f"0+{i}", "a": str(i)} for i in range(90, 94)], "train")
    fields = {"id": "id", "q": "q", "a": "a"}
    content: dict[str, Any] = {
        "benchmark": name.capitalize(),
        "language": "en",
        "chance": 0.0,
        "data": {"local": {"files": [f"{name}/test.jsonl"], "format": "jsonl"}, "fields": fields},
        "shots": {
            "count": 2,
            "local": {"files": [f"{name}/train.jsonl"], "format": "jsonl"},
            "fields": fields,
            "draw": "lm_eval",
            "seed": 1,
        },
        "prompt": {"query": "{{ q }}=", "target": "{{ a }}", "separator": "\n"},
        "gold": "[a]",
        "scoring": "text",
        "decoding": {"max_new_tokens": 8, "stops": ["\n"]},
        "metric": {"name": "exact_match", "extract": [{"step": "strip"}]},
    } | changes
    path = folder / "tasks" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def write_choices(folder: Path, name: str = "pick", items: int = 12, **changes: Any) -> Path:
    """A task with three choices; the right one is the item's number modulo 3."""
    prompt = {"query": "{{ q }}=", "choices": "['a', 'bb', 'ccc']", "separator": "\n"}
    own: dict[str, Any] = {"prompt": prompt, "gold": "id % 3", "scoring": "choices", "decoding": None}
    own |= {"metric": {"name": "acc"}, "chance": 0.25}
    return write_task(folder, name, items, **(own | changes))


def write_items(folder: Path, name: str, rows: Sequence[Mapping[str, Any]], part: str = "test") -> None:
    """Data of a task."""
    path = folder / "data" / name / f"{part}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def add_up(request: TextRequest, sample: int = 0) -> str:
    """The right answer to a sum."""
    left, right = request.prompt.rsplit("\n", 1)[-1].removesuffix("=").split("+")
    return str(int(left) + int(right))
