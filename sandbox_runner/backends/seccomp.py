"""A seccomp filter, written out as the kernel's classic BPF; no library needed.

The program runs before every system call (linux/seccomp.h, linux/filter.h). It first refuses
foreign calling conventions, then examines nine calls by their arguments, then walks the
allow-list of :mod:`sandbox_runner.backends.syscalls`. Everything else does not exist.
"""

from __future__ import annotations

import errno
import functools
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from policies.errors import CannotRun
from sandbox_runner.backends import syscalls

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

RET_ALLOW: Final = 0x7FFF0000
RET_KILL_PROCESS: Final = 0x80000000
RET_ERRNO: Final = 0x00050000

# Offsets in struct seccomp_data: nr, arch, instruction_pointer, args[6] (little endian halves).
OFFSET_NUMBER: Final = 0
OFFSET_ARCH: Final = 4

LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K

# x32 calls carry this bit and the numbers of x86_64 with other meanings.
X32_BIT: Final = 0x40000000

AF_UNIX: Final = 1

# CLONE_NEWTIME is among the bits of the exit signal here and only counts in clone3 and unshare.
CLONE_NAMESPACES: Final = (
    0x00020000  # NEWNS
    | 0x02000000  # NEWCGROUP
    | 0x04000000  # NEWUTS
    | 0x08000000  # NEWIPC
    | 0x10000000  # NEWUSER
    | 0x20000000  # NEWPID
    | 0x40000000  # NEWNET
    | 0x00002000  # PTRACE
)

# What a program asks of its own descriptors. Not TIOCSTI or TIOCLINUX, which type on a terminal,
# and nothing of FS_IOC_*, which reaches into file systems.
IOCTLS: Final = {
    "TCGETS": 0x5401,
    "TIOCGPGRP": 0x540F,
    "TIOCGWINSZ": 0x5413,
    "FIONREAD": 0x541B,
    "FIONBIO": 0x5421,
    "FIONCLEX": 0x5450,
    "FIOCLEX": 0x5451,
    "FIOASYNC": 0x5452,
}

# Names, dying with a parent, and questions. Not PR_SET_MM, PR_SET_SECCOMP, PR_SET_PTRACER,
# PR_CAP_AMBIENT, nor speculation controls, which could only be loosened.
PRCTLS: Final = {
    "PR_SET_PDEATHSIG": 1,
    "PR_GET_PDEATHSIG": 2,
    "PR_GET_DUMPABLE": 3,
    "PR_SET_NAME": 15,
    "PR_GET_NAME": 16,
    "PR_GET_SECCOMP": 21,
    "PR_CAPBSET_READ": 23,
    "PR_SET_TIMERSLACK": 29,
    "PR_GET_TIMERSLACK": 30,
    "PR_SET_CHILD_SUBREAPER": 36,
    "PR_GET_CHILD_SUBREAPER": 37,
    "PR_SET_NO_NEW_PRIVS": 38,
    "PR_GET_NO_NEW_PRIVS": 39,
    "PR_SET_THP_DISABLE": 41,
    "PR_GET_THP_DISABLE": 42,
    "PR_SET_VMA": 0x53564D41,
}


# Own descriptors and locks. Not F_NOTIFY and F_SETLEASE, which tell when others open a shared file.
FCNTLS: Final = {
    "F_DUPFD": 0,
    "F_GETFD": 1,
    "F_SETFD": 2,
    "F_GETFL": 3,
    "F_SETFL": 4,
    "F_GETLK": 5,
    "F_SETLK": 6,
    "F_SETLKW": 7,
    "F_SETOWN": 8,
    "F_GETOWN": 9,
    "F_OFD_GETLK": 36,
    "F_OFD_SETLK": 37,
    "F_OFD_SETLKW": 38,
    "F_DUPFD_CLOEXEC": 1030,
    "F_SETPIPE_SZ": 1031,
    "F_GETPIPE_SZ": 1032,
    "F_ADD_SEALS": 1033,
    "F_GET_SEALS": 1034,
}


# How a program means to read. Not POSIX_FADV_DONTNEED, which throws pages out of the cache that all
# jobs share: whoever empties it first sees all the better what another job reads.
FADVICE: Final = {
    "POSIX_FADV_NORMAL": 0,
    "POSIX_FADV_RANDOM": 1,
    "POSIX_FADV_SEQUENTIAL": 2,
    "POSIX_FADV_WILLNEED": 3,
    "POSIX_FADV_NOREUSE": 5,
}


# What multiprocessing and asyncio set on a local socket. Not SO_ATTACH_FILTER and its kin, which
# have the kernel check and compile a program of the caller's: bpf by another door.
SOCKET_OPTIONS: Final = {
    "SO_REUSEADDR": 2,
    "SO_SNDBUF": 7,
    "SO_RCVBUF": 8,
    "SO_KEEPALIVE": 9,
    "SO_LINGER": 13,
    "SO_REUSEPORT": 15,
    "SO_PASSCRED": 16,
    "SO_RCVLOWAT": 18,
    "SO_RCVTIMEO": 20,
    "SO_SNDTIMEO": 21,
}


@dataclass(frozen=True)
class Instruction:
    """One struct sock_filter."""

    code: int
    value: int
    jump_true: int = 0
    jump_false: int = 0

    def packed(self) -> bytes:
        """Return the eight bytes the kernel reads."""
        return struct.pack("<HBBI", self.code, self.jump_true, self.jump_false, self.value)


def refuse(number: int) -> int:
    """Return the filter's answer that makes a call fail with this errno."""
    return RET_ERRNO | number


def argument(index: int, *, high: bool = False) -> Instruction:
    """Load one half of a call's argument."""
    return Instruction(LOAD, 16 + 8 * index + (4 if high else 0))


def only_values(values: Iterable[int], otherwise: int) -> list[Instruction]:
    """Allow when the accumulator is one of ``values``, else answer ``otherwise``."""
    body: list[Instruction] = []
    for value in values:
        body += [Instruction(EQUAL, value, 0, 1), Instruction(RETURN, RET_ALLOW)]
    return [*body, Instruction(RETURN, otherwise)]


# The driver's own: type 'F' with sizes of every kind (nvidiactl, nvidia0), and plain small numbers
# besides two large ones (nvidia-uvm). No terminal, file system or network has numbers like these.
GPU_TYPE: Final = 0x4600
GPU_TYPE_BITS: Final = 0xFF00
UVM_BELOW: Final = 0x100
UVM: Final = {"UVM_INITIALIZE": 0x30000001, "UVM_DEINITIALIZE": 0x30000002}


def _gpu_ioctls() -> list[Instruction]:
    """Allow the driver's ioctls; fall through with everything else still in the accumulator."""
    allow = Instruction(RETURN, RET_ALLOW)
    body = [Instruction(AT_LEAST, UVM_BELOW, 1, 0), allow]
    for value in UVM.values():
        body += [Instruction(EQUAL, value, 0, 1), allow]
    # The type byte is 'F' when no bit of the others and each of its own is set.
    own = [bit for bit in (1 << n for n in range(8, 16)) if GPU_TYPE & bit]
    body.append(Instruction(ANY_BIT, GPU_TYPE_BITS & ~GPU_TYPE, len(own) + 1, 0))
    body += [Instruction(ANY_BIT, bit, 0, len(own) - index) for index, bit in enumerate(own)]
    return [*body, allow]


def _examined(name: str, gpus: bool) -> list[Instruction]:
    """Return the instructions that decide one call by its arguments."""
    if name == "clone":
        return [
            argument(0),
            Instruction(ANY_BIT, CLONE_NAMESPACES, 0, 1),
            Instruction(RETURN, refuse(errno.EPERM)),
            Instruction(RETURN, RET_ALLOW),
        ]
    if name in ("socket", "socketpair"):
        # One family: a network namespace does not cover AF_VSOCK, and netlink, packet, AF_ALG and
        # the rest are attack surface without use. The kernel takes the family as an int.
        return [argument(0), *only_values([AF_UNIX], refuse(errno.EAFNOSUPPORT))]
    if name == "ioctl":
        if gpus:
            return [
                argument(1),
                *_gpu_ioctls(),
                *only_values(IOCTLS.values(), refuse(errno.ENOTTY)),
            ]
        return [argument(1), *only_values(IOCTLS.values(), refuse(errno.ENOTTY))]
    if name == "fcntl":
        return [argument(1), *only_values(FCNTLS.values(), refuse(errno.EINVAL))]
    if name == "setsockopt":
        return [argument(2), *only_values(SOCKET_OPTIONS.values(), refuse(errno.ENOPROTOOPT))]
    if name == "prctl":
        return [argument(0), *only_values(PRCTLS.values(), refuse(errno.EPERM))]
    if name == "preadv2":
        # RWF_NOWAIT answers only from the page cache: who asks learns what others have read.
        return [argument(5), *only_values([0], refuse(errno.EOPNOTSUPP))]
    if name == "fadvise64":
        return [argument(3), *only_values(FADVICE.values(), refuse(errno.EINVAL))]
    raise ValueError(name)


@functools.cache
def build(machine: str | None = None, *, gpus: bool = False) -> bytes:
    """Return the filter for this machine (or ``x86_64``, ``aarch64``), ready for bubblewrap.

    Raises :class:`CannotRun` where there is no table of system calls for the machine.
    """
    machine = machine or platform.machine()
    try:
        number_of = syscalls.numbers(machine)
    except KeyError:
        raise CannotRun(
            "There is no system call filter for {machine}; use x86_64 or aarch64.",
            code="sandbox.architecture",
            machine=machine,
        ) from None
    program = [
        Instruction(LOAD, OFFSET_ARCH),
        Instruction(EQUAL, AUDIT_ARCH[machine], 1, 0),
        Instruction(RETURN, RET_KILL_PROCESS),
        Instruction(LOAD, OFFSET_NUMBER),
    ]
    if machine == "x86_64":
        program += [
            Instruction(AT_LEAST, X32_BIT, 0, 1),
            Instruction(RETURN, refuse(errno.ENOSYS)),
        ]
    for name in syscalls.EXAMINED:
        body = _examined(name, gpus)
        program += [Instruction(EQUAL, number_of[name], 0, len(body)), *body]
    answers: dict[int, int] = {}
    for _reason, names in syscalls.ALLOWED.values():
        answers |= {number_of[name]: RET_ALLOW for name in names.split() if name in number_of}
    for _reason, code, names in syscalls.REFUSED.values():
        answers |= {number_of[name]: refuse(code) for name in names.split() if name in number_of}
    for number, answer in sorted(answers.items()):
        program += [Instruction(EQUAL, number, 0, 1), Instruction(RETURN, answer)]
    program.append(Instruction(RETURN, refuse(errno.ENOSYS)))
    return b"".join(instruction.packed() for instruction in program)


def _arguments(name: str) -> list[tuple[dict[str, object], ...]]:
    """Return the argument conditions, in OCI's words, under which an examined call is allowed."""
    if name == "clone":
        # value is the mask, valueTwo what must remain of it.
        condition = {
            "index": 0,
            "value": CLONE_NAMESPACES,
            "valueTwo": 0,
            "op": "SCMP_CMP_MASKED_EQ",
        }
        return [(condition,)]
    index, values = {
        "socket": (0, [AF_UNIX]),
        "socketpair": (0, [AF_UNIX]),
        "ioctl": (1, list(IOCTLS.values())),
        "prctl": (0, list(PRCTLS.values())),
        "fcntl": (1, list(FCNTLS.values())),
        "setsockopt": (2, list(SOCKET_OPTIONS.values())),
        "preadv2": (5, [0]),
        "fadvise64": (3, list(FADVICE.values())),
    }[name]
    return [({"index": index, "value": value, "op": "SCMP_CMP_EQ"},) for value in values]


#: runsc answers EPERM for every SCMP_ACT_ERRNO, whatever errno stands beside it, and the C library
#: understands "no such call" only. Without a tracer, and ptrace is refused, this action says that
#: (seccomp(2), SECCOMP_RET_TRACE; gVisor's kernel does the same).
NO_SUCH_CALL: Final = {"action": "SCMP_ACT_TRACE"}


def oci(machine: str | None = None, *, gpus: bool = False) -> dict[str, object]:
    """Return the same filter as gVisor reads it: ``linux.seccomp`` (runtime-spec, config-linux)."""
    machine = machine or platform.machine()
    known = syscalls.numbers(machine)
    allowed = sorted(
        {name for _, names in syscalls.ALLOWED.values() for name in names.split() if name in known}
    )
    rules: list[dict[str, object]] = [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]
    for name in syscalls.EXAMINED:
        rules += [
            {"names": [name], "action": "SCMP_ACT_ALLOW", "args": list(conditions)}
            for conditions in _arguments(name)
        ]
    if gpus:
        rules += [
            {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, **condition}]}
            for condition in (
                {"op": "SCMP_CMP_MASKED_EQ", "value": GPU_TYPE_BITS, "valueTwo": GPU_TYPE},
                {"op": "SCMP_CMP_LT", "value": UVM_BELOW},
                *({"op": "SCMP_CMP_EQ", "value": value} for value in UVM.values()),
            )
        ]
    for _, code, names in syscalls.REFUSED.values():
        refused = {"names": [name for name in names.split() if name in known]}
        if code == errno.ENOSYS:
            rules.append({**refused, **NO_SUCH_CALL})
        else:
            rules.append({**refused, "action": "SCMP_ACT_ERRNO", "errnoRet": code})
    return {
        "defaultAction": NO_SUCH_CALL["action"],
        "architectures": ["SCMP_ARCH_X86_64" if machine == "x86_64" else "SCMP_ARCH_AARCH64"],
        "syscalls": rules,
    }
