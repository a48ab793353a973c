"""The system calls that generated code may not make, as a program for the kernel's filter (seccomp).

A list of what is refused, not of what is allowed: memory that no limit counts (shared memory, message
queues, memory files), sockets (those of virtual machines know no network namespace), new namespaces and
mounts, other processes' memory, and parts of the kernel that seldom do without a security fix.
"""

from __future__ import annotations

import errno
import os
import struct

from factorlab.errors import InputError

ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of <linux/audit.h>."""

REFUSED = {
    "x86_64": {
        "socket": 41, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "memfd_create": 319,
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
        "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "fanotify_init": 300,
        "add_key": 248, "request_key": 249, "keyctl": 250, "open_by_handle_at": 304,
        "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313,
        "delete_module": 176, "swapon": 167, "swapoff": 168, "reboot": 169, "syslog": 103, "acct": 163,
        "quotactl": 179, "modify_ldt": 154, "iopl": 172, "ioperm": 173,
    },
    "aarch64": {
        "socket": 198, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180, "memfd_create": 279,
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
        "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
        "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "fanotify_init": 262,
        "add_key": 217, "request_key": 218, "keyctl": 219, "open_by_handle_at": 265,
        "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273,
        "delete_module": 106, "swapon": 224, "swapoff": 225, "reboot": 142, "syslog": 116, "acct": 89,
        "quotactl": 60,
    },
}  # fmt: skip
"""Numbers of refused calls, from the kernel's tables."""

REFUSED_EVERYWHERE = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438,
    "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip
"""Calls from Linux 5.1 on have one number on all machines."""

CLONE = {"x86_64": 56, "aarch64": 220}
FORK = {"x86_64": (57, 58), "aarch64": ()}
CLONE3 = 435
NEW_SPACES = 0x7E020080
"""Flags of clone(2) that ask for a namespace."""

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
"""Offsets in ``struct seccomp_data``."""

X32 = 0x40000000
"""Call numbers of x86's third interface begin here."""


def refused_calls(processes: int, machine: str | None = None) -> bytes:
    """The filter as the kernel reads it: instructions of 8 bytes.

    Parameters
    ----------
    processes : int
        Processes and threads allowed; 1 refuses to make any.
    machine : str, optional
        This one where not given.

    Raises
    ------
    InputError
        For a kind of machine whose call numbers are not known.
    """
    machine = machine or os.uname().machine
    if machine not in ARCHITECTURE:
        raise InputError(
            f"no sandbox for generated code on a '{machine}' machine ({' and '.join(ARCHITECTURE)} have one); "
            "score the code elsewhere, or allow it with --unsafe-code"
        )
    code = [_step(LOAD, ARCHITECTURE_AT), _step(EQUAL, ARCHITECTURE[machine], 1, 0), _step(RETURN, KILL)]
    code += [_step(LOAD, NUMBER_AT)]
    code += _unless(AT_LEAST, X32, FAIL | errno.EPERM)
    for number in (*REFUSED[machine].values(), *REFUSED_EVERYWHERE.values()):
        code += _unless(EQUAL, number, FAIL | errno.EPERM)
    # The C library falls back to clone, whose flags can be seen.
    code += _unless(EQUAL, CLONE3, FAIL | errno.ENOSYS)
    if processes == 1:
        for number in (CLONE[machine], *FORK[machine]):
            code += _unless(EQUAL, number, FAIL | errno.EAGAIN)
    else:
        code += [_step(EQUAL, CLONE[machine], 0, 3), _step(LOAD, FIRST_ARGUMENT_AT)]
        code += _unless(ANY_BIT, NEW_SPACES, FAIL | errno.EPERM)
    return b"".join([*code, _step(RETURN, ALLOW)])


def _step(operation: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, then, otherwise, value)


def _unless(test: int, value: int, answer: int) -> list[bytes]:
    """Answer where the test holds, else go on."""
    return [_step(test, value, 0, 1), _step(RETURN, answer)]
