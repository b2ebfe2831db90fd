"""Runs inside a sandbox for the doctor: tries each thing that must fail, and says what did not.

Nothing but the standard library's core modules; the answer is one line of JSON on standard output.
"""

# Plain strings for paths: pathlib would be most of its start time.
# ruff: noqa: PTH108, PTH110, PTH115, PTH123, PTH208, S108, T201

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)

NETWORK_FAMILIES = {"inet": 2, "inet6": 10, "netlink": 16, "packet": 17, "alg": 38, "vsock": 40}
# x86_64 and aarch64 numbers of calls that must not succeed, with harmless arguments.
CALLS = {
    "x86_64": {"unshare": 272, "io_uring_setup": 425, "bpf": 321, "keyctl": 250, "ptrace": 101,
               "perf_event_open": 298, "userfaultfd": 323, "personality": 135},
    "aarch64": {"unshare": 97, "io_uring_setup": 425, "bpf": 280, "keyctl": 219, "ptrace": 117,
                "perf_event_open": 241, "userfaultfd": 282, "personality": 92},
}  # fmt: skip
CLONE_NEWUSER = 0x10000000
PR_GET_NO_NEW_PRIVS = 39


def any_network() -> bool:
    for family in NETWORK_FAMILIES.values():
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            try:
                socket.socket(family, kind).close()
            except OSError:
                continue
            return True
    return False


def interfaces() -> bool:
    with open("/proc/net/dev") as file:
        names = {row.split(":")[0].strip() for row in file if ":" in row}
    return bool(names - {"lo"})


def status(key: str) -> str:
    with open("/proc/self/status") as file:
        return next(row.split(":")[1].strip() for row in file if row.startswith(key + ":"))


def can_write(path: str) -> bool:
    try:
        with open(path, "w"):
            return True
    except OSError:
        return False


def system_calls() -> bool:
    calls = CALLS[os.uname().machine]
    personality_query = 0xFFFFFFFF
    for name, number in calls.items():
        argument = {"personality": personality_query, "unshare": CLONE_NEWUSER}.get(name, 0)
        if libc.syscall(ctypes.c_long(number), ctypes.c_ulong(argument), 0, 0, 0, 0) >= 0:
            return True
    return False


def unbounded_bytes(directory: str, limit: int) -> bool:
    path = directory + "/probe"
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(4 * limit // 65536 + 2):
                if file.write(b"x" * 65536) < 65536:
                    return False
    except OSError:
        return False
    finally:
        os.unlink(path)
    return True


def unbounded_files(directory: str, limit: int) -> bool:
    made: list[str] = []
    try:
        for number in range(2 * limit):
            path = f"{directory}/{number}"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            made.append(path)
    except OSError:
        return False
    finally:
        for path in made:
            os.unlink(path)
    return True


def extra_descriptors() -> bool:
    with os.scandir("/proc/self/fd") as scan:
        open_now = {int(entry.name) for entry in scan}
    progress = int(os.environ.get("GLOVEBOX_PROGRESS_FD", "-1"))
    kinds = {number: _target(number) for number in open_now - {0, 1, 2, progress}}
    return any(target and not target.startswith("/proc/") for target in kinds.values())


def _target(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


def others() -> bool:
    seen = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    return bool(seen - {1, os.getpid()})


def unbounded_descriptors(limit: int) -> bool:
    held: list[int] = []
    try:
        for _ in range(2 * limit):
            held.append(os.dup(1))
    except OSError:
        return False
    finally:
        for number in held:
            os.close(number)
    return True


answers = {
    "network": any_network(),
    "interfaces": interfaces(),
    "files": any(os.path.exists(p) for p in ("/root", "/home", "/run", "/var", "/etc/shadow")),
    "root_writable": any(can_write(f"{d}/probe") for d in ("", "/etc", "/usr", "/opt", "/code")),
    "processes": others(),
    "root_user": os.getuid() == 0 or os.geteuid() == 0,
    "capabilities": any(int(status(name), 16) for name in ("CapPrm", "CapEff", "CapBnd")),
    "new_privileges": libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1,
    "namespaces": libc.unshare(CLONE_NEWUSER) == 0,
    "system_calls": system_calls(),
    "descriptors": extra_descriptors(),
    "output_bytes": unbounded_bytes("/output", 65536),
    "output_inodes": unbounded_files("/output", 32),
    "tmp_bytes": unbounded_bytes("/tmp", 1 << 20),
    "shm_bytes": unbounded_bytes("/dev/shm", 1 << 20),
    "open_files": unbounded_descriptors(64),
    "core_dumps": resource.getrlimit(resource.RLIMIT_CORE)[1] not in (0, 1),
}
print(json.dumps(answers))
sys.exit(0)
