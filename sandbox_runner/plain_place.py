"""Whether a folder keeps plain data off every disk that is not encrypted: now, and by swapping.

Memory is such a place where nothing of it can be swapped to a plain disk; a disk where dm-crypt
(LUKS) lies under its file system. What cannot be told counts as not.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def weakness(folder: Path, root: Path = Path("/")) -> str:
    """Return why plain data in this folder could reach a disk in plain, "" where it could not.

    ``root`` is where ``proc`` and ``sys`` are looked for.
    """
    device = folder.stat().st_dev
    kind, options = _mount_of(device, root)
    if kind == "ramfs" or (kind == "tmpfs" and "noswap" in options):
        return ""
    if kind == "tmpfs":
        plain = [swap for swap in _swaps(root) if not _swap_is_safe(swap, root)]
        return f"memory is swapped to {len(plain)} disks that are not encrypted" if plain else ""
    if _is_encrypted(device, root):
        return ""
    return "it is on a disk that is not encrypted, as far as this machine can tell"


def _mount_of(device: int, root: Path) -> tuple[str, frozenset[str]]:
    """Return the type and the options of the file system with this device number."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[2] == wanted:
            kind, _source, options = [*after.split(" "), "", ""][:3]
            return kind, frozenset(options.split(","))
    return "", frozenset()


def _swaps(root: Path) -> list[str]:
    try:
        lines = (root / "proc/swaps").read_text(encoding="utf-8").splitlines()[1:]
    except FileNotFoundError:
        return []  # a kernel that cannot swap
    return [line.split()[0] for line in lines if line.strip()]


def _swap_is_safe(name: str, root: Path) -> bool:
    """Whether a swap area is encrypted, or compressed memory."""
    if Path(name).name.startswith("zram"):
        # With a backing device it writes to a disk after all.
        backing = root / "sys/block" / Path(name).name / "backing_dev"
        return not backing.exists() or backing.read_text(encoding="ascii").strip() == "none"
    try:
        status = (root / name.lstrip("/")).stat()
    except OSError:
        return False
    return _is_encrypted(status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev, root)


def _is_encrypted(device: int, root: Path) -> bool:
    return _all_encrypted(root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}")


def _all_encrypted(block: Path) -> bool:
    """Whether a block device, or each that it consists of, is dm-crypt's."""
    try:
        if (block / "dm/uuid").read_text(encoding="ascii").startswith("CRYPT-"):
            return True
    except OSError:
        pass
    try:
        below = list((block / "slaves").iterdir())
    except OSError:
        return False
    return bool(below) and all(_all_encrypted(each) for each in below)
