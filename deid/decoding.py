"""Ask a decoder process; when it dies or hangs, only the file it was on is held back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from deid import channel
from deid.quarantine import Quarantined

SECONDS = 120.0
SECONDS_PER_MIB = 5.0
SECONDS_TO_END = 2.0
PIPE_BYTES = 1 << 20
SECONDS_IN_ALL = 12 * 3600.0
ROOT = Path(__file__).resolve().parent.parent


def child_environment() -> dict[str, str]:
    """The few variables a child needs, and one thread for each numeric library."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    quiet = {"ORT_DISABLE_TELEMETRY": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **threads, **quiet, "PYTHONPATH": path}


class _Watch:
    """Ends a process that has not said anything for so many seconds."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process, self._seconds = process, seconds
        self.expired = threading.Event()
        self.restart()

    def restart(self) -> None:
        self.end()
        self._timer = threading.Timer(self._seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def _expire(self) -> None:
        self.expired.set()
        self._process.kill()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    _timer: threading.Timer | None = None


class Decoder:
    """One decoder process, started on first use, or before it, and again after it ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(
        self,
        head: Mapping[str, Any],
        *body: bytes | memoryview,
        sink: Callable[[bytes], object] | None = None,
    ) -> tuple[dict[str, Any], bytes]:
        """The answer; raises :class:`Quarantined` when the file could not be decoded.

        A long work says now and then that it goes on, and is given its time anew. ``sink`` takes
        the parts of an answer that comes piece by piece; they count only if this returns.
        """
        process = self._running()
        size = sum(len(part) for part in body)
        watch = _Watch(process, SECONDS + SECONDS_PER_MIB * size / (1 << 20))
        over = time.monotonic() + SECONDS_IN_ALL
        try:
            message = self._message(process, head, *body)
            while message is not None and "goes on" in message[0] and time.monotonic() < over:
                if message[1] and sink is not None:
                    sink(message[1])
                watch.restart()
                message = self._message(process)
        except BaseException:
            # The rest of an answer that nobody takes must not be read as the next one's.
            self.close()
            raise
        finally:
            watch.end()
        if message is None or "goes on" in message[0]:
            self.close()
            crashed = message is None and not watch.expired.is_set()
            raise Quarantined("decoder-crash" if crashed else "decoder-timeout")
        answer, pixels = message
        if "error" in answer:
            reason = str(answer["error"])
            raise Quarantined(reason if reason.replace("-", "").isalnum() else "cannot-decode")
        return answer, pixels

    def start(self) -> None:
        """Start the process, which then loads its libraries while the caller does other things."""
        self._running()

    @staticmethod
    def _message(
        process: subprocess.Popen[bytes], *request: Any
    ) -> tuple[dict[str, Any], bytes] | None:
        """Send what there is to send, and take one message; None when the process is gone."""
        try:
            if request:
                channel.send(cast(BinaryIO, process.stdin), *request)
            return channel.receive(cast(BinaryIO, process.stdout))
        except (OSError, ValueError):
            return None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deid.decoder"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
                cwd="/",
                close_fds=True,
            )
            for stream in (self._process.stdin, self._process.stdout):
                # Pictures go through in fewer pieces; where that is refused, in more.
                with contextlib.suppress(OSError):
                    fcntl.fcntl(cast(BinaryIO, stream), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return self._process

    def close(self) -> None:
        """End the process, by itself or by force."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                cast(BinaryIO, self._process.stdin).close()
            # Its answers end when it does; waiting for the process alone would look again and
            # again, later each time.
            select.select([cast(BinaryIO, self._process.stdout)], [], [], SECONDS_TO_END)
            try:
                self._process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except OSError:
                        continue
            self._process = None
