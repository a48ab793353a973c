"""The algebra of one more measurement: how far the variance of an ability falls.

Per draw of the parameters a model's scores are normal (`factorlab.inference.model`). With the state
s = (theta, omega), abilities and the factors of benchmarks that share items, benchmark j measured by n
instances is

    z_j = mu_j + l_j' s + u_j + eps_jn,     l_j = (lambda_j, delta_g),   u_j ~ Normal(0, psi_j^2),
                                            eps_jn ~ Normal(0, tau_j^2 / n)

where tau_j^2 / n is the sampling variance and u_j, what j asks of nobody else, stays the same however many
instances are run. With Sigma the covariance of s given what was measured, Sigma^-1 = Sigma_0^-1 +
sum_j w_j l_j l_j', w_j = 1 / (psi_j^2 + tau_j^2 / n_j), one more measurement adds dw to the weight of j:

    dw = 1 / (psi_j^2 + tau_j^2 / n)                                                        nothing known of j
    dw = 1 / (psi_j^2 + 1 / (1 / s_j^2 + n / tau_j^2)) - 1 / (psi_j^2 + s_j^2)    known with standard error s_j

    variance of c'theta falls by   gain = (c' Sigma l_j)^2 / (1 / dw + l_j' Sigma l_j)      (Sherman & Morrison)
    information on c'theta         I = 1/2 log( c' Sigma c / (c' Sigma c - gain) )           nats

Sigma_0 is the covariance of the abilities over the models at hand (I where axes are orthogonal) and 1 for omega.
This is Bayesian D-optimal design for one linear function (Lindley 1956; Chaloner & Verdinelli 1995, Statistical
Science 10:273-304, section 2) in a factor model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class State(NamedTuple):
    """Parameters of one model's state, draws first.

    Attributes
    ----------
    covariance : ndarray, (draw, state, state)
        Of abilities and pair factors, given what was measured.
    direction : ndarray, (draw, benchmark, state)
        l_j.
    noise_var : ndarray, (draw, benchmark)
        psi_j^2.
    factor : int
        Place of the ability in the state.
    """

    covariance: np.ndarray
    direction: np.ndarray
    noise_var: np.ndarray
    factor: int

    @property
    def variance(self) -> np.ndarray:
        """Of the ability, (draw,)."""
        return self.covariance[:, self.factor, self.factor]


def added_weight(
    noise_var: np.ndarray, known: np.ndarray, tau2: np.ndarray, n: np.ndarray | float
) -> np.ndarray:
    """dw: precision that n more instances add along l_j.

    Parameters
    ----------
    noise_var : ndarray, (draw, benchmark)
        psi^2.
    known : ndarray, (benchmark,)
        Sampling variance of the score that is known already; infinite where none is.
    tau2 : ndarray, (benchmark,)
        Sampling variance of one instance.
    n : ndarray, (benchmark,), or float
        May be infinite.

    Returns
    -------
    ndarray, (draw, benchmark)
    """
    # psi^2 is part of both measurements of one benchmark, so only the sampling errors are averaged.
    return 1 / (noise_var + remaining(known, tau2, n)) - 1 / (noise_var + known)


def remaining(known: np.ndarray, tau2: np.ndarray, n: np.ndarray | float) -> np.ndarray:
    """Sampling variance when n more instances are averaged with what is known, (benchmark,)."""
    own = tau2 / np.asarray(n, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = np.where(np.isinf(known), own, known * own / (known + own))
    return np.where((known == 0) | (own == 0), 0.0, both)


def gain(state: State, weight: np.ndarray) -> np.ndarray:
    """Fall of the ability's variance, (draw, benchmark), for weights dw (draw, benchmark)."""
    reach = np.einsum("ds,djs->dj", state.covariance[:, state.factor], state.direction)
    own = np.einsum("djs,dst,djt->dj", state.direction, state.covariance, state.direction, optimize=True)
    return weight * reach**2 / (1 + weight * own)


def information(state: State, weight: np.ndarray) -> np.ndarray:
    """Nats on the ability, (draw, benchmark)."""
    return -0.5 * np.log1p(-gain(state, weight) / state.variance[:, None])


def expected(state: State, weight: np.ndarray) -> np.ndarray:
    """Mean information over the draws, (benchmark,)."""
    return information(state, weight).mean(axis=0)


def measured(state: State, weight: np.ndarray, j: int) -> State:
    """The state after benchmark j was measured with weight dw (draw, benchmark)."""
    pull = np.einsum("dst,dt->ds", state.covariance, state.direction[:, j])
    own = np.einsum("ds,ds->d", pull, state.direction[:, j])
    share = weight[:, j] / (1 + weight[:, j] * own)
    return state._replace(
        covariance=state.covariance - share[:, None, None] * pull[:, :, None] * pull[:, None]
    )
