"""The folder that a tornado leaves: written whole or not at all, finished fits kept while it is not."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from factorlab.inference.provenance import versions
from factorlab.inference.watch import Progress
from factorlab.options import FitOptions
from factorlab.plots import save, tornado_bars
from factorlab.refit_folder import FITS, folder_of_fits
from factorlab.scores import ScoreTable
from factorlab.summary import clean
from factorlab.tornado import Tornado, tornado

MARK = "tornado.json"


def tornado_into(
    table: ScoreTable,
    options: FitOptions,
    out: str | os.PathLike[str],
    *,
    families: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> Tornado:
    """Fit again after each change, and write tables and figures into a folder.

    Finished fits are kept as those of `factorlab.refit_folder.refit_into`.

    Parameters
    ----------
    table, options, families, progress
        See `factorlab.tornado.tornado`.
    out : path
    force : bool
        Replace a folder of a tornado that is there.

    Raises
    ------
    InputError
        As `tornado`; `out` exists and `force` is not set, or it is no such folder; its parent does not exist.
    """
    began = time.perf_counter()
    with folder_of_fits(out, force, MARK, "a tornado") as work:
        found = tornado(table, options, families=families, folder=str(work / FITS), progress=progress)
        if progress is not None:
            progress("figures", 0, 0)
        _write(found, work, time.perf_counter() - began)
    return found


def figure_name(headline: str) -> str:
    """A file name for a headline: "rho(PC2, ja)" is "rho_PC2_ja"."""
    return re.sub(r"\W+", "_", headline).strip("_")


def _write(found: Tornado, folder: Path, seconds: float) -> None:
    found.rows.to_csv(folder / "tornado.csv", index=False)
    facts = {
        "format": 1,
        "table": {"name": found.table.name, "digest": found.table.digest()},
        "options": asdict(found.options),
        **found.to_dict(),
        "seconds": seconds,
        "versions": versions(),
    }
    text = json.dumps(clean(facts), ensure_ascii=False, indent=1, allow_nan=False)
    (folder / MARK).write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(folder / "figures", ignore_errors=True)
    for headline in found.headlines:
        figure = tornado_bars(found.rows, headline, level=found.options.level)
        save(figure, folder / "figures" / figure_name(headline))
