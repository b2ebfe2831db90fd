"""From the request to no process left: at most five seconds, in each step of a job."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from django.utils import timezone

from portal import object_store, workplace
from portal.access.models import Grant
from portal.catalog.contents import Contents
from portal.jobs import actions
from portal.jobs.models import Job, StagedUse, Tick
from tests.portal.cast import Cast
from tests.portal.jobs.material import MODEL, TRAIN, files, fill, submission, submitted
from tests.trail import Trail

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sandbox,
]

#: What is promised.
SECONDS = 5.0
# It hears that it must end, and goes on.
STUBBORN = """
import glovebox, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
glovebox.log(1, loss=0.5)
time.sleep(50)
"""
LEAVES_MUCH = """
import glovebox
glovebox.save_metrics(rows=1, loss=0.5)
glovebox.output("model.safetensors").write_bytes(bytes(8 << 20))
"""


class Slow(io.RawIOBase):
    """A stream of a store that gives a little, after a while."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        time.sleep(0.3)
        return self._stream.read(min(size, 4096) if size > 0 else size)


class SlowWriter:
    """A store that takes long for every piece."""

    def __init__(self, out: Any) -> None:
        self._out = out

    def write(self, data: bytes) -> int:
        time.sleep(0.3)
        return int(self._out.write(data))


def slow_staging(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Job:
    opened = Contents.open
    monkeypatch.setattr(Contents, "open", lambda self, entry: Slow(opened(self, entry)))
    return submitted(cast)


def stubborn_program(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Job:
    return submitted(cast, code=STUBBORN)


def slow_collecting(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Job:
    job = submitted(cast, code=LEAVES_MUCH)
    writer = object_store.writer

    class Opened:
        def __init__(self, name: str) -> None:
            self._inside = writer(name)

        def __enter__(self) -> SlowWriter:
            return SlowWriter(self._inside.__enter__())

        def __exit__(self, *error: Any) -> Any:
            return self._inside.__exit__(*error)

    monkeypatch.setattr(object_store, "writer", Opened)
    return job


def slow_network(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The network that the portal asks sleeps where it is built; the training's own does not."""
    fill(cast.version, files())
    model = MODEL.replace(
        "    torch.manual_seed(0)",
        "    import os, time\n"
        "    time.sleep(0 if os.path.exists('/output') else 60)\n"
        "    torch.manual_seed(0)",
    )
    more = '[model]\nbuild = "model:build"\n[config]\nsize = [16, 16]\ntask = "classification"\n'
    more += 'positive_label = "lesion"\noutput = "logit"\n'
    stream = submission(TRAIN.replace("range(60)", "range(2)"), more, **{"model.py": model})
    return actions.submit(by=cast.applicant, grant=cast.granted(), stream=stream)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)


def in_step(job: Job, state: str) -> bool:
    return Job.objects.filter(pk=job.pk, state=state).exists()


def busy(job: Job, state: str, trail: Trail) -> bool:
    """Whether a job is well inside of the step in which it shall be stopped."""
    if not in_step(job, state):
        return False
    if state == "running":
        return Tick.objects.filter(job=job).exists()
    if state == "inspecting":
        return any(b"network.py" in words for words in map(command_line, trail.living()))
    return True


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("how", ["cancelled", "lapsed"])
@pytest.mark.parametrize(
    ("state", "make"),
    [
        ("staging", slow_staging),
        ("running", stubborn_program),
        ("collecting", slow_collecting),
        ("inspecting", slow_network),
    ],
)
def test_a_job_ends_within_five_seconds_in_each_step(
    cast: Cast,
    monkeypatch: pytest.MonkeyPatch,
    in_thread: Callable[[int], threading.Thread],
    capsys: pytest.CaptureFixture[str],
    state: str,
    make: Callable[[Cast, pytest.MonkeyPatch], Job],
    how: str,
) -> None:
    job = make(cast, monkeypatch)
    trail = Trail(os.getpid())
    trail.look()
    # Decoders of earlier tests in this process may live on.
    earlier = frozenset(trail.living())
    worker = in_thread(job.pk)
    wait_for(lambda: busy(job, state, trail), state)
    asked = time.monotonic()
    if how == "cancelled":
        actions.cancel(by=cast.applicant, job=Job.objects.get(pk=job.pk))
    else:
        past = timezone.now() - timedelta(seconds=1)
        Grant.objects.update(starts_at=past - timedelta(days=1), ends_at=past)
    wait_for(lambda: earlier.issuperset(trail.living()) and not in_step(job, state), "its end", 30)
    seconds = time.monotonic() - asked
    worker.join(30)
    trail.end()
    with capsys.disabled():
        print(f"\n{how} while {state}: no process left after {seconds:.2f} s")
    job.refresh_from_db()
    assert (job.state, job.reason) == ("stopped", how)
    assert seconds < SECONDS
    assert not list(workplace.root().iterdir())
    assert not StagedUse.objects.exists()
    assert not job.artefacts.exists() or state == "inspecting"
