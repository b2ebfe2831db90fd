"""Seal a process tree with bubblewrap: namespaces, a system call filter and control groups.

The supervisor lays the mounts out and gives up all rights; ``bwrap`` then makes the namespaces as
a user without rights. Nothing here needs bwrap to be set-uid.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from sandbox_runner import image as images
from sandbox_runner.backends import seccomp
from sandbox_runner.backends.local import (
    INNER_ID,
    STAGE,
    Command,
    Descriptors,
    Ends,
    LocalBackend,
    children,
    thread_counts,
)
from sandbox_runner.spec import Mount, SandboxSpec

# Always given. The reason for each:
FLAGS: Final = (
    "--unshare-user",  # rights over nothing but what is inside
    "--unshare-ipc",  # no System V memory, semaphores or queues of others
    "--unshare-pid",  # sees, signals and traces nobody else
    "--unshare-net",  # an own network without any device but loopback
    "--unshare-uts",  # not the host's name
    "--unshare-cgroup",  # not the host's control group paths
    "--disable-userns",  # no second user namespace, and so no capabilities over new namespaces
    "--new-session",  # no typing on the terminal it was started from (TIOCSTI, CVE-2017-5226)
    "--die-with-parent",  # no survivor when the supervisor dies
    "--clearenv",
    "--cap-drop",
    "ALL",
)


class Bubblewrap(LocalBackend):
    """The backend. One object may run many sandboxes at once."""

    name = "bubblewrap"
    program = "bwrap"
    advice = "on Debian: apt install bubblewrap"
    own_processes = 2  # bwrap itself and the first process of the namespace

    def version(self) -> str:
        """Return the version of bwrap, ``""`` where it is not installed."""
        return _version(self._path) if self._path is not None else ""

    def command(
        self,
        spec: SandboxSpec,
        image: images.Image,
        mounts: tuple[Mount, ...],
        descriptors: Descriptors,
        ends: Ends,
        uid: int | None,
    ) -> Command:
        """Return how to call bwrap for one sandbox."""
        bpf = descriptors.memory("filter", seccomp.build(gpus=spec.limits.gpus > 0))
        options = _options(spec, image, mounts, bpf, ends)
        # The options travel in a descriptor: process 1 inside shows its command line.
        given = descriptors.memory("options", b"\0".join(map(os.fsencode, options)) + b"\0")
        return Command(
            argv=("bwrap", "--args", str(given), "--", *spec.argv),
            keep=(bpf, given, ends.progress, ends.status),
        )

    def terminator(self, pid: int, control: socket.socket) -> Callable[[], None]:
        """Return how to send SIGTERM to the program: bwrap > process 1 inside > the program."""

        def terminate() -> None:
            for first in children(pid):
                for program in children(first):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(program, signal.SIGTERM)

        return terminate


def _options(
    spec: SandboxSpec,
    image: images.Image,
    mounts: tuple[Mount, ...],
    bpf: int,
    ends: Ends,
) -> list[str]:
    options = [*FLAGS, "--uid", str(INNER_ID), "--gid", str(INNER_ID)]
    options += ["--hostname", "glovebox", "--ro-bind", f"{STAGE}/root", "/"]
    for index, mount in enumerate(mounts):
        kind = "--bind" if mount.writable else "--ro-bind"
        options += [kind, f"{STAGE}/m{index}", mount.target]
    options += ["--proc", "/proc"]
    for path in image.hidden_files:
        if Path(path).exists():
            instead = image.shown.get(path)
            options += ["--ro-bind", f"{STAGE}/root{instead}" if instead else "/dev/null", path]
    for path in image.hidden_directories:
        if Path(path).exists():
            instead = image.shown.get(path, "/mnt")
            options += ["--ro-bind", f"{STAGE}/root{instead}", path]
    # A device directory with null, zero, full, random, urandom and tty only: no new terminals.
    options += ["--dev", "/dev", "--ro-bind", f"{STAGE}/root/mnt", "/dev/pts"]
    for index, (path, *_) in enumerate(image.devices):
        options += ["--dev-bind", f"{STAGE}/d{index}", path]
    options += ["--bind", f"{STAGE}/shm", "/dev/shm"]  # noqa: S108
    options += ["--bind", f"{STAGE}/tmp", "/tmp"]  # noqa: S108
    if spec.output is not None:
        options += ["--bind", f"{STAGE}/output", "/output"]
    # Read-only, /proc too: the sandbox's user owns the settings of the new namespaces there.
    options += ["--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/"]
    environment: Mapping[str, str] = {
        **image.env,
        **thread_counts(spec),
        **spec.env,
        "GLOVEBOX_PROGRESS_FD": str(ends.progress),
    }
    for name, value in environment.items():
        options += ["--setenv", name, value]
    options += ["--chdir", spec.workdir, "--seccomp", str(bpf)]
    return [*options, "--json-status-fd", str(ends.status)]


@functools.cache
def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("bubblewrap ")
