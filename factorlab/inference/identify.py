"""Rotation, sign and order of factors: numbers on arrays, nothing else.

Every function takes one loading matrix or a stack of them with the same leading dims, written
``(..., benchmark, factor)``; a stack is turned at once, which is what thousands of draws need.
A rotated loading is ``loading @ rotation``; abilities turn by the inverse transpose of the same
matrix (`turn_ability`), so that ``loading @ ability.T`` never changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from factorlab.errors import InputError

PromaxConvention = Literal["stats", "psych"]


def varimax(
    loading: np.ndarray, normalize: bool = True, tolerance: float = 1e-10, max_steps: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Orthogonal rotation that makes the squared loadings of each factor as uneven as it can.

    Maximises ``sum_k [mean_j b_jk^4 - (mean_j b_jk^2)^2]`` over orthogonal R, with
    ``B = loading @ R`` (Kaiser 1958, Psychometrika 23:187-200), by the singular value iteration
    of Horst and Sherin (1966): ``R <- U V'`` of ``A' (B^3 - B diag(mean_j b_jk^2))``.

    Parameters
    ----------
    loading : ndarray, (..., benchmark, factor)
    normalize : bool
        Kaiser's: rows are scaled to unit length for the search and back afterwards.
    tolerance : float
        The search ends when the criterion grows by less than this fraction. R stops at 1e-5, so
        its printed loadings can differ from these in the third decimal.
    max_steps : int
        Upper limit on iterations.

    Returns
    -------
    rotated : ndarray, (..., benchmark, factor)
    rotation : ndarray, (..., factor, factor)
        Orthogonal; ``rotated = loading @ rotation``.
    """
    *stack, n_rows, n_factors = loading.shape
    rows = (loading / _row_norm(loading) if normalize else loading).reshape(-1, n_rows, n_factors)
    rotations = np.broadcast_to(np.eye(n_factors), (len(rows), n_factors, n_factors)).copy()
    size = np.zeros(len(rows))
    active = np.arange(len(rows)) if n_factors > 1 else np.arange(0)  # matrices that still turn
    for _ in range(max_steps):
        if not len(active):
            break
        turned = rows[active] @ rotations[active]
        target = turned**3 - turned * np.mean(turned**2, axis=-2, keepdims=True)
        left, singular, right = np.linalg.svd(_t(rows[active]) @ target)
        rotations[active] = left @ right
        before, size[active] = size[active], singular.sum(axis=-1)
        active = active[size[active] > before * (1 + tolerance)]
    rotation = rotations.reshape(*stack, n_factors, n_factors)
    return loading @ rotation, rotation


def promax(
    loading: np.ndarray, power: float = 4, convention: PromaxConvention = "stats"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Oblique rotation towards the varimax loadings raised to a power.

    The target ``q = b |b|^(power - 1)`` is regressed on the varimax loadings b, and the columns of
    the regression are scaled so that factors have unit variance (Hendrickson & White 1964).

    Two rotations go by this name, and differ by 0.01 to 0.6 on real tables:

    * ``"stats"``: R's ``stats::promax``; Kaiser normalisation inside varimax only.
    * ``"psych"``: R's ``psych`` and Python's ``factor_analyzer``; rows stay normalised through
      varimax, target and regression, and are scaled back at the end.

    Parameters
    ----------
    loading : ndarray, (..., benchmark, factor)
    power : float
        4 in both references.
    convention : {"stats", "psych"}

    Returns
    -------
    pattern : ndarray, (..., benchmark, factor)
        ``loading @ rotation``.
    rotation : ndarray, (..., factor, factor)
    factor_correlation : ndarray, (..., factor, factor)
        ``Phi = (rotation' rotation)^-1``; ``pattern Phi pattern' = loading loading'``.

    Raises
    ------
    InputError
        When the convention is not one of the two.
    """
    if convention not in ("stats", "psych"):
        raise InputError(f"promax convention '{convention}' is unknown; give 'stats' or 'psych'")
    n_factors = loading.shape[-1]
    rotated, turn = varimax(loading)
    if n_factors < 2:
        return rotated, turn, turn.copy()
    base = rotated / _row_norm(rotated) if convention == "psych" else rotated
    target = base * np.abs(base) ** (power - 1)
    slope = np.linalg.solve(_t(base) @ base, _t(base) @ target)
    variance = np.diagonal(np.linalg.inv(_t(slope) @ slope), axis1=-2, axis2=-1)
    rotation = turn @ (slope * np.sqrt(variance)[..., None, :])
    return loading @ rotation, rotation, np.linalg.inv(_t(rotation) @ rotation)


def procrustes(loading: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Orthogonal R that brings ``loading @ R`` nearest to the target in squared distance.

    ``R = U V'`` of ``loading' target = U S V'`` (Schönemann 1966, Psychometrika 31:1-10).

    Parameters
    ----------
    loading : ndarray, (..., benchmark, factor)
    target : ndarray, (benchmark, factor)

    Returns
    -------
    ndarray, (..., factor, factor)
    """
    left, _, right = np.linalg.svd(_t(loading) @ target)
    return left @ right


def turn_ability(ability: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Abilities that belong to ``loading @ rotation``: ``ability @ inverse(rotation)'``.

    Parameters
    ----------
    ability : ndarray, (..., model, factor)
    rotation : ndarray, (..., factor, factor)
        Orthogonal or oblique.
    """
    return ability @ _t(np.linalg.inv(rotation))


def match(loading: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order and signs under which the factors of `loading` pair with those of `reference`.

    One linear assignment on the absolute Tucker congruence, so no factor is used twice.
    ``take_factors(loading, order, sign)`` then has the columns of the reference.

    Parameters
    ----------
    loading : ndarray, (..., benchmark, factor)
    reference : ndarray, (benchmark, reference factor)
        It may have fewer factors than `loading`; the others are left out.

    Returns
    -------
    order : ndarray of int, (..., reference factor)
    sign : ndarray of float, (..., reference factor)
        1 or -1.
    """
    cosine = _t(loading) @ reference
    norms = np.linalg.norm(loading, axis=-2)[..., :, None] * np.linalg.norm(reference, axis=-2)
    cosine = np.divide(cosine, norms, out=np.zeros_like(cosine), where=norms > 0)
    flat = cosine.reshape(-1, *cosine.shape[-2:])
    order = np.empty((len(flat), reference.shape[-1]), dtype=int)
    for draw, table in enumerate(flat):
        rows, columns = linear_sum_assignment(-np.abs(table))
        order[draw, columns] = rows
    order = order.reshape(*cosine.shape[:-2], -1)
    picked = np.take_along_axis(_t(cosine), order[..., None], axis=-1)[..., 0]
    return order, np.where(picked < 0, -1.0, 1.0)


def take_factors(array: np.ndarray, order: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Columns of `array` (..., row, factor) in the order and with the signs of `match`."""
    return np.take_along_axis(array, order[..., None, :], axis=-1) * sign[..., None, :]


def congruence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tucker's congruence of each factor of a with the same factor of b, a cosine: (..., factor)."""
    norms = np.linalg.norm(a, axis=-2) * np.linalg.norm(b, axis=-2)
    return np.sum(a * b, axis=-2) / norms


def principal_angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of the principal angles between the column spaces of a and b, largest first.

    All are 1 when the two span one space, whatever the rotation (Björck & Golub 1973).

    Parameters
    ----------
    a, b : ndarray, (..., benchmark, factor)

    Returns
    -------
    ndarray, (..., factor)
    """
    basis_a, basis_b = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    return np.clip(np.linalg.svd(_t(basis_a) @ basis_b, compute_uv=False), 0.0, 1.0)


def fix_signs(
    loading: np.ndarray, benchmarks: Sequence[str], anchors: Mapping[int, str] | None = None
) -> np.ndarray:
    """Signs that make factors read the same way in every fit.

    The first factor: positive sum. A factor with an anchor: that benchmark positive. Any other:
    its largest entry positive.

    Parameters
    ----------
    loading : ndarray, (..., benchmark, factor)
    benchmarks : sequence of str
        Names of the rows.
    anchors : mapping of int to str, optional
        Index of a factor, counted from 0, to the benchmark that is to be positive on it.

    Returns
    -------
    ndarray of float, (..., factor)
        1 or -1.

    Raises
    ------
    InputError
        When an anchor is not a benchmark.
    """
    peak = np.argmax(np.abs(loading), axis=-2)[..., None, :]
    decider = np.take_along_axis(loading, peak, axis=-2)[..., 0, :]
    decider[..., 0] = loading[..., 0].sum(axis=-1)
    names = list(benchmarks)
    for factor, name in (anchors or {}).items():
        if name not in names:
            raise InputError(
                f"anchor '{name}' of factor {factor + 1} is not a benchmark of this table; "
                f"benchmarks: {', '.join(names)}"
            )
        if 0 < factor < loading.shape[-1]:
            decider[..., factor] = loading[..., names.index(name), factor]
    return np.where(decider < 0, -1.0, 1.0)


def _t(stack: np.ndarray) -> np.ndarray:
    """Transpose of the last two dims."""
    return np.swapaxes(stack, -1, -2)


def _row_norm(loading: np.ndarray) -> np.ndarray:
    """Length of each row, (..., benchmark, 1); 1 for a row of zeros, so that it stays zero."""
    norm = np.linalg.norm(loading, axis=-1, keepdims=True)
    return np.where(norm > 0, norm, 1.0)
