"""Carry a job's /output away, in a container of ours that starts after the job's has ended.

``python -m sandbox_runner.backends.kubernetes_carry SOURCE TARGET MAX_BYTES MAX_FILES``. What it
brings is still a stranger's: the runner copies it once more, by the same rules, before use.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from sandbox_runner.regular_files import copy_tree

#: How much of what was left behind is told.
MAX_TOLD = 100


def main(argv: list[str]) -> int:
    """Copy the plain files of a directory into an empty one, and print what was left, as JSON."""
    source, target, max_bytes, max_files = argv
    top = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        left = copy_tree(
            top, Path(target), limit=int(max_bytes), entries=int(max_files), file_mode=0o644
        )
    finally:
        os.close(top)
    for directory, _, _ in os.walk(target):
        if directory != target:
            # The runner is another user, and must be able to take all of it away again.
            Path(directory).chmod(0o777)
    told = [[rejected.path, rejected.why] for rejected in left[:MAX_TOLD]]
    sys.stdout.write(json.dumps({"left": told}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
