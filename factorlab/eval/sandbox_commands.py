"""Command lines of sandboxes: the same root, read-only, for bubblewrap, nsjail and the kernel's own namespaces."""

from __future__ import annotations

import os
import random
import sys
import sysconfig
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

FILES_MB = 32
"""Most that a program can write: a file, and all of /tmp."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store")
"""What an interpreter needs of the system, where it exists."""

DEVICES = ("null", "zero", "random", "urandom")

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    # The same order of sets, thus the same verdict, each time.
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Threads are processes to the kernel, and there may be none.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def nobody() -> int:
    """A user of no name, seldom the same for two programs at a time: the kernel counts processes by user."""
    return random.randrange(60_100, 61_000)


def site_folders() -> list[str]:
    """Folders of installed packages of this interpreter, and of its virtual environment."""
    names = [os.path.realpath(sysconfig.get_paths()[name]) for name in ("purelib", "platlib")]
    return [name for name in dict.fromkeys(names) if os.path.isdir(name)]


def visible() -> list[str]:
    """Paths that a program can see, outer ones first; folders inside a visible one are left out."""
    paths = sorted(
        {
            path
            for path in (*SYSTEM, os.path.realpath(sys.base_prefix), *site_folders())
            if os.path.exists(path)
        }
    )
    out: list[str] = []
    for path in paths:
        if not any(path == other or path.startswith(other.rstrip("/") + "/") for other in out):
            out.append(path)
    return out


def _parents(paths: list[str]) -> list[str]:
    """The folders that paths lie in, outer ones first."""
    found = {str(folder) for path in paths for folder in Path(path).parents}
    return sorted(found - {"/", "/tmp", *paths})


def _bubblewrap(child: list[str]) -> list[str]:
    root = os.geteuid() == 0
    rights = ["--cap-drop", "ALL"]
    if root:
        # As root there is no need of a user namespace; the child becomes another user by itself.
        rights += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        rights += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    spaces = [f"--unshare-{name}" for name in ("pid", "net", "ipc", "uts", "cgroup-try")]
    command = [PROGRAMS["bubblewrap"], *rights, *spaces, "--hostname", "sandbox"]
    command += ["--die-with-parent", "--new-session"]
    command += ["--perms", "1777", "--size", str(FILES_MB << 20), "--tmpfs", "/tmp"]
    for path in _parents([*visible(), "/dev/null"]):
        # By itself bubblewrap makes them for root only.
        command += ["--perms", "0755", "--dir", path]
    for path in visible():
        link = os.path.islink(path)
        command += ["--symlink", os.readlink(path), path] if link else ["--ro-bind", path, path]
    for name in DEVICES:
        command += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp", "--", *child]


def _nsjail(child: list[str]) -> list[str]:
    user = f"65534:{nobody()}:1" if os.geteuid() == 0 else "65534"
    command = [PROGRAMS["nsjail"], "-Mo", "-Q", "--user", user, "--group", user, "--hostname", "sandbox"]
    command += ["--disable_proc", "--iface_no_lo", "--time_limit", "0", "--cwd", "/tmp"]
    # The limits are set by the child; nsjail's own are out of their way.
    for name in ("as", "cpu", "fsize", "nofile", "nproc", "stack", "core"):
        command += [f"--rlimit_{name}", "hard"]
    command += ["-m", f"none:/tmp:tmpfs:size={FILES_MB << 20}"]
    for path in visible():
        link = os.path.islink(path)
        command += ["--symlink", f"{os.readlink(path)}:{path}"] if link else ["-R", path]
    for name in DEVICES:
        command += ["-B", f"/dev/{name}"]
    for name, value in ENVIRONMENT.items():
        command += ["-E", f"{name}={value}"]
    return [*command, "--", *child]


def _namespaces(child: list[str]) -> list[str]:
    script = str(files("factorlab.eval").joinpath("sandbox_namespaces.py"))
    return [child[0], "-I", "-S", script, str(FILES_MB << 20), *visible(), "--", *child]


PROGRAMS = {"bubblewrap": "bwrap", "nsjail": "nsjail"}
COMMANDS: dict[str, Callable[[list[str]], list[str]]] = {
    "bubblewrap": _bubblewrap,
    "nsjail": _nsjail,
    "namespaces": _namespaces,
    "none": lambda child: child,
}
