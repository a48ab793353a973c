"""The figure of solutions that chains found: numbers of the input, only where there are several."""

import io

import numpy as np
import pytest
from made_up_fits import make_solution
from matplotlib.colors import to_hex
from matplotlib.text import Text

from factorlab import plots
from factorlab.errors import InputError
from factorlab.inference.modes import find_modes
from factorlab.plots.modes import MOST_ROWS, has_modes
from factorlab.plots.style import PALETTE


def told(n_benchmarks, apart=(1,), factors=2, seed=0):
    """Four chains, the second in a mode of its own in some benchmarks."""
    rng = np.random.default_rng(seed)
    loading = 0.7 + 0.02 * rng.normal(size=(4, 100, n_benchmarks, factors))
    noise = 0.3 * np.exp(0.05 * rng.normal(size=(4, 100, n_benchmarks)))
    noise[1][:, list(apart)] *= 3
    names = [f"評価{j}" if j % 2 else f"bench{j}" for j in range(n_benchmarks)]
    return find_modes(loading, np.broadcast_to(np.eye(factors), (4, 100, factors, factors)), noise, names)


def words(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return [" ".join(t.get_text().split()) for t in figure.findobj(Text) if t.get_text()]


def test_bars_are_the_intervals_of_each_group(table):
    found = told(6, apart=(1, 4))
    assert found.several
    figure = plots.chain_modes(make_solution(table).with_(extra={"modes": found.to_dict()}))
    said = words(figure)
    left, right = figure.axes
    assert "2 solutions: what the chains disagree about" in said
    assert {"chains 1, 3, 4", "chain 2"} <= set(said)
    assert "unique noise (standardised score)" in said
    assert "share of variance that the factors account for" in said
    rows = [t.get_text() for t in left.get_yticklabels()]
    assert set(rows[:2]) == {"評価1", "bench4"}
    order = [found.benchmarks.index(row) for row in rows]
    bars = {
        to_hex(c.get_color()[0], keep_alpha=False).upper(): c
        for c in left.collections
        if len(c.get_segments()) == 6
    }
    for g, colour in enumerate(PALETTE[:2]):
        ends = np.array([[s[0, 0], s[1, 0]] for s in bars[colour].get_segments()])
        np.testing.assert_allclose(
            ends, np.column_stack([found.noise_sd.lower[g, order], found.noise_sd.upper[g, order]])
        )
    dashed = [line.get_ydata()[0] for line in right.lines if line.get_linestyle() == "--"]
    assert dashed == [1.5]


def test_many_benchmarks_show_those_that_differ_most(table):
    found = told(40, apart=(30, 33))
    figure = plots.chain_modes(make_solution(table).with_(extra={"modes": found.to_dict()}))
    rows = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert len(rows) == MOST_ROWS
    assert set(rows[:2]) == {"bench30", "評価33"}
    assert any(
        f"{40 - MOST_ROWS} benchmarks on which they agree more are left out." in w for w in words(figure)
    )


def test_one_solution_has_no_figure(table):
    solution = make_solution(table)
    assert not has_modes(solution)
    calm = solution.with_(extra={"modes": told(6, apart=()).to_dict()})
    assert not has_modes(calm)
    for one in (solution, calm):
        with pytest.raises(InputError, match="has one solution, there is nothing to compare"):
            plots.chain_modes(one)
