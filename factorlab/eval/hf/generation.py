"""Text by greedy choice or sampling: rows that are written side by side, each in a slot of its own.

The prompts of a group stand on one prefix. A row that ends gives its slot to the next prompt, so that no
step computes a row that is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from factorlab.eval.hf.attention import Pass, Prefix, Slots, during
from factorlab.eval.hf.budget import Budget
from factorlab.eval.hf.head import Head
from factorlab.eval.hf.scoring import prefix_of, run_packed, straight_row
from factorlab.eval.rows import Group, group_by_prefix
from factorlab.eval.stops import StopFinder

REFILL = 0.25
"""New prompts are read once this share of the slots is free: a pass for one prompt alone costs too much."""

ROOM_STEP = 64
"""Slots have room for a multiple of this many tokens."""


@dataclass(frozen=True)
class Prompt:
    """What is to be continued.

    Attributes
    ----------
    tokens : ndarray
        At least one.
    max_new : int
        Most tokens of the answer, at least one.
    uniforms : ndarray, (samples, max_new) or (1, 0)
        Numbers in [0, 1) that decide the sampled tokens; none for the most probable token.
    temperature, top_p : float
    stops : StopFinder
    ends : frozenset of int
        Tokens that end this answer, beside those that end any text: stops that are tokens of their own.
    """

    tokens: np.ndarray
    max_new: int
    uniforms: np.ndarray
    stops: StopFinder
    temperature: float = 0.0
    top_p: float = 1.0
    ends: frozenset[int] = frozenset()


@dataclass
class Writing:
    """A row that is being written: sample `sample` of prompt `prompt`."""

    prompt: int
    sample: int
    length: int
    """Own tokens that are stored: those of the prompt after the prefix, and all but the newest of the answer."""
    tokens: list[int] = field(default_factory=list)


def write_answers(
    model: torch.nn.Module,
    head: Head,
    prompts: Sequence[Prompt],
    ends: frozenset[int],
    budget: Budget,
    slots: Budget,
    *,
    fused: bool = True,
) -> Iterator[list[tuple[int, int, list[int]]]]:
    """Continue every prompt.

    Parameters
    ----------
    model : module
        With the packed attention set.
    head : Head
    prompts : sequence of Prompt
    ends : frozenset of int
        Tokens that end a text.
    budget : Budget
        Tokens of a pass over prompts.
    slots : Budget
        Rows that are written at once, in tokens of their whole room; halved when memory runs out.

    Yields
    ------
    list of (int, int, list of int)
        Index of a prompt, number of the sample, tokens of the answer (a token that ends it left out).
    """
    for group in group_by_prefix([prompt.tokens[:-1] for prompt in prompts]):
        prefix = prefix_of(model, head, group, budget, fused)
        waiting = _by_length(prompts, group)
        while waiting:
            desk = _Desk(model, head, prompts, prefix, ends, budget, slots, fused)
            try:
                yield from desk.write(waiting)
                waiting = []
            except torch.OutOfMemoryError:
                # What was begun is begun again; what ended was handed on.
                rows, room = desk.rows_at_once, desk.room
                waiting = desk.unfinished()
                slots.halve(rows, rows * room)
                budget.halve(2)
            del desk  # its slots are free before the next ones are taken


def _by_length(prompts: Sequence[Prompt], group: Group) -> list[tuple[int, int]]:
    """(prompt, sample), long ones first: the longest need their slots for longest."""
    order = sorted(group.members, key=lambda i: (-prompts[i].max_new, -len(prompts[i].tokens), i))
    return [(i, sample) for i in order for sample in range(len(prompts[i].uniforms))]


class _Desk:
    """Slots on a prefix, and what is being written in them."""

    def __init__(
        self,
        model: torch.nn.Module,
        head: Head,
        prompts: Sequence[Prompt],
        prefix: Prefix | None,
        ends: frozenset[int],
        budget: Budget,
        slots: Budget,
        fused: bool,
    ) -> None:
        self.model, self.head, self.prompts, self.prefix = model, head, prompts, prefix
        self.offset = prefix.length if prefix else 0
        self.ends, self.budget, self.slots, self.fused = ends, budget, slots, fused
        self.live: list[Writing] = []
        self.waiting: list[tuple[int, int]] = []
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.logits: torch.Tensor | None = None
        self.room = self.rows_at_once = 0

    def unfinished(self) -> list[tuple[int, int]]:
        """What was not handed on yet."""
        return [(row.prompt, row.sample) for row in self.live] + self.waiting

    @torch.inference_mode()
    def write(self, waiting: list[tuple[int, int]]) -> Iterator[list[tuple[int, int, list[int]]]]:
        self.waiting = list(waiting)
        need = max(len(self.prompts[i].tokens) - self.offset + self.prompts[i].max_new for i, _ in waiting)
        self.room = -(-need // ROOM_STEP) * ROOM_STEP
        self.rows_at_once = min(len(waiting), max(1, self.slots.tokens // self.room))
        while self.live or self.waiting:
            free = self.rows_at_once - len(self.live)
            enough = min(len(self.waiting), REFILL * self.rows_at_once)
            begin = self.waiting and (not self.live or free >= enough)
            ended = self._begin(free) if begin else self._step()
            if ended:
                yield ended

    def _begin(self, free: int) -> list[tuple[int, int, list[int]]]:
        """Read new prompts, as many as the slots and a batch have room for, and take their first tokens."""
        taken = self.waiting[:free]
        names = list(dict.fromkeys(prompt for prompt, _ in taken))
        own = {i: self.prompts[i].tokens[self.offset :] for i in names}
        names = names[: self.budget.take([len(own[i]) for i in names])]
        fitting = set(names)
        taken = [(i, sample) for i, sample in taken if i in fitting]
        lengths = np.array([len(own[i]) for i in names])
        last = np.cumsum(lengths) - 1
        kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        logits = run_packed(
            self.model, self.head, [straight_row(own[i]) for i in names], self.prefix, last, self.fused, kept
        )
        place = {name: k for k, name in enumerate(names)}
        self._store(kept, [place[i] for i, _ in taken], last - lengths + 1, lengths)
        begun = set(taken)
        self.waiting = [w for w in self.waiting if w not in begun]
        first = len(self.live)
        self.live += [Writing(i, sample, len(own[i])) for i, sample in taken]
        fresh = logits[torch.tensor([place[i] for i, _ in taken], device=logits.device)]
        return self._take_tokens(fresh, first)

    def _store(
        self,
        kept: dict[int, tuple[torch.Tensor, torch.Tensor]],
        which: list[int],
        starts: np.ndarray,
        lengths: np.ndarray,
    ) -> None:
        """Copy keys and values of prompts `which` into the next free slots."""
        if not self.layers:
            self.layers = {
                i: tuple(x.new_zeros(self.rows_at_once, x.shape[1], self.room, x.shape[3]) for x in pair)  # type: ignore[misc]
                for i, pair in kept.items()
            }
        base = len(self.live)
        tokens = np.concatenate([np.arange(starts[k], starts[k] + lengths[k]) for k in which])
        columns = np.concatenate([np.arange(lengths[k]) for k in which])
        slots = np.repeat(np.arange(base, base + len(which)), [lengths[k] for k in which])
        token, column, slot = (torch.from_numpy(x).to(self.head.device) for x in (tokens, columns, slots))
        for i, pair in kept.items():
            for stored, new in zip(self.layers[i], pair, strict=True):
                stored[slot, :, column] = new[0].transpose(0, 1)[token]

    def _step(self) -> list[tuple[int, int, list[int]]]:
        """One more token for every row."""
        device = self.head.device
        lengths = np.array([row.length for row in self.live])
        columns = torch.from_numpy(lengths).to(device)
        width = int(lengths.max()) + 1
        mask = None
        if lengths.min() + 1 < width:
            later = torch.arange(width, device=device)[None, :] > columns[:, None]
            mask = torch.zeros(later.shape, device=device).masked_fill_(later, float("-inf"))[:, None, None]
        newest = torch.tensor([[row.tokens[-1] for row in self.live]], device=device)
        now = Pass(
            self.prefix,
            slots=Slots(self.room, width, columns, mask, self.layers),
            longest=self.offset + width,
        )
        with during(now, fused=self.fused), self.head.reading(None):
            out = self.model(input_ids=newest, position_ids=(columns + self.offset)[None], use_cache=False)
        for row in self.live:
            row.length += 1
        return self._take_tokens(out.logits[0], 0)

    def _take_tokens(self, logits: torch.Tensor, first: int) -> list[tuple[int, int, list[int]]]:
        """Choose the next token of rows `first` and later; hand on those that are over."""
        rows = self.live[first:]
        chosen = choose_tokens(logits, [self.prompts[r.prompt] for r in rows], rows)
        over = []
        for k, (row, token) in enumerate(zip(rows, chosen, strict=True), start=first):
            if token in self.ends or token in self.prompts[row.prompt].ends:
                over.append(k)
                continue
            row.tokens.append(token)
            prompt = self.prompts[row.prompt]
            if len(row.tokens) >= prompt.max_new or prompt.stops.ended(row.tokens):
                over.append(k)
        ended = [(self.live[k].prompt, self.live[k].sample, self.live[k].tokens) for k in over]
        if over:
            self._close(over)
        return ended

    def _close(self, over: list[int]) -> None:
        """Free the slots of rows that are over; the last rows move into the holes."""
        gone = set(over)
        left = len(self.live) - len(over)
        holes = [k for k in over if k < left]
        movers = [k for k in range(left, len(self.live)) if k not in gone]
        if holes:
            to, source = (torch.tensor(x, device=self.head.device) for x in (holes, movers))
            width = max(self.live[k].length for k in movers)
            for pair in self.layers.values():
                for stored in pair:
                    stored[to, :, :width] = stored[source, :, :width]
            for hole, mover in zip(holes, movers, strict=True):
                self.live[hole] = self.live[mover]
        del self.live[left:]


def choose_tokens(logits: torch.Tensor, prompts: Sequence[Prompt], rows: Sequence[Writing]) -> list[int]:
    """The next token of each row: the most probable one, or one drawn with the row's own number in [0, 1).

    A drawn token depends on the row's probabilities and number only, not on the rows beside it.
    """
    best: list[int] = logits.argmax(-1).tolist()
    drawn = [k for k, prompt in enumerate(prompts) if prompt.temperature > 0]
    if drawn:
        at = torch.tensor(drawn, device=logits.device)

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, device=logits.device)[:, None]

        temperature = column([prompts[k].temperature for k in drawn])
        top_p = column([prompts[k].top_p for k in drawn])
        number = column([prompts[k].uniforms[rows[k].sample, len(rows[k].tokens)] for k in drawn])
        p, order = (logits[at].float() / temperature).softmax(-1).sort(-1, descending=True)
        before = p.cumsum(-1) - p
        p = p.masked_fill(before >= top_p, 0.0)  # the first token is always kept
        total = p.cumsum(-1)
        index = torch.searchsorted(total, number * total[:, -1:]).clamp(max=p.shape[-1] - 1)
        for k, token in zip(drawn, order.gather(1, index)[:, 0].tolist(), strict=True):
            best[k] = token
    return best
