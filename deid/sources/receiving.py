"""A C-STORE receiver: what a PACS sends goes whole into a folder before success is answered.

DICOM's own network protocol has no passwords and, here, no TLS: an AE title is a name that
anybody may say. The allow-list keeps out mistakes; the network must keep out strangers.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deid.sources.instance import identity
from deid.sources.originals import STEP, Full, Originals, Refused
from policies.errors import CannotRun, Invalid, _

# PS3.4 table B.2-1: success, out of resources, data set is not the class, cannot understand.
SUCCESS, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
ASSOCIATIONS = 8
# We announce the first; a proposal of all storage classes fits in the second.
PDU_BYTES, LARGEST_PDU = 1 << 18, 1 << 20
# A command set is small, and no message but C-STORE needs a data set here.
COMMAND_BYTES = 1 << 16
_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}", re.ASCII)


@dataclass(frozen=True)
class Listener:
    """Where and as whom to listen, and who may send. ``idle`` seconds without a file end it."""

    aet: str
    port: int
    allowed: tuple[str, ...]
    bind: str = "127.0.0.1"
    idle: float | None = None

    def __post_init__(self) -> None:
        for name, title in (("--aet", self.aet), *(("--from", each) for each in self.allowed)):
            if not _TITLE.fullmatch(title) or not title.strip():
                raise Invalid(_("An AE title has 1 to 16 ASCII characters."), field=name)
        if not self.allowed:
            raise Invalid(_("Say who may send: --from AET"), field="--from")
        if not 0 <= self.port <= 65535:
            raise Invalid(_("A port is a number up to 65535."), field="--port")


@dataclass
class Received:
    """The counts of a receiver."""

    new: int = 0
    doubled: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    last: float = field(default_factory=time.monotonic)

    def as_mapping(self) -> dict[str, Any]:
        """The JSON document of ``glovebox intake receive --json``."""
        refused = dict(sorted(self.refused.items()))
        return {"new": self.new, "doubled": self.doubled, "refused": refused}


class _Line:
    """One connection: its messages are bounded while they come, before anything decodes them."""

    def __init__(self, association: Any, originals: Originals) -> None:
        self._association, self._originals = association, originals
        self._receive = association.dul.socket.recv
        self._bytes = self._asked = 0
        self.part: Path | None = None
        # pynetdicom reads a PDU of whatever length it states into memory; here is its only door.
        association.dul.socket.recv = self.receive

    def receive(self, length: int) -> bytearray:
        """Read from the socket; OSError, which ends the connection, where a bound is passed."""
        message = self._association.dimse.message
        if message is None:
            self._bytes = self._asked = 0
        elif path := getattr(message, "_data_set_path", None):
            self.part = Path(path)
        if length > LARGEST_PDU:
            raise OSError("a PDU is too long")
        self._bytes += length
        # A sixteenth for the headers of fragments.
        most = self._originals.bounds.file_bytes
        if self._bytes > most + most // 16 + LARGEST_PDU:
            raise OSError("a message is too long")
        if message is not None:
            in_memory = message.encoded_command_set.tell() + message.data_set.tell()
            if in_memory > COMMAND_BYTES:
                raise OSError("a command is too long")
        if self._bytes - self._asked >= STEP:
            self._asked = self._bytes
            try:
                self._originals.room()
            except Full:
                raise OSError("no room") from None
        found: bytearray = self._receive(length)
        return found

    def closed(self) -> None:
        """Remove what was cut off; a file that was taken has left this place already."""
        if self.part is not None:
            self.part.unlink(missing_ok=True)


def receive(
    originals: Originals,
    listener: Listener,
    stop: threading.Event,
    ready: Callable[[int], None] = lambda port: None,
) -> Received:
    """Receive until ``stop`` is set or nothing came for ``idle`` seconds.

    ``ready`` is told the port. Raises :class:`CannotRun` when the port is taken. One receiver at a
    time in a process, because pynetdicom writes to the process's folder of temporary files.
    """
    try:
        import pynetdicom
        from pynetdicom import evt
    except ImportError:
        raise CannotRun(_("Receiving needs the packages of glovebox[intake].")) from None
    received = Received()
    lines: dict[Any, _Line] = {}

    def opened(event: Any) -> None:
        lines[event.assoc] = _Line(event.assoc, originals)

    def closed(event: Any) -> None:
        line = lines.pop(event.assoc, None)
        if line is not None:
            line.closed()

    def stored(event: Any) -> int:
        return _stored(event, originals, received)

    entity = pynetdicom.AE(ae_title=listener.aet)
    entity.require_called_aet = True
    entity.require_calling_aet = list(listener.allowed)
    entity.maximum_associations = ASSOCIATIONS
    entity.maximum_pdu_size = PDU_BYTES
    for context in pynetdicom.AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, pynetdicom.ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context("1.2.840.10008.1.1")
    handlers = [
        (evt.EVT_CONN_OPEN, opened), (evt.EVT_CONN_CLOSE, closed), (evt.EVT_C_STORE, stored),
    ]  # fmt: skip
    with _writing_to(originals.parts):
        try:
            server = entity.start_server(
                (listener.bind, listener.port), block=False, evt_handlers=handlers
            )
        except OSError:
            raise CannotRun(
                _("The port is taken or may not be opened."), code="intake.port"
            ) from None
        try:
            ready(server.server_address[1])
            while not stop.wait(0.2):
                _sweep(originals.parts, lines)
                quiet = time.monotonic() - received.last
                if listener.idle is not None and quiet > listener.idle and not lines:
                    break
        finally:
            server.shutdown()
            for association in server.active_associations:
                association.abort()
    return received


def _sweep(parts: Path, lines: dict[Any, _Line]) -> None:
    """Remove what a connection left that ended before its file had a name known here.

    A connection is in ``lines`` before its first part is made: of what is listed first, nothing
    belongs to anybody when there is no connection afterwards.
    """
    left = list(parts.iterdir())
    if not lines:
        for path in left:
            path.unlink(missing_ok=True)


def _stored(event: Any, originals: Originals, received: Received) -> int:
    request = event.request
    reason, status = "", SUCCESS
    digest_new = False
    try:
        part = Path(event.dataset_path)
        said = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        if part.stat().st_size > originals.bounds.file_bytes:
            raise Refused("too-large")
        if identity(part) != said:
            raise Refused("other-instance")
        _digest, digest_new = originals.take_part(part, "dimse")
    except Refused as refused:
        reason = refused.reason
        status = {"other-instance": MISMATCH, "too-large": OUT_OF_RESOURCES}.get(
            reason, NOT_UNDERSTOOD
        )
    except CannotRun as error:
        reason, status = (error.code or "cannot-write"), OUT_OF_RESOURCES
    except Exception:
        # Whatever else went wrong in here: the sender must keep its copy, and nobody reads why.
        reason, status = "failed", NOT_UNDERSTOOD
    with received.lock:
        received.last = time.monotonic()
        if reason:
            received.refused[reason] += 1
        elif digest_new:
            received.new += 1
        else:
            received.doubled += 1
    return status


@contextlib.contextmanager
def _writing_to(parts: Path) -> Iterator[None]:
    """Have pynetdicom write data sets into ``parts`` as they come, not into memory or /tmp."""
    from pynetdicom import _config

    former = tempfile.tempdir, _config.STORE_RECV_CHUNKED_DATASET, _config.LOG_HANDLER_LEVEL
    tempfile.tempdir = str(parts)
    _config.STORE_RECV_CHUNKED_DATASET = True
    # Its own handlers would log requests with everything in them.
    _config.LOG_HANDLER_LEVEL = "none"
    try:
        yield
    finally:
        tempfile.tempdir, _config.STORE_RECV_CHUNKED_DATASET, _config.LOG_HANDLER_LEVEL = former
