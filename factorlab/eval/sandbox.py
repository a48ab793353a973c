"""Generated programs, run where they can do no harm: `Sandbox.find`, `Sandbox.run`, `Sandbox.run_many`.

A program is hostile until shown otherwise. It runs as another user without rights, in namespaces of its own
(no network, no other process, no file but the interpreter's, an empty /tmp), under limits of time, memory,
processes and files, behind a filter of system calls. bubblewrap or nsjail build the namespaces where they
are installed, ``sandbox_namespaces.py`` otherwise; ``sandbox_child.py`` is what runs inside. A sandbox is
tried before it is used: `find` runs a program that attempts what must not be possible.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import Literal

from factorlab.errors import InputError
from factorlab.eval.sandbox_commands import COMMANDS, ENVIRONMENT, FILES_MB, PROGRAMS, nobody, site_folders
from factorlab.eval.sandbox_filter import refused_calls

Status = Literal["passed", "failed", "timed out", "killed"]

BACKENDS = ("bubblewrap", "nsjail", "namespaces")
"""What can build the namespaces, best first."""

START_SECONDS = 30.0
"""A sandbox that is not ready by then is broken, however busy the machine is."""

CURE = "install bubblewrap (apt install bubblewrap), or allow it with --unsafe-code"


@dataclass(frozen=True)
class Run:
    """What came of a program.

    Attributes
    ----------
    status : str
        "passed" only where its last line was reached.
    detail : str
        The error, the time, the signal; empty where it passed. Written by the program: not to be trusted.
    seconds : float
        Wall time from the program's first line.
    """

    status: Status
    detail: str
    seconds: float


@dataclass(frozen=True)
class Sandbox:
    """A way to run hostile Python programs.

    Attributes
    ----------
    backend : str
        One of `BACKENDS`, or "none": limits of time and memory, but nothing that protects the machine.
    """

    backend: str

    @classmethod
    def find(cls, *, unsafe: bool = False, backends: Sequence[str] = BACKENDS) -> Sandbox:
        """The first sandbox of this machine that holds.

        Parameters
        ----------
        unsafe : bool
            Run without one where none holds.
        backends : sequence of str
            Those to be tried, in order.

        Raises
        ------
        InputError
            When none holds: what each failed on, and the cure.
        """
        found = []
        for backend in backends:
            fault = cls(backend).fault()
            if fault is None:
                return cls(backend)
            found.append(f"{backend}: {fault}")
        if unsafe:
            return cls("none")
        raise InputError(f"no sandbox for generated code holds on this machine ({'; '.join(found)}); {CURE}")

    def fault(self) -> str | None:
        """What this sandbox lets through or fails on, one line; None where it holds.

        A program inside tries to reach a port of this machine, a file in the home directory and one in the
        folder of temporary files, to write to the system, to start processes and to take memory.
        """
        try:
            refused_calls(1)
        except InputError as error:
            return str(error)
        if self.backend in PROGRAMS and shutil.which(PROGRAMS[self.backend]) is None:
            return "not installed"
        probe = files("factorlab.eval").joinpath("sandbox_probe.py").read_text(encoding="utf-8")
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            tempfile.NamedTemporaryFile(mode="w", prefix="factorlab-probe-") as secret,
        ):
            secret.write("secret")
            secret.flush()
            asked = {
                "port": server.getsockname()[1],
                "secrets": [secret.name, str(Path.home() / ".bashrc"), "/etc/passwd", "/proc/1/environ"],
                # "/tmp" is the sandbox's own there, whatever lies in ours.
                "folders": [
                    folder
                    for folder in ("/", "/usr", "/usr/lib", sys.base_prefix, str(Path.home()), os.getcwd())
                    if folder != "/tmp"
                ],
                "parent": os.getpid(),
                "memory": 256 << 20,
            }
            try:
                run = self.run(f"{probe}\nattempt_all(**{asked!r})", timeout=20.0, memory_mb=256)
                early = self.run("import os\nos._exit(0)", timeout=20.0)
            except InputError as error:
                return str(error)
        if run.status != "passed":
            return f"its check {run.status}, {run.detail}"
        return None if early.status == "failed" else "a program that left early passed"

    def run(self, program: str, timeout: float = 3.0, memory_mb: int = 1024, processes: int = 1) -> Run:
        """Run a Python program to its end.

        Parameters
        ----------
        program : str
            Source; it passes where its last line is reached without an exception.
        timeout : float
            Seconds of wall time, from the program's first line.
        memory_mb : int
            Most memory of a process, in MiB.
        processes : int
            Most processes and threads at a time, the program's own counted.

        Raises
        ------
        InputError
            When the sandbox itself does not start.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = subprocess.Popen(
                    self.command(memory_mb, processes, timeout),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
            with process:
                try:
                    return self._converse(_Line(ours), process, program, timeout)
                finally:
                    _end(process)

    def run_many(
        self,
        programs: Sequence[str],
        *,
        timeout: float = 3.0,
        memory_mb: int = 1024,
        workers: int | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> list[Run]:
        """Run programs, as many at a time as there are processors (`workers`); results in their order.

        Raises
        ------
        InputError
            As `run`.
        """
        from joblib import cpu_count  # knows the share of a container

        workers = workers or cpu_count()
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(self.run, program, timeout, memory_mb) for program in programs]
            try:
                for done, job in enumerate(as_completed(jobs), start=1):
                    job.result()
                    if progress is not None:
                        progress("programs", done, len(jobs))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return [job.result() for job in jobs]

    def command(self, memory_mb: int, processes: int, timeout: float) -> list[str]:
        """The command line that runs ``sandbox_child.py`` inside."""
        user = 0
        if self.backend != "none" and os.geteuid() == 0:
            user = nobody()
        child = [
            os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
            *(
                "-s",
                "-S",
                "-P",
                "-c",
                files("factorlab.eval").joinpath("sandbox_child.py").read_text("utf-8"),
            ),
            *map(str, (memory_mb << 20, processes, FILES_MB << 20, ceil(timeout) + 1, user)),
            refused_calls(processes).hex() if self.backend != "none" else "",
            *site_folders(),
        ]
        return COMMANDS[self.backend](child)

    def _converse(self, line: _Line, process: subprocess.Popen, program: str, timeout: float) -> Run:
        """Hand the program over, wait for its end, ask for the proof."""
        text = program.encode(errors="surrogatepass")
        try:
            line.send(b"%012d" % len(text) + text, START_SECONDS)
            ready = line.read(START_SECONDS)
        except OSError as error:
            ready = str(error).encode()
        if ready != b"ready":
            raise InputError(f"the sandbox '{self.backend}' did not start: {_reason(process, ready)}")
        began = time.monotonic()
        token = secrets.token_hex(16).encode()
        try:
            answer = line.read(timeout)
            if answer == b"end":
                line.send(token + b"\n", START_SECONDS)
                answer = line.read(START_SECONDS)
        except TimeoutError:
            return Run("timed out", f"{timeout:g} s", time.monotonic() - began)
        except OSError:
            answer = b""
        seconds = time.monotonic() - began
        if secrets.compare_digest(answer, token):
            return Run("passed", "", seconds)
        if answer.startswith(b"failed "):
            return Run("failed", answer[7:].decode(errors="replace"), seconds)
        return _left_early(process, answer, seconds)


class _Line:
    """A socket read by the line, each within a time; `read` gives b"" where the other side closed."""

    def __init__(self, line: socket.socket) -> None:
        self._line, self._rest = line, b""

    def send(self, text: bytes, seconds: float) -> None:
        self._line.settimeout(seconds)
        self._line.sendall(text)

    def read(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest and len(self._rest) < 1024:
            self._line.settimeout(max(deadline - time.monotonic(), 1e-3))
            more = self._line.recv(1024)
            if not more:
                break
            self._rest += more
        out, _, self._rest = self._rest.partition(b"\n")
        return out


def _left_early(process: subprocess.Popen, answer: bytes, seconds: float) -> Run:
    """The verdict of a program that ended without a word, or with another than agreed."""
    if answer:
        return Run("failed", "it spoke on the sandbox's own line", seconds)
    try:
        code = process.wait(5.0)
    except subprocess.TimeoutExpired:
        return Run("failed", "it closed the sandbox's own line", seconds)
    number = -code if code < 0 else code - 128
    if number > 0:
        known = {s.value: s.name for s in signal.Signals}
        return Run("killed", known.get(number, f"exit code {code}"), seconds)
    return Run("failed", f"left with exit code {code} before its last line", seconds)


def _end(process: subprocess.Popen) -> None:
    """Kill what is left: the kernel ends all processes of a namespace with its first."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(process: subprocess.Popen, answer: bytes) -> str:
    """Why a sandbox did not start: the last line that it wrote."""
    _end(process)
    said = process.stderr.read(10_000) if process.stderr else b""
    lines = [text.strip() for text in (answer + b"\n" + said).decode(errors="replace").split("\n")]
    return next((text for text in reversed(lines) if text), "no reason told")
