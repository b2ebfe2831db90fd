"""GPUs: which are found, who gets which, and what of the driver is seen inside.

The driver's files are a tree of our own, as its README describes them; what needs a real GPU is
skipped where there is none.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from policies.errors import CannotRun
from sandbox_runner import image as images
from sandbox_runner.backends import Backend, gpus
from sandbox_runner.backends.choice import backend as backend_of
from sandbox_runner.backends.gvisor import bundle
from sandbox_runner.backends.local import LocalBackend
from sandbox_runner.place import outer_uid
from sandbox_runner.spec import Limits, MiB, SandboxSpec

REAL = Path("/sys/module/nvidia/version")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")
UUIDS = [f"GPU-{number:08x}-0000-0000-0000-000000000000" for number in range(3)]
CACHE = """3 libs found in cache `/etc/ld.so.cache'
\tlibcuda.so.1 (libc6,x86-64) => {lib}/libcuda.so.1
\tlibcuda.so.1 (libc6) => /usr/lib/i386-linux-gnu/libcuda.so.1
\tlibnvidia-ml.so.1 (libc6,x86-64) => {lib}/libnvidia-ml.so.1
\tlibnvidia-ptxjitcompiler.so.1 (libc6,x86-64) => {lib}/libnvidia-ptxjitcompiler.so.1
\tlibGLX_nvidia.so.0 (libc6,x86-64) => {lib}/libGLX_nvidia.so.0
\tlibc.so.6 (libc6,x86-64) => /lib/x86_64-linux-gnu/libc.so.6
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A machine with a driver and three GPUs; the nodes lead nowhere."""
    root = tmp_path / "machine"
    (root / "dev").mkdir(parents=True)
    (root / "sys/module/nvidia").mkdir(parents=True)
    (root / "sys/module/nvidia/version").write_text("550.54.15\n", encoding="ascii")
    for minor, name in enumerate(UUIDS):
        gpu = root / f"proc/driver/nvidia/gpus/0000:0{minor}:00.0"
        gpu.mkdir(parents=True)
        (gpu / "information").write_text(
            f"Model: \t\t NVIDIA Test\nIRQ:   \t\t 44\nGPU UUID: \t {name}\n"
            f"Bus Location: \t 0000:0{minor}:00.0\nDevice Minor: \t {minor}\n",
            encoding="ascii",
        )
    # With major 1, minor 3 a node is /dev/null: opening it inside proves that it was given.
    for name, number in (("nvidiactl", (195, 255)), ("nvidia-uvm", (1, 3)),
                         *((f"nvidia{n}", (1, 3)) for n in range(3))):  # fmt: skip
        node = root / "dev" / name
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(*number))
        node.chmod(0o666)
    (root / "lib").mkdir()
    for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1"):
        (root / "lib" / name).write_bytes(b"library")
    return root


def _libraries(root: Path) -> Callable[[], dict[str, Path]]:
    return lambda: gpus.read_cache(CACHE.format(lib=root / "lib"))


@pytest.fixture
def driver(tree: Path) -> gpus.Driver:
    """The same, as it was found."""
    return gpus.find(tree, _libraries(tree))


@ROOT
def test_the_driver_and_its_gpus_are_found(driver: gpus.Driver, tree: Path) -> None:
    assert driver.version == "550.54.15"
    assert [(gpu.uuid, gpu.minor) for gpu in driver.gpus] == [
        (name, minor) for minor, name in enumerate(UUIDS)
    ]
    assert [each.path for each in driver.controls] == ["/dev/nvidiactl", "/dev/nvidia-uvm"]
    assert dict(driver.libraries) == {
        name: tree / "lib" / name
        for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1")
    }


@ROOT
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda root: (root / "sys/module/nvidia/version").unlink(), "no NVIDIA driver"),
        (lambda root: (root / "dev/nvidia-uvm").unlink(), "nvidia-modprobe"),
        (lambda root: (root / "dev/nvidiactl").chmod(0o660), "some users only"),
        (lambda root: [(root / "dev/nvidia-uvm").unlink(), (root / "dev/nvidia-uvm").touch()],
         "no device"),
        (lambda root: [(root / "dev/nvidiactl").unlink(),
                       (root / "dev/nvidiactl").symlink_to("/dev/null")], "no device"),
        (lambda root: (root / "proc/driver/nvidia/gpus").rename(root / "away"), "drives no GPU"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said(
    broken: Callable[[Path], object], words: str, tree: Path
) -> None:
    broken(tree)

    with pytest.raises(CannotRun, match=words) as refused:
        gpus.find(tree, _libraries(tree))
    assert refused.value.code == "sandbox.resources"


@ROOT
def test_a_driver_without_libraries_is_said(tree: Path) -> None:
    with pytest.raises(CannotRun, match=r"libcuda\.so\.1"):
        gpus.find(tree, dict)


@ROOT
def test_a_gpu_belongs_to_one_job_at_a_time(driver: gpus.Driver, tmp_path: Path) -> None:
    first = gpus.take(2, driver, lambda _: "", tmp_path)
    assert [gpu.minor for gpu in first.gpus] == [0, 1]
    second = gpus.take(1, driver, lambda _: "", tmp_path)
    assert [gpu.minor for gpu in second.gpus] == [2]

    with pytest.raises(CannotRun, match="nvidia2: another job has it"):
        gpus.take(1, driver, lambda _: "", tmp_path)

    first.release()
    first.release()
    with pytest.raises(CannotRun, match="2 of the 3"):
        gpus.take(3, driver, lambda _: "", tmp_path)
    third = gpus.take(2, driver, lambda _: "", tmp_path)
    assert [gpu.minor for gpu in third.gpus] == [0, 1], "what was taken for nothing is free again"
    second.release()
    third.release()


@ROOT
def test_a_gpu_in_use_is_given_to_nobody(driver: gpus.Driver, tmp_path: Path) -> None:
    def in_use(gpu: gpus.Gpu) -> str:
        return "612 MiB of its memory are in use" if gpu.minor == 0 else ""

    lent = gpus.take(1, driver, in_use, tmp_path)
    assert [gpu.minor for gpu in lent.gpus] == [1]
    with pytest.raises(CannotRun, match="nvidia0: 612 MiB"):
        gpus.take(2, driver, in_use, tmp_path)
    lent.release()
    with pytest.raises(CannotRun, match="this machine has 3"):
        gpus.take(4, driver, lambda _: "", tmp_path)


HOLD = """
import sys
from pathlib import Path
from sandbox_runner.backends import gpus
one = gpus.Gpu(sys.argv[2], 0, "0000:00:00.0", "")
driver = gpus.Driver("1", (one,), (), {})
lent = gpus.take(1, driver, lambda _: "", Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@ROOT
def test_a_killed_runner_gives_its_gpus_back(driver: gpus.Driver, tmp_path: Path) -> None:
    runner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), UUIDS[0]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert runner.stdout is not None and runner.stdout.readline() == b"held\n"
    lent = gpus.take(1, driver, lambda _: "", tmp_path)
    assert [gpu.minor for gpu in lent.gpus] == [1]
    lent.release()

    runner.kill()
    runner.communicate()

    lent = gpus.take(1, driver, lambda _: "", tmp_path)
    assert [gpu.minor for gpu in lent.gpus] == [0]
    lent.release()


@ROOT
def test_gvisor_is_given_the_devices_of_these_gpus_alone(
    driver: gpus.Driver, tmp_path: Path
) -> None:
    spec = SandboxSpec(id="bundle", argv=("python",), limits=Limits(gpus=1))
    lent = gpus.take(1, driver, lambda gpu: "taken" if gpu.minor == 0 else "", tmp_path)
    image = gpus.dress(images.find(spec.image), lent)
    lent.release()

    config = bundle(spec, image, image.mounts, outer_uid(spec.id))

    devices = {each["path"]: (each["major"], each["minor"]) for each in config["linux"]["devices"]}
    assert devices == {"/dev/nvidiactl": (195, 255), "/dev/nvidia-uvm": (1, 3),
                       "/dev/nvidia1": (1, 3)}  # fmt: skip
    assert f"CUDA_VISIBLE_DEVICES={UUIDS[1]}" in config["process"]["env"]
    libraries = [m for m in config["mounts"] if m["destination"].startswith(gpus.LIBRARIES)]
    assert len(libraries) == 3 and all("ro" in each["options"] for each in libraries)
    ioctls = [rule for rule in config["linux"]["seccomp"]["syscalls"] if rule["names"] == ["ioctl"]]
    assert all(rule["args"] for rule in ioctls), "bounded with a GPU, too"


LOOK = """
import json, os
def opens(path):
    try:
        os.close(os.open(path, os.O_RDWR))
        return True
    except OSError:
        return False
gpus = "/proc/driver/nvidia/gpus"
print(json.dumps({
    "devices": sorted(name for name in os.listdir("/dev") if name.startswith("nvidia")),
    "opens": opens("/dev/nvidia1"),
    "gpus": {name: open(f"{gpus}/{name}/information").read() for name in os.listdir(gpus)},
    "driver": sorted(os.listdir("/proc/driver")),
    "numbers": open("/proc/devices").read(),
    "libraries": sorted(os.listdir("/opt/nvidia/lib")),
    "visible": os.environ["CUDA_VISIBLE_DEVICES"],
    "writes": any(os.access(f"{p}/x", os.W_OK) or os.access(p, os.W_OK)
                  for p in ("/opt/nvidia/lib", "/dev", "/proc/driver")),
}))
"""


@ROOT
@pytest.mark.sandbox
@pytest.mark.skipif(not Path("/proc/driver").is_dir(), reason="this kernel has no /proc/driver")
def test_bubblewrap_shows_these_gpus_alone(
    bubblewrap: Backend, driver: gpus.Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    def lend(count: int) -> gpus.Lent:
        in_use = {0: "taken"}
        return gpus.take(count, driver, lambda gpu: in_use.get(gpu.minor, ""), tmp_path)

    monkeypatch.setattr(gpus, "lend", lend)
    spec = SandboxSpec(
        id=f"gpu-{uuid.uuid4().hex[:12]}",
        argv=("python", "-I", "-S", "-c", LOOK),
        limits=Limits(gpus=1, wall_seconds=30),
        log=tmp_path / "log",
    )

    result = bubblewrap.run(spec)

    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert result.state == "finished", text
    seen = json.loads(text)
    assert seen["devices"] == ["nvidia-uvm", "nvidia1", "nvidiactl"]
    assert seen["opens"]
    assert list(seen["gpus"]) == ["0000:01:00.0"] and UUIDS[1] in seen["gpus"]["0000:01:00.0"]
    assert seen["driver"] == ["nvidia"]
    assert seen["numbers"].startswith("Character devices:") and "nvidia-uvm" in seen["numbers"]
    assert len(seen["libraries"]) == 3
    assert seen["visible"] == UUIDS[1]
    assert not seen["writes"]
    lend(2).release()  # given back after the end


@pytest.mark.sandbox
@pytest.mark.skipif(REAL.exists(), reason="this machine has a driver")
@pytest.mark.parametrize("name", ["bubblewrap", pytest.param("gvisor", marks=pytest.mark.slow)])
def test_where_there_is_no_gpu_the_reason_is_said(name: str) -> None:
    backend = backend_of(name)
    if not backend.version():
        pytest.skip(f"{name} is not installed")
    spec = SandboxSpec(id=f"no-gpu-{name}", argv=("python",), limits=Limits(gpus=1))

    for _ in range(2):  # and nothing is left behind that would be in the way
        with pytest.raises(CannotRun, match="no NVIDIA driver") as refused:
            backend.run(spec)
        assert refused.value.code == "sandbox.resources"


def test_a_runsc_without_nvproxy_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "runsc"
    old.write_text("#!/bin/sh\necho runsc version 1\n", encoding="utf-8")
    old.chmod(0o755)
    backend = backend_of("gvisor")
    assert isinstance(backend, LocalBackend)
    before, backend._path = backend._path, str(old)
    try:
        assert backend.gpu_flags(0) == ()
        with pytest.raises(CannotRun, match="nvproxy"):
            backend.gpu_flags(1)
    finally:
        backend._path = before


def test_a_library_that_is_none_is_said(tmp_path: Path) -> None:
    library = tmp_path / "libnvidia-ml.so.1"
    library.write_bytes(b"no library")

    with pytest.raises(CannotRun, match="cannot be loaded"), gpus.nvml(library):
        pass


def test_the_cuda_image_needs_a_pytorch_built_for_it(tmp_path: Path) -> None:
    note = tmp_path / "torch" / "version.py"
    note.parent.mkdir()
    for text, built in (
        ("__version__ = '2.6'\ncuda: Optional[str] = '12.4'\nhip = None\n", True),
        ("cuda = '11.8'\n", True),
        ("cuda: Optional[str] = None\n", False),
        ("__version__ = '2.6+cpu'\n", False),
    ):
        note.write_text(text, encoding="utf-8")
        assert images._cuda(tmp_path) is built
    assert not images._cuda(tmp_path / "nothing")


@pytest.mark.sandbox
@pytest.mark.skipif(not REAL.exists(), reason="needs a real NVIDIA GPU and its driver")
def test_a_real_gpu_works_and_is_alone(bubblewrap: Backend, tmp_path: Path) -> None:
    program = (
        "import ctypes\ncuda = ctypes.CDLL('libcuda.so.1')\ncount = ctypes.c_int()\n"
        "assert cuda.cuInit(0) == 0\ncuda.cuDeviceGetCount(ctypes.byref(count))\n"
        "device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()\n"
        "assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0\n"
        "assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0\n"
        "assert cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(1 << 28)) == 0\n"
        "assert cuda.cuMemsetD8_v2(memory, 7, ctypes.c_size_t(1 << 28)) == 0\nprint(count.value)"
    )
    spec = SandboxSpec(
        id=f"gpu-{uuid.uuid4().hex[:12]}",
        argv=("python", "-c", program),
        limits=Limits(gpus=1, memory_bytes=8192 * MiB, wall_seconds=60),
        log=tmp_path / "log",
    )

    for _ in range(2):  # the second finds it empty again
        result = bubblewrap.run(spec)
        said = (tmp_path / "log").read_text(encoding="utf-8")
        assert (result.state, said.strip()) == ("finished", "1"), said
