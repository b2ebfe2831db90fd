"""Where plain data may lie: what the kernel says of a folder's file system and of swap."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_runner.plain_place import weakness


class Machine:
    """A root with the few kernel tables that are read, in the kernel's own form."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.device = folder.stat().st_dev
        (root / "proc/self").mkdir(parents=True)
        self.swaps()

    def mounted(self, kind: str, options: str = "rw") -> None:
        number = f"{os.major(self.device)}:{os.minor(self.device)}"
        (self.root / "proc/self/mountinfo").write_text(
            "21 1 259:99 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
            f"30 21 {number} / /work rw,nosuid shared:7 master:2 - {kind} source {options}\n"
        )

    def swaps(self, *names: str) -> None:
        rows = "".join(f"{name}   partition   1048572   0   -2\n" for name in names)
        (self.root / "proc/swaps").write_text(f"Filename Type Size Used Priority\n{rows}")

    def block(self, device: int, uuid: str = "", below: tuple[int, ...] = ()) -> None:
        place = self.root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
        (place / "dm").mkdir(parents=True)
        (place / "dm/uuid").write_text(f"{uuid}\n")
        (place / "slaves").mkdir()
        for each in below:
            (place / f"slaves/{each}").symlink_to(
                self.root / f"sys/dev/block/{os.major(each)}:{os.minor(each)}"
            )

    @property
    def fault(self) -> str:
        return weakness(self.folder, self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "folder").mkdir()
    return Machine(tmp_path / "root", tmp_path / "folder")


def test_memory_without_swap_is_safe(machine: Machine) -> None:
    machine.mounted("tmpfs")
    assert machine.fault == ""
    (machine.root / "proc/swaps").unlink()
    assert machine.fault == ""


def test_memory_that_swaps_to_a_plain_disk_is_not(machine: Machine) -> None:
    machine.mounted("tmpfs")
    machine.swaps("/dev/sda2")
    assert "swapped to 1 disks" in machine.fault
    machine.mounted("tmpfs", "rw,size=1024k,noswap")
    assert machine.fault == ""
    machine.mounted("ramfs")
    assert machine.fault == ""


def test_a_swap_file_is_as_safe_as_its_disk(machine: Machine) -> None:
    machine.mounted("tmpfs")
    (machine.root / "swapfile").write_bytes(b"")
    machine.swaps("/swapfile")
    assert machine.fault
    machine.block((machine.root / "swapfile").stat().st_dev, "CRYPT-LUKS2-0123-swap")
    assert machine.fault == ""


def test_compressed_memory_is_memory_unless_it_writes_back(machine: Machine) -> None:
    machine.mounted("tmpfs")
    machine.swaps("/dev/zram0")
    assert machine.fault == ""
    backing = machine.root / "sys/block/zram0/backing_dev"
    backing.parent.mkdir(parents=True)
    backing.write_text("none\n")
    assert machine.fault == ""
    backing.write_text("/dev/sda3\n")
    assert machine.fault


def test_a_disk_is_safe_where_dm_crypt_lies_below(machine: Machine) -> None:
    machine.mounted("ext4")
    assert "not encrypted" in machine.fault
    one, two = os.makedev(253, 7), os.makedev(253, 8)
    machine.block(one, "CRYPT-LUKS2-0123-data")
    machine.block(two)
    machine.block(machine.device, "LVM-abc", (one,))
    assert machine.fault == ""
    place = machine.root / f"sys/dev/block/{os.major(machine.device)}:{os.minor(machine.device)}"
    (place / "slaves/second").symlink_to(machine.root / "sys/dev/block/253:8")
    assert machine.fault, "a volume of which one part is plain"


def test_what_cannot_be_told_is_not_safe(machine: Machine) -> None:
    machine.mounted("overlay")
    assert machine.fault
    (machine.root / "proc/self/mountinfo").write_text("")
    assert machine.fault


def test_this_machine_is_read_without_an_error(tmp_path: Path) -> None:
    assert isinstance(weakness(tmp_path), str)
    assert "disk" in weakness(Path("/proc/self").resolve())
