"""Densities found again on disk: the same density, and never that of another model."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from factorlab.inference import density_store
from factorlab.inference.blueprint import blueprint
from factorlab.inference.density import compile_density, constrainer
from factorlab.inference.density_store import load, model_density, structure_key
from factorlab.inference.inputs import ModelInputs, model_inputs
from factorlab.inference.model import build_model
from factorlab.inference.priors import Priors


@pytest.fixture(scope="module")
def inputs(small) -> ModelInputs:
    return model_inputs(small.table, 2, Priors())


@pytest.fixture(scope="module")
def folder(inputs, tmp_path_factory):
    """Where the density of `inputs` is stored."""
    where = tmp_path_factory.mktemp("densities")
    model_density(inputs, Priors(), where)
    assert len(list(where.iterdir())) == 1
    return where


@pytest.fixture
def no_compiling(monkeypatch):
    def refuse(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(density_store, "build_model", refuse)


def other_numbers(small) -> ModelInputs:
    """The same structure with other scores, sizes, counts and statuses."""
    models = small.table.models.copy()
    models["params_b"] *= 1.7
    for column in [f"tokens_b_{language}" for language in small.table.languages]:
        models[column] = models[column] ** 1.1 * 2.0
    scores = small.table.scores + np.random.default_rng(5).normal(0, 1, small.table.scores.shape)
    table = replace(small.table, data=small.table.data.assign(score=(("model", "benchmark"), scores)))
    return model_inputs(replace(table, models=models), 2, replace(Priors(), official_log_sd=0.07))


def key(inputs, priors=None):
    return structure_key(blueprint(inputs), priors or Priors())


def same(found, expected):
    assert found.names == expected.names
    assert found.shapes == expected.shapes
    np.testing.assert_array_equal(found.start, expected.start)
    points = found.start + 0.05 * np.random.default_rng(1).standard_normal((3, found.n_dim))
    for point in points:
        value, gradient = found.evaluator()(point)
        other_value, other_gradient = expected.evaluator()(point)
        assert np.isfinite(value)
        assert value == other_value
        np.testing.assert_array_equal(gradient, other_gradient)
    named = constrainer(found, found.values.names)(points)
    other_named = constrainer(expected, expected.values.names)(points)
    assert list(named) == list(other_named)
    for name, values in named.items():
        np.testing.assert_array_equal(values, other_named[name])


def test_what_is_stored_is_the_density_that_was_compiled(inputs, folder, no_compiling):
    same(model_density(inputs, Priors(), folder), compile_density(build_model(inputs)))


def test_other_numbers_of_the_same_structure_are_found_and_are_used(small, inputs, folder, no_compiling):
    changed = other_numbers(small)
    priors = Priors()
    assert key(changed) == key(inputs)
    found = model_density(changed, priors, folder)
    same(found, compile_density(build_model(changed, priors)))
    before = model_density(inputs, priors, folder)
    assert found.evaluator()(found.start)[0] != before.evaluator()(found.start)[0]


def variants(small):
    """Inputs and priors that make another graph."""
    priors, table = Priors(), small.table
    unknown = table.models.copy()
    unknown.loc[unknown.index[0], "params_b"] = np.nan
    column = f"tokens_b_{table.languages[0]}"
    uncounted = table.models.copy()
    uncounted.loc[uncounted.index[-1], column] = np.nan
    yield "factors", model_inputs(table, 1, priors), priors
    yield "budget", model_inputs(table, 2, priors, budget="product"), priors
    yield "no budget", model_inputs(table, 2, priors, budget="none"), priors
    yield "unknown size", model_inputs(replace(table, models=unknown), 2, priors), priors
    yield "unknown count", model_inputs(replace(table, models=uncounted), 2, priors), priors
    for name in ("loading_sd", "small_loading", "slope_sd", "noise_sd_median", "tokens_log10_sd"):
        changed = replace(priors, **{name: 0.123})
        yield name, model_inputs(table, 2, changed), changed


def test_another_structure_or_prior_is_another_key(small, inputs):
    keys = {"as it is": key(inputs)} | {name: key(other, p) for name, other, p in variants(small)}
    assert len(set(keys.values())) == len(keys), keys


def test_the_structure_shows_no_numbers(inputs):
    structure = blueprint(inputs).structure
    assert np.isnan(structure.cells.z).all()
    assert np.isnan(structure.frame).all()
    assert np.isnan(structure.design.params_scale)
    assert not set(structure.design.families) - {""}
    for tokens in structure.design.languages:
        assert np.isnan([tokens.center, tokens.scale, *tokens.log10_count, *tokens.error_sd]).all()


def test_the_key_follows_the_sources_and_the_compilers(inputs, monkeypatch):
    before = key(inputs)
    monkeypatch.setattr(density_store, "version", lambda name: "0")
    assert key(inputs) != before
    monkeypatch.undo()
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert key(inputs) != before
    monkeypatch.undo()
    read = density_store.Path.read_bytes
    monkeypatch.setattr(
        density_store.Path, "read_bytes", lambda path: read(path) + b" " * (path.name == "likelihood.py")
    )
    assert key(inputs) != before


def test_a_file_of_no_use_is_compiled_again(inputs, folder, tmp_path):
    plan = blueprint(inputs)
    stored = next(folder.iterdir())
    cut = tmp_path / stored.name
    cut.write_bytes(stored.read_bytes()[:1000])
    assert load(cut, plan) is None
    found = model_density(inputs, Priors(), tmp_path)
    assert np.isfinite(found.evaluator()(found.start)[0])
    assert load(cut, plan) is not None
    gone = density_store.pickle.loads(stored.read_bytes())
    gone["recipe"] = gone["recipe"]._replace(key="no such machine code")
    cut.write_bytes(density_store.pickle.dumps(gone))
    assert load(cut, plan) is None


def test_a_folder_that_cannot_be_written_does_not_matter(inputs, tmp_path):
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    found = model_density(inputs, Priors(), nowhere / "folder")
    assert np.isfinite(found.evaluator()(found.start)[0])


def test_a_later_process_needs_no_pymc(inputs, folder, tmp_path):
    given = tmp_path / "inputs.pickle"
    given.write_bytes(density_store.pickle.dumps(inputs))
    code = (
        "import pickle, sys; from pathlib import Path\n"
        "from factorlab.inference.density import constrainer\n"
        "from factorlab.inference.density_store import model_density\n"
        "from factorlab.inference.priors import Priors\n"
        f"d = model_density(pickle.loads(Path({str(given)!r}).read_bytes()), Priors(), Path({str(folder)!r}))\n"
        "constrainer(d, d.values.names)(d.start[None])\n"
        "print(d.evaluator()(d.start)[0], 'pymc' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    ).stdout.split()
    here = model_density(inputs, Priors(), folder)
    assert told == [str(here.evaluator()(here.start)[0]), "False"]
