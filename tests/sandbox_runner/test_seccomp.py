"""The filter as the kernel runs it: interpreted here, instruction by instruction."""

from __future__ import annotations

import errno
import struct

import pytest

from policies.errors import CannotRun
from sandbox_runner.backends import seccomp, syscalls

ALLOW, KILL = seccomp.RET_ALLOW, seccomp.RET_KILL_PROCESS
MACHINES = ("x86_64", "aarch64")


def verdict(
    program: bytes, number: int, *arguments: int, arch: int = seccomp.AUDIT_ARCH["x86_64"]
) -> int:
    """Run the filter on one call and return what it answers."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        if code == seccomp.LOAD:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == seccomp.RETURN:
            return value
        else:
            held = {
                seccomp.EQUAL: accumulator == value,
                seccomp.AT_LEAST: accumulator >= value,
                seccomp.ANY_BIT: bool(accumulator & value),
            }[code]
            at += yes if held else no


def refused(answer: int) -> bool:
    return answer & 0xFFFF0000 == seccomp.RET_ERRNO


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_is_answered_by_its_group(machine: str) -> None:
    program = seccomp.build(machine)
    arch = seccomp.AUDIT_ARCH[machine]
    known = syscalls.numbers(machine)
    allowed = {name for _, names in syscalls.ALLOWED.values() for name in names.split()}
    groups = {name: code for _, code, names in syscalls.REFUSED.values() for name in names.split()}

    for name, number in known.items():
        if name in syscalls.EXAMINED:
            continue
        expected = ALLOW if name in allowed else seccomp.refuse(groups.get(name, errno.ENOSYS))
        assert verdict(program, number, arch=arch) == expected, name


def test_no_call_is_both_allowed_and_refused_and_all_are_known() -> None:
    allowed = [name for _, names in syscalls.ALLOWED.values() for name in names.split()]
    refusals = [name for *_, names in syscalls.REFUSED.values() for name in names.split()]

    assert len(set(allowed)) + len(set(refusals)) == len(allowed) + len(refusals)
    assert not set(allowed) & set(refusals) | set(syscalls.EXAMINED) & set(allowed + refusals)
    known = set().union(*(syscalls.numbers(machine) for machine in MACHINES))
    assert set(allowed) | set(refusals) <= known


def test_calls_that_nobody_has_thought_about_do_not_exist() -> None:
    program = seccomp.build("x86_64")

    for number in (470, 500, 999, 0x3FFFFFFF):
        assert verdict(program, number) == seccomp.refuse(errno.ENOSYS)


@pytest.mark.parametrize("family", range(0, 50))
def test_only_local_sockets_can_be_made(family: int) -> None:
    program, numbers = seccomp.build("x86_64"), syscalls.numbers("x86_64")

    for name in ("socket", "socketpair"):
        for high in (0, 1 << 32, 0xFFFFFFFF << 32):
            answer = verdict(program, numbers[name], family | high, 1, 0)
            assert (answer == ALLOW) == (family == seccomp.AF_UNIX)


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        (17, True),  # SIGCHLD: fork
        (0x3D0F00, True),  # what the C library starts a thread with
        (0x00020000, False),
        (0x02000000, False),
        (0x04000000, False),
        (0x08000000, False),
        (0x10000000, False),
        (0x20000000, False),
        (0x40000000, False),
        (0x3D0F00 | 0x10000000, False),
    ],
)
def test_a_clone_makes_no_namespace(flags: int, allowed: bool) -> None:
    answer = verdict(seccomp.build("x86_64"), syscalls.numbers("x86_64")["clone"], flags)

    assert (answer == ALLOW) == allowed


TERMINAL_INPUT = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}


def test_typing_on_a_terminal_is_refused_with_and_without_gpus() -> None:
    number = syscalls.numbers("x86_64")["ioctl"]
    for gpus in (False, True):
        program = seccomp.build("x86_64", gpus=gpus)
        for request in TERMINAL_INPUT.values():
            # The kernel looks at 32 bits of the request.
            assert refused(verdict(program, number, 0, request))
            assert refused(verdict(program, number, 0, request | 1 << 32))
        assert verdict(program, number, 0, seccomp.IOCTLS["TCGETS"]) == ALLOW


def test_a_gpu_opens_the_driver_s_own_requests_and_no_others() -> None:
    number = syscalls.numbers("x86_64")["ioctl"]
    with_gpu, without = (seccomp.build("x86_64", gpus=gpus) for gpus in (True, False))
    # _IOWR('F', 0x2a, 32 bytes), the same of 4,096 bytes; UVM_CREATE_RANGE_GROUP, UVM_INITIALIZE
    driver = (0xC020462A, 0xD000462A, 23, 0x30000001, 0x30000002)
    # files (FS_IOC_SETFLAGS, FICLONE), networks (SIOCSIFFLAGS), loop devices, KVM, terminals and
    # what is one bit away from the driver's
    others = (0x40086602, 0x40049409, 0x8914, 0x4C00, 0xAE01, 0x5412, 0x30000003,
              *(0xC020002A | (0x46 ^ 1 << bit) << 8 for bit in range(8)))  # fmt: skip

    for request in driver:
        assert verdict(with_gpu, number, 0, request) == ALLOW, hex(request)
        assert refused(verdict(without, number, 0, request)), hex(request)
    for request in others:
        assert refused(verdict(with_gpu, number, 0, request)), hex(request)


@pytest.mark.parametrize("option", [26, 27, 44, 50, 51, 52, 36, 46, 60])
def test_no_program_is_attached_to_a_socket(option: int) -> None:
    # SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_LOCK_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF,
    # and its eBPF; SO_MARK, SO_BUSY_POLL, SO_ZEROCOPY
    program, number = seccomp.build("x86_64"), syscalls.numbers("x86_64")["setsockopt"]

    for high in (0, 1 << 32):
        assert refused(verdict(program, number, 3, 1, option | high))
    assert verdict(program, number, 3, 1, seccomp.SOCKET_OPTIONS["SO_SNDBUF"]) == ALLOW


def test_foreign_calling_conventions_end_the_program_or_do_not_exist() -> None:
    program = seccomp.build("x86_64")
    i386 = 0x40000003

    assert verdict(program, 1, arch=i386) == KILL
    assert verdict(program, 1, arch=seccomp.AUDIT_ARCH["aarch64"]) == KILL
    for number in syscalls.numbers("x86_64").values():
        assert refused(verdict(program, number | seccomp.X32_BIT))


def test_a_machine_without_a_table_is_refused() -> None:
    with pytest.raises(CannotRun):
        seccomp.build("riscv64")


def test_the_filter_fits_the_kernel() -> None:
    for machine in MACHINES:
        assert len(seccomp.build(machine, gpus=True)) // 8 < 4096


def test_the_oci_filter_allows_the_same_calls() -> None:
    rules = seccomp.oci("x86_64")["syscalls"]
    assert isinstance(rules, list)
    plain = {
        name
        for rule in rules
        if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
        for name in rule["names"]
    }
    program = seccomp.build("x86_64")

    for name, number in syscalls.numbers("x86_64").items():
        if name not in syscalls.EXAMINED:
            assert (verdict(program, number) == ALLOW) == (name in plain), name


@pytest.mark.parametrize("machine", MACHINES)
def test_what_others_have_read_cannot_be_asked_of_the_page_cache(machine: str) -> None:
    program, known = seccomp.build(machine), syscalls.numbers(machine)
    arch = seccomp.AUDIT_ARCH[machine]

    def answers(name: str, *arguments: int) -> int:
        return verdict(program, known[name], *arguments, arch=arch)

    assert answers("preadv2", 3, 0, 1, 0, 0, 0) == ALLOW
    for flags in (0x8, 0x9, 0x8 | 1 << 32):  # RWF_NOWAIT
        assert answers("preadv2", 3, 0, 1, 0, 0, flags) == seccomp.refuse(errno.EOPNOTSUPP)
    assert answers("fadvise64", 3, 0, 0, 3) == ALLOW
    for advice in (4, 4 | 1 << 32):  # POSIX_FADV_DONTNEED
        assert answers("fadvise64", 3, 0, 0, advice) == seccomp.refuse(errno.EINVAL)
    assert answers("openat2", 3, 0, 0, 24) == seccomp.refuse(errno.ENOSYS)
    assert refused(answers("mincore")) and refused(answers("cachestat"))
