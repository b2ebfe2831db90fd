"""The kernel keeps a web process from the keys that are not its own (Linux Landlock).

``keys.role()`` is our own promise; this one holds against code that breaks it, such as somebody
else's code running in the web process after an exploit. Landlock needs no privilege, is inherited
by every child, and cannot be undone. Reading is allowed where a web process has business: the
interpreter and our packages, the system's libraries, the data folder, and its own key folders. The
folders of plaintext that workers keep in shared memory are outside of it too.

The numbers are those of linux/landlock.h; there is no Python package for three system calls.
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger("glovebox.confinement")

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# Renaming between folders, which storing an object does, is refused unless granted (ABI 2).
REFER = 1 << 13
READ = EXECUTE | READ_FILE | READ_DIR
FOLDER_ONLY = READ_DIR | REFER
HANDLED = READ | WRITE_FILE | REFER
MINIMUM_ABI = 2

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/opt", "/proc", "/sys", "/run")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty")
_libc = ctypes.CDLL(None, use_errno=True)


def available() -> bool:
    """Whether this kernel has what is needed."""
    return int(_libc.syscall(CREATE_RULESET, None, 0, 1)) >= MINIMUM_ABI


def _call(*arguments: object) -> int:
    result = int(_libc.syscall(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def restrict(*, read: Iterable[Path], write: Iterable[Path]) -> None:
    """Let this thread, and all it starts, read beneath ``read`` and write beneath ``write``.

    Call it before other threads start. Raises OSError where the kernel refuses.
    """
    attributes = struct.pack("=Q", HANDLED)
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for paths, access in ((read, READ), (write, HANDLED)):
            for path in paths:
                _allow(ruleset, path, access)
        if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError("no_new_privs was refused")
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        allowed = access if path.is_dir() else access & ~FOLDER_ONLY
        rule = struct.pack("=Qi", allowed, descriptor)
        _call(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _code(base: Path) -> set[Path]:
    """Return what is imported from; of the project's own folder its packages, never the whole."""
    places = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)}
    places |= {Path(entry).resolve() for entry in sys.path if entry}
    packages = {marker.parent for marker in base.glob("*/__init__.py")}
    return {place for place in places if place != base} | packages | set(base.glob("*.py"))


def confine_web(*, base: Path, home: Path, keys: Path) -> bool:
    """Confine this process to what a web process needs; False where the kernel cannot.

    Raises RuntimeError if a data key can still be opened afterwards.
    """
    if not available():
        log.warning("no Landlock here: only its role keeps the web process from the data keys")
        return False

    def beside_keys(path: Path) -> bool:
        return not keys.is_relative_to(path.resolve())

    read = {*map(Path, SYSTEM), *_code(base), *(keys / name for name in ("web", "view", "public"))}
    write = {home, Path(tempfile.gettempdir()), *map(Path, DEVICES)}
    restrict(read=filter(beside_keys, read), write=filter(beside_keys, write))
    for name in ("data/master.key", "sign/release.ed25519", "sign/audit.ed25519"):
        try:
            (keys / name).open("rb").close()
        except OSError:
            continue
        raise RuntimeError("the web process can still open a key that is not its own")
    return True
