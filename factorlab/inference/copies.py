"""Copies: the two points of the slice that stand for one model, and the one of them that is kept.

The slice of `factorlab.inference.gauge` holds a model and its mirror image, whose weakest factor is turned
over. Chains may be in either. What compares points of different chains as points, not
as models, takes all of them to the positive copy first: F' Lambda without a negative eigenvalue.
"""

from __future__ import annotations

import numpy as np

from factorlab.inference.density import Density
from factorlab.inference.gauge import slice_basis, turn_to


class Copies:
    """The copies of points of one density.

    Parameters
    ----------
    density : Density
        Of a model whose loadings are held to the frame.
    frame : ndarray, (benchmark, factor)
    """

    def __init__(self, density: Density, frame: np.ndarray) -> None:
        at = dict(zip(density.names, density.slices, strict=True))
        self._frame, self._basis = frame, slice_basis(frame)
        self._loading, self._slope = at["loading_on_slice"], at.get("slope_raw")

    def loading(self, points: np.ndarray) -> np.ndarray:
        """Loadings, (..., benchmark, factor), of points (..., dim)."""
        flat = points[..., self._loading] @ self._basis.T
        return flat.reshape(*flat.shape[:-1], *self._frame.shape)

    def positive(self, points: np.ndarray) -> np.ndarray:
        """The positive copies of points (..., dim).

        Draws stay draws: the log density differs by that of the orbit's size, and the map's Jacobian makes
        up for it.
        """
        out = points.copy()
        loading = self.loading(points)
        turn = turn_to(loading, self._frame)
        turned = (loading @ turn).reshape(*loading.shape[:-2], -1)
        out[..., self._loading] = turned @ self._basis
        if self._slope is not None:
            slope = points[..., self._slope]
            k = self._frame.shape[1]
            out[..., self._slope] = (slope.reshape(*slope.shape[:-1], -1, k) @ turn).reshape(slope.shape)
        return out

    def is_positive(self, point: np.ndarray) -> bool:
        """Whether a point (dim,) is in the positive copy."""
        return bool(np.linalg.eigvalsh(self._frame.T @ self.loading(point))[0] >= 0)
