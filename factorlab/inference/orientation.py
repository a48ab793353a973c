"""Orientation: one set of axes for all draws, chosen after sampling.

Each draw's abilities are centred and made uncorrelated with unit variance over the models at hand,
then turned. What is turned with them (slopes, lineage effects) uses the same matrix; fitted values
``mean + Lambda theta`` never change.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from factorlab.inference.identify import congruence, match, procrustes, promax, take_factors, varimax

Orientation = Literal["procrustes", "principal", "varimax", "promax"]


class Oriented(NamedTuple):
    """Draws on common axes.

    Attributes
    ----------
    loading : ndarray, (draw, benchmark, factor)
    ability : ndarray, (draw, model, factor)
    mean : ndarray, (draw, benchmark)
    turn : ndarray, (draw, factor, factor)
        ``ability = (raw ability - center) @ turn``; slopes and lineage effects of the raw axes are
        multiplied by it from the right.
    center : ndarray, (draw, factor)
    """

    loading: np.ndarray
    ability: np.ndarray
    mean: np.ndarray
    turn: np.ndarray
    center: np.ndarray


class Axes(NamedTuple):
    """How well the data fix each axis.

    Attributes
    ----------
    cosine_self : ndarray, (draw, factor)
        |cosine| of the draw's k-th principal axis with the k-th of the mean common part.
    cosine_reference : ndarray, (draw, factor)
        |cosine| with the k-th axis of the reference (PCA).
    eigenvalue : ndarray, (draw, factor)
        Eigenvalues of the draw's common part Lambda cov(theta) Lambda'.
    """

    cosine_self: np.ndarray
    cosine_reference: np.ndarray
    eigenvalue: np.ndarray


def whiten(
    loading: np.ndarray, ability: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centre abilities and make them uncorrelated with unit variance (ddof 0) in every draw.

    Returns
    -------
    loading, ability, mean, turn, center : ndarrays
        Shapes as in `Oriented`.
    """
    center = ability.mean(axis=1)
    deviation = ability - center[:, None, :]
    covariance = np.einsum("dmk,dml->dkl", deviation, deviation) / ability.shape[1]
    root = np.linalg.cholesky(covariance)
    turn = np.swapaxes(np.linalg.inv(root), 1, 2)
    return (
        loading @ root,
        deviation @ turn,
        mean + np.einsum("djk,dk->dj", loading, center),
        turn,
        center,
    )


def orient(
    loading: np.ndarray,
    ability: np.ndarray,
    mean: np.ndarray,
    reference: np.ndarray,
    how: Orientation = "procrustes",
) -> Oriented:
    """Put all draws on common axes.

    Parameters
    ----------
    loading : ndarray, (draw, benchmark, factor)
    ability : ndarray, (draw, model, factor)
    mean : ndarray, (draw, benchmark)
    reference : ndarray, (benchmark, factor)
        PCA loadings (eigenvectors times root eigenvalues) that give the axes their names.
    how : {"procrustes", "principal", "varimax", "promax"}
        ``procrustes``: nearest to the reference (Schönemann 1966); ``principal``: axes of the
        draw's own common part; ``varimax``, ``promax`` (psych convention): rotated to simple
        structure, in which a general factor is dissolved. Order and signs then by one linear
        assignment a draw, to the reference rotated the same way.

    Returns
    -------
    Oriented
    """
    white, theta, mu, turn, center = whiten(loading, ability, mean)
    rotation = rotate(white, reference, how)
    back = np.swapaxes(np.linalg.inv(rotation), -1, -2)
    return Oriented(white @ rotation, theta @ back, mu, turn @ back, center)


def rotate(white: np.ndarray, reference: np.ndarray, how: Orientation) -> np.ndarray:
    """Rotation of each draw's whitened loadings, (draw, factor, factor)."""
    if how == "procrustes":
        return procrustes(white, reference)
    if how == "principal":
        goal = reference
        rotation = np.swapaxes(np.linalg.svd(white, full_matrices=False)[2], -1, -2)
    elif how == "varimax":
        goal = varimax(reference)[0]
        rotation = varimax(white)[1]
    else:
        goal = promax(reference, convention="psych")[0]
        rotation = promax(white, convention="psych")[1]
    order, sign = match(white @ rotation, goal)
    return take_factors(rotation, order, sign)


def axes(white: np.ndarray, reference: np.ndarray) -> Axes:
    """How far each draw's principal axes lie from those of the mean and of the reference.

    Parameters
    ----------
    white : ndarray, (draw, benchmark, factor)
        Loadings of whitened abilities, on any orthogonal axes.
    reference : ndarray, (benchmark, factor)
        PCA loadings.
    """
    own, value, _ = np.linalg.svd(white, full_matrices=False)
    middle = np.einsum("djk,dlk->jl", white, white) / white.shape[0]
    typical = np.linalg.svd(middle)[0][:, : white.shape[2]]
    return Axes(
        np.abs(congruence(own, np.broadcast_to(typical, own.shape))),
        np.abs(congruence(own, np.broadcast_to(reference, own.shape))),
        value**2,
    )
