"""Time of one gradient: the compiled kernel beside the graph-built model and beside the floor.

Three functions of the same parameters, all called from compiled code or all from one wrapper, so that Python
costs none of them anything: the likelihood kernel alone; the whole compiled density of the model with the
kernel; the whole density with the likelihood as a graph of PyTensor operations. The floor counts
the multiply-adds that the formulas need per observed cell and per model and takes them at the speed of a
vectorised y += a x from the first-level cache, measured on the same core in the same minute. Loads and stores
are part of that speed: code that keeps sums in registers can come close to the floor, or below it. With families
and steps the kernel is compared with this floor and with its own, to which what the tree needs is added.

    python benchmarks/gradient.py --out gradient.json
    python benchmarks/gradient.py --out gradient.json --graph-models 250  # the graph of 1000 compiles for long
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from numba import njit

from factorlab.inference.density import compile_density
from factorlab.inference.inputs import ModelInputs, model_inputs
from factorlab.inference.kernel import axes_of, block_cells, integrated
from factorlab.inference.marginal import Cells
from factorlab.inference.model import build_model
from factorlab.inference.priors import Priors
from factorlab.scores import read_scores
from factorlab.simulation import simulate

KERNEL = "kernel, abilities integrated out"
WITH_TREE = "kernel, families and steps too"


def multiply_adds(cells: Cells, factors: int) -> float:
    """Multiply-adds of value and gradient, by the formulas in `factorlab.inference.kernel`.

    Per observed cell: residual K, weights 2, quadratic 1, A K(K+1)/2, h K; conditional residual K,
    d/dLambda from v K, from A^-1 K(K+1)/2, the same for psi K(K+1)/2, sums of v and v^2 2. A benchmark
    in a group of shared items: K + 2 more going in, K^2 + 3 K instead of K(K+1) coming back. Per model:
    Cholesky, inverse, product and solves K^3 / 6 + K^3 / 6 + K^3 / 6 + 2 K^2; a group K(K+1)/2 + 3 K + 6 in
    and K^2 + K out.
    """
    k = factors
    triangle = k * (k + 1) / 2
    grouped = cells.member.any(axis=1)
    each = 4 * k + 5 + 3 * triangle
    member = each + k + 2 + k * k + 3 * k - 2 * triangle
    seen = cells.observed.sum(axis=0)
    n_models, n_groups = len(cells.z), cells.member.shape[1]
    model = k**3 / 2 + 2 * k * k + n_groups * (triangle + 4 * k + 6 + k * k)
    return float(seen[~grouped].sum() * each + seen[grouped].sum() * member + n_models * model)


def tree_multiply_adds(node: np.ndarray, parent: np.ndarray, factors: int) -> float:
    """Multiply-adds that families and steps add to value and gradient, by the formulas of the kernel.

    With T = K(K+1)/2 the entries of a symmetric matrix. Per model with a node: A^-1 and t added to its node
    T + K; A^-1 c K^2; A^-1 V A^-1 from a triangular factor F of V, A^-1 F and its product with itself 2 K T.
    Per node: s^2 Q T; Cholesky, inverse, product, and the factor of V 4 K^3 / 6; S^-1 q and q' S^-1 q K^2 + K;
    s^2 S^-1 and s^2 S^-1 q T + K; tr(Q S^-1) and |g|^2 T + K. Per step besides: Q S^-1 K T, sent to the parent
    with S^-1 q T + K; Q S^-1 c_parent, from which c and g follow, K^2 + 2 K; V 2 K T;
    tr(V_parent (Q S^-1)^2) K T + T.
    """
    k = factors
    triangle = k * (k + 1) / 2
    model = triangle + k + k * k + 2 * k * triangle
    each = 4 * k**3 / 6 + k * k + 3 * triangle + 3 * k
    step = 4 * k * triangle + 2 * triangle + k * k + 3 * k
    return float((node >= 0).sum() * model + len(parent) * each + (parent >= 0).sum() * step)


@njit(fastmath=True, cache=True)
def add_scaled(x: Any, y: Any, times: int) -> None:
    """y += a x, many times."""
    for r in range(times):
        a = 1e-9 * r
        for i in range(x.shape[0]):
            y[i] += a * x[i]


@njit(cache=True)
def call_kernel(arguments: Any, times: int) -> float:
    """The likelihood kernel, called from compiled code."""
    total = 0.0
    for _ in range(times):
        total += integrated(*arguments)[0]
    return total


def seconds(call: Any, repeats: int, least: float = 0.05) -> list[float]:
    """CPU seconds of one call of ``call(times)``, several times over."""
    times = 1
    while True:
        began = time.process_time()
        call(times)
        spent = time.process_time() - began
        if spent >= least:
            break
        times = max(2 * times, int(1.2 * times * least / max(spent, 1e-6)))
    out = []
    for _ in range(repeats):
        began = time.process_time()
        call(times)
        out.append((time.process_time() - began) / times)
    return out


def density_call(inputs: ModelInputs, likelihood: str) -> Any:
    """The whole density by its C function, through ctypes: a few microseconds of Python are in it."""
    density = compile_density(build_model(inputs, Priors(), likelihood=likelihood))  # type: ignore[arg-type]
    evaluate = density.evaluator()
    point = density.start + 0.01 * np.random.default_rng(0).standard_normal(density.n_dim)
    if not np.isfinite(evaluate(point)[0]):
        raise RuntimeError("the density is not finite at the start")

    def call(times: int) -> None:
        for _ in range(times):
            evaluate(point)

    return call


def measure(name: str, inputs: ModelInputs, repeats: int, graph: bool) -> list[dict[str, Any]]:
    """Rows of one table: floors, kernel, density with kernel, density with graph; interleaved."""
    rng = np.random.default_rng(1)
    cells, k = inputs.cells, inputs.factors
    n_benchmarks = cells.z.shape[1]
    parameters = (
        rng.normal(size=(n_benchmarks, k)), rng.normal(size=n_benchmarks), rng.normal(size=(len(cells.z), k)),
        rng.uniform(0.3, 0.6, n_benchmarks), np.full(cells.member.shape[1], 0.3),
    )  # fmt: skip
    with_tree = (*inputs.blocks(), *parameters, 0.5, 0.5, axes_of(k))
    without = (*block_cells(cells), *parameters, 0.0, 0.0, axes_of(k))
    x, y = rng.normal(size=1024), rng.normal(size=1024)
    calls: dict[str, Any] = {
        "axpy": lambda times: add_scaled(x, y, times),
        KERNEL: lambda times: call_kernel(without, times),
        WITH_TREE: lambda times: call_kernel(with_tree, times),
        "whole density, kernel": density_call(inputs, "kernel"),
    }
    if graph:
        calls["whole density, graph"] = density_call(inputs, "graph")
    times: dict[str, list[float]] = {label: [] for label in calls}
    for call in calls.values():
        call(1)
    for _ in range(repeats):
        for label, call in calls.items():
            times[label] += seconds(call, 1)
    rate = 1024 / min(times["axpy"])
    floor = multiply_adds(cells, k) / rate
    tree = tree_multiply_adds(inputs.design.node, inputs.design.parent, k) if inputs.design.has_roots else 0.0
    own = floor + tree / rate
    rows: list[dict[str, Any]] = [
        {
            "table": name, "function": function, "microseconds": 1e6 * least, "best": 1e6 * least, "spread": 0.0,
            "times_floor": least / floor, "multiply_adds": least * rate, "multiply_adds_per_second": rate,
        }
        for function, least in (("floor", floor), ("floor, families and steps too", own))
    ]  # fmt: skip
    for label in list(calls)[1:]:
        middle = float(np.median(times[label]))
        rows.append(
            {
                "table": name, "function": label, "microseconds": 1e6 * middle,
                "best": 1e6 * float(np.min(times[label])),
                "spread": 1e6 * float(np.max(times[label]) - np.min(times[label])),
                "times_floor": middle / floor,
            }
        )  # fmt: skip
        if label == WITH_TREE:
            rows[-1]["times_own_floor"] = middle / own
    return rows


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--repeats", default=9, show_default=True)
@click.option("--quick", is_flag=True, help="Small tables only; for tests.")
@click.option(
    "--sizes", multiple=True, default=(250, 1000, 5000), show_default=True, help="Models of simulated tables."
)
@click.option(
    "--graph-models", default=1000, show_default=True, help="Larger tables go without the graph-built model."
)
@click.option(
    "--data", type=click.Path(path_type=Path), default=Path("data/scores.parquet"), show_default=True
)
def main(out: Path, repeats: int, quick: bool, sizes: tuple[int, ...], graph_models: int, data: Path) -> None:
    """Measure and write rows and goals."""
    real = model_inputs(read_scores(data), 4, Priors())
    tables = [("35 x 19, complete", real, True)]
    for n in (250,) if quick else sizes:
        made = simulate(models=n, benchmarks=60, factors=4, missing=0.4, family_share=0.3, seed=1)
        tables.append((f"{n} x 60, 40 % missing", model_inputs(made.table, 4, Priors()), n <= graph_models))
    rows: list[dict[str, Any]] = []
    for name, inputs, graph in tables:
        rows += measure(name, inputs, repeats, graph)
        for r in rows:
            if r["table"] == name:
                click.echo(
                    f"{name:26} {r['function']:36} {r['microseconds']:10.1f} us (best {r['best']:.1f}) "
                    f"{r['times_floor']:6.2f} {r.get('times_own_floor', '')}"
                )
    judged = [
        (f"{label}, {row['table']}", row[ratio])
        for function, ratio, label in (
            (KERNEL, "times_floor", "kernel over floor"),
            (WITH_TREE, "times_own_floor", "kernel with families and steps over its floor"),
        )
        for row in rows
        if row["function"] == function
    ]
    goals = [
        {"name": label, "value": value, "goal": "at most 3", "holds": value <= 3} for label, value in judged
    ]
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(json.dumps({"rows": rows, "goals": goals}, indent=1) + "\n")
    os.replace(partial, out)


if __name__ == "__main__":
    main()
