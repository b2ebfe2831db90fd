"""Prepare the mounts of one sandbox, give up all rights, start it, and die with the runner.

Run as a program of its own with nothing but the standard library, because mounting, changing the
user and forking are not safe inside a process with threads. It reads a plan (marshal) from one
descriptor and speaks with the runner over a socket: first ``started`` together with a descriptor
of the output directory, at the end ``ended`` with the exit status and what was used. When the
runner goes away the socket closes, and the sandbox ends with it.

As root it works in a mount namespace of its own and then becomes a user without rights; without
root it first makes a user namespace, which gives it the right to mount and nothing else.
"""

# Every sandbox waits for what is imported here: pathlib, json, signal and socket (with enum and
# collections) would double its own start, so paths are plain strings and words are put together.
# ruff: noqa: PTH101, PTH102, PTH103, PTH120, PTH123, PTH211

from __future__ import annotations

import _socket
import ctypes
import marshal
import os
import resource
import select
import stat
import sys
import time

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
READ_ONLY = MS_RDONLY | MS_NOSUID | MS_NODEV
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
CAPABILITIES_VERSION_3 = 0x20080522

# What the supervisor of root keeps, by its number in linux/capability.h, and why. It is given up as
# soon as the mounts lie.
NEEDED = {
    1: "DAC_OVERRIDE: open what is mounted, below folders that only their owner may enter",
    6: "SETGID: become the sandbox's user",
    7: "SETUID: the same",
    8: "SETPCAP: give up the rest",
    21: "SYS_ADMIN: make namespaces, mount",
    24: "SYS_RESOURCE: set limits above this process's own",
}
# runsc sets up its own confinement and needs more of root for it.
NEEDED_APART = {
    **NEEDED,
    0: "CHOWN: hand its files to its own users",
    3: "FOWNER: change their modes",
    4: "FSETID: the same",
    5: "KILL: end its sandbox, of another user",
    18: "SYS_CHROOT: leave the host's files behind",
    19: "SYS_PTRACE: stop a program at each system call",
}

# signal(7) and asm-generic/unistd.h: the same numbers on x86_64 and aarch64.
SIGKILL = 9
SIGPIPE = 13
SIGXFSZ = 25
SIG_DFL = None
ENOMEM = 12
PIDFD_SEND_SIGNAL = 424

# Every Linux has this directory, and covering it changes only this process's own view.
STAGE = "/tmp"  # noqa: S108

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    """Call mount(2). Raises OSError with its errno."""
    encode = [value.encode() if value is not None else None for value in (source, target, kind)]
    data = options.encode() if options is not None else None
    if libc.mount(*encode, ctypes.c_ulong(flags), data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or 'bind'}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Call unshare(2). Raises OSError with its errno."""
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def keep_only(capabilities: dict[int, str], hand_on: dict[int, str]) -> None:
    """Give up every other capability for good; what this process starts has ``hand_on`` at most."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for number in range(last + 1):
        # One that is not there is none to drop, and dropping needs a right that may be gone.
        if number not in hand_on:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    had = (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION_3, 0)
    if libc.capget(header, had) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    wanted = sum(1 << number for number in capabilities)
    # Pairs of words: effective, permitted, inheritable; the low half of all, then the high half.
    keep = (ctypes.c_uint32 * 6)()
    for half in (0, 1):
        mask = (wanted >> (32 * half)) & 0xFFFFFFFF
        keep[3 * half] = keep[3 * half + 1] = had[3 * half + 1] & mask
    if libc.capset(header, keep) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def enter_namespaces(root: bool) -> None:
    """Give this process a mount table of its own, which nobody else sees."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWNS if root else CLONE_NEWNS | CLONE_NEWUSER)
    if not root:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    # Slave: what the host unmounts goes away here too, and nothing of ours reaches the host.
    mount("none", "/", None, MS_SLAVE | MS_REC, None)


def make_skeleton(top: str, plan: dict) -> None:  # type: ignore[type-arg]
    """Create the directories, links and small files of the sandbox's root."""
    for path in plan["directories"]:
        os.makedirs(top + path, mode=0o755, exist_ok=True)
    for path, text in plan["files"].items():
        os.makedirs(os.path.dirname(top + path), mode=0o755, exist_ok=True)
        with open(top + path, "w") as file:
            file.write(text)
    for path, target in plan["links"].items():
        os.makedirs(os.path.dirname(top + path), mode=0o755, exist_ok=True)
        os.symlink(target, top + path)


def stage_mounts(plan: dict, root: bool) -> dict[str, int]:  # type: ignore[type-arg]
    """Lay out everything the sandbox will see under STAGE.

    Returns descriptors for the runner: of the output directory, and of the progress pipe where
    the backend cannot inherit one.
    """
    sources = [os.open(bind["source"], os.O_PATH | os.O_CLOEXEC) for bind in plan["binds"]]
    mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=4m,nr_inodes=4096")
    os.umask(0o022)
    make_skeleton(f"{STAGE}/root", plan)
    if plan.get("apart"):
        # A mount of its own without flags: Debian 12's runsc remounts its root without naming them,
        # and in a user namespace may not take them away. There is nothing in it to be set-uid.
        mount(f"{STAGE}/root", f"{STAGE}/root", None, MS_BIND, None)
        mount("none", f"{STAGE}/root", None, MS_REMOUNT | MS_BIND, None)
    for descriptor, bind in zip(sources, plan["binds"], strict=True):
        target = f"{STAGE}/{bind['name']}"
        inside = f"{STAGE}/root{bind['target']}"
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.mkdir(target)
            os.makedirs(inside, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(inside), exist_ok=True)
            for path in (target, inside):
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        # Only the mount itself: what else is mounted beneath it was not asked for. Without root
        # the kernel insists on the whole tree, lest something covered be uncovered.
        flags = MS_BIND if root else MS_BIND | MS_REC
        mount(f"/proc/self/fd/{descriptor}", target, None, flags, None)
        os.close(descriptor)
        if root and not bind["writable"]:
            # Beneath gVisor too, which reads with the host's own calls: what is read-only is so
            # for this machine's kernel, and nobody's reading shows in a time of the file. Other
            # flags stay as they are, for in a container they may be locked.
            kept = os.statvfs(target).f_flag & MS_NOEXEC
            mount("none", target, None, MS_REMOUNT | MS_BIND | READ_ONLY | kept, None)
    doors: dict[str, int] = {}
    for memory in plan["memory"]:
        target = f"{STAGE}/{memory['name']}"
        os.mkdir(target)
        os.makedirs(f"{STAGE}/root{memory['target']}", exist_ok=True)
        owner = f",uid={plan['uid']},gid={plan['gid']}" if root else ""
        options = f"mode=0700,size={memory['bytes']},nr_inodes={memory['inodes']}{owner}"
        flags = MS_NOSUID | MS_NODEV | (0 if memory["exec"] else MS_NOEXEC)
        mount("tmpfs", target, "tmpfs", flags, options)
        if memory["name"] == "output":
            doors["output"] = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if plan.get("fifo"):
        fifo = f"{STAGE}/doors/progress"
        os.mkdir(f"{STAGE}/doors")
        os.makedirs(f"{STAGE}/root{plan['fifo']}", exist_ok=True)
        os.mkfifo(fifo)
        os.chmod(fifo, 0o622)  # noqa: S103 - the sandbox writes, nobody else can get here
        doors["progress"] = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Held until the sandbox has ended: without a writer the runner would see the end at once.
        os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
    for name, text in plan.get("bundle", {}).items():
        os.makedirs(f"{STAGE}/bundle", exist_ok=True)
        with open(f"{STAGE}/bundle/{name}", "w") as file:
            file.write(text)
    return doors


def give_up_rights(plan: dict, kept: dict[int, str]) -> None:  # type: ignore[type-arg]
    """Become the sandbox's user outside too: an escape from the namespaces lands as nobody."""
    become = {number: NEEDED[number] for number in (6, 7)}
    keep_only({**become, **kept}, {})
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(plan["gid"], plan["gid"], plan["gid"])
    os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    keep_only(kept, {})


def start(plan: dict, root: bool) -> int:  # type: ignore[type-arg]
    """Fork the sandbox into its control groups and limits; return its process id."""
    parent = os.getpid()
    apart = plan.get("apart", False)
    if apart:
        # A backend of several processes: in a namespace of its own none outlives the first.
        unshare(CLONE_NEWPID)
    pid = os.fork()
    if pid:
        return pid
    try:
        if apart:
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
        for path in plan["cgroups"]:
            with open(path, "w") as file:
                file.write("0")
        for name, value in plan["rlimits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        if root and not apart:
            give_up_rights(plan, {})
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        if os.getppid() not in (parent, 0 if apart else parent):
            os._exit(125)
        for number in (SIGPIPE, SIGXFSZ):
            libc.signal(number, SIG_DFL)
        # Nothing of the supervisor's own: with its socket a program could forge its own end.
        kept = sorted({0, 1, 2, *plan["keep"]})
        for low, high in zip(kept, [*kept[1:], 1 << 16], strict=True):
            os.closerange(low + 1, high)
        for descriptor in plan["keep"]:
            os.set_inheritable(descriptor, True)
        os.execve(plan["program"], plan["argv"], plan["env"])  # noqa: S606
    except OSError as error:
        os.write(2, f"glovebox: {error.strerror}\n".encode())
    os._exit(125)


def bury() -> None:
    """End and bury what the sandbox's first process has left to us.

    bwrap ends before the first process of the namespace; when that is gone the kernel has ended
    everything in it. As a rule it is dying already. But where bwrap was killed before that process
    had asked to die with it, nobody else would ever end it.
    """
    while True:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                for child in file.read().split():
                    os.kill(int(child), SIGKILL)
        except OSError:
            pass  # it has just gone
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            time.sleep(0.002)


def messenger(plan: dict) -> tuple[int, int]:  # type: ignore[type-arg]
    """Fork who will have the backend's own program send SIGTERM inside; return it and its bell.

    That program must be of the user whose folder of sockets it opens, which this supervisor soon is
    not any more. It needs no other right and gets none: it will speak with a gVisor that may be
    taken over by then. Until a byte comes it sleeps, and it ends when the bell has no owner.
    """
    bell, ring = os.pipe()
    pid = os.fork()
    if pid:
        os.close(bell)
        return pid, ring
    try:
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.closerange(3, bell)
        os.closerange(bell + 1, 1 << 16)
        # After the descriptors are gone, so that nothing but the bell reaches it from here on.
        keep_only({}, {})
        if os.read(bell, 1):
            os.execve(plan["program"], plan["terminate"], plan["env"])  # noqa: S606
    finally:
        os._exit(125)


def watch(pid: int, control: _socket.socket, sleeping: tuple[int, int] | None) -> None:
    """Wait for the sandbox, or end it when the runner says so or is gone."""
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(control, select.POLLIN)
    handle = -1
    if sleeping is not None:
        handle = os.pidfd_open(sleeping[0])
        poll.register(handle, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        # First of all: as long as it is not buried, the namespace that it was born in cannot end.
        if sleeping is not None and handle in ready:
            poll.unregister(handle)
            os.waitpid(sleeping[0], 0)
            handle = -1
        if process in ready:
            break
        if control.fileno() in ready:
            # Any other word of the runner, and its silence, mean the same. Each is read: closing
            # the socket with words unread would take our own last word with it.
            word = control.recv(64)
            if word == b"term" and sleeping is not None:
                try:  # noqa: SIM105 - contextlib is a slow import
                    os.write(sleeping[1], b"x")
                except OSError:  # it has rung already
                    pass
                continue
            libc.syscall(PIDFD_SEND_SIGNAL, process, SIGKILL, None, 0)
            if not word:
                poll.unregister(control)
    _, status = os.waitpid(pid, 0)
    bury()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = (
        f'{{"ended": {os.waitstatus_to_exitcode(status)}, '
        f'"cpu_seconds": {used.ru_utime + used.ru_stime}, "peak_bytes": {used.ru_maxrss * 1024}}}'
    )
    try:
        control.send(ended.encode())
    except OSError:
        return


def main(plan_fd: int, control_fd: int) -> int:
    """Carry out the plan. Exit code 0 whatever became of the sandbox, 1 if it never started."""
    control = _socket.socket(fileno=control_fd)
    os.set_inheritable(control_fd, False)
    with os.fdopen(plan_fd, "rb") as file:
        plan = marshal.load(file)  # noqa: S302 - out of our runner's memory
    root = plan["uid"] is not None
    try:
        if root:
            needed = NEEDED_APART if plan.get("apart") else NEEDED
            keep_only(needed, needed)
        enter_namespaces(root)
        doors = stage_mounts(plan, root)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        pid = start(plan, root)
        try:
            sleeping = messenger(plan) if plan.get("terminate") else None
        except OSError as error:
            if error.errno != ENOMEM:
                raise
            # On a busy machine the sandbox may have ended already, and nobody is born any more into
            # a namespace whose first process is gone. Without a messenger "term" ends it at once.
            sleeping = None
        if root:
            # Ending a program of another user is all that is left to do.
            give_up_rights(plan, {5: NEEDED_APART[5]} if plan.get("apart") else {})
    except OSError as error:
        why = "".join(c for c in error.strerror or "error" if c.isprintable() and c not in '"\\\\')
        control.send(f'{{"failed": "{why}"}}'.encode())
        return 1
    # The sandbox holds these now; while the supervisor does too, the runner sees no end of file.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for descriptor in (*plan["keep"], null):
        os.close(descriptor)
    names = ", ".join(f'"{name}"' for name in doors)
    words = f'{{"started": {pid}, "doors": [{names}]}}'
    handed = b"".join(number.to_bytes(4, sys.byteorder) for number in doors.values())
    control.sendmsg(
        [words.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, handed)] if handed else []
    )
    for descriptor in doors.values():
        os.close(descriptor)
    watch(pid, control, sleeping)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
