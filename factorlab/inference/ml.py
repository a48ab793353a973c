"""Maximum-likelihood factor analysis, with none, varimax or promax rotation.

``R = Lambda Lambda' + Psi`` with Psi diagonal (Lawley & Maxwell 1971, chapter 4). For given Psi
the best Lambda comes from the eigenvectors of ``Psi^-1/2 R Psi^-1/2``, so only Psi is searched
for (Jöreskog 1967, Psychometrika 32:443-482). A uniqueness that runs to its lower bound is a
Heywood case: the model explains all of that benchmark, and its loadings are not to be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.stats import chi2 as chi2_distribution
from threadpoolctl import threadpool_limits

from factorlab.errors import InputError
from factorlab.inference.identify import PromaxConvention, fix_signs, promax, varimax
from factorlab.inference.moments import Missing, moments, usable_cells
from factorlab.inference.pca import constants, declared_anchors, unit_ability
from factorlab.inference.provenance import describe
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.scores import ScoreTable

Rotation = Literal["none", "varimax", "promax"]

# Random starting points beside the three usual ones: with many factors the likelihood has several
# maxima, and the usual starts do not always find the highest.
_RANDOM_STARTS = 8
_START_SEED = 20241219


@dataclass(frozen=True)
class MlFit:
    """A maximum-likelihood factor analysis of a correlation matrix.

    Attributes
    ----------
    loading : ndarray, (benchmark, factor)
        Rotated; the pattern matrix where the rotation is oblique.
    unrotated : ndarray, (benchmark, factor)
        Columns of ``Lambda' Psi^-1 Lambda`` diagonal, as R's factanal without rotation.
    rotation : ndarray, (factor, factor)
        ``loading = unrotated @ rotation``, signs and order included.
    factor_correlation : ndarray, (factor, factor)
        The identity unless the rotation is promax.
    uniqueness : ndarray, (benchmark,)
    communality : ndarray, (benchmark,)
        ``1 - uniqueness``: the variance the factors share with each benchmark.
    pattern_square_sum : ndarray, (benchmark,)
        Sum of squared loadings; factor_analyzer calls this the communality. It passes 1 under an
        oblique rotation of a Heywood solution.
    criterion : float
        Discrepancy at the optimum: ``log det Sigma - log det R + tr(R Sigma^-1) - J``.
    chi2, df, p : float, int, float
        Bartlett-corrected likelihood ratio test that this many factors suffice; chi2 and p are
        NaN where `df` is 0.
    heywood : tuple of int
        Indices of benchmarks whose uniqueness is at its bound.
    n_optima : int
        Distinct maxima that the starting points ran into; the highest is kept.
    converged : bool
    """

    loading: np.ndarray
    unrotated: np.ndarray
    rotation: np.ndarray
    factor_correlation: np.ndarray
    uniqueness: np.ndarray
    communality: np.ndarray
    pattern_square_sum: np.ndarray
    criterion: float
    chi2: float
    df: int
    p: float
    heywood: tuple[int, ...]
    n_optima: int
    converged: bool


def fit_ml_correlation(
    correlation: np.ndarray,
    n_obs: int,
    factors: int,
    *,
    rotation: Rotation = "none",
    convention: PromaxConvention = "psych",
    lower: float = 0.005,
) -> MlFit:
    """Maximum-likelihood factor analysis of a correlation matrix.

    Factors are ordered by their sum of squared loadings; each has a positive sum.

    Parameters
    ----------
    correlation : ndarray, (benchmark, benchmark)
    n_obs : int
        Models behind the matrix; only the chi-square needs it.
    factors : int
    rotation : {"none", "varimax", "promax"}
    convention : {"psych", "stats"}
        Which promax (`identify.promax`).
    lower : float
        Lower bound of the uniquenesses; 0.005 in R's factanal and in factor_analyzer.

    Raises
    ------
    InputError
        Unknown rotation, too many factors, a matrix that is not positive definite.
    """
    size = len(correlation)
    if rotation not in ("none", "varimax", "promax"):
        raise InputError(f"rotation '{rotation}' is unknown; give 'none', 'varimax' or 'promax'")
    df = ((size - factors) ** 2 - size - factors) // 2
    if factors < 1 or df < 0:
        most = max((k for k in range(1, size) if (size - k) ** 2 >= size + k), default=0)
        raise InputError(
            f"{factors} factors are not possible for {size} benchmarks by maximum likelihood; "
            + (f"give 1 to {most}" if most else "at least 3 benchmarks are needed")
        )
    if np.linalg.eigvalsh(correlation)[0] < 1e-10:
        raise InputError(
            f"the correlation matrix of {size} benchmarks over {n_obs} models is singular; maximum "
            "likelihood needs more models than benchmarks and no benchmark that is a sum of others: "
            "use PCA or Bayes, or drop benchmarks"
        )
    best = _search(correlation, factors, lower)
    unrotated, _ = _profile(best.uniqueness, correlation, factors)
    loading, turn, phi = _rotate(unrotated, rotation, convention)
    order = np.argsort(-(loading**2).sum(axis=0), kind="stable")
    sign = np.where(loading[:, order].sum(axis=0) < 0, -1.0, 1.0)
    loading, turn = loading[:, order] * sign, turn[:, order] * sign
    phi = phi[np.ix_(order, order)] * np.outer(sign, sign)
    chi2 = (n_obs - 1 - (2 * size + 5) / 6 - 2 * factors / 3) * best.criterion if df else np.nan
    return MlFit(
        loading=loading,
        unrotated=unrotated,
        rotation=turn,
        factor_correlation=phi,
        uniqueness=best.uniqueness,
        communality=1 - best.uniqueness,
        pattern_square_sum=(loading**2).sum(axis=1),
        criterion=best.criterion,
        chi2=float(chi2),
        df=int(df),
        p=float(chi2_distribution.sf(chi2, df)) if df else np.nan,
        heywood=tuple(int(j) for j in np.flatnonzero(best.uniqueness < lower + 1e-5)),
        n_optima=best.n_optima,
        converged=best.converged,
    )


def fit_ml(
    table: ScoreTable,
    factors: int = 4,
    *,
    rotation: Rotation = "none",
    convention: PromaxConvention = "psych",
    lower: float = 0.005,
    missing: Missing = "complete",
) -> FactorSolution:
    """Maximum-likelihood factor analysis of a score table.

    Parameters
    ----------
    table : ScoreTable
    factors : int
    rotation : {"none", "varimax", "promax"}
    convention : {"psych", "stats"}
        Which promax; ``notes`` and ``extra`` name the one used.
    lower : float
        Lower bound of the uniquenesses.
    missing : {"complete", "em"}
        As in `fit_pca`.

    Returns
    -------
    FactorSolution
        One draw, ``method="ml"``. Abilities are regression scores (Thomson 1951), scaled to
        standard deviation 1. ``extra`` has ``chi2``, ``df``, ``p``, ``criterion``, ``uniqueness``
        and ``pattern_square_sum`` by benchmark, ``heywood`` (names), ``factor_correlation``,
        ``ss_loadings``, ``rotation``, ``convention``, ``n_models``, ``n_optima``.

    Raises
    ------
    InputError
        As `fit_ml_correlation`, or too few models, or a benchmark without spread.
    """
    cells = usable_cells(table, missing, "pearson")
    parts = moments(cells, np.ones((1, len(cells.used))), missing, factors)
    n_models = int(cells.used.sum())
    names = table.benchmark_names
    fit = fit_ml_correlation(
        parts.correlation[0], n_models, factors, rotation=rotation, convention=convention, lower=lower
    )
    sign = np.ones(factors)  # rotated factors keep their positive sums
    if rotation == "none":
        sign = fix_signs(fit.loading, names, declared_anchors(table))
    loading = fit.loading * sign
    phi = fit.factor_correlation * np.outer(sign, sign)
    ability = unit_ability(_regression_scores(parts.filled[0], loading, phi, fit.uniqueness), cells.used)
    draws = label_draws(
        loading[None, None],
        ability[None, None],
        np.sqrt(fit.uniqueness)[None, None],
        np.zeros((1, 1, len(names))),
        table.model_names,
        names,
        [f"F{k + 1}" for k in range(factors)],
    )
    gaps = not np.isfinite(cells.value[cells.used]).all()
    estimated = ["The chi-square counts estimated cells as if they had been observed."] if gaps else []
    options: dict[str, Any] = {"factors": factors, "rotation": rotation, "lower": lower, "missing": missing}
    if rotation == "promax":
        options["convention"] = convention
    return FactorSolution(
        draws=draws,
        constants=constants(table, parts.mean[0] * table.standardised().sign, parts.sd[0]),
        method="ml",
        kind="point",
        orientation=rotation,
        provenance=describe(table, None, options),
        notes=(*table.notes, *cells.notes, *estimated, *_notes(fit, names, rotation, convention, lower)),
        extra={
            **options,
            "chi2": _finite(fit.chi2),
            "df": fit.df,
            "p": _finite(fit.p),
            "criterion": fit.criterion,
            "uniqueness": dict(zip(names, fit.uniqueness.tolist(), strict=True)),
            "pattern_square_sum": dict(zip(names, fit.pattern_square_sum.tolist(), strict=True)),
            "heywood": [names[j] for j in fit.heywood],
            "factor_correlation": phi.tolist(),
            "ss_loadings": (loading**2).sum(axis=0).tolist(),
            "n_models": n_models,
            "n_optima": fit.n_optima,
        },
    )


class _Optimum(NamedTuple):
    uniqueness: np.ndarray  # (benchmark,)
    criterion: float
    n_optima: int
    converged: bool


def _search(correlation: np.ndarray, factors: int, lower: float) -> _Optimum:
    """The lowest of the minima that several starting points run into."""
    size = len(correlation)
    specific = 1 / np.diagonal(np.linalg.inv(correlation))
    rng = np.random.default_rng(_START_SEED)
    starts = [specific, (1 - 0.5 * factors / size) * specific, np.full(size, 0.5)]
    starts += list(rng.uniform(0.05, 0.95, size=(_RANDOM_STARTS, size)))
    # Matrices this small are slower on several threads: by a factor of 200 on a busy machine.
    with threadpool_limits(limits=1, user_api="blas"):
        results = [
            minimize(
                _discrepancy,
                np.clip(start, lower, 1.0),
                args=(correlation, factors),
                jac=True,
                method="L-BFGS-B",
                bounds=[(lower, 1.0)] * size,
                options={"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-13, "gtol": 1e-8},
            )
            for start in starts
        ]
    values = np.array([result.fun for result in results])
    best = results[int(np.argmin(values))]
    n_optima = 1 + int(np.sum(np.diff(np.sort(values)) > 1e-4))
    return _Optimum(best.x, float(best.fun), n_optima, bool(best.success))


def _discrepancy(uniqueness: np.ndarray, correlation: np.ndarray, factors: int) -> tuple[float, np.ndarray]:
    """Discrepancy with the best loadings for these uniquenesses, and its gradient.

    ``F = sum_{k > K} (e_k - log e_k - 1)`` over the eigenvalues of ``Psi^-1/2 R Psi^-1/2``, largest
    first, and ``dF/dpsi_j = (Lambda Lambda' + Psi - R)_jj / psi_j^2`` (Lawley & Maxwell 1971).
    """
    loading, rest = _profile(uniqueness, correlation, factors)
    fitted = (loading**2).sum(axis=1) + uniqueness
    return float(np.sum(rest - np.log(rest) - 1)), (fitted - np.diagonal(correlation)) / uniqueness**2


def _profile(uniqueness: np.ndarray, correlation: np.ndarray, factors: int) -> tuple[np.ndarray, np.ndarray]:
    """Best loadings ``Psi^1/2 V (e - 1)^1/2``, (benchmark, factor), and the other eigenvalues e."""
    root = np.sqrt(uniqueness)
    values, vectors = np.linalg.eigh(correlation / np.outer(root, root))
    size = np.sqrt(np.maximum(values[::-1][:factors] - 1, 0.0))
    return root[:, None] * vectors[:, ::-1][:, :factors] * size, values[: len(values) - factors]


def _rotate(
    loading: np.ndarray, rotation: Rotation, convention: PromaxConvention
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotated loading, rotation matrix, correlation of the factors."""
    eye = np.eye(loading.shape[1])
    if rotation == "varimax":
        return (*varimax(loading), eye)
    if rotation == "promax":
        return promax(loading, convention=convention)
    return loading, eye, eye


def _regression_scores(
    z: np.ndarray, loading: np.ndarray, phi: np.ndarray, uniqueness: np.ndarray
) -> np.ndarray:
    """Thomson's scores ``z Sigma^-1 Lambda Phi`` of standardised rows, (model, factor)."""
    structure = loading @ phi
    sigma = structure @ loading.T + np.diag(uniqueness)
    return z @ np.linalg.solve(sigma, structure)


def _notes(
    fit: MlFit, names: list[str], rotation: Rotation, convention: PromaxConvention, lower: float
) -> list[str]:
    """What a reader must know: convention, Heywood cases, several maxima, no convergence."""
    notes = []
    if rotation == "promax":
        where = "psych / factor_analyzer" if convention == "psych" else "R's stats::promax"
        notes.append(f"Promax in the '{convention}' convention ({where}), power 4.")
    if fit.heywood:
        cases = ", ".join(names[j] for j in fit.heywood)
        notes.append(
            f"Heywood cases: the uniqueness of {cases} is at its lower bound {lower:g}; their loadings, and "
            "the chi-square, are not to be trusted."
        )
    above = [j for j in range(len(names)) if fit.pattern_square_sum[j] > 1]
    if above:
        worst = max(above, key=lambda j: fit.pattern_square_sum[j])
        notes.append(
            f"Squared loadings sum to more than 1 for {len(above)} benchmarks "
            f"(up to {fit.pattern_square_sum[worst]:.2f}, {names[worst]})."
        )
    if fit.n_optima > 1:
        notes.append(
            f"The likelihood has at least {fit.n_optima} local maxima; the highest that was found is shown."
        )
    if not fit.converged:
        notes.append("The search for the maximum did not converge.")
    return notes


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
