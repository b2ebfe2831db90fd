"""A submission's network in a sealed process of its own, asked over a pipe.

What goes in is its own weights and shuffled pictures; what comes out is arrays whose size and
type were fixed before. There are no labels inside, no scores, no subjects and no membership, and
nothing that the network says is believed to be more than numbers.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import select
import struct
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from policies.errors import GloveboxError
from policies.submission import Manifest
from policies.tensors import TensorFact
from sandbox_runner.backends.interface import Backend, RunningSandbox
from sandbox_runner.inspection.safetensors_file import NUMPY, SIZES, Header
from sandbox_runner.spec import GiB, Limits, MiB, Mount, SandboxSpec

INSIDE: Final = Path(__file__).parent / "inspection" / "inside"
HEAD_BYTES: Final = 4 * MiB
OUTPUTS_A_PICTURE: Final = 4096
#: Layers whose answers are given for one width, and bytes of them together.
FEATURE_LAYERS: Final = 4
#: So many different widths of layers are told.
MOST_WIDTHS: Final = 1024
FEATURE_BYTES: Final = 64 * MiB
#: More sides, or longer ones, no tensor has; their product must stay a number that fits.
SIDES: Final = 16
SIDE: Final = 2**48
_CHUNK: Final = 1 << 16
#: poll() counts in milliseconds that must fit into an int.
LOOK_SECONDS: Final = 60.0

#: What the oracle's sandbox may use by default.
LIMITS: Final = Limits(
    cpus=2,
    memory_bytes=4 * GiB,
    processes=128,
    wall_seconds=900,
    output_bytes=1 * MiB,
    tmp_bytes=64 * MiB,
    shm_bytes=64 * MiB,
    log_bytes=1 * MiB,
    grace_seconds=0,
)


class OracleFault(GloveboxError):
    """The network did not answer as it must. ``reason`` is a word of ours, never of the network.

    Reasons: start, build, load, put, forward, gradient, features, timeout, ended, protocol, shape,
    not-finite.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Oracle:
    """Use as a context: it starts on entry and is ended, whatever happened, on exit.

    ``weights`` are files that the strict reader has accepted, with their headers; without them
    the network keeps its initial values. ``call_seconds`` bounds each call on the wall clock,
    ``limits`` the whole.
    """

    def __init__(
        self,
        submission: Path,
        manifest: Manifest,
        weights: Sequence[tuple[Path, Header]],
        backend: Backend,
        limits: Limits = LIMITS,
        call_seconds: float = 120.0,
        log: Path | None = None,
    ) -> None:
        self._prepare(
            SandboxSpec(
                id=f"oracle-{uuid.uuid4().hex[:12]}",
                argv=("python", "/opt/oracle/network.py"),
                limits=replace(limits, gpus=0),
                mounts=(Mount(submission, "/code"), Mount(INSIDE, "/opt/oracle")),
                env={"OMP_NUM_THREADS": str(max(1, int(limits.cpus))), "GLOVEBOX_CODE": "/code"},
                image=manifest.image,
                workdir="/code",
                log=log,
            ),
            {"build": manifest.build, "config": dict(manifest.config)},
            weights,
            backend,
            call_seconds,
        )

    def _prepare(
        self,
        spec: SandboxSpec,
        build: Mapping[str, Any],
        weights: Sequence[tuple[Path, Header]],
        backend: Backend,
        call_seconds: float,
    ) -> None:
        self._spec, self._build, self._weights = spec, build, weights
        self._backend, self.call_seconds = backend, call_seconds
        #: Numbers that an answer to one picture may have at most.
        self.outputs = OUTPUTS_A_PICTURE
        self._running: RunningSandbox | None = None
        self._facts: list[TensorFact] = []

    def __enter__(self) -> Self:
        self._running = self._backend.start(self._spec)
        try:
            for pipe in (self._running.stdin, self._running.stdout):
                os.set_blocking(pipe.fileno(), False)
            head, _ = self._call("build", self._build, most=0)
            self._facts = _read_facts(head.get("tensors"))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; may be called twice."""
        if self._running is not None:
            running, self._running = self._running, None
            running.kill()
            # We ended it: only that nothing of it is left matters, not the last word it said.
            with contextlib.suppress(OSError):
                running.wait()
            for pipe in (running.stdin, running.stdout):
                pipe.close()

    def describe(self) -> list[TensorFact]:
        """Return the tensors of the network as it says that it was built."""
        return list(self._facts)

    def load(self) -> None:
        """Put the weights into the network; raises :class:`OracleFault` if they do not fit."""
        for path, header in self._weights:
            self._load(path, header)

    def _load(self, path: Path, header: Header) -> None:
        tensors = [[t.name, t.dtype, list(t.shape), t.start, t.end] for t in header.tensors]
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
            view = memoryview(data)
            body = view[header.data_start :]
            try:
                self._call("load", {"tensors": tensors}, body, most=0)
            finally:
                body.release()
                view.release()

    def put(
        self, fact: TensorFact, array: NDArray[Any], part: tuple[int, int, int] | None = None
    ) -> None:
        """Replace the values of one tensor (bfloat16 as its 16 bits).

        With ``part`` (axis, start and length) only those, and ``array`` has their shape.
        """
        body = np.ascontiguousarray(array, dtype=NUMPY[fact.dtype]).tobytes()
        shape = list(fact.shape if part is None else array.shape)
        head = {"name": fact.name, "dtype": fact.dtype, "shape": shape, "part": part}
        self._call("put", head, body, most=0)

    def predict(
        self, batch: NDArray[np.float32], outputs: int | None = None
    ) -> NDArray[np.float32]:
        """Return the network's outputs, float32 [n, k], for pictures float32 [n, 1, H, W].

        A network that makes pictures is given numbers [n, d] instead, and ``outputs`` as large;
        by default it is the attribute of this name.
        Raises :class:`OracleFault` for another shape, more than ``outputs`` numbers a picture,
        NaN or infinity, silence longer than ``call_seconds``, and an end of the process.
        """
        count = len(batch)
        outputs = self.outputs if outputs is None else outputs
        body = np.ascontiguousarray(batch, dtype="<f4").tobytes()
        head, data = self._call(
            "predict", {"shape": list(batch.shape)}, body, most=4 * count * outputs
        )
        shape = head.get("shape")
        if not _is_shape(shape) or shape[0] != count or math.prod(shape) * 4 != len(data):
            raise OracleFault("shape")
        return _finite(data, (count, -1))

    def gradient(
        self, batch: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the gradient, in the shape of ``batch``, of the outputs times ``weights`` [n, k].

        It is computed where the submission runs, so it is a hint and no more: whoever follows it
        asks :meth:`predict` where it led. Raises :class:`OracleFault` as ``predict`` does.
        """
        body = np.ascontiguousarray(batch, dtype="<f4").tobytes()
        body += np.ascontiguousarray(weights, dtype="<f4").tobytes()
        head = {"shape": list(batch.shape), "outputs": int(weights.shape[1])}
        _, data = self._call("gradient", head, body, most=4 * batch.size)
        if len(data) != 4 * batch.size:
            raise OracleFault("shape")
        return _finite(data, batch.shape)

    def widths(self, batch: NDArray[np.float32]) -> dict[int, int]:
        """Return how many layers answer with how many numbers a picture, as the network says.

        Raises :class:`OracleFault`.
        """
        body = np.ascontiguousarray(batch, dtype="<f4").tobytes()
        asked = {"shape": list(batch.shape), "most": MOST_WIDTHS}
        head, _ = self._call("widths", asked, body, most=0)
        found = head.get("widths")
        if not isinstance(found, list) or len(found) > MOST_WIDTHS:
            raise OracleFault("shape")
        for pair in found:
            if not isinstance(pair, list) or len(pair) != 2 or not _is_shape(pair):
                raise OracleFault("shape")
        return dict(found)

    def features(
        self, batch: NDArray[np.float32], width: int, first: int = 0
    ) -> list[NDArray[np.float32]]:
        """Return what those layers answer that give ``width`` numbers a picture, each [n, width].

        At most :data:`FEATURE_LAYERS` of them, from the ``first`` on. What is no finite number is
        zero: one of them must not hide a layer. Raises :class:`OracleFault`.
        """
        count = len(batch)
        body = np.ascontiguousarray(batch, dtype="<f4").tobytes()
        most = min(FEATURE_BYTES, 4 * count * width * FEATURE_LAYERS)
        asked = {
            "shape": list(batch.shape),
            "width": width,
            "first": first,
            "most": FEATURE_LAYERS,
        }
        head, data = self._call("features", asked, body, most=most)
        layers = head.get("layers")
        if (
            type(layers) is not int
            or not 0 <= layers <= FEATURE_LAYERS
            or layers * count * width * 4 != len(data)
        ):
            raise OracleFault("shape")
        numbers = np.frombuffer(data, dtype="<f4").reshape(layers, count, width)
        return list(np.nan_to_num(numbers, nan=0.0, posinf=0.0, neginf=0.0))

    def _call(
        self, do: str, head: Mapping[str, Any], body: bytes | memoryview = b"", *, most: int
    ) -> tuple[dict[str, Any], bytes]:
        """Send one frame and return the answer, whose bytes are at most ``most``."""
        if self._running is None:
            raise OracleFault("ended")
        text = json.dumps({**head, "do": do, "bytes": len(body)}).encode()
        frame = [memoryview(struct.pack("<I", len(text)) + text), memoryview(body)]
        deadline = time.monotonic() + self.call_seconds
        size = struct.unpack("<I", self._exchange(frame, 4, deadline))[0]
        if not 2 <= size <= HEAD_BYTES:
            raise OracleFault("protocol")
        try:
            said = json.loads(self._exchange([], size, deadline))
        except (ValueError, RecursionError) as error:
            raise OracleFault("protocol") from error
        if not isinstance(said, dict):
            raise OracleFault("protocol")
        if "error" in said:
            raise OracleFault("forward" if do == "predict" else do)
        count = said.get("bytes")
        if type(count) is not int or not 0 <= count <= most:
            asked = ("predict", "gradient", "widths", "features")
            raise OracleFault("shape" if do in asked else "protocol")
        return said, self._exchange([], count, deadline)

    def _exchange(self, frame: Sequence[memoryview], count: int, deadline: float) -> bytes:
        """Write ``frame`` and read exactly ``count`` bytes; neither end can block the other."""
        assert self._running is not None
        source, sink = self._running.stdout.fileno(), self._running.stdin.fileno()
        waiting = [part for part in frame if len(part)]
        received = bytearray()
        while waiting or len(received) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise OracleFault("timeout")
            # Not select(), which takes no descriptor above 1023.
            ready = select.poll()
            if len(received) < count:
                ready.register(source, select.POLLIN)
            if waiting:
                ready.register(sink, select.POLLOUT)
            for descriptor, _ in ready.poll(1000 * min(left, LOOK_SECONDS)):
                if descriptor == sink:
                    try:
                        written = os.write(sink, waiting[0][:_CHUNK])
                    except BlockingIOError:
                        written = 0
                    except OSError as error:
                        raise OracleFault("ended") from error
                    waiting[0] = waiting[0][written:]
                    if not len(waiting[0]):
                        waiting.pop(0)
                else:
                    try:
                        data = os.read(source, min(_CHUNK, count - len(received)))
                    except BlockingIOError:
                        continue  # without root it may read its own words
                    if not data:
                        raise OracleFault("ended")
                    received += data
        return bytes(received)


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(shape, list)
        and 1 <= len(shape) <= 4
        and all(type(side) is int and 0 < side <= 2**24 for side in shape)
    )


def _finite(data: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the numbers in a shape; raises :class:`OracleFault` for NaN and infinity."""
    numbers = np.frombuffer(data, dtype="<f4").reshape(shape)
    if not np.isfinite(numbers).all():
        raise OracleFault("not-finite")
    return numbers.astype(np.float32)


def _read_facts(tensors: Any) -> list[TensorFact]:
    """Return what the network says of itself, checked for form."""
    if not isinstance(tensors, list) or len(tensors) > 100_000:
        raise OracleFault("protocol")
    facts: list[TensorFact] = []
    for row in tensors:
        if not isinstance(row, list) or len(row) != 3:
            raise OracleFault("protocol")
        name, dtype, shape = row
        if not isinstance(name, str) or len(name) > 1000:
            raise OracleFault("protocol")
        if not isinstance(dtype, str) or dtype not in SIZES:
            raise OracleFault("protocol")
        if not isinstance(shape, list) or len(shape) > SIDES:
            raise OracleFault("protocol")
        if not all(type(side) is int and 0 <= side <= SIDE for side in shape):
            raise OracleFault("protocol")
        facts.append(TensorFact(name, tuple(shape), dtype))
    return facts
