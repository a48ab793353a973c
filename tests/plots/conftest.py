"""Small made-up fits for the figures, and a watch over missing glyphs."""

import logging

import pytest
from made_up_fits import make_solution, make_table


@pytest.fixture
def table():
    return make_table()


@pytest.fixture
def posterior(table):
    return make_solution(table)


@pytest.fixture
def point(table):
    return make_solution(table, n_draws=1, chains=1, method="pca")


@pytest.fixture(autouse=True)
def no_missing_glyphs(caplog, recwarn):
    """No figure may fall back to boxes for glyphs, nor warn of anything else."""
    caplog.set_level(logging.WARNING, logger="matplotlib")
    yield
    assert not [r.message for r in caplog.records if r.name.startswith("matplotlib")]
    assert not [str(w.message) for w in recwarn if "lyph" in str(w.message) or "layout" in str(w.message)]
