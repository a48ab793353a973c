"""How many factors: eigenvalues of the data beside those of noise (parallel analysis)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.inference.moments import Missing, moments, usable_cells
from factorlab.scores import ScoreTable


@dataclass(frozen=True)
class ParallelAnalysis:
    """Eigenvalues of the correlation matrix, and of independent normal tables of the same shape.

    Attributes
    ----------
    eigenvalues : ndarray, (component,)
        Of the data, largest first.
    reference_mean, reference_quantile : ndarray, (component,)
        Mean and `level` quantile of the same eigenvalue over the random tables.
    level : float
    n_models, n_random : int
        Models that entered; random tables drawn.
    n_factors : int
        Leading eigenvalues above the reference quantile.
    notes : tuple of str
    """

    eigenvalues: np.ndarray
    reference_mean: np.ndarray
    reference_quantile: np.ndarray
    level: float
    n_models: int
    n_random: int
    n_factors: int
    notes: tuple[str, ...] = ()

    def to_dataframe(self) -> pd.DataFrame:
        """The scree table: a row a component."""
        ratio = self.eigenvalues / self.eigenvalues.sum()
        return pd.DataFrame(
            {
                "component": np.arange(1, len(ratio) + 1),
                "eigenvalue": self.eigenvalues,
                "explained_variance_ratio": ratio,
                "cumulative": np.cumsum(ratio),
                "reference_mean": self.reference_mean,
                "reference_quantile": self.reference_quantile,
                "kept": np.arange(len(ratio)) < self.n_factors,
            }
        )


def parallel_analysis(
    table: ScoreTable,
    draws: int = 200,
    seed: int = 0,
    level: float = 0.95,
    *,
    missing: Missing = "complete",
) -> ParallelAnalysis:
    """Horn's parallel analysis (1965, Psychometrika 30:179-185), with a quantile for the mean.

    Parameters
    ----------
    table : ScoreTable
    draws : int
        Random tables: independent standard normal, as many rows as models that enter.
    seed : int
    level : float
        Quantile of the random eigenvalues that a component must pass.
    missing : {"complete", "em"}
        As in `fit_pca`.

    Raises
    ------
    InputError
        A level outside (0, 1), no draws, or what `fit_pca` refuses.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level} is not a probability; give a number between 0 and 1, such as 0.95")
    if draws < 1:
        raise InputError(f"{draws} random tables asked; give 1 or more")
    cells = usable_cells(table, missing, "pearson")
    n_models, size = int(cells.used.sum()), len(table.benchmark_names)
    observed = moments(cells, np.ones((1, len(cells.used))), missing, factors=min(4, size - 1))
    eigenvalues = np.linalg.eigvalsh(observed.correlation[0])[::-1]
    rng = np.random.default_rng(seed)
    reference = np.empty((draws, size))
    for draw in range(draws):
        noise = rng.standard_normal((n_models, size))
        reference[draw] = np.linalg.eigvalsh(np.corrcoef(noise, rowvar=False).reshape(size, size))[::-1]
    quantile = np.quantile(reference, level, axis=0)
    above = eigenvalues > quantile
    return ParallelAnalysis(
        eigenvalues=eigenvalues,
        reference_mean=reference.mean(axis=0),
        reference_quantile=quantile,
        level=level,
        n_models=n_models,
        n_random=draws,
        n_factors=size if above.all() else int(np.argmin(above)),
        notes=cells.notes,
    )
