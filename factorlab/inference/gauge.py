"""Axes held still while sampling: one loading matrix for each posterior of the common part.

Loadings are free up to a rotation Q: Lambda Q with abilities theta Q is the same model. A sampler that walks
along that orbit meets every direction in every orientation, and no mass matrix fits. Here loadings
are kept on the slice nearest to a frame F (benchmark, factor),

    F' Lambda symmetric,

which is the rotation that Procrustes would choose (Schönemann 1966), so it has no preferred benchmark
and no sign to get wrong, unlike triangular loadings. These are K (K - 1) / 2 linear constraints. What the
slice leaves out is made good by the size of the orbit at Lambda, the Jacobian of A -> S A + A S on
skew-symmetric A, with S = F' Lambda:

    log |dQ| = sum_{k < l} log(s_k + s_l),   s the eigenvalues of S,

so that every quantity that does not depend on the axes has exactly the posterior that free loadings
give it (the Faddeev-Popov determinant of a gauge; see also Chan, Leon-Gonzalez & Strachan 2018, JASA
113, on invariant inference in factor models).

Where that weight is positive the slice holds each orbit twice: with no negative eigenvalue, and its mirror
image with the weakest factor turned over, s_1 < 0. Either copy alone has all of the posterior, so it
does not matter which one a chain is in, but for the edge s_1 + s_2 = 0, beyond which the density is 0
and where leapfrog steps fail. `grade` keeps both copies away from it.

The orbit's size is computed in `factorlab.inference.loading_prior`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

GRADE = 0.5
"""Factor between the norms of successive columns of a frame."""


def grade(loading: np.ndarray) -> np.ndarray:
    """A frame with the axes of given loadings, each weaker axis with less weight.

    With S = F' Lambda the smallest |s| is then well below the next, in both copies. In the limit of steep
    grading loadings become triangular in the axes of the frame.

    Parameters
    ----------
    loading : ndarray, (benchmark, factor)
        Columns in order of importance.
    """
    return np.ascontiguousarray(loading * GRADE ** np.arange(loading.shape[1]))


def constraints(frame: np.ndarray) -> np.ndarray:
    """Orthonormal directions that rotate loadings away from the slice.

    Parameters
    ----------
    frame : ndarray, (benchmark, factor)
        F, of full column rank.

    Returns
    -------
    ndarray, (benchmark * factor, K (K - 1) / 2)
        The slice is where the inner product with each column is zero.
    """
    n_benchmarks, k = frame.shape
    out = np.zeros((k * (k - 1) // 2, n_benchmarks, k))
    for c, (a, b) in enumerate(combinations(range(k), 2)):
        out[c, :, b] = frame[:, a]
        out[c, :, a] = -frame[:, b]
    return np.linalg.qr(out.reshape(len(out), n_benchmarks * k).T)[0]


def slice_basis(frame: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the slice.

    Parameters
    ----------
    frame : ndarray, (benchmark, factor)

    Returns
    -------
    ndarray, (benchmark * factor, benchmark * factor - K (K - 1) / 2)
        Times coordinates it gives ``loading.ravel()``.
    """
    away = constraints(frame)
    full = np.linalg.qr(np.hstack([away, np.eye(frame.size)]))[0]
    return np.ascontiguousarray(full[:, away.shape[1] :])


def turn_to(loading: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Rotation or reflection that puts loadings on the slice: F' Lambda Q symmetric and non-negative.

    Parameters
    ----------
    loading : ndarray, (..., benchmark, factor)
    frame : ndarray, (benchmark, factor)

    Returns
    -------
    ndarray, (..., factor, factor)
    """
    u, _, v = np.linalg.svd(np.swapaxes(loading, -1, -2) @ frame)
    return u @ v
