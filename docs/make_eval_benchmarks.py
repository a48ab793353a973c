"""Write docs/eval_benchmarks.md from the task files, so that the page cannot drift from them.

python docs/make_eval_benchmarks.py            writes docs/eval_benchmarks.md
python docs/make_eval_benchmarks.py --check    says whether it is up to date (exit code 1 when it is not)
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from factorlab.eval.task import Place, Shots, Task, load_task, shipped_tasks

TARGET = Path(__file__).with_name("eval_benchmarks.md")

OPENING = """\
# The 19 benchmarks of `factorlab eval`

Written by `docs/make_eval_benchmarks.py` from `factorlab/eval/tasks/`; change the task files, not this page.
[eval_tasks.md](eval_tasks.md) says what their keys mean and how to add a benchmark.

`paper` asks and scores as the reference study did, with what went wrong there, so that numbers compare with it;
`fixed` mends that. A table below says what `fixed` does otherwise. Local files are below `--data-dir`; without it,
data comes from Hugging Face's hub where it is there.
"""


def page() -> str:
    """All of docs/eval_benchmarks.md."""
    tasks = [load_task(name) for name in shipped_tasks()]
    rows = [
        (
            f"[`{task.name}`](#{task.name})",
            task.benchmark,
            _shots(task.shots),
            task.scoring,
            task.metric.name,
            f"{task.chance:g}",
        )
        for task in tasks
    ]
    header = ("name", "benchmark", "worked examples", "scored by", "metric", "chance")
    parts = [OPENING, _table(header, rows)]
    for task in tasks:
        parts += _section(task, load_task(task.name, "fixed"))
    return "\n".join(parts)


def _section(task: Task, fixed: Task) -> list[str]:
    told = [
        f"* {task.reference}. Licence of the data: {task.licence}.",
        f"* Items: {_source(task.data.hub, task.data.local)}. Official source: `{task.origin}`.",
    ]
    if task.shots:
        source = task.shots.source
        told.append(f"* Worked examples ({_shots(task.shots)}): {_source(source.hub, source.local)}.")
    if task.cluster:
        told.append(f"* Cluster: `{task.cluster}`.")
    if task.shared:
        told.append(f"* Item that other benchmarks have too: `{task.shared[0]}:` and `{task.shared[1]}`.")
    out = [f"## {task.name}\n", "\n".join(told) + "\n"]
    if task.traps:
        out.append("Known of the study's protocol:\n\n" + _list(task.traps))
    if fixed.differences:
        rows = [(f"`{d.key}`", _value(d.study), _value(d.here), d.why) for d in fixed.differences]
        out.append(_table(("key", "`paper`", "`fixed`", "why"), rows))
    else:
        out.append("`fixed` is the same as `paper`.\n")
    if task.note:
        out.append("Not verified, or different from the study under both:\n\n" + _list(task.note))
    return out


def _shots(shots: Shots | None) -> str:
    return "none" if shots is None else f"{shots.count}, {shots.draw.replace('_', ' ')}"


def _source(hub: Place | None, local: Sequence[Place]) -> str:
    told = [" + ".join(f"`{name}`" for name in place.files) or _kind(place) for place in local]
    if hub is not None:
        told.append(f"hub `{hub.hub}`, {hub.split}" if hub.hub else _kind(hub))
    return " or ".join(dict.fromkeys(told))


def _kind(place: Place) -> str:
    if place.from_items:
        return "the items themselves"
    rule = place.held_out or {}
    if "first" in rule:
        return f"the first {rule['first']} items, held out"
    return f"the smallest group of items by {rule.get('smallest_group')}, held out"


def _value(value: Any) -> str:
    """A value of a task file as code; steps of extraction one after the other."""
    if value is None:
        return "none"
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return ", ".join(_step(item) for item in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _code(text.replace("\n", "\\n"))


def _step(step: dict[str, Any]) -> str:
    if "step" not in step:
        return _code(" + ".join(step.get("files", [])) or json.dumps(step, ensure_ascii=False))
    told = [
        json.dumps(value, ensure_ascii=False).replace("\\\\", "\\")
        for key, value in step.items()
        if key != "step"
    ]
    return _code(" ".join([step["step"], *told]))


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for line in lines) + "\n"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


def write(text: str, target: Path = TARGET) -> None:
    """Write a page under a temporary name, then rename it."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(name, 0o644)
    os.replace(name, target)


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        current = TARGET.read_text(encoding="utf-8") if TARGET.is_file() else ""
        message = (
            "docs/eval_benchmarks.md is not what the task files say; run python docs/make_eval_benchmarks.py"
        )
        sys.exit(0 if current == page() else message)
    write(page())
