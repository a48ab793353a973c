"""The folder that refits leave: written whole or not at all, finished fits kept while it is not."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from factorlab.errors import InputError
from factorlab.inference.provenance import versions
from factorlab.inference.resamples import Scheme
from factorlab.inference.watch import Progress
from factorlab.options import FitOptions
from factorlab.plots import headline_moves, save
from factorlab.refits import Refits, refit
from factorlab.scores import ScoreTable
from factorlab.summary import clean

MARK = "refit.json"
FITS = "fits"
PARTIAL = ".partial"
"""Ending of the folder that keeps finished fits until all have ended."""


def partial_folder(out: str | os.PathLike[str]) -> Path:
    """Where finished fits of an interrupted call are kept."""
    target = Path(out)
    return target.with_name(target.name + PARTIAL)


def refit_into(
    table: ScoreTable,
    scheme: Scheme,
    options: FitOptions,
    out: str | os.PathLike[str],
    *,
    fits: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Refits:
    """Refit, and write summary, solution and figure into a folder.

    Finished fits are kept in ``<out>.partial/fits`` until the folder is written, so that the same call
    goes on after an interruption; then they are in ``<out>/fits``, where a later call with `force` finds
    them, for example to try the ones that failed again.

    Parameters
    ----------
    table, scheme, options, fits, progress
        See `factorlab.refits.refit`.
    out : path
    force : bool
        Replace a folder of refits that is there.

    Raises
    ------
    InputError
        As `refit`; `out` exists and `force` is not set, or it is no folder of refits; its parent does
        not exist.
    """
    began = time.perf_counter()
    with folder_of_fits(out, force) as work:
        refits = refit(table, scheme, options, fits=fits, folder=str(work / FITS), progress=progress)
        _write(refits, work, time.perf_counter() - began)
    return refits


def check_free(target: Path, force: bool, mark: str = MARK, what: str = "refits") -> Path:
    """The folder of fits, if one may be written there.

    Parameters
    ----------
    target : Path
    force : bool
    mark : str
        The file that every such folder has.
    what : str
        What it is a folder of, in words.

    Raises
    ------
    InputError
    """
    if target.exists() and not force:
        raise InputError(f"'{target}' exists; give --out another folder, or --force to replace it")
    if target.exists() and not (target / mark).is_file():
        raise InputError(f"'{target}' is not a folder of {what}; --force replaces folders of {what} only")
    if not target.absolute().parent.is_dir():
        raise InputError(f"no such folder: '{target.parent}'; make it first")
    work = partial_folder(target)
    if work.exists() and not (work / FITS).is_dir():
        raise InputError(f"'{work}' is in the way and holds no fits; rename it")
    return target


@contextmanager
def folder_of_fits(
    out: str | os.PathLike[str], force: bool, mark: str = MARK, what: str = "refits"
) -> Iterator[Path]:
    """A folder whose ``fits/`` keeps finished fits, and that takes its real name when the block ends well.

    Raises
    ------
    InputError
        As `check_free`.
    """
    target = check_free(Path(out), force, mark, what)
    work = partial_folder(target)
    try:
        (work / FITS).mkdir(parents=True, exist_ok=True)
        if force and (target / FITS).is_dir() and not any((work / FITS).iterdir()):
            shutil.copytree(target / FITS, work / FITS, dirs_exist_ok=True)
        yield work
    except BaseException:
        if work.is_dir() and not any((work / FITS).iterdir()):
            shutil.rmtree(work)
        raise
    _replace(work, target)


def _write(refits: Refits, folder: Path, seconds: float) -> None:
    """All files; a figure only where there is a correlation with a budget."""
    refits.summary.to_csv(folder / "summary.csv", index=False)
    refits.headlines.to_csv(folder / "headlines.csv", index=False)
    refits.solution.save(folder / "refits.nc")
    shutil.rmtree(folder / "figures", ignore_errors=True)
    notes = list(refits.notes)
    try:
        figure = headline_moves(
            refits.summary, refits.headlines, scheme=refits.scheme, method=refits.options.method
        )
    except InputError as error:
        notes.append(f"no figure: {error}")
    else:
        save(figure, folder / "figures" / "headlines")
    facts: dict[str, Any] = {
        "format": 1,
        "table": {"name": refits.table.name, "digest": refits.table.digest()},
        "scheme": refits.scheme,
        "method": refits.options.method,
        "options": asdict(refits.options),
        "refits": len(refits.solution.extra["units"]),
        "failures": dict(refits.failures),
        "problems": list(refits.problems),
        "notes": notes,
        "seconds": seconds,
        "versions": versions(),
    }
    text = json.dumps(clean(facts), ensure_ascii=False, indent=1, allow_nan=False)
    (folder / MARK).write_text(text + "\n", encoding="utf-8")


def _replace(work: Path, target: Path) -> None:
    if not target.exists():
        os.replace(work, target)
        return
    old = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=f".{target.name}.old."))
    os.replace(target, old / "before")
    os.replace(work, target)
    shutil.rmtree(old, ignore_errors=True)
