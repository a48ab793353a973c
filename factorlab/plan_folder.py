"""The folder that a plan leaves: written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

from factorlab.errors import InputError
from factorlab.inference.predict.plan import Plan
from factorlab.plots import plan_curves, plan_strategies, save
from factorlab.runs import new_folder
from factorlab.summary import clean

MARK = "plan.json"


def check_free(folder: str | os.PathLike[str], force: bool = False) -> Path:
    """The folder, if a plan may be written there.

    Raises
    ------
    InputError
        When it exists and `force` is not set, when it exists and holds no plan, or when its parent does not
        exist.
    """
    target = Path(folder)
    if target.exists() and not force:
        raise InputError(f"'{target}' exists; give --out another folder, or --force to replace it")
    if target.exists() and not (target / MARK).is_file():
        raise InputError(f"'{target}' is no folder of a plan; --force replaces folders of plans only")
    if not target.absolute().parent.is_dir():
        raise InputError(f"no such folder: '{target.parent}'; make it first")
    return target


def write_plan(plan: Plan, folder: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write plan.json, curve.csv, strategies.csv and the figures; all of them or nothing.

    Parameters
    ----------
    plan : Plan
    folder : path
    force : bool
        Replace the folder of an earlier plan.

    Raises
    ------
    InputError
        As `check_free`.
    """
    target = check_free(folder, force)
    with new_folder(target) as work:
        (work / MARK).write_text(plan_text(plan), encoding="utf-8")
        plan.curve.to_csv(work / "curve.csv", index=False)
        plan.strategies.to_csv(work / "strategies.csv", index=False)
        save(plan_curves(plan), work / "curve")
        if len(plan.strategies):
            save(plan_strategies(plan), work / "strategies")
    return target


def plan_text(plan: Plan) -> str:
    """The contents of plan.json."""
    return json.dumps(clean(plan.to_dict()), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
