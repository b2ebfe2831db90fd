"""A queue of files for one machine: kombu's filesystem transport with whole messages.

kombu writes a message in place, where a worker may read the half of it and stop with an error,
and moves it through the system's temporary folder. Here a message appears by a rename and is
taken by a rename, so each is seen whole and by one worker. A worker killed with a message in its
hands still loses it: messages are hints, and beat finds the row.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem

# What a killed process left half-written or half-read.
LEFTOVER_SECONDS = 3600


class Channel(filesystem.Channel):
    """Messages are files named by time, so the oldest is taken first."""

    # kombu's own base classes disagree about the second name.
    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        name = f"{time.time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        draft = folder / f".{name}.draft"
        draft.write_text(json.dumps(payload))
        draft.rename(folder / name)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        folder = Path(self.data_folder_in)
        ending = f".{queue}.msg"
        for name in sorted(path.name for path in folder.glob(f"[0-9]*{ending}")):
            # A name of this taker's own: whoever comes second must not touch the first one's file.
            taken = folder / f".{name}.{uuid.uuid4().hex}.taken"
            try:
                (folder / name).rename(taken)
            except OSError:
                continue  # another worker was first
            try:
                return json.loads(taken.read_bytes())
            except ValueError:
                continue  # not a message; whoever waits for it is found by beat
            finally:
                taken.unlink(missing_ok=True)
        self._clear_leftovers(folder)
        raise Empty

    def _clear_leftovers(self, folder: Path) -> None:
        for path in folder.glob(".*"):
            try:
                if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                    path.unlink(missing_ok=True)
            except OSError:
                continue


class Transport(filesystem.Transport):
    """kombu's, with the channel above."""

    Channel = Channel
