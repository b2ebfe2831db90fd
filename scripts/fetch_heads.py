"""Bring the photographs of tests/deid/pixels/photographed_heads.csv into .heads, to measure with.

    python scripts/fetch_heads.py [--base ADDRESS]

50 pictures, 16 MB, each of one commit and checked by its SHA-256; what is there already stays.
``--base`` is for a copy of the files: ``file:///FOLDER``, with OWNER/NAME/COMMIT/PATH in it.
"""

from __future__ import annotations

import argparse
import sys
from urllib.parse import quote
from urllib.request import urlopen

from tests.deid.pixels.photographed_heads import FOLDER, fetch

BASE = "https://raw.githubusercontent.com"
SECONDS = 60


def main() -> None:
    """Fetch and say how many were new."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=BASE)
    base = parser.parse_args().base.rstrip("/")

    def read(address: str) -> bytes:
        with urlopen(f"{base}/{quote(address)}", timeout=SECONDS) as stream:
            data: bytes = stream.read()
        return data

    try:
        print(f"{fetch(read)} new pictures in {FOLDER}")
    except (OSError, ValueError) as error:
        sys.exit(f"{error}. Nothing else was fetched; run it again, or give another --base.")


if __name__ == "__main__":
    main()
