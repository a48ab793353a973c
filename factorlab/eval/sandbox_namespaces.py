"""A sandbox from the kernel's namespaces alone, where neither bubblewrap nor nsjail is installed.

A script (standard library only): ``python -I -S sandbox_namespaces.py TMPFS_BYTES PATH... -- COMMAND...`` runs the
command where only the paths exist, read-only, with a fresh /tmp, no network, no other processes and no rights.
As root it uses the kernel's namespaces directly, otherwise inside a user namespace.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

NEW_SPACES = 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
"""CLONE_NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP."""
NEW_USER = 0x10000000

MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE, MS_REMOUNT, MS_RDONLY = 2, 4, 4096, 16384, 1 << 18, 32, 1
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
MOUNT_SETATTR = 442
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAP_SETGID, CAP_SETUID = 6, 7

libc = ctypes.CDLL(None, use_errno=True)


class Attributes(ctypes.Structure):
    """``struct mount_attr`` of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user")]


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    values = [text.encode() or None for text in (source, target, kind)]
    check(libc.mount(*values, ctypes.c_ulong(flags), options.encode() or None), f"mount {kind} on {target}")


def freeze(target: str, attributes: int) -> None:
    """Attributes for a mount and all below it."""
    given = Attributes(set=attributes)
    result = libc.syscall(
        MOUNT_SETATTR, AT_FDCWD, target.encode(), AT_RECURSIVE, ctypes.byref(given), ctypes.sizeof(given)
    )
    check(result, f"mount_setattr of {target} (Linux 5.12 or newer)")


def pivot(new: str, old: str) -> None:
    check(libc.syscall(PIVOT_ROOT[os.uname().machine], new.encode(), old.encode()), "pivot_root")


def enter_spaces() -> None:
    """Own namespaces; inside a user namespace, as "nobody", where we are not root."""
    if os.geteuid() == 0 and libc.unshare(NEW_SPACES) == 0:
        return
    user, group = os.geteuid(), os.getegid()
    check(libc.unshare(NEW_USER | NEW_SPACES), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"65534 {user} 1"),
        ("gid_map", f"65534 {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def place(source: str, target: str, attributes: int) -> None:
    """Show a file or folder of the old root under the new one."""
    if os.path.islink(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(source, target, "", MS_BIND | MS_REC)
    freeze(target, attributes)


def build_root(paths: list[str], size: int) -> None:
    """A root of nothing but the paths, four devices and an empty /tmp; the old one is gone afterwards."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.mkdir("/tmp/old")
    os.mkdir("/tmp/new")
    pivot("/tmp", "/tmp/old")
    os.chdir("/")
    mount("tmpfs", "/new", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.mkdir("/new/tmp")
    mount("tmpfs", "/new/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},mode=1777,nr_inodes=10000")
    for path in paths:
        place("/old" + path, "/new" + path, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    for name in ("null", "zero", "random", "urandom"):
        place(f"/old/dev/{name}", f"/new/dev/{name}", ATTR_NOSUID)
    check(libc.umount2(b"/old", MNT_DETACH), "umount of the old root")
    os.chdir("/new")
    pivot(".", ".")
    check(libc.umount2(b".", MNT_DETACH), "umount of the root in between")
    mount("none", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir("/tmp")


def drop_rights() -> None:
    """No capability can be had again but those of becoming another user, which the runner then does."""
    for capability in range(64):
        if capability not in (CAP_SETGID, CAP_SETUID):
            libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "no_new_privs")


def die_with_parent(alive: int) -> None:
    """Killed when the parent ends; `alive` reads as closed where it had ended before that was asked for."""
    check(libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(9), 0, 0, 0), "pdeathsig")
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)


def wait_for(child: int) -> NoReturn:
    """End as a child ends, with 128 more than the number of a signal."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def main() -> None:
    cut = sys.argv.index("--")
    size, paths, command = int(sys.argv[1]), sys.argv[2:cut], sys.argv[cut + 1 :]
    libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(9), 0, 0, 0)
    enter_spaces()
    alive, ours = os.pipe()
    first = os.fork()
    if first:
        os.close(alive)
        wait_for(first)
    os.close(ours)
    die_with_parent(alive)
    build_root(paths, size)
    drop_rights()
    # The first process of the namespace stays: with it all others end, and they can't signal it.
    child = os.fork()
    if child:
        wait_for(child)
    os.execve(command[0], command, dict(os.environ))


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        os.write(2, f"{error.strerror}\n".encode())
        os._exit(125)
