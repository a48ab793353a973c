"""The command line as the tests call it: what it prints, and one line for every mistake."""

from __future__ import annotations

from click.testing import CliRunner, Result

from factorlab.cli import main


def call(*arguments: object, code: int = 0) -> Result:
    """Run a verb; its exit code is ``code``."""
    out = CliRunner().invoke(main, [str(a) for a in arguments])
    assert out.exit_code == code, out.output + (repr(out.exception) if out.exception else "")
    return out


def mistake(*arguments: object) -> str:
    """Run with a mistake in it: exit code 1, one line on stderr, nothing on stdout."""
    out = call(*arguments, code=1)
    assert out.stdout == ""
    lines = out.stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0]
