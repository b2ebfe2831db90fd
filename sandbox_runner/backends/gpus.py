"""NVIDIA GPUs of one machine: which there are, which are free, and what a program needs of them.

A job gets the device nodes of its own GPUs, the three that the driver is spoken to through, and the
driver's libraries read-only; nothing else of the driver, and of ``/proc/driver`` a copy that names
its own GPUs only. Whatever the walls, the host's driver is then in its reach (threat model).

Where things lie is in the driver's README (``/proc/driver/nvidia``, ``/sys/module/nvidia/version``,
major 195, minor 255 for nvidiactl); what is asked of its library, in the NVML reference.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from policies.errors import CannotRun
from sandbox_runner.image import Image
from sandbox_runner.place import directory
from sandbox_runner.spec import MiB, Mount

MAJOR: Final = 195
#: Spoken to by every program; nvidia-uvm's number is given out when its module is loaded. Not
#: nvidia-modeset (screens) and nvidia-uvm-tools (watching other programs).
CONTROLS: Final = ("nvidiactl", "nvidia-uvm")
LIBRARIES: Final = "/opt/nvidia/lib"
PROC: Final = "/opt/nvidia/proc"

#: What CUDA programs load of the driver, by the beginning of its name; nothing for screens.
NEEDED: Final = (
    "libcuda.so.",
    "libnvidia-gpucomp.so.",
    "libnvidia-ml.so.",
    "libnvidia-nvvm.so.",
    "libnvidia-ptxjitcompiler.so.",
)

#: Memory that an idle GPU may show as used; what the driver keeps for itself is counted apart.
EMPTY_BYTES: Final = 64 * MiB


@dataclass(frozen=True)
class Device:
    """A character device of this machine that a sandbox may open."""

    path: str
    source: Path
    major: int
    minor: int


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver names it; ``place`` is its PCI address, ``about`` what it says."""

    uuid: str
    minor: int
    place: str
    about: str


@dataclass(frozen=True)
class Driver:
    """What of the driver this machine has."""

    version: str
    gpus: tuple[Gpu, ...]
    controls: tuple[Device, ...]
    libraries: Mapping[str, Path]
    root: Path = Path("/")

    def device(self, gpu: Gpu) -> Device:
        """Return a GPU's own device node. Raises CannotRun when it is none."""
        return _device(self.root, f"nvidia{gpu.minor}")


def _no(why: str, code: str = "sandbox.resources", **words: object) -> CannotRun:
    return CannotRun(why, field="resources.gpus", code=code, **words)


def _device(root: Path, name: str) -> Device:
    path = root / "dev" / name
    try:
        status = path.lstat()
    except OSError:
        raise _no("The device /dev/{name} is not there; start nvidia-persistenced, or run "
                  "nvidia-modprobe -u -c=0.", name=name) from None  # fmt: skip
    if not stat.S_ISCHR(status.st_mode):
        raise _no("/dev/{name} is no device.", name=name)
    if status.st_mode & 0o006 != 0o006:
        # Sandboxes run as users of no group; nodes of the driver's own making are open to all.
        raise _no("/dev/{name} may be opened by some users only; a sandbox's is none of them.",
                  name=name)  # fmt: skip
    return Device(f"/dev/{name}", path, os.major(status.st_rdev), os.minor(status.st_rdev))


def libraries(ldconfig: str = "/sbin/ldconfig") -> dict[str, Path]:
    """Return the driver's libraries by the name that programs ask for, of this machine's loader."""
    try:
        done = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False)
    except OSError:
        return {}
    return read_cache(done.stdout)


def read_cache(text: str) -> dict[str, Path]:
    """Return the driver's libraries in what ``ldconfig -p`` prints; the first of a name wins."""
    found: dict[str, Path] = {}
    for row in text.splitlines():
        match = re.fullmatch(r"\s*(\S+) \(([^)]*)\) => (/\S+)", row)
        if match and match[1].startswith(NEEDED) and ("64" in match[2] or "AArch64" in match[2]):
            found.setdefault(match[1], Path(match[3]))
    return found


def find(root: Path = Path("/"), known: Callable[[], Mapping[str, Path]] = libraries) -> Driver:
    """Return the driver and its GPUs. Raises CannotRun, saying what is not there."""
    try:
        version = (root / "sys/module/nvidia/version").read_text(encoding="ascii").strip()
    except OSError:
        raise _no("This machine has no NVIDIA driver; ask for gpus = 0.") from None
    found: list[Gpu] = []
    with contextlib.suppress(OSError):
        for entry in sorted((root / "proc/driver/nvidia/gpus").iterdir()):
            about = (entry / "information").read_text(encoding="utf-8")
            rows = (row.partition(":") for row in about.splitlines())
            words = {name.strip(): value.strip() for name, _, value in rows}
            if re.fullmatch(r"GPU-[0-9a-f-]{36}", words.get("GPU UUID", "")):
                found.append(Gpu(words["GPU UUID"], int(words["Device Minor"]), entry.name, about))
    if not found:
        raise _no("The NVIDIA driver {version} of this machine drives no GPU.", version=version)
    loaded = known()
    for name in ("libcuda.so.", "libnvidia-ml.so."):
        if not any(each.startswith(name) for each in loaded):
            raise _no("The library {name}1 of the NVIDIA driver is not installed.", name=name)
    controls = tuple(_device(root, name) for name in CONTROLS)
    if controls[0].major != MAJOR:
        raise _no("/dev/nvidiactl is another driver's device.")
    return Driver(version, tuple(found), controls, loaded, root)


class Lent:
    """GPUs that belong to one job of this machine until released; the kernel releases them too."""

    def __init__(self, driver: Driver, gpus: Sequence[Gpu], locks: Sequence[int]) -> None:
        self.driver = driver
        self.gpus = tuple(gpus)
        self._locks = list(locks)

    def release(self) -> None:
        """Give them back; idempotent."""
        while self._locks:
            os.close(self._locks.pop())


def _lock(gpu: Gpu, place: Path) -> int | None:
    """Return the held lock of a GPU, None where another runner has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(place / f"{gpu.uuid}.gpu", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def take(
    count: int,
    driver: Driver,
    in_use: Callable[[Gpu], str],
    place: Path | None = None,
) -> Lent:
    """Take ``count`` GPUs that nobody else has. Raises CannotRun, saying what is wrong with each.

    ``in_use`` says why a GPU cannot be given, ``""`` where it can: it is asked with the lock held.
    """
    if count > len(driver.gpus):
        raise _no("It asks for {count} GPUs; this machine has {there}.", count=count,
                  there=len(driver.gpus))  # fmt: skip
    taken: list[Gpu] = []
    locks: list[int] = []
    whys: list[str] = []
    try:
        for gpu in driver.gpus:
            if len(taken) == count:
                break
            lock = _lock(gpu, place or directory())
            if lock is None:
                whys.append(f"nvidia{gpu.minor}: another job has it")
                continue
            if why := in_use(gpu):
                os.close(lock)
                whys.append(f"nvidia{gpu.minor}: {why}")
                continue
            locks.append(lock)
            taken.append(gpu)
        if len(taken) < count:
            raise _no("Only {free} of the {count} GPUs asked for are free ({whys}).",
                      free=len(taken), count=count, whys="; ".join(whys))  # fmt: skip
        return Lent(driver, taken, locks)
    except BaseException:
        for lock in locks:
            os.close(lock)
        raise


class _Memory(ctypes.Structure):
    """nvmlMemory_v2_t."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("total", ctypes.c_ulonglong),
        ("reserved", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


INSUFFICIENT_SIZE: Final = 7
NOT_SUPPORTED: Final = 3


@contextlib.contextmanager
def nvml(library: Path) -> Iterator[Callable[[Gpu], str]]:
    """Open the driver's library and yield what says why a GPU is not empty, ``""`` where it is."""
    try:
        loaded: Any = ctypes.CDLL(str(library))
    except OSError:
        raise _no("The NVIDIA driver's library cannot be loaded.") from None
    if loaded.nvmlInit_v2() != 0:
        raise _no("The NVIDIA driver's library does not start: library and driver may be of "
                  "different versions.")  # fmt: skip
    try:
        yield lambda gpu: _not_empty(loaded, gpu)
    finally:
        loaded.nvmlShutdown()


def _not_empty(loaded: Any, gpu: Gpu) -> str:
    handle = ctypes.c_void_p()
    if loaded.nvmlDeviceGetHandleByUUID(gpu.uuid.encode(), ctypes.byref(handle)) != 0:
        return "the driver cannot reach it"
    now, pending = ctypes.c_uint(), ctypes.c_uint()
    code = loaded.nvmlDeviceGetMigMode(handle, ctypes.byref(now), ctypes.byref(pending))
    if code != NOT_SUPPORTED and (code != 0 or now.value):
        return "it is divided (MIG), which is not ours to change"
    for kind in ("nvmlDeviceGetComputeRunningProcesses_v3",
                 "nvmlDeviceGetGraphicsRunningProcesses_v3"):  # fmt: skip
        count = ctypes.c_uint(0)
        # With no room for a list it only says how long that would be.
        code = getattr(loaded, kind)(handle, ctypes.byref(count), None)
        if code == INSUFFICIENT_SIZE or count.value:
            return "a program uses it"
        if code not in (0, NOT_SUPPORTED):
            return "the driver does not say who uses it"
    memory = _Memory(version=ctypes.sizeof(_Memory) | 2 << 24)
    if loaded.nvmlDeviceGetMemoryInfo_v2(handle, ctypes.byref(memory)) != 0:
        return "the driver does not say what is in its memory (510 or newer is needed)"
    if memory.used > EMPTY_BYTES:
        return f"{memory.used // MiB} MiB of its memory are in use"
    return ""


def lend(count: int) -> Lent:
    """Take ``count`` empty GPUs of this machine. Raises CannotRun, saying what to do."""
    driver = find()
    name = next(each for each in driver.libraries if each.startswith("libnvidia-ml.so."))
    try:
        with nvml(driver.libraries[name]) as in_use:
            return take(count, driver, in_use)
    except AttributeError:
        raise _no("The NVIDIA driver {version} is too old; 510 or newer is needed.",
                  version=driver.version) from None  # fmt: skip


def dress(image: Image, lent: Lent) -> Image:
    """Return an image with what a program needs of these GPUs, and nothing of the others."""
    driver = lent.driver
    devices = (*driver.controls, *(driver.device(gpu) for gpu in lent.gpus))
    numbers = {MAJOR: "nvidia-frontend", driver.controls[1].major: "nvidia-uvm"}
    files = {
        # As the driver writes it where nobody may make device nodes.
        f"{PROC}/nvidia/params": "ModifyDeviceFiles: 0\n",
        f"{PROC}/nvidia/version": f"NVRM version: NVIDIA UNIX Kernel Module  {driver.version}\n",
        "/opt/nvidia/devices": "Character devices:\n"
        + "".join(f"{number:3} {name}\n" for number, name in numbers.items()),
    }
    for gpu in lent.gpus:
        files[f"{PROC}/nvidia/gpus/{gpu.place}/information"] = gpu.about
    names = {"LD_LIBRARY_PATH": LIBRARIES,
             "CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in lent.gpus)}  # fmt: skip
    return replace(
        image,
        mounts=(
            *image.mounts,
            *(Mount(path.resolve(), f"{LIBRARIES}/{name}")
              for name, path in driver.libraries.items()),
        ),
        files={**image.files, **files},
        env={**image.env, **names},
        devices=tuple((each.path, each.source, each.major, each.minor) for each in devices),
        shown={"/proc/driver": PROC, "/proc/devices": "/opt/nvidia/devices"},
    )  # fmt: skip
