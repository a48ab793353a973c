"""The folder that a validation leaves: written whole or not at all, finished fits kept while it is not."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from factorlab.inference.predict.validation import Validation, validate
from factorlab.inference.predict.validation_options import ValidationOptions
from factorlab.inference.provenance import versions
from factorlab.inference.watch import Progress
from factorlab.plots import save, validation_errors, validation_predictions, validation_reliability
from factorlab.refit_folder import FITS, folder_of_fits
from factorlab.score_table import ScoreTable
from factorlab.summary import clean

MARK = "validation.json"


def validate_into(
    table: ScoreTable,
    options: ValidationOptions,
    out: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Validation:
    """Validate, and write numbers, cells and figures into a folder.

    Finished fits are kept in ``<out>.partial/fits`` until the folder is written, as those of
    `factorlab.refit_folder.refit_into` are.

    Parameters
    ----------
    table, options, progress
        See `factorlab.inference.predict.validation.validate`.
    out : path
    force : bool
        Replace a folder of a validation that is there; its finished fits are used again.

    Raises
    ------
    InputError
        As `validate`; `out` exists and `force` is not set, or it is no folder of a validation.
    """
    began = time.perf_counter()
    with folder_of_fits(out, force, MARK, "validations") as work:
        found = validate(table, options, folder=str(work / FITS), progress=progress)
        _write(found, work, time.perf_counter() - began)
    return found


def _write(found: Validation, folder: Path, seconds: float) -> None:
    found.methods.to_csv(folder / "methods.csv", index=False)
    found.cells.to_csv(folder / "cells.csv", index=False)
    (folder / "factors.csv").unlink(missing_ok=True)
    if found.counts is not None:
        found.counts.to_csv(folder / "factors.csv", index=False)
    shutil.rmtree(folder / "figures", ignore_errors=True)
    save(validation_predictions(found), folder / "figures" / "predictions")
    save(validation_reliability(found), folder / "figures" / "reliability")
    save(validation_errors(found), folder / "figures" / "errors")
    facts: dict[str, Any] = {"format": 1, **found.to_dict(), "seconds": seconds, "versions": versions()}
    text = json.dumps(clean(facts), ensure_ascii=False, indent=1, allow_nan=False)
    (folder / MARK).write_text(text + "\n", encoding="utf-8")
