"""Write docs/cli.md from the verbs of the command line, so that the page cannot drift from them.

python docs/make_cli.py            writes docs/cli.md
python docs/make_cli.py --check    says whether it is up to date (exit code 1 when it is not)
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from factorlab.cli import main as verbs

TARGET = Path(__file__).with_name("cli.md")

OPENING = """\
# The command line

Written by `docs/make_cli.py` from the verbs themselves; change the help texts there, not here.
What the files hold is in [formats.md](formats.md), what the model is in [model.md](model.md).

Exit codes: 0 done, 1 a mistake in the input (one line on stderr), 2 a mistake in the usage, 3 what
`--strict` asks about was found, 130 interrupted (what is kept is in [formats.md](formats.md#exit-codes)).
How `refit` and `--cluster` are used is in [many_fits.md](many_fits.md), how `eval` is in [eval.md](eval.md),
`next` and `power` in [design.md](design.md).
"""


def page() -> str:
    """All of docs/cli.md."""
    context = click.Context(verbs, info_name="factorlab", **verbs.context_settings)
    parts = [OPENING, "## factorlab\n", _help(verbs), _options(verbs, context)]
    parts.append(_table(("verb", "what it does"), [_verb_row(name) for name in verbs.commands]))
    for name, command in verbs.commands.items():
        parts += _verb(name, command, context)
    return "\n".join(parts)


def _verb_row(name: str) -> tuple[str, str]:
    return f"[`{name}`](#factorlab-{name})", _help(verbs.commands[name]).split("\n\n")[0].strip()


def _verb(name: str, command: click.Command, above: click.Context) -> list[str]:
    context = click.Context(command, info_name=name, parent=above)
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join(["factorlab", name, "[OPTIONS]", *(_argument(a) for a in arguments)])
    return [f"## factorlab {name}\n", f"    {usage}\n", _help(command), _options(command, context)]


def _help(command: click.Command) -> str:
    """The help text, one line a paragraph."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(" ".join(p.split()) for p in paragraphs) + "\n"


def _argument(argument: click.Argument) -> str:
    label = (argument.name or "").upper()
    return label if argument.required else f"[{label}]"


def _options(command: click.Command, context: click.Context) -> str:
    rows = []
    for option in command.get_params(context):
        if isinstance(option, click.Option):
            meaning = (option.help or "").replace("<", "&lt;")
            rows.append((_names(option), _default(option, context), meaning))
    return _table(("option", "default", "meaning"), rows)


def _names(option: click.Option) -> str:
    """All spellings, and what to write after them."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:
        return names
    if isinstance(option.type, click.Choice):
        value = " or ".join(f"`{choice}`" for choice in option.type.choices)
    else:
        value = f"`{option.metavar or _kind(option.type)}`"
    return f"{names} {value}" + (" (may be repeated)" if option.multiple else "")


def _kind(kind: click.ParamType) -> str:
    return {"text": "TEXT", "integer": "INTEGER", "float": "NUMBER", "path": "PATH"}.get(
        kind.name, kind.name.upper()
    )


def _default(option: click.Option, context: click.Context) -> str:
    if option.required:
        return "required"
    if not option.show_default:
        return ""
    value = option.get_default(context)
    if option.is_flag:
        value = (option.opts if value else option.secondary_opts)[0]
    return f"`{value}`"


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
        sys.exit(
            0 if current == page() else "docs/cli.md is not what the verbs say; run python docs/make_cli.py"
        )
    write(page())
