"""Hostile programs: none gets out, none forges its verdict; the reference solutions pass."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from factorlab.errors import InputError
from factorlab.eval import sandbox as module
from factorlab.eval.sandbox import BACKENDS, Run, Sandbox
from factorlab.eval.sandbox_filter import refused_calls

SHARED = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared with the benchmarks is not there")


@pytest.fixture(scope="module", params=BACKENDS)
def box(request) -> Sandbox:
    fault = Sandbox(request.param).fault()
    if fault is not None:
        # Which of the three is installed and allowed is the machine's affair; each that is there is tested.
        pytest.skip(f"{request.param} can't be used here: {fault}")
    return Sandbox(request.param)


@pytest.fixture(scope="module")
def first() -> Sandbox:
    try:
        return Sandbox.find()
    except InputError as error:
        pytest.skip(str(error))  # the machine has no sandbox that holds; programs are not run without one


def test_a_program_passes_where_its_last_line_is_reached(box):
    assert box.run("import math, json, re\nassert math.comb(5, 2) == 10").status == "passed"
    assert box.run("assert 1 == 2, 'not so'").detail == "AssertionError: not so"
    assert box.run("def f(:").detail.startswith("SyntaxError")
    assert box.run("input()").detail.startswith("EOFError")
    assert box.run("import numpy as np\nassert np.arange(4).sum() == 6", timeout=30).status == "passed"
    assert box.run("open('x', 'w').write('1')\nassert open('/tmp/x').read() == '1'").status == "passed"


ENDINGS = {
    "_exit": "import os\nos._exit(0)",
    "exit": "import sys\nsys.exit(0)",
    "quit": "raise SystemExit",
    "SystemExit in the function": "def f():\n    raise SystemExit(0)\nf()",
    "recursion": "def f(): return f()\nf()",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f([x])\nf(1)",
    "printed": "import os\nprint('passed'); print('end'); os._exit(0)",
    "printed on errors": "import os, sys\nsys.stderr.write('end\\n'); os._exit(0)",
    "exec replaced": "import builtins, os\nbuiltins.exec = builtins.compile = lambda *a: 0\nos._exit(0)",
    "errors replaced": "import builtins\nbuiltins.BaseException = builtins.Exception = int\nassert False",
    "write replaced": "import os\nos.write = lambda *a: 0\nos._exit = print\nassert False",
    "at exit": "import atexit, os\natexit.register(lambda: os._exit(0))\nassert False",
    "own line": "import os\nfor d in range(64):\n  try: os.write(d, b'end\\n' + b'0' * 32 + b'\\n')\n"
    "  except OSError: pass\nos._exit(0)",
    "own line closed": "import os, time\nos.closerange(0, 64)\ntime.sleep(60)",
    "killed itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\nassert False",
    "crash": "import ctypes\nctypes.string_at(0)",
    "an error that can't be printed": "class E(Exception):\n  def __str__(self): raise SystemExit\nraise E",
}


@pytest.mark.parametrize("name", ENDINGS)
def test_an_early_end_is_no_pass(box, name):
    run = box.run(ENDINGS[name], timeout=2)
    assert run.status != "passed", run


ATTEMPTS = {
    "connect": "import socket\nsocket.create_connection(('127.0.0.1', PORT), timeout=2)",
    "name service": "import socket\nsocket.gethostbyname('example.org')",
    "virtual machine's socket": "import socket\nsocket.socket(40, socket.SOCK_STREAM)",
    "libc socket": "import ctypes\nl = ctypes.CDLL(None)\nassert l.socket(2, 1, 0) >= 0",
    "home": "import os\nassert os.listdir(HOME + '/..') and open(HOME + '/.bashrc').read()",
    "secret": "open(SECRET).read()",
    "secret by libc": "import ctypes\nassert ctypes.CDLL(None).open(SECRET.encode(), 0) >= 0",
    "secret by posix": "import posix\nposix.open(SECRET, 0)",
    "secret removed": "import os\nos.remove(SECRET)",
    "secret overwritten": "open(SECRET, 'w').write('mine')",
    "old root": "import os\nos.chdir('/old')",
    "passwords": "open('/etc/shadow').read()",
    "environment of the first process": "open('/proc/1/environ').read()",
    "environment of the parent": "import os\nassert 'FACTORLAB_PRIVATE' in os.environ",
    "environment of the parent by number": "open('/proc/PARENT/environ').read()",
    "system": "open('/usr/bin/factorlab-was-here', 'w')",
    "interpreter": "import json, os\nopen(json.__file__, 'a')",
    "interpreter removed": "import json, os\nos.remove(json.__file__)",
    "root": "open('/factorlab-was-here', 'w')",
    "device": "import os\nos.mknod('/tmp/d', 0o600 | 0o060000, os.makedev(254, 0))\nopen('/tmp/d', 'rb').read(1)",
    "kill the parent": "import os\nos.kill(PARENT, 9)",
    "kill all": "import os\nos.kill(-1, 0)",
    "trace": "import ctypes\nassert ctypes.CDLL(None).ptrace(16, PARENT, 0, 0) == 0",
    "trace any": "import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
    "another's memory": "import ctypes\n"
    "b = ctypes.create_string_buffer(8)\n"
    "v = (ctypes.c_size_t * 2)(ctypes.addressof(b), 8)\n"
    "assert ctypes.CDLL(None).process_vm_writev(PARENT, v, 1, v, 1, 0) == 8",
    "root again": "import os\nos.setuid(0)",
    "own user space": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "chroot": "import os\nos.chroot('/tmp')",
    "shell": "import subprocess\nsubprocess.run('id', shell=True, check=True)",
    "system()": "import os\nassert os.system('true') == 0",
    "fork": "import os\nos.fork()",
    "fork by libc": "import ctypes\np = ctypes.CDLL(None).fork()\nassert p >= 0",
    "thread": "import threading\nthreading.Thread(target=print).start()",
    "limits raised": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "shared memory": "import ctypes\nassert ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) >= 0",
    "memory file": "import os\nos.memfd_create('x')",
    "i386 calls": "import ctypes, mmap\n"
    "m = mmap.mmap(-1, 4096, prot=7)\nm.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n"  # mov eax, 20; int 0x80
    "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nassert f() > 0",
    "memory": "x = bytearray(4 << 30)",
    "memory by and by": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "large file": "f = open('x', 'wb')\nfor i in range(200): f.write(bytes(1 << 20))",
    "many files": "for i in range(200): open(f'x{i}', 'wb').write(bytes(1 << 20))",
    "many open files": "x = [open('/dev/null') for i in range(1000)]",
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_to_get_out_fails(box, name, tmp_path, monkeypatch):
    monkeypatch.setenv("FACTORLAB_PRIVATE", "yes")
    secret = tmp_path / "secret"
    secret.write_text("mine alone")
    secret.chmod(0o666)
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        text = ATTEMPTS[name].replace("PARENT", str(os.getpid())).replace("SECRET", repr(str(secret)))
        text = text.replace("PORT", str(server.getsockname()[1])).replace("HOME", repr(str(Path.home())))
        run = box.run(text, timeout=10, memory_mb=512)
        with suppress(TimeoutError):
            taken.append(server.accept())
    assert run.status in ("failed", "killed"), run
    assert secret.read_text() == "mine alone"
    assert not taken
    assert not Path("/usr/bin/factorlab-was-here").exists()


# Those that only the filter of system calls stops: the rest must hold without it.
FILTERED = {
    "virtual machine's socket",
    "libc socket",
    "trace any",
    "own user space",
    "shared memory",
    "memory file",
}


def test_namespaces_and_limits_hold_without_the_filter(box, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "refused_calls", lambda processes: b"\x06\0\0\0\0\0\xff\x7f")  # allow all
    secret = tmp_path / "secret"
    secret.write_text("mine alone")
    passed = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name in ATTEMPTS.keys() - FILTERED - {"i386 calls"}:
            text = ATTEMPTS[name].replace("PARENT", str(os.getpid())).replace("SECRET", repr(str(secret)))
            text = text.replace("PORT", str(server.getsockname()[1])).replace("HOME", repr(str(Path.home())))
            if box.run(text, timeout=10, memory_mb=512).status == "passed":
                passed.append(name)
    assert passed == []


def test_a_shell_sees_no_more(box, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine alone")
    for command in (
        f"cat {secret}",
        "cat /etc/shadow",
        "touch /usr/bin/x",
        "mount -t tmpfs x /tmp",
        "ls /proc/1",
    ):
        program = f"import subprocess\nassert subprocess.run({command!r}, shell=True).returncode == 0"
        assert box.run(program, timeout=10, processes=8).detail.startswith("AssertionError")
    program = "import subprocess\nassert subprocess.run('true', shell=True).returncode == 0"
    assert box.run(program, timeout=10, processes=8).status == "passed"


@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(60)"])
def test_time_is_limited(box, program):
    began = time.monotonic()
    assert box.run(program, timeout=0.5).status == "timed out"
    assert box.run("try:\n  while True: pass\nexcept BaseException: pass", timeout=0.5).status == "timed out"
    assert time.monotonic() - began < 5


def test_output_goes_nowhere(box):
    run = box.run(
        "import os, sys\nfor i in range(300): print('x' * 1_000_000)\nos.write(1, b'y' * 10**7)", 20
    )
    assert run.status == "passed"
    assert len(box.run("raise ValueError('x' * 10**7)").detail) < 500


def test_a_fork_bomb_stays_small(box):
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    most = 0
    done = threading.Event()

    def bombed() -> None:
        box.run(bomb, timeout=1.5, processes=12)
        done.set()

    before = processes()
    thread = threading.Thread(target=bombed)
    thread.start()
    while not done.wait(0.1):
        most = max(most, processes() - before)
    thread.join()
    assert most < 40


def processes() -> int:
    return sum(name.isdigit() for name in os.listdir("/proc"))


def named(name: str) -> list[str]:
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{number}/comm").read_text().strip() == name:
                found.append(number)
        except OSError:
            pass
    return found


def test_no_daemon_survives(box):
    name = f"daemon{os.getpid()}"[:15]
    daemon = (
        "import ctypes, os, signal, time\n"
        "for s in range(1, 32):\n  try: signal.signal(s, signal.SIG_IGN)\n  except OSError: pass\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
        f"    ctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\n    os.write(w, b'x')\n    time.sleep(60)\n"
        "  os._exit(0)\n"
        "assert os.read(r, 1) == b'x'"
    )
    assert box.run(daemon, timeout=10, processes=8).status == "passed"
    until = time.monotonic() + 3
    while named(name) and time.monotonic() < until:
        time.sleep(0.02)
    assert named(name) == []


def test_all_ends_with_the_program_that_asked(box):
    name = f"orphan{os.getpid()}"[:15]
    program = f"import ctypes, time\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\ntime.sleep(60)"
    code = (
        f"from factorlab.eval.sandbox import Sandbox\nSandbox({box.backend!r}).run({program!r}, timeout=60)"
    )
    asking = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 20
    while not named(name) and time.monotonic() < until:
        time.sleep(0.02)
    assert named(name)
    asking.kill()
    asking.wait()
    until = time.monotonic() + 5
    while named(name) and time.monotonic() < until:
        time.sleep(0.02)
    assert named(name) == []


def test_a_set_has_the_same_order_each_time(first):
    orders = {first.run("raise ValueError(list({'a', 'b', 'c', 'd', 'e'}))").detail for _ in range(4)}
    assert len(orders) == 1


def test_many_programs_keep_their_order(first):
    seen: list[tuple[str, int, int]] = []
    programs = [f"assert {i} % 3" for i in range(9)]
    runs = first.run_many(programs, progress=lambda *told: seen.append(told))
    assert [run.status == "passed" for run in runs] == [i % 3 != 0 for i in range(9)]
    assert seen[-1] == ("programs", 9, 9)


def test_a_long_program_arrives_whole(first):
    assert first.run("x = '" + "あ" * 500_000 + "'\nassert len(x) == 500_000").status == "passed"


# What is done where there is no sandbox.


def test_without_a_sandbox_code_is_refused(monkeypatch):
    monkeypatch.setattr(Sandbox, "fault", lambda self: "not installed")
    with pytest.raises(
        InputError, match=r"no sandbox for generated code holds .*apt install bubblewrap.*--unsafe-code"
    ):
        Sandbox.find()
    assert Sandbox.find(unsafe=True) == Sandbox("none")


def test_unsafe_runs_have_limits_all_the_same():
    box = Sandbox("none")
    assert box.run("x = 1").status == "passed"
    assert box.run("while True: pass", timeout=0.3).status == "timed out"
    assert box.run("import os\nos._exit(0)").status == "failed"
    assert box.run("x = bytearray(1 << 30)", memory_mb=256).detail.startswith("MemoryError")


def test_a_sandbox_that_lets_something_through_is_not_used(monkeypatch):
    # The limits hold, but nobody's rights and no filter: as if the namespaces were those of the machine.
    monkeypatch.setitem(module.COMMANDS, "namespaces", lambda child: [*child[:10], "0", "", *child[12:]])
    assert "possible: a connection" in (Sandbox("namespaces").fault() or "")


def test_a_sandbox_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setitem(
        module.COMMANDS, "namespaces", lambda child: ["/bin/sh", "-c", "echo no such right >&2; exit 1"]
    )
    with pytest.raises(InputError, match=r"the sandbox 'namespaces' did not start: .*no such right"):
        Sandbox("namespaces").run("x = 1")
    assert "no such right" in (Sandbox("namespaces").fault() or "")


def test_machines_without_a_table_of_calls_are_refused():
    assert len(refused_calls(1, "x86_64")) % 8 == 0
    assert len(refused_calls(4, "aarch64")) % 8 == 0
    with pytest.raises(InputError, match="no sandbox for generated code on a 'ppc64le' machine"):
        refused_calls(1, "ppc64le")


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to become another user"
)
@pytest.mark.parametrize("backend", ["bubblewrap", "namespaces"])
def test_without_root(backend):
    python = "/usr/bin/python3"
    code = (
        f"import sys\nsys.path.insert(0, {str(Path(module.__file__).parents[2])!r})\n"
        f"from factorlab.eval.sandbox import Sandbox\nb = Sandbox({backend!r})\n"
        "print(b.fault())\nprint(b.run('import os\\nwhile True: os.fork()', processes=8).detail)"
    )
    if not Path(python).is_file():
        # The environment's own Python may lie in a home that the other user cannot enter.
        pytest.skip("no system Python that another user can read")
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-B", "-c", code],
        capture_output=True,
        text=True,
        cwd="/",
    )
    if done.returncode != 0 or "not installed" in done.stdout or "unshare" in done.stdout:
        pytest.skip(f"another user can't: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
    assert done.stdout.splitlines() == [
        "None",
        "BlockingIOError: [Errno 11] Resource temporarily unavailable",
    ]


@real
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file", "broken"),
    [("humaneval", "HumanEval.jsonl.gz", []), ("jhumaneval", "jhuman-eval.jsonl.gz", [64])],
)
def test_reference_solutions_pass(first, name, file, broken):
    with gzip.open(SHARED / name / file, "rt", encoding="utf-8") as lines:
        problems = [json.loads(line) for line in lines]
    programs = [
        f"{p['prompt']}{p['canonical_solution']}\n{p['test']}\ncheck({p['entry_point']})" for p in problems
    ]
    runs: list[Run] = first.run_many(programs, timeout=10)
    assert [i for i, run in enumerate(runs) if run.status != "passed"] == broken
