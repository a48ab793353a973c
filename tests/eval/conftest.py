"""Models that the tests of evaluation share, trained once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Ladder:
    """A folder that `ladder.train_ladder` and `ladder.write_world` have filled.

    Attributes
    ----------
    folder : Path
        Holds `models.csv` and `benchmarks.csv`, too.
    models, tasks : tuple of Path
        Model folders, and task files.
    data : Path
        What the task files' paths are below (`--data-dir`).
    """

    folder: Path
    models: tuple[Path, ...]
    tasks: tuple[Path, ...]
    data: Path


@pytest.fixture(scope="session")
def ladder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Ladder:
    """Nine small models and ten benchmarks: a minute, once for all workers of a session."""
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed: no model can be trained")
    from filelock import FileLock
    from ladder import train_ladder, world, write_world

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "ladder"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            part = Path(f"{folder}.part{len(list(folder.parent.glob('ladder.part*')))}")
            part.mkdir()
            write_world(part, world())
            train_ladder(part)
            part.rename(folder)
    names = [line.split(",")[0] for line in (folder / "models.csv").read_text("utf-8").splitlines()[1:]]
    return Ladder(
        folder,
        tuple(folder / "models" / name for name in names),
        tuple(sorted((folder / "tasks").glob("*.yaml"))),
        folder / "data",
    )
