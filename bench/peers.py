"""The environment of other people's tools, beside ours and never mixed with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from policies.errors import CannotRun

FOLDER = Path(__file__).resolve().parent.parent / ".venv-peers"
# Compared with only; nothing of ours imports them. pydicom as in requirements.lock.
PINNED = (
    "dicognito==0.19.0",
    "dicom-anonymizer==2.1.0",
    "tqdm==4.70.1",
    "deid==0.4.13",
    # What deid needs: it draws with matplotlib, which brings the rest.
    "matplotlib==3.11.2",
    "contourpy==1.3.3",
    "cycler==0.12.1",
    "fonttools==4.68.0",
    "kiwisolver==1.5.1",
    "packaging==26.3",
    "pyparsing==3.3.3",
    "python-dateutil==4.0.0",
    "tzdata==2026.6",
    "numpy==2.4.6",
    "pillow==13.0.0",
    "pydicom==3.0.2",
)


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
