"""What must not be possible inside a sandbox, attempted: a program for `Sandbox.fault`.

Runs inside; the first thing that succeeds is raised as an error.
"""

import ctypes
import os
import socket
from collections.abc import Callable


def attempt(what: str, action: Callable[[], object]) -> None:
    try:
        action()
    except (OSError, MemoryError):
        return
    raise RuntimeError("possible: " + what)


def write(folder: str) -> None:
    path = os.path.join(folder, "factorlab-probe")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def raw_socket() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def attempt_all(port: int, secrets: list[str], folders: list[str], parent: int, memory: int) -> None:
    """Everything, with a port that listens outside and paths that must not be read or written."""
    attempt("a connection", lambda: socket.create_connection(("127.0.0.1", port), timeout=2))
    attempt("a socket", raw_socket)
    for path in secrets:
        attempt("reading " + path, lambda path=path: open(path).close())  # type: ignore[misc]
    for path in folders:
        attempt("writing to " + path, lambda path=path: write(path))  # type: ignore[misc]
    attempt("a signal to the parent", lambda: os.kill(parent, 0))
    attempt("another process", fork)
    attempt("becoming root", lambda: os.setuid(0))
    attempt("more memory than allowed", lambda: bytearray(2 * memory))
    if os.geteuid() == 0:
        raise RuntimeError("possible: being root")
    if os.getcwd() != "/tmp":
        raise RuntimeError("the working directory is " + os.getcwd())
    write("/tmp")
