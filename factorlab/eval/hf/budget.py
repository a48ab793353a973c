"""How many tokens fit in a batch: found by trying, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence

from factorlab.errors import InputError

CPU_TOKENS = 1024
"""On a CPU larger batches are slower: what they touch leaves the cache."""

GPU_TOKENS = 32768
LEAST = 1


class Budget:
    """Tokens of a batch.

    Parameters
    ----------
    tokens : int

    Attributes
    ----------
    tokens : int
        As it is now.
    halved : int
        How often memory ran out.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.halved = 0

    def take(self, lengths: Sequence[int]) -> int:
        """How many of the rows fit, at least one."""
        count, total = 0, 0
        for length in lengths:
            total += length
            if count and total > self.tokens:
                break
            count += 1
        return count

    def halve(self, count: int, used: int | None = None) -> None:
        """Make batches smaller after one of `count` rows did not fit.

        Parameters
        ----------
        count : int
        used : int, optional
            Tokens of that batch, where they may be fewer than a batch can have.

        Raises
        ------
        InputError
            A single row does not fit.
        """
        if count <= LEAST:
            raise InputError(
                "a single text does not fit into the device's memory; take a device with more, a smaller --dtype, "
                "or fewer shots"
            )
        self.tokens = max(1, min(self.tokens, self.tokens if used is None else used) // 2)
        self.halved += 1
