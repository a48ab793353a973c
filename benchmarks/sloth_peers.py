"""Peers of `predict_sloth.py`, written anew: Sloth's own model by least squares, and PCA regressed on FLOPs.

Sloth: Maia Polo et al. 2024 (arXiv 2412.06540), eq. 3 and 4, with a logistic link. PCA on FLOPs is the
observational scaling law of Ruan et al. 2024 (arXiv 2405.10938) with an intercept of each family, as the
authors of Sloth run it beside their own.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

RIDGE = 1e-4
"""Keeps the intercepts of families, of one model each when all but the smallest are hidden, from running off."""

HUBER = 0.01
"""Errors up to this far count by their square, larger ones by their size."""

OPTIMISER_SCALE = 1e4
"""The optimiser's stopping rule is made for values near 1; the loss is far below."""


def sloth(
    y: np.ndarray, x: np.ndarray, family: np.ndarray, train: np.ndarray, chance: np.ndarray, skills: int,
    starts: int = 2,
) -> np.ndarray:  # fmt: skip
    """y_ij = c_j + (1 - c_j) logistic(lambda_j' (a_family(i) + B' x_i) + b_j), least Huber loss.

    Parameters
    ----------
    y : ndarray, (model, benchmark)
        Fractions.
    x : ndarray, (model, 3)
        Standardised log size, log tokens and their product.
    family : ndarray of int, (model,)
    train : ndarray of bool, (model,)
    chance : ndarray, (benchmark,)
    skills, starts : int

    Returns
    -------
    ndarray, (model, benchmark)
    """
    n_benchmarks, n_families = y.shape[1], int(family.max()) + 1
    hot = np.eye(n_families)[family]
    design = np.hstack([x, hot])
    n_design = design.shape[1]
    rng = np.random.default_rng(0)

    def parts(q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lam, rest = np.split(q, [n_benchmarks * skills])
        return (
            lam.reshape(n_benchmarks, skills),
            rest[: n_design * skills].reshape(n_design, skills),
            rest[-n_benchmarks:],
        )

    def loss(q: np.ndarray) -> tuple[float, np.ndarray]:
        lam, slopes, b = parts(q)
        theta = design[train] @ slopes
        s = expit(theta @ lam.T + b)
        error = chance + (1 - chance) * s - y[train]
        root = np.sqrt(1 + (error / HUBER) ** 2)  # the smooth Huber loss
        value = HUBER**2 * (root - 1).mean() + 0.5 * RIDGE * HUBER * (slopes**2).mean()
        d_eta = error / root / error.size * (1 - chance) * s * (1 - s)
        d_slopes = design[train].T @ (d_eta @ lam) + RIDGE * HUBER * slopes / slopes.size
        return float(value), np.concatenate([(d_eta.T @ theta).ravel(), d_slopes.ravel(), d_eta.sum(axis=0)])

    fits = []
    for _ in range(starts):
        start = 0.3 * rng.standard_normal(n_benchmarks * skills + n_design * skills + n_benchmarks)
        fits.append(
            minimize(
                lambda q: tuple(OPTIMISER_SCALE * np.asarray(v) for v in loss(q)), start, jac=True, method="L-BFGS-B",
                options={"maxiter": 1000, "maxfun": 1500},
            )
        )  # fmt: skip
    lam, slopes, b = parts(min(fits, key=lambda f: f.fun).x)
    return np.asarray(chance + (1 - chance) * expit(design @ slopes @ lam.T + b))


def pca_on_flops(
    y: np.ndarray, log_flops: np.ndarray, family: np.ndarray, train: np.ndarray, components: int
) -> np.ndarray:
    """Principal components of the training scores, each regressed on log FLOPs with family intercepts."""
    center = y[train].mean(axis=0)
    _, _, right = np.linalg.svd(y[train] - center, full_matrices=False)
    axes = right[:components]
    design = np.hstack([log_flops[:, None], np.eye(int(family.max()) + 1)[family]])
    slopes, *_ = np.linalg.lstsq(design[train], (y[train] - center) @ axes.T, rcond=None)
    return np.asarray(np.clip(center + design @ slopes @ axes, 0, 1))
