"""Rows side by side: the texts of one forward pass as tensors, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from factorlab.eval.hf.attention import Grid
from factorlab.eval.rows import Row


@dataclass(frozen=True)
class Pack:
    """Tokens of rows, one after another.

    Attributes
    ----------
    tokens, positions : Tensor, (1, n)
        Position of each token in its text, prefix included.
    grid : Grid
    starts : ndarray, (rows,)
        Index of each row's first token.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    grid: Grid
    starts: np.ndarray


def pack(rows: Sequence[Row], offset: int, device: torch.device, dtype: torch.dtype) -> Pack:
    """Put rows side by side.

    Parameters
    ----------
    rows : sequence of Row
    offset : int
        Tokens of the prefix before them.
    device, dtype
        Of the model.
    """
    lengths = np.array([row.length for row in rows])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    width = int(lengths.max())
    cells = np.zeros((len(rows), width), dtype=np.int64)
    within = np.arange(width)[None, :]
    there = within < lengths[:, None]
    cells[there] = np.arange(lengths.sum())
    positions = np.concatenate([row.positions for row in rows]) + offset
    tokens = np.concatenate([row.tokens for row in rows])
    mask = None
    if any(row.branches for row in rows):
        branch = np.full((len(rows), width), -1, dtype=np.int64)
        branch[there] = np.concatenate([row.branch_of for row in rows])
        mask = _mask(torch.from_numpy(branch).to(device), dtype)
    grid = Grid(
        cells=torch.from_numpy(cells).to(device),
        places=torch.from_numpy(np.flatnonzero(there.reshape(-1))).to(device),
        mask=mask,
        straight=bool(there.all()),
    )
    return Pack(
        torch.from_numpy(tokens)[None].to(device), torch.from_numpy(positions)[None].to(device), grid, starts
    )


def _mask(branch: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A token sees the trunk (0) and its own branch before it, and itself; -1 stands for no token."""
    width = branch.shape[1]
    seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    earlier = torch.ones(width, width, dtype=torch.bool, device=branch.device).tril()
    seen &= earlier
    # In memory a line has a multiple of 16 numbers, which fused kernels on GPUs ask for.
    room = -(-width // 16) * 16
    mask = torch.zeros(len(branch), 1, width, room, dtype=dtype, device=branch.device)[..., :width]
    return mask.masked_fill_(~seen[:, None], float("-inf"))
