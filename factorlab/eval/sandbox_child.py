"""What runs inside the sandbox: limits, then the program, then the proof that its end was reached.

`factorlab.eval.sandbox` hands the text of this file to ``python -c``; it imports the standard library only.
Descriptor 0 is a socket to the parent, on which goes, in this order: the length of the program (12 digits)
and the program; "ready"; "end" where the program's last line was reached, or "failed" with a reason; after
"end" a token that the parent draws only then, and the same token back.
"""

from __future__ import annotations

import os
import resource
import sys

DESCRIPTORS = 64
"""Open files at a time; the socket hides among their numbers."""

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def take(descriptor: int, length: int) -> bytes:
    """Exactly `length` bytes, or an error where the other end closed."""
    out = b""
    while len(out) < length:
        more = os.read(descriptor, length - len(out))
        if not more:
            raise SystemExit("the parent closed the connection")
        out += more
    return out


def filter_calls(code: bytes) -> None:
    """No new privileges from here on, and only the system calls that a BPF program lets through."""
    import ctypes

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    zero, one, mode = map(ctypes.c_ulong, (0, 1, SECCOMP_MODE_FILTER))
    program = Program(len(code) // 8, code)
    if (
        libc.prctl(PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) != 0
        or libc.prctl(PR_SET_SECCOMP, mode, ctypes.byref(program), zero, zero) != 0
    ):
        raise OSError(ctypes.get_errno(), "prctl refused to give up rights")


def limit(memory: int, processes: int, file_size: int, seconds: int) -> None:
    """Hard limits: what the program can't raise again."""
    for name, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))


def become(user: int) -> None:
    """From root to a user of no name, with no rights left."""
    if user and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def main() -> None:
    memory, processes, file_size, seconds, user = map(int, sys.argv[1:6])
    code, paths = bytes.fromhex(sys.argv[6]), sys.argv[7:]
    sys.argv = [""]
    # What is needed after the program ran is bound here: the program may replace anything that has a name.
    read, write, leave, kind, text, base = os.read, os.write, os._exit, type, str, BaseException
    program = take(0, int(take(0, 12)))
    null = os.open("/dev/null", os.O_RDWR)
    hidden = null + 1 + os.urandom(1)[0] % (DESCRIPTORS - null - 2)
    os.dup2(0, hidden, inheritable=False)
    become(user)
    limit(memory, processes, file_size, seconds)
    if code:
        filter_calls(code)
    sys.path += paths
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    write(hidden, b"ready\n")
    try:
        # An empty name space, as in bigcode's code_eval: no "__main__" block of a program runs.
        exec(compile(program, "program", "exec"), {})
    except base as error:
        try:
            reason = kind(error).__name__ + ": " + text(error)
        except base:
            reason = "an error that can't be printed"
        write(hidden, b"failed " + reason.encode(errors="replace")[:400].replace(b"\n", b" ") + b"\n")
        leave(0)
    write(hidden, b"end\n")
    write(hidden, read(hidden, 64))
    # Without the interpreter's own end: nothing that the program left to be run at exit is run.
    leave(0)


if __name__ == "__main__":
    main()
