"""Two jobs of strangers, at once or one after the other: passing on, listening, holding up."""

from __future__ import annotations

import os
import socket
import textwrap
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sandbox_runner.backends import Backend
from tests.attacks.attack import Attack, leftovers, sandbox, start_bare, under

READY = "GLOVEBOX-READY"
CANCELLED = ("stopped", "cancelled")


@dataclass(frozen=True)
class PairAttack(Attack):
    """Two programs. ``first`` says that it is ready and stays where both are to run at once."""

    first: str = ""
    at_once: bool = False

    def halves(self) -> tuple[Attack, Attack]:
        """Return the two programs as attacks of their own."""
        first = textwrap.dedent(self.first)
        if self.at_once:
            first += f'\nprint("{READY}", flush=True)\nwhile True:\n    time.sleep(0.05)\n'
        return replace(self, code=first), self


@dataclass(frozen=True)
class Pair:
    """What came of both: what they said, how each ended, what was left."""

    said: str
    first: tuple[str, str]
    second: tuple[str, str]
    leftovers: set[str]


def _names() -> dict[str, Any]:
    """Return a name and a port that both programs know, and nobody else uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return {"pair": f"glovebox-{uuid.uuid4().hex}", "port": server.getsockname()[1]}


def _wait_for(log: Path, thread: threading.Thread) -> None:
    until = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < until:
        if log.exists() and READY in log.read_text("utf-8", errors="replace"):
            return
        time.sleep(0.02)


def run_sealed(
    attack: PairAttack, backend: Backend, data: Path, home: Path, target: Mapping[str, Any]
) -> Pair:
    """Run both programs, each in a sandbox of its own, over the same data."""
    inside = {**target, **_names(), "data": "/data/mini"}
    specs = [
        sandbox(half, inside, data, home / name)
        for half, name in zip(attack.halves(), ("first", "second"), strict=True)
    ]
    cancel = threading.Event()
    ends: dict[str, tuple[str, str]] = {}

    def run(name: str, index: int) -> None:
        result = backend.run(specs[index], cancel if index == 0 else None)
        ends[name] = (result.state, result.reason)

    thread = threading.Thread(target=run, args=("first", 0))
    thread.start()
    if attack.at_once:
        _wait_for(home / "first/log", thread)
    else:
        thread.join()
    run("second", 1)
    cancel.set()
    thread.join()
    said = "".join(
        (home / name / "log").read_text("utf-8", errors="replace") for name in ("first", "second")
    )
    left = {each for spec in specs for each in leftovers(spec.id)}
    return Pair(said, ends["first"], ends["second"], left)


def run_bare(attack: PairAttack, data: Path, home: Path, target: Mapping[str, Any]) -> str:
    """Run both programs without a sandbox and return what they said."""
    outside = {**target, **_names(), "data": str(data)}
    environment = {**os.environ, "HOME": str(home / "person")}
    (home / "person").mkdir(parents=True)
    halves = []
    for half, name in zip(attack.halves(), ("first", "second"), strict=True):
        half.write(home / name / "code", outside)
        halves.append((home / name / "code", home / name / "output"))
    said = ""
    with start_bare(*halves[0], environment) as first:
        try:
            if attack.at_once:
                assert first.stdout is not None
                while READY not in said:
                    line = first.stdout.readline()
                    assert line, first.stderr.read() if first.stderr else ""
                    said += line
            else:
                said += first.communicate(timeout=30)[0]
            with start_bare(*halves[1], environment) as second:
                try:
                    said += second.communicate(timeout=30)[0]
                finally:
                    second.kill()
        finally:
            first.kill()
        if attack.at_once and first.stdout is not None:
            said += first.stdout.read()
    Path("/tmp", outside["pair"]).unlink(missing_ok=True)
    return said


FOLDERS = {"temporary": "/tmp", "shared memory": "/dev/shm", "lasting temporary": "/var/tmp"}


def leaves_file(folder: str) -> str:
    return f"""
try:
    with open("{folder}/left-glovebox", "w") as file:
        file.write("canary")
except OSError:
    pass
"""


def finds_file(folder: str) -> str:
    return f"""
try:
    if open("{folder}/left-glovebox").read() == "canary":
        escaped()
    os.unlink("{folder}/left-glovebox")
except OSError:
    pass
"""


# System V and POSIX messages, by their x86_64 numbers: what leaves, what finds and removes.
IPC = {
    "System V memory": (
        "call(29, 0x6717, 4096, 0o1666)",
        "found = call(29, 0x6717, 0, 0)",
        "call(31, found, 0, 0)",
    ),
    "a System V semaphore": (
        "call(64, 0x6717, 1, 0o1666)",
        "found = call(64, 0x6717, 0, 0)",
        "call(66, found, 0, 0)",
    ),
    "a System V queue": (
        "call(68, 0x6717, 0o1666)",
        "found = call(68, 0x6717, 0)",
        "call(71, found, 0, 0)",
    ),
    "a POSIX queue": (
        "call(240, b'left-glovebox', 0o102, 0o666, 0)",
        "found = call(240, b'left-glovebox', 0, 0, 0)",
        "call(241, b'left-glovebox')",
    ),
    "a key": (
        "call(248, b'user', b'left-glovebox', b'canary', 6, -4)",
        "found = call(250, 10, -4, b'user', b'left-glovebox', 0)",
        "call(250, 3, found)",
    ),
}

SERVES = """
{prepare}
try:
    server = socket.socket({family})
    server.bind({address})
    server.listen()
except OSError:
    server = None
def serve():
    while server:
        connection, _ = server.accept()
        connection.sendall(b"canary")
"""
ASKS = """
try:
    s = socket.socket({family}); s.settimeout(2); s.connect({address})
    if s.recv(6) == b"canary":
        escaped()
except OSError:
    pass
"""
SOCKETS = {
    "an abstract socket": ("socket.AF_UNIX", '"\\0" + TARGET["pair"]', ""),
    "a socket with a path": (
        "socket.AF_UNIX",
        '"/tmp/" + TARGET["pair"]',
        "",
    ),
    "a port on loopback": ("socket.AF_INET", '("127.0.0.1", TARGET["port"])', ""),
}


def serves(name: str, *, stays: bool) -> str:
    family, address, prepare = SOCKETS[name]
    code = SERVES.format(family=family, address=address, prepare=prepare)
    if not stays:
        return code + "threading.Thread(target=serve, daemon=True).start()\n"
    return (
        code
        + """
if server and os.fork() == 0:
    os.setsid()
    for descriptor in (1, 2):
        os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)
    signal.alarm(5)
    serve()
"""
    )


def asks(name: str) -> str:
    family, address, _ = SOCKETS[name]
    return ASKS.format(family=family, address=address)


AFTER = [
    *[
        PairAttack(f"a {name} file of an earlier job", finds_file(folder),
                   first=leaves_file(folder))
        for name, folder in FOLDERS.items()
    ],
    *[
        PairAttack(
            f"{name} of an earlier job",
            f"{find}\nif found is not None:\n    escaped()\n    {remove}\n",
            first=leave,
        )
        for name, (leave, find, remove) in IPC.items()
    ],
    *[
        PairAttack(
            f"{name} that an earlier job left open",
            "time.sleep(0.1)\n" + asks(name),
            first=serves(name, stays=True),
        )
        for name in SOCKETS
    ],
    PairAttack(
        "a file in the home of an earlier job",
        'escaped() if os.path.exists(os.path.expanduser("~/.left-glovebox")) else None',
        first='open(os.path.expanduser("~/.left-glovebox"), "w").close()',
    ),
    PairAttack(
        "code for the next job's interpreter",
        """
        if getattr(sys, "planted", False) or os.path.exists(os.path.expanduser(
                "~/.local/lib/python%d.%d/site-packages/usercustomize.py" % sys.version_info[:2])):
            escaped()
        """,
        first="""
        import site
        for folder in (os.path.expanduser("~/.local/lib/python%d.%d/site-packages"
                       % sys.version_info[:2]), os.path.dirname(os.__file__)):
            try:
                if folder.startswith(os.path.expanduser("~")):
                    os.makedirs(folder, exist_ok=True)
                elif os.geteuid() == 0:
                    continue  # not into the interpreter of this machine
                open(folder + "/usercustomize.py", "w").write("import sys; sys.planted = True")
            except OSError:
                pass
        """,
    ),
    PairAttack(
        "when an earlier job read the data",
        """
        seen = os.stat(TARGET["data"] + "/labels.csv").st_atime
        if seen > time.time() - 5:
            escaped()
        """,
        first="""
        time.sleep(0.05)
        open(TARGET["data"] + "/labels.csv").read()
        """,
        bare=False,
    ),
]  # fmt: skip

WAITS = "while not {seen}:\n    time.sleep(0.02)\n"
LOCKED = """
import fcntl
file = {opened}
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError as error:
    if error.errno == errno.EAGAIN:
        escaped()
"""
HOLDS = """
import fcntl
file = {opened}
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    pass
"""
LOCKS = {
    "the data": 'os.open(TARGET["data"] + "/labels.csv", os.O_RDONLY)',
    "the directory of the data": 'os.open(TARGET["data"], os.O_RDONLY)',
    "the interpreter": "os.open(os.__file__, os.O_RDONLY)",
    "a device": 'os.open("/dev/null", os.O_RDWR)',
    "what has no name": "os.eventfd(0)",
}
BUBBLEWRAP = frozenset({"bubblewrap"})
MAP = """
file = os.open(TARGET["data"] + "/labels.csv", os.O_RDONLY)
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, file, ctypes.c_long(0))
word = int.from_bytes(os.pread(file, 4, 0), "little")
"""
PAGES = 16
COLD = 'TARGET["data"] + "/cold.bin"'
# Every second page from the start, each far from the next, so that nothing is read ahead of it.
WARM = f"""
file = os.open({COLD}, os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
for number in range({PAGES}):
    if number % 3 == 0:
        os.pread(file, 1, number << 18)
"""
GUESS = f"""
file = os.open({COLD}, os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
def warm(number):
{{probe}}
right = sum(warm(number) == (number % 3 == 0) for number in range({PAGES}))
if right == {PAGES}:
    escaped()
"""


def guesses(probe: str) -> str:
    lines = "\n".join("    " + line for line in probe.strip("\n").splitlines())
    return GUESS.format(probe=lines)


AT_ONCE = [
    *[
        PairAttack(f"a {name} file of another job", finds_file(folder), first=leaves_file(folder))
        for name, folder in FOLDERS.items()
    ],
    *[
        PairAttack(
            f"{name} of another job",
            f"{find}\nif found is not None:\n    escaped()\n    {remove}\n",
            first=leave,
        )
        for name, (leave, find, remove) in IPC.items()
    ],
    *[
        PairAttack(f"{name} of another job", asks(name), first=serves(name, stays=False))
        for name in SOCKETS
    ],
    PairAttack(
        "seeing another job's process",
        """
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    if b"other-job-of-glovebox" in open(f"/proc/{name}/cmdline", "rb").read():
                        escaped()
                except OSError:
                    pass
        """,
        first='child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(8)", '
        '"other-job-of-glovebox"])\n',
    ),
    PairAttack(
        "signalling another job's process",
        """
        for pid in range(2, 3000):
            if pid != os.getpid():
                try:
                    os.kill(pid, signal.SIGUSR1)
                except OSError:
                    pass
        time.sleep(0.2)
        """,
        first="signal.signal(signal.SIGUSR1, lambda *_: escaped())",
        bare=False,
    ),
    PairAttack(
        "being told that another job reads the data",
        'open(TARGET["data"] + "/labels.csv").read()',
        first="""
        def watch():
            descriptor = libc.inotify_init()
            if descriptor >= 0 and libc.inotify_add_watch(
                    descriptor, TARGET["data"].encode(), 0x21) >= 0 and os.read(descriptor, 4096):
                escaped()
        threading.Thread(target=watch, daemon=True).start()
        time.sleep(0.1)
        """,
    ),
    PairAttack(
        "how many files another job has open",
        """
        def count():
            try:
                return int(open("/proc/sys/fs/file-nr").read().split()[0])
            except (OSError, ValueError):
                return 0
        seen = []
        for _ in range(60):
            seen.append(count()); time.sleep(0.02)
        if max(seen) - min(seen) >= 150:
            escaped()
        """,
        first="""
        def toggle():
            while True:
                held = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
                time.sleep(0.1)
                for descriptor in held:
                    os.close(descriptor)
                time.sleep(0.1)
        threading.Thread(target=toggle, daemon=True).start()
        """,
    ),
    *[
        PairAttack(
            f"a lock on {name}",
            LOCKED.format(opened=opened),
            first=HOLDS.format(opened=opened),
            known=BUBBLEWRAP,
            row="locks",
        )
        for name, opened in LOCKS.items()
    ],
    PairAttack(
        "a lock of some bytes of the data",
        """
        import fcntl
        file = os.open(TARGET["data"] + "/labels.csv", os.O_RDONLY)
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
        try:
            if struct.unpack("hhqqi4x", fcntl.fcntl(file, 5, asked))[0] != fcntl.F_UNLCK:
                escaped()
        except OSError:
            pass
        """,
        first="""
        import fcntl
        file = os.open(TARGET["data"] + "/labels.csv", os.O_RDONLY)
        try:
            fcntl.fcntl(file, 6, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 3, 2, 0))
        except OSError:
            pass
        """,
        known=BUBBLEWRAP,
        row="locks",
    ),
    PairAttack(
        "waking another job that waits on a page of the data",
        MAP
        + """
for _ in range(40):
    if call(202, ctypes.c_void_p(page), 1, 100, 0, 0, 0):
        escaped()
        break
    time.sleep(0.05)
""",
        first=MAP
        + """
def wait():
    call(202, ctypes.c_void_p(page), 0, word, struct.pack("qq", 20, 0), 0, 0)
threading.Thread(target=wait, daemon=True).start()
time.sleep(0.2)
""",
        known=BUBBLEWRAP,
        row="locks",
    ),
    PairAttack(
        "what another job has read, asked of the page cache",
        guesses(
            f"""
view = libc.mmap(None, ctypes.c_size_t({PAGES} << 18), 1, 1, file, ctypes.c_long(0))
seen = ctypes.create_string_buffer(1)
answer = call(27, ctypes.c_void_p(view + (number << 18)), 4096, seen)
return answer is not None and bool(seen.raw[0] & 1)
"""
        ).replace("def warm", "libc.mmap.restype = ctypes.c_void_p\ndef warm"),
        first=WARM,
        row="page cache",
    ),
    PairAttack(
        "what another job has read, by asking not to wait",
        guesses(
            """
try:
    return os.preadv(file, [bytearray(1)], number << 18, os.RWF_NOWAIT) == 1
except OSError:
    return False
"""
        ),
        first=WARM,
        row="page cache",
    ),
    PairAttack(
        "what another job has read, by counting pages",
        guesses(
            """
span = struct.pack("QQ", number << 18, 4096)
answer = ctypes.create_string_buffer(40)
if call(451, file, span, answer, 0) is None:
    return False
return struct.unpack("Q", answer.raw[:8])[0] == 1
"""
        ),
        first=WARM,
        row="page cache",
    ),
    PairAttack(
        "which name another job has asked for, of the cache of names",
        """
        how = struct.pack("QQQ", 0, 0, 0x20)  # RESOLVE_CACHED
        def known(name):
            call(437, -100, (TARGET["data"] + "/" + name).encode(), how, 24)
            return ctypes.get_errno() == errno.ENOENT
        if known("absent-1") and not known("absent-2"):
            escaped()
        """,
        first='os.path.exists(TARGET["data"] + "/absent-1")',
        row="page cache",
    ),
    PairAttack(
        "emptying the page cache under another job",
        f"""
        file = os.open({COLD}, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            escaped()
        except OSError:
            pass
        """,
        first="pass",
        row="page cache",
        own_kernel=True,
    ),
    PairAttack(
        "what another job has read, by the time that reading takes",
        guesses(
            """
began = time.perf_counter_ns()
os.pread(file, 1, number << 18)
times.append(time.perf_counter_ns() - began)
return times[-1] < 25_000
"""
        ).replace("def warm", "times = []\ndef warm"),
        first=WARM,
        bare=False,
        known=frozenset({"bubblewrap", "gvisor"}),
        row="page cache",
    ),
]

LOCKS_EVERYTHING = PairAttack(
    "locking everything in sight",
    "",
    at_once=True,
    bare=False,
    row="locks",
    first="""
import fcntl
held = [os.eventfd(0), os.open("/dev/null", os.O_RDWR)]
for top in ("/data", "/code", "/output", "/tmp", "/opt/glovebox"):
    for folder, _, names in os.walk(top):
        held += [os.open(path, os.O_RDONLY) for path in
                 (folder, *(os.path.join(folder, name) for name in names))][:50]
for descriptor in held:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pass
""",
)


ATTACKS = [
    *under("after", AFTER),
    *under("at once", [replace(attack, at_once=True) for attack in AT_ONCE]),
    LOCKS_EVERYTHING,
]
