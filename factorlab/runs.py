"""Runs: the folder that a fit leaves, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from factorlab.analysis import SCHEMES, Analysis, derive
from factorlab.errors import InputError
from factorlab.health import check
from factorlab.inference.priors import Priors
from factorlab.inference.scree import parallel_analysis
from factorlab.inference.solution import FactorSolution, load_solution
from factorlab.inference.watch import Progress
from factorlab.options import FitOptions
from factorlab.painter import Painter, save_figures
from factorlab.report import write_report
from factorlab.scores import ScoreTable, read_scores
from factorlab.summary import clean, summarise, tables

SOLUTIONS = ("pca", "ml", "bayes")


def check_free(folder: str | os.PathLike[str], force: bool = False) -> Path:
    """The folder, if a run may be written there.

    Raises
    ------
    InputError
        When it exists and `force` is not set, when it exists and is no run folder, or when its
        parent does not exist.
    """
    target = Path(folder)
    if target.exists() and not force:
        raise InputError(f"'{target}' exists; give --out another folder, or --force to replace it")
    if target.exists() and not _is_run(target):
        raise InputError(f"'{target}' is not a run folder of factorlab; --force replaces run folders only")
    if not target.absolute().parent.is_dir():
        raise InputError(f"no such folder: '{target.parent}'; make it first")
    return target


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "run.json").is_file() or not any(folder.iterdir()))


def write_run(
    analysis: Analysis,
    folder: str | os.PathLike[str],
    *,
    force: bool = False,
    page: bool = True,
    progress: Progress | None = None,
    painter: Painter | None = None,
) -> Path:
    """Write table, solutions, summary, CSV tables, figures and page.

    The folder is made under a temporary name beside its place and renamed at the end, so that it is
    there whole or not at all.

    Parameters
    ----------
    analysis : Analysis
    folder : path
    force : bool
        Replace a run folder that is there.
    page : bool
        Draw the figures and write the page as well as the numbers.
    progress : callable, optional
        Called with (stage, done, total).
    painter : Painter, optional
        Entered; its other process draws while this one writes. All is drawn here when not given.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        As `check_free`.
    """
    target = check_free(folder, force)
    with new_folder(target) as work:
        if page and painter is not None:
            painter.begin(analysis)
        write_results(analysis, work)
        if page:
            write_page(analysis, work, progress, painter)
    return target


def write_page(
    analysis: Analysis, folder: Path, progress: Progress | None = None, painter: Painter | None = None
) -> Path:
    """Draw every figure into ``figures/`` and write ``report.html``; each file whole or not at all.

    Without a painter all is drawn in this process.
    """
    written = save_figures(analysis, folder / "figures", progress, painter)
    if progress is not None:
        progress("report", 0, 0)
    pictures = {name: png.read_bytes() for name, (png, _) in written.items()}
    return write_report(analysis, folder / "report.html", figures=pictures)


class new_folder:
    """A folder under a temporary name that takes its real name when the block ends well."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Path:
        self.work = Path(tempfile.mkdtemp(dir=self.target.absolute().parent, prefix=f".{self.target.name}."))
        self.work.chmod(0o755)
        return self.work

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            shutil.rmtree(self.work, ignore_errors=True)
            return
        old = None
        if self.target.exists():
            old = Path(
                tempfile.mkdtemp(dir=self.target.absolute().parent, prefix=f".{self.target.name}.old.")
            )
            os.replace(self.target, old / "run")
        os.replace(self.work, self.target)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def write_results(analysis: Analysis, folder: Path) -> None:
    """Table, solutions, CSV tables, summary and options into a folder."""
    analysis.table.write(folder / "table")
    for name in SOLUTIONS:
        solution = getattr(analysis, name)
        if solution is not None:
            solution.save(folder / f"{name}.nc")
    for scheme, solution in analysis.resamples.items():
        solution.save(folder / f"pca_{scheme.replace('-', '_')}.nc")
    (folder / "tables").mkdir()
    for name, frame in tables(analysis).items():
        frame.to_csv(folder / "tables" / f"{name}.csv", index=False)
    _write_json(folder / "summary.json", summarise(analysis))
    _write_json(
        folder / "run.json",
        clean(
            {
                "format": 1,
                "table": analysis.table.name,
                "options": asdict(analysis.options),
                "notes": list(analysis.notes),
                "seconds": dict(analysis.seconds),
            }
        ),
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load_run(folder: str | os.PathLike[str]) -> Analysis:
    """Read a run folder; what follows from its solutions is derived again.

    Raises
    ------
    InputError
        When the folder is absent, is no run folder, or lacks a file.
    """
    source = Path(folder)
    if not source.is_dir():
        raise InputError(f"no such run folder: '{source}'; factorlab fit writes one")
    if not (source / "run.json").is_file():
        raise InputError(f"'{source}' is not a run folder: it has no run.json; factorlab fit writes one")
    try:
        facts = json.loads((source / "run.json").read_text(encoding="utf-8"))
        options = _options(facts["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{source / 'run.json'}' cannot be read ({error}); fit again") from None
    table = _table(source / "table", str(facts["table"]))
    resamples = {scheme: _solution(source / f"pca_{scheme.replace('-', '_')}.nc") for scheme in SCHEMES}
    try:
        parallel = parallel_analysis(table, seed=options.seed, missing=options.missing)
    except InputError:
        parallel = None
    fitted = Analysis(
        table,
        options,
        check(table),
        pca=_solution(source / "pca.nc"),
        ml=_solution(source / "ml.nc"),
        bayes=_solution(source / "bayes.nc"),
        resamples={scheme: solution for scheme, solution in resamples.items() if solution is not None},
        parallel=parallel,
        notes=tuple(facts["notes"]),
        seconds=facts["seconds"],
    )
    return derive(fitted)


def _table(folder: Path, name: str) -> ScoreTable:
    return read_scores(folder / "scores.parquet", name=name)


def _solution(path: Path) -> FactorSolution | None:
    return load_solution(path) if path.is_file() else None


def _options(values: dict[str, Any]) -> FitOptions:
    known = {field.name for field in fields(FitOptions)}
    chosen = {key: value for key, value in values.items() if key in known}
    return FitOptions(**{**chosen, "priors": Priors(**chosen["priors"])})
