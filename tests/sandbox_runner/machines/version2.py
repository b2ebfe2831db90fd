"""Runs on a machine with control groups of version 2: is every limit enforced, and by its name?

Prints one JSON object, of what was seen by what was tried. ``version2.py DIRECTORY`` works in a
directory of its own; as a user without root ``GLOVEBOX_CGROUP`` must name a delegated group.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from sandbox_runner.backends import cgroups
from sandbox_runner.backends.choice import backend
from sandbox_runner.spec import Limits, MiB, SandboxSpec

here = Path(sys.argv[1])
bubblewrap = backend("bubblewrap")
hierarchy = cgroups.find()
assert hierarchy.version2 is not None, "no control group of version 2 may be written"
home = hierarchy.version2
seen: dict[str, Any] = {"controllers": sorted(hierarchy.version2_controllers)}


def tried(name: str, program: str, **limits: Any) -> None:
    """Run a program sealed, and note how it ended and what was measured."""
    asked = {"memory_bytes": 96 * MiB, "processes": 16, "wall_seconds": 60, "cpus": 1, **limits}
    spec = SandboxSpec(
        id=f"v2-{uuid.uuid4().hex[:12]}",
        argv=("python", "-I", "-S", "-c", program),
        limits=Limits(**asked),
        log=here / "log",
    )
    found: dict[str, str] = {}

    def look() -> None:
        group = home / spec.id
        for _ in range(600):
            try:
                if (group / "cgroup.procs").read_text(encoding="ascii").split():
                    for file in ("memory.max", "memory.swap.max", "pids.max", "cpu.max"):
                        if (group / file).exists():
                            found[file] = (group / file).read_text(encoding="ascii").strip()
                    return
            except OSError:
                pass
            time.sleep(0.02)

    watcher = threading.Thread(target=look)
    watcher.start()
    result = bubblewrap.run(spec)
    watcher.join()
    seen[name] = {
        "ended": [result.state, result.reason],
        "wall_seconds": result.wall_seconds,
        "cpu_seconds": result.cpu_seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
        "files": found,
        "log": (here / "log").read_text(encoding="utf-8", errors="replace")[-500:],
        "left": (home / spec.id).exists(),
    }


tried("memory", "held = []\nwhile True: held.append(b'x' * (4 << 20))")
tried(
    "memory of many",
    "import os, time\nfor _ in range(3):\n    if not os.fork():\n        held = b'x' * (48 << 20)\n"
    "        time.sleep(2)\n        os._exit(0)\nfor _ in range(3): os.wait()\nraise SystemExit(1)",
)
tried("processes", "import os, time\nwhile True:\n    if not os.fork(): time.sleep(60)")
tried(
    "cpu",
    "import time\nbegan = time.monotonic()\nwhile time.monotonic() < began + 2: pass",
    cpus=0.25,
)
tried(
    "time",
    "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\nos.fork()\n"
    "time.sleep(60)",
    wall_seconds=1,
    grace_seconds=0.3,
)
tried("nothing", "x = b'x' * (32 << 20)")
seen["uid"] = os.geteuid()
seen["left"] = sorted(cgroups.leftovers(hierarchy))
print(json.dumps(seen))
