"""The root file system of a sandbox: what an image name stands for on one machine.

Here an image is this project's own interpreter and libraries, mounted read-only at neutral paths:
nothing of the host's home, etc, run or var, and no path of the host in ``sys.path``. The
interpreter appears as ``/opt/python``, its packages as the virtual environment ``/opt/venv``.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from policies.errors import CannotRun
from sandbox_runner.spec import Mount

ROOM: Final = Path(__file__).resolve().parent

#: The catalogue of one machine: image name -> what it is.
IMAGES: Final[Mapping[str, str]] = {
    "pytorch-cpu": "Python and PyTorch without GPU, NumPy, pydicom, Pillow, safetensors",
    "pytorch-cuda": "the same, where this environment's PyTorch was built for CUDA",
}

# A shell and the few programs that subprocess, platform and ctypes call.
PROGRAMS: Final = ("sh", "env", "uname", "cat", "ls")

# By default the C library gives every large block back to the kernel and gets it anew, a page fault
# a page, for each batch: that costs a training a tenth of its time bare, and more under gVisor.
# 32 MiB is the largest threshold there is (mallopt(3)).
KEEP_FREED_MEMORY: Final[Mapping[str, str]] = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(32 << 20),
}

# Kernel tables that describe the host and that no training needs; each is covered. Those that
# count interrupts, pages, disk accesses, open files and waiting show from second to second what
# other jobs do.
HIDDEN_FILES: Final = (
    "/proc/buddyinfo",
    "/proc/cgroups",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/consoles",
    "/proc/crypto",
    "/proc/devices",
    "/proc/diskstats",
    "/proc/dma",
    "/proc/execdomains",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/loadavg",
    "/proc/locks",
    "/proc/misc",
    "/proc/modules",
    "/proc/mtrr",
    "/proc/pagetypeinfo",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/schedstat",
    "/proc/slabinfo",
    "/proc/softirqs",
    "/proc/swaps",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/vmallocinfo",
    "/proc/vmstat",
    "/proc/zoneinfo",
    "/proc/sys/fs/aio-nr",
    "/proc/sys/fs/dentry-negative",
    "/proc/sys/fs/dentry-state",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inode-nr",
    "/proc/sys/fs/inode-state",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/pty/nr",
    "/proc/sys/kernel/random/entropy_avail",
)
HIDDEN_DIRECTORIES: Final = (
    "/proc/acpi",
    "/proc/bus",
    "/proc/driver",
    "/proc/fs",
    "/proc/irq",
    "/proc/pressure",
    "/proc/scsi",
    "/proc/sys/fs/quota",
    "/proc/tty",
)


@dataclass(frozen=True)
class Image:
    """Mounts, links and small files that make a root, and the environment that fits them."""

    name: str
    mounts: tuple[Mount, ...]
    links: Mapping[str, str]
    files: Mapping[str, str]
    env: Mapping[str, str]
    #: /proc paths to cover, as far as this kernel has them.
    hidden_files: tuple[str, ...] = ()
    hidden_directories: tuple[str, ...] = ()
    #: Character devices that may be opened: path inside, path here, major and minor number.
    devices: tuple[tuple[str, Path, int, int], ...] = ()
    #: Covered /proc paths that show something of the image instead of nothing.
    shown: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = field(default=("/proc", "/dev", "/code", "/data", "/mnt"))


def _library_directory() -> Path:
    """Return the directory of this machine's shared libraries."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for candidate in (Path("/usr/lib") / multiarch, Path("/usr/lib64"), Path("/usr/lib")):
        if (candidate / "libc.so.6").exists():
            return candidate
    raise CannotRun(
        "The C library was found neither in /usr/lib/{multiarch} nor in /usr/lib64.",
        code="sandbox.image",
        multiarch=multiarch,
    )


def _loader() -> Path:
    """Return the dynamic loader under the name that programs ask for."""
    for candidate in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"):
        if Path(candidate).exists():
            return Path(candidate)
    raise CannotRun("The dynamic loader was not found in /lib64 or /lib.", code="sandbox.image")


def _cuda(packages: Path) -> bool:
    """Return whether PyTorch was built for CUDA, by its own note (it is not imported for this)."""
    try:
        text = (packages / "torch" / "version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"^cuda\b[^=\n]*= *['\"]\d", text, re.MULTILINE) is not None


@functools.cache
def find(name: str) -> Image:
    """Return the image of this name. Raises :class:`CannotRun` for a name not in the catalogue."""
    if name not in IMAGES:
        raise CannotRun(
            "The image {name} is not in the catalogue; it has: {known}.",
            field="job.image",
            code="sandbox.image",
            name=name,
            known=", ".join(sorted(IMAGES)),
        )
    if name == "pytorch-cuda" and not _cuda(Path(sysconfig.get_path("purelib"))):
        raise CannotRun(
            "The image {name} needs an environment with a PyTorch built for CUDA; this is none.",
            field="job.image",
            code="sandbox.image",
            name=name,
        )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix).resolve()
    libraries, loader = _library_directory(), _loader()
    mounts = [
        Mount(base / "bin" / version, f"/opt/python/bin/{version}"),
        Mount(Path(sysconfig.get_path("stdlib")).resolve(), f"/opt/python/lib/{version}"),
        Mount(Path(sysconfig.get_path("purelib")), f"/opt/venv/lib/{version}/site-packages"),
        Mount(libraries, str(libraries)),
        Mount(loader.resolve(), f"/usr{loader}"),
    ]
    shared = sysconfig.get_config_var("INSTSONAME") or ""
    if ".so" in shared and (base / "lib" / shared).exists():
        # The interpreter looks for it under the host's path, which is not there; the loader then
        # looks among the libraries, where the system's own of the same name would be found.
        place = libraries if (libraries / shared).exists() else Path("/usr/lib")
        mounts.append(Mount(base / "lib" / shared, str(place / shared)))
    for program in PROGRAMS:
        found = shutil.which(program, path="/usr/bin:/bin")
        if found:
            mounts.append(Mount(Path(found).resolve(), f"/usr/bin/{program}"))
    sdk = ROOM / "sdk"
    if sdk.is_dir():
        mounts.append(Mount(sdk, "/opt/sdk"))
    cores = f"0-{(os.cpu_count() or 1) - 1}\n"
    return Image(
        name=name,
        mounts=tuple(mounts),
        links={
            "/bin": "usr/bin",
            "/lib": "usr/lib",
            "/lib64": "usr/lib64",
            f"/opt/venv/bin/{version}": f"/opt/python/bin/{version}",
            "/opt/venv/bin/python3": version,
            "/opt/venv/bin/python": version,
        },
        files={
            "/etc/passwd": "sandbox:x:1000:1000:sandbox:/tmp:/bin/sh\n",
            "/etc/group": "sandbox:x:1000:\n",
            "/etc/hosts": "127.0.0.1 localhost\n",
            "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
            "/opt/venv/pyvenv.cfg": (
                "home = /opt/python/bin\ninclude-system-site-packages = false\n"
                f"version = {'.'.join(map(str, sys.version_info[:3]))}\n"
            ),
            # Where the C library and PyTorch count processors.
            "/sys/devices/system/cpu/online": cores,
            "/sys/devices/system/cpu/possible": cores,
            "/sys/devices/system/cpu/present": cores,
        },
        env={
            "PATH": "/opt/venv/bin:/usr/bin",
            "HOME": "/tmp",  # noqa: S108 - inside the sandbox
            "TMPDIR": "/tmp",  # noqa: S108
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONPATH": "/opt/sdk",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            **KEEP_FREED_MEMORY,
        },
        hidden_files=HIDDEN_FILES,
        hidden_directories=HIDDEN_DIRECTORIES,
    )
