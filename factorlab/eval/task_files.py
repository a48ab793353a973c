"""Task files: which are shipped, which a user means, and their YAML."""

from __future__ import annotations

import fnmatch
import glob
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from factorlab.errors import InputError
from factorlab.eval.keys import like, shown
from factorlab.eval.words import needed

TASKS = Path(__file__).with_name("tasks")
"""The shipped task files."""


def shipped_tasks() -> list[str]:
    """Names of the tasks that come with the package, in the order of the alphabet."""
    return sorted(path.stem for path in TASKS.glob("*.yaml"))


def select_tasks(text: str) -> list[str]:
    """Task names from what a user writes: "all", names and globs between commas, paths of YAML files.

    Names are those of files or of benchmarks, in upper or lower case ("mm*", "WMT20-*").

    Returns
    -------
    list of str
        Names of shipped tasks and paths, each once, in the order they were asked for.

    Raises
    ------
    InputError
        When a part of it names no task.
    """
    names = _benchmarks()
    out: list[str] = []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError("no task is named; name one of " + ", ".join(names) + ", a glob of them, or all")
    for part in parts:
        if part.lower() == "all":
            found = list(names)
        elif _is_path(part):
            # A path with a glob stands for the files there; one that is there itself is taken as it is.
            found = [part] if os.path.exists(part) or not glob.has_magic(part) else sorted(glob.glob(part))
            if not found:
                raise InputError(f"no task file is called '{part}'")
        else:
            asked = part.lower()
            found = [
                name
                for name, benchmark in names.items()
                if fnmatch.fnmatchcase(name, asked) or fnmatch.fnmatchcase(benchmark.lower(), asked)
            ]
        if not found:
            raise _unknown(part)
        out += [name for name in found if name not in out]
    return out


@lru_cache(maxsize=1)
def _benchmarks() -> dict[str, str]:
    """Shipped task -> its benchmark's name."""
    return {name: str(read_yaml(TASKS / f"{name}.yaml", name)["benchmark"]) for name in shipped_tasks()}


def _is_path(text: str) -> bool:
    return text.endswith((".yaml", ".yml")) or os.sep in text


def task_path(name_or_path: str | os.PathLike[str]) -> Path:
    text = os.fspath(name_or_path)
    if _is_path(text):
        if not Path(text).is_file():
            raise InputError(f"no such task file: '{text}'")
        return Path(text)
    for name, benchmark in _benchmarks().items():
        if text.lower() in (name, benchmark.lower()):
            return TASKS / f"{name}.yaml"
    raise _unknown(text)


def _unknown(text: str) -> InputError:
    names = _benchmarks()
    return InputError(
        f"no task '{text}'{like(text, [*names, *names.values()])}; there are {', '.join(names)}, "
        "globs of them, all, and paths of YAML files"
    )


def read_yaml(path: Path, file: str) -> dict[str, Any]:
    """A YAML file that is a mapping; a key that is there twice is an error."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise needed("pyyaml", "reading task files") from None

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        seen = [loader.construct_object(key, deep=True) for key, _ in node.value]
        for key in seen:
            if seen.count(key) > 1:
                raise InputError(f"'{file}': key '{key}' is there twice (line {node.start_mark.line + 1})")
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=Strict)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise InputError(f"'{file}' is no YAML{line}: {getattr(error, 'problem', error)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{file}' cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise InputError(f"'{file}' is {shown(raw)}; a task file is a mapping (docs/eval_tasks.md)")
    return raw
