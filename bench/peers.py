"""The environment of other people's tools, beside ours and never mixed with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from policies.errors import CannotRun

FOLDER = Path(__file__).resolve().parent.parent / ".venv-peers"
# Compared with only; nothing of ours imports them. pydicom as in requirements.lock.
PINNED = ("dicognito==0.19.0", "dicom-anonymizer==2.1.0", "pydicom==3.0.2", "tqdm==4.70.1")


def python() -> Path:
    """Return the interpreter of the peers' environment, made if it is not there.

    Raises :class:`CannotRun` where the packages cannot be had.
    """
    interpreter, stamp = FOLDER / "bin" / "python", FOLDER / ".made-from"
    wanted = "\n".join(PINNED)
    if interpreter.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return interpreter
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--no-deps", *PINNED]
    for command in ([sys.executable, "-m", "venv", str(FOLDER)], pip):
        # What pip says goes where people read; stdout is the figures'.
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
            raise CannotRun("The tools to compare with could not be installed in .venv-peers.")
    stamp.write_text(wanted, encoding="utf-8")
    return interpreter
