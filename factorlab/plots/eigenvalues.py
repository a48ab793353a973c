"""How many factors: eigenvalues beside those of noise."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from factorlab.inference.scree import ParallelAnalysis
from factorlab.plots.style import FAINT, PALETTE, caption, new_figure, styled


@styled
def scree(parallel: ParallelAnalysis, *, most: int = 20) -> Figure:
    """Eigenvalues of the correlation matrix beside those of tables of independent noise.

    Parameters
    ----------
    parallel : ParallelAnalysis
    most : int
        Components shown.
    """
    n = min(most, len(parallel.eigenvalues))
    component = np.arange(1, n + 1)
    value = parallel.eigenvalues[:n]
    share = 100 * parallel.eigenvalues / parallel.eigenvalues.sum()
    kept = parallel.n_factors
    title = f"Parallel analysis keeps {kept} component{'' if kept == 1 else 's'}"
    figure = new_figure(max(5.0, 1.5 + 0.42 * n), 4.2, title)
    axes = figure.subplots()
    colours = [PALETTE[1] if k < kept else "#b5c7d6" for k in range(n)]
    axes.bar(component, value, color=colours, width=0.7, label="data")
    axes.plot(
        component,
        parallel.reference_mean[:n],
        color=PALETTE[0],
        marker="o",
        markersize=3,
        label="noise, mean",
    )
    quantile = f"noise, {100 * parallel.level:g} % quantile"
    axes.plot(component, parallel.reference_quantile[:n], color=PALETTE[0], linestyle="--", label=quantile)
    for k in range(min(n, max(kept + 2, 5))):
        top = max(value[k], parallel.reference_quantile[k])
        axes.annotate(
            f"{share[k]:.1f} %",
            (component[k], top),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
        )
    axes.set(xlabel=f"component (first {n} of {len(share)})" if n < len(share) else "component")
    axes.set_ylabel("eigenvalue (variance, in benchmarks)")
    axes.set_xlim(0.3, n + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True))
    axes.grid(axis="y")
    axes.text(
        0.99, 0.97, f"{parallel.n_models} models, {parallel.n_random} random tables\n"
        f"first {max(kept, 1)}: {share[: max(kept, 1)].sum():.1f} % of the variance",
        transform=axes.transAxes, ha="right", va="top", fontsize=8, color=FAINT,
    )  # fmt: skip
    caption(figure, axes.get_legend_handles_labels()[0])
    return figure
