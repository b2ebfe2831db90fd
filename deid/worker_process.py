"""The process of a worker. It holds the project's key and decodes no picture.

So what decodes pictures stays out of it: pydicom would load every library that it finds, which
takes a third of the start. What downloads pydicom's examples stays out too.
"""

from __future__ import annotations

import importlib
import sys

KEPT_OUT = ("gdcm", "pylibjpeg", "openjpeg", "libjpeg", "rle", "requests")


def main() -> None:
    """Serve one parent on the standard streams."""
    for name in KEPT_OUT:
        sys.modules[name] = None  # type: ignore[assignment]
    importlib.import_module("deid.worker").main()


if __name__ == "__main__":
    main()
