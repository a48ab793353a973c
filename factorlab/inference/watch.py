"""Watch: how long chains run, and why they stop.

What a sampler is told (`Length`, `Progress`), how its draws stand against the goals (`Standing`), and the `Watch`
that asks for that as chains grow. It samples nothing: every sampler here is watched by the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np

RHAT_GOAL = 1.01
ESS_GOAL = 400

TARGET_ACCEPT = 0.9
"""Above nutpie's 0.8: fewer divergent transitions, and more effective draws a gradient evaluation."""

GROWTH = (1.2, 2.0)
"""A check that falls short is repeated when the draws have grown by a factor between these."""

SEPARATE_CHECKS = 2
"""Checks in a row that find the chains in different solutions, after which sampling stops."""


class Progress(Protocol):
    """Told how far a stage is.

    ``total`` 0 means that the length of the stage is not known; ``detail`` is shown beside the stage.
    """

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None: ...


def silent(stage: str, done: int, total: int, detail: str = "") -> None:
    """A `Progress` that shows nothing."""


Stopped = Literal["converged", "draws", "seconds", "modes", "interrupted", "approximated"]


class Standing(NamedTuple):
    """How far the draws are from the goals.

    Attributes
    ----------
    rhat : float
        Largest R-hat; NaN for a single chain.
    ess : float
        Smallest effective sample size, bulk or tail.
    separate : bool
        Whether the chains are in different solutions (`factorlab.inference.modes`).
    """

    rhat: float
    ess: float
    separate: bool = False

    @property
    def holds(self) -> bool:
        return self.ess >= ESS_GOAL and not self.rhat > RHAT_GOAL

    @property
    def short(self) -> float:
        """How many times as many draws the goals ask for: in chains that mix R-hat^2 - 1 falls as 1 / ESS."""
        of_rhat = (self.rhat**2 - 1) / (RHAT_GOAL**2 - 1) if np.isfinite(self.rhat) else 0.0
        return max(ESS_GOAL / max(self.ess, 1.0), of_rhat)


class Length(NamedTuple):
    """How long to sample.

    Attributes
    ----------
    draws : int
        Draws of each chain before the first check.
    max_draws : int
        Draws of each chain after which to stop in any case.
    max_seconds : float or None
        Seconds of sampling after which to stop in any case.
    tune : int
        Warm-up draws of each chain.
    max_depth : int
        Doublings of a trajectory: at most 2 ** max_depth - 1 leapfrog steps a draw.
    metric : {"low_rank", "diagonal"}
        Mass matrix.
    accept : float
        Acceptance of leapfrog trajectories to which their steps are tuned.
    """

    draws: int
    max_draws: int
    max_seconds: float | None
    tune: int
    max_depth: int = 10
    metric: Literal["low_rank", "diagonal"] = "low_rank"
    accept: float = TARGET_ACCEPT


class Drawn(Protocol):
    """What chains have drawn so far."""

    @property
    def rows(self) -> int:
        """Draws of all chains, warm-up included."""

    def shortest(self, chains: int) -> int:
        """Draws of the shortest chain, warm-up included; 0 while a chain has not begun."""

    def points(self, tune: int) -> np.ndarray:
        """Draws after warm-up, (chain, draw, dim), chains cut to the shortest."""


class Watch:
    """Looks at growing chains: shows progress, and says when to stop.

    Parameters
    ----------
    length : Length
    chains : int
    first, most : int
        Draws of each chain at the first check, and at the end in any case.
    standing : callable, optional
        Judges draws (chain, draw, dim).
    tell : callable
    began : float
        When sampling began, by `time.monotonic`.
    """

    def __init__(
        self, length: Length, chains: int, first: int, most: int,
        standing: Callable[[np.ndarray], Standing] | None, tell: Progress, began: float,
    ) -> None:  # fmt: skip
        self._length, self._chains, self._most = length, chains, most
        self._standing, self._tell, self._began = standing, tell, began
        self._next = first
        self._detail = ""
        self._separate = 0
        self._seen = (began, 0)
        self.judged = 0

    def due(self, batches: Drawn) -> bool:
        """Whether the draws are to be judged now."""
        drawn = batches.shortest(self._chains) - self._length.tune
        return self._standing is not None and self._next <= drawn < self._most

    def wait(self, batches: Drawn) -> float:
        """Seconds until the next check is due, at the speed since this was last asked."""
        now, drawn = time.monotonic(), batches.shortest(self._chains)
        (before, had), self._seen = self._seen, (now, drawn)
        left = self._length.tune + self._next - drawn
        return left * (now - before) / (drawn - had) if drawn > had else np.inf

    def look(self, batches: Drawn, due: bool) -> Stopped | None:
        """Judge draws that are due, tell how far they are; why to stop, if so."""
        drawn = max(batches.shortest(self._chains) - self._length.tune, 0)
        late = self._length.max_seconds is not None and (
            time.monotonic() - self._began > self._length.max_seconds
        )
        if late and drawn > 0:
            return "seconds"
        if due and self._standing is not None:
            points = batches.points(self._length.tune)
            self.judged = points.shape[1]
            found = self._standing(points)
            if found.holds:
                return "converged"
            self._separate = self._separate + 1 if found.separate else 0
            if self._separate == SEPARATE_CHECKS:
                return "modes"
            self._detail = f"R-hat {found.rhat:.3f}, ESS {found.ess:.0f} after {drawn} draws a chain"
            wanted = drawn * min(max(1.1 * found.short, GROWTH[0]), GROWTH[1])
            self._next = int(min(wanted, self._most))
        total = self._chains * (self._length.tune + self._next)
        self._tell("sampling", min(batches.rows, total), total, self._detail)
        return None
