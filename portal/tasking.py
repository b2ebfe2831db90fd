"""One decorator around every background function, and hints that ask for one to run.

A message carries a task's name and a row's key, nothing else; losing or doubling it changes
nothing, because the task itself looks at the row, takes its lease, and does only what the row's
state asks for. ``portal.beat`` finds rows whose hint was lost.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from django.db import InterfaceError, OperationalError, close_old_connections, transaction

from policies.errors import GloveboxError, UserError
from portal.celery import app
from portal.leases import LeaseLost
from portal.object_store import Unreachable

log = logging.getLogger("glovebox.tasks")

# Long work (de-identification, training, inspection) must not keep short work (sealing the audit
# chain, lapsing grants, votes) waiting: each queue may have workers of its own.
Queue = Literal["short", "long"]
QUEUES: tuple[Queue, ...] = ("short", "long")
NEUTRAL = "The portal could not finish this step; the administrators have been told."


class TryAgain(GloveboxError):
    """Nothing is wrong with the row; the step could not be done now. Beat will hint again.

    ``waiting`` and ``facts`` say why, where the row says such things to people.
    """

    def __init__(self, message: str, *, waiting: str = "retry", **facts: int) -> None:
        super().__init__(message)
        self.waiting = waiting
        self.facts = facts


RETRY = (TryAgain, LeaseLost, Unreachable, OperationalError, InterfaceError)
OnFailure = Callable[..., None]
_queues: dict[str, Queue] = {}


def task(
    name: str, *, queue: Queue = "long", on_failure: OnFailure | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function a background task called ``name``; it stays callable as it is.

    Arguments are row keys or short words. When it raises one of ``RETRY`` the row is left as it
    is and beat hints again. When it raises anything else ``on_failure(*args, reason=sentence)``
    is called so that the row can say what went wrong: the sentence of a UserError, a neutral one
    for every other error. Log lines hold the task's name, its arguments and the error's type.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        _queues[name] = queue

        @functools.wraps(function)
        def run(*args: Any) -> None:
            close_old_connections()
            started = time.monotonic()
            try:
                function(*args)
                outcome = "done"
            except RETRY as error:
                outcome = f"later ({type(error).__name__})"
            except Exception as error:
                # Error texts may quote data: only the type and the place in our code are logged.
                outcome = f"failed ({type(error).__name__} at {_place(error)})"
                if on_failure is not None:
                    on_failure(
                        *args, reason=str(error) if isinstance(error, UserError) else NEUTRAL
                    )
            finally:
                close_old_connections()
            log.info("%s%s %s in %.1f s", name, args, outcome, time.monotonic() - started)

        app.task(name=name, queue=queue, ignore_result=True)(run)
        return function

    return decorate


def _place(error: BaseException) -> str:
    """Return module and line of the innermost frame of ours."""
    place = "?"
    frame = error.__traceback__
    while frame is not None:
        module = frame.tb_frame.f_globals.get("__name__", "?")
        if module.split(".")[0] in {"portal", "sandbox_runner", "deid", "bundle", "policies"}:
            place = f"{module}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place


class _Recent:
    """What beat hinted lately: waiting work is found every two seconds and hinted less often."""

    def __init__(self) -> None:
        self.again: dict[tuple[Any, ...], float] = {}  # from when on the same may be sent again

    def first(self, key: tuple[Any, ...], seconds: float) -> bool:
        now = time.monotonic()
        self.again = {k: at for k, at in self.again.items() if at > now}
        if key in self.again:
            return False
        self.again[key] = now + seconds
        return True


_local = threading.local()


def hint(name: str, *args: int | str, again_after: float = 30) -> None:
    """Ask for a task to run, once the current transaction (if any) has been committed.

    Never raises for a queue that is down: the row stands and beat will find it. Called from an
    app's ``due()``, the same hint is sent again after ``again_after`` seconds at the earliest.
    """
    recent: _Recent | None = getattr(_local, "recent", None)
    if recent is not None and not recent.first((name, *args), again_after):
        return
    transaction.on_commit(functools.partial(_send, name, args), robust=True)


def _send(name: str, args: tuple[int | str, ...]) -> None:
    try:
        if name not in _queues:
            # A web process has imported no tasks yet, and so does not know their queues.
            app.loader.import_default_modules()
        app.send_task(name, args=args, queue=_queues.get(name, "long"), retry=False)
    except Exception as error:
        log.warning("hint %s%s not sent (%s)", name, args, type(error).__name__)


class from_beat:
    """Within this block hints of this thread are thinned out (see ``hint``)."""

    def __init__(self) -> None:
        self._recent = _Recent()

    def __enter__(self) -> None:
        _local.recent = self._recent

    def __exit__(self, *exc: object) -> None:
        _local.recent = None
