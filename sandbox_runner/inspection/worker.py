"""The process that opens hostile files and decodes samples. It holds no key and has no network.

Runs as ``python -m sandbox_runner.inspection.worker`` inside a sandbox; one JSON request on
standard input, one ``result.json`` in ``/output``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from policies.document import ReleasePolicy, release_policy
from policies.findings import Finding
from sandbox_runner.inspection import formats, onnx_file, onnx_rewriting, rewriting
from sandbox_runner.inspection.attacks import plan
from sandbox_runner.inspection.json_file import BadJson, read_object
from sandbox_runner.inspection.safetensors_file import (
    Header,
    Malformed,
    Tensor,
    stored,
    widened,
)
from sandbox_runner.inspection.stored_samples import Search
from sandbox_runner.inspection.weights_file import is_onnx, read_header
from sandbox_runner.sdk.glovebox import pictures
from sandbox_runner.sdk.glovebox.datasets import Dataset, open_dataset
from sandbox_runner.stage import is_sealed

ARRAY_BYTES = 2 * 1024**3


class Told:
    """Tells the process outside how much is done, in hundredths, where somebody listens."""

    def __init__(self) -> None:
        descriptor = os.environ.get("GLOVEBOX_PROGRESS_FD")
        self._descriptor = int(descriptor) if descriptor else None
        self._last = -1

    def __call__(self, share: float) -> None:
        hundredths = min(100, int(share * 100))
        if self._descriptor is not None and hundredths != self._last:
            self._last = hundredths
            line = json.dumps({"step": hundredths, "metrics": {"share": hundredths / 100}})
            # Who does not listen any more is no reason to stop.
            with contextlib.suppress(OSError):
                os.write(self._descriptor, line.encode() + b"\n")


def examine(request: Mapping[str, Any]) -> dict[str, Any]:
    """Read every file that a job left, and search them for training samples.

    Returns headers of the weights that may be loaded, the parsed metrics and configuration, and
    findings.
    """
    search = Search(
        {slug: Path(path) for slug, path in request["datasets"].items()},
        (request["size"][0], request["size"][1]),
    )
    root, policy = Path(request["artefacts"]), release_policy(request["policy"])
    return read_files(root, request["files"], policy, search, Told())


def read_files(
    root: Path,
    files: Mapping[str, str],
    policy: ReleasePolicy,
    search: Search,
    progress: Callable[[float], None] = lambda _share: None,
) -> dict[str, Any]:
    """Return what :func:`examine` does; ``files`` are names with their kinds, "" if undeclared."""
    findings: list[Finding] = []
    headers: dict[str, Header] = {}
    graphs: dict[str, onnx_file.Model] = {}
    documents: dict[str, Any] = {}
    others: list[str] = []
    for name, kind in files.items():
        path = root / name
        if kind == "weights":
            header = _weights(path, name, policy, findings, graphs)
            if header is None:
                others.append(name)
            else:
                headers[name] = header
            continue
        others.append(name)
        if kind in ("metrics", "config"):
            most = policy.metrics_bytes if kind == "metrics" else policy.config_bytes
            try:
                documents[kind] = read_object(path, most)
            except BadJson as bad:
                findings.append(Finding(bad.rule, "block", name, str(bad), hard=True))
    findings.append(search.summary())
    if "metrics" in documents:
        name = next(name for name, kind in files.items() if kind == "metrics")
        findings += search.numbers(documents["metrics"], name)
    whole, done = max(1, sum(header.data_bytes for header in headers.values())), 0
    for name, header in headers.items():

        def told(share: float, done: int = done, size: int = header.data_bytes) -> None:
            progress((done + share * size) / whole)

        findings += search.weights(root / name, header, name, told)
        done += header.data_bytes
        if name in graphs:
            beside = np.frombuffer(graphs[name].skeleton, dtype=np.uint8)
            findings += search.other_bytes(beside, name, f"{name}, beside its tensors")
    for name in others:
        # A name that the manifest does not declare was made up by the job.
        artefact = name if files[name] else ""
        findings += search.other(root / name, artefact, name)
    return {
        "headers": {name: _header(root / name, header) for name, header in headers.items()},
        "graphs": {name: {**m.facts, "half": m.half} for name, m in graphs.items()},
        "documents": documents,
        "training_samples": search.members,
        "findings": [found.as_mapping() for found in findings],
    }


def _weights(
    path: Path,
    name: str,
    policy: ReleasePolicy,
    findings: list[Finding],
    graphs: dict[str, onnx_file.Model],
) -> Header | None:
    """Return a file's header, or None with a finding; an ONNX model goes into ``graphs``."""
    onnx = is_onnx(name)
    foreign = formats.foreign_kind(path, onnx=onnx)
    save = formats.SAVE_ONNX_LINE if onnx else formats.SAVE_LINE
    kind = "ONNX models" if onnx else "safetensors"
    if foreign:
        findings.append(
            Finding(
                "weights.format",
                "block",
                name,
                f"This is {foreign}. Weights leave as safetensors, or as ONNX of a closed list of "
                f"operators, which hold numbers and no program; save them with: {save}",
                hard=True,
            )
        )
        return None
    try:
        if not onnx:
            return read_header(path, policy)
        graphs[name] = onnx_file.read_model(path, policy)
        return graphs[name].header
    except Malformed as bad:
        findings.append(
            Finding(
                bad.rule,
                "block",
                name,
                f"{bad} Weights are {kind} as written by: {save}",
                internal={"place": bad.place} if bad.place else {},
                hard=True,
            )
        )
        return None


def _look(path: Path, header: Header, tensor: Tensor) -> tuple[int, bool]:
    """Return how many numbers are not finite, and whether all are zero or all one; in blocks."""
    flat = stored(path, header, tensor).reshape(-1)
    first, nonfinite, constant = None, 0, True
    for start in range(0, len(flat), rewriting.BLOCK):
        numbers = widened(flat[start : start + rewriting.BLOCK], tensor.dtype)
        nonfinite += int(numbers.size - np.isfinite(numbers).sum())
        first = numbers[0] if first is None else first
        constant = constant and bool((numbers == first).all())
    return nonfinite, constant and first in (0.0, 1.0)


def _header(path: Path, header: Header) -> dict[str, Any]:
    rows = []
    for tensor in header.tensors:
        nonfinite, constant = _look(path, header, tensor)
        rows.append(
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "start": tensor.start,
                "end": tensor.end,
                "nonfinite": nonfinite,
                "constant": constant,
            }
        )
    return {
        "tensors": rows,
        "data_start": header.data_start,
        "data_bytes": header.data_bytes,
    }


def arrays(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the sealed pictures as the network gets them to ``pixels.npy``; return their labels.

    With ``open`` in the request it is so many of the pictures that a job saw instead.
    Preparation is the SDK's own. Classes are numbered by what a training job can see, so that a
    sealed row of an unknown class is left out and counted.
    """
    height, width = request["size"]
    positive = request["positive_label"]
    pixels, targets, subjects, unknown, unreadable = [], [], [], 0, 0
    most_classes = 2 if positive else 1
    for slug, place in sorted(request["datasets"].items()):
        dataset = open_dataset(Path(place), slug)
        declared = dataset.about.get("classes")
        classes = (
            [str(label) for label in declared]
            if declared
            else sorted({row["label"] for row in dataset.rows
                         if row.get("label") and not is_sealed(row.get("split", ""))})
        )  # fmt: skip
        if not positive:
            most_classes = max(most_classes, len(classes))
        training = request.get("training") is not False
        for row in _chosen(dataset, int(request.get("open", 0)), training=training):
            label = row.get("label", "")
            if positive is None and label not in classes:
                unknown += 1
                continue
            try:
                picture = pictures.prepare(dataset.file(row), (height, width))
            except Exception:
                unreadable += 1
                continue
            pixels.append(picture[None])
            if len(pixels) * picture.nbytes > ARRAY_BYTES:
                return {"fault": "too-large"}
            targets.append(int(label == positive) if positive else classes.index(label))
            subjects.append(f"{slug}/{row.get('subject', '')}")
    names = {subject: number for number, subject in enumerate(dict.fromkeys(subjects))}
    stacked = np.stack(pixels) if pixels else np.zeros((0, 1, height, width), np.float32)
    np.save(Path(request["output"]) / "pixels.npy", stacked, allow_pickle=False)
    return {
        "targets": targets,
        "subjects": [names[subject] for subject in subjects],
        "classes": most_classes,
        "unknown": unknown,
        "unreadable": unreadable,
    }


def _chosen(dataset: Dataset, most: int, *, training: bool) -> list[Mapping[str, str]]:
    """Return the sealed rows; or, where ``most`` is above zero, an even choice of open ones.

    Those of the validation split; where there is none and ``training`` lets it, of the training.
    """
    if not most:
        return [row for row in dataset.rows if is_sealed(row.get("split", ""))]
    rows = dataset.split("validation") or (dataset.split("train") if training else ())
    step = max(1.0, len(rows) / most)
    return [rows[int(i * step)] for i in range(min(len(rows), most))]


def _rewriter(path: Path, policy: ReleasePolicy) -> Callable[..., rewriting.Account]:
    """Return what rewrites a file of this form; raises Malformed."""
    if is_onnx(path.name):
        return partial(onnx_rewriting.rewrite, onnx_file.read_model(path, policy), policy)
    return partial(rewriting.rewrite, header=read_header(path, policy))


def sanitise(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write drafts of every weights file anew, with noise; return their headers and accounts.

    ``files`` are names with the tensors that become zero. All drafts have the same header; of
    what was read back, the account has the most of any draft.
    """
    root, output = Path(request["artefacts"]), Path(request["output"])
    policy = release_policy(request["policy"])
    headers: dict[str, Any] = {}
    accounts: dict[str, Any] = {}
    for name, zero in request["files"].items():
        write = _rewriter(root / name, policy)
        for draft in range(request["drafts"]):
            target = output / str(draft) / name
            account = write(
                root / name,
                target=target,
                zero=frozenset(zero),
                scale=float(request["noise"]),
                bits=policy.sanitise_bits,
            ).as_mapping()
            if draft == 0:
                # What we wrote is held to the same rules as what came.
                headers[name] = _header(target, read_header(target, policy))
                accounts[name] = account | {"zeroed": len(zero)}
            most = max(accounts[name]["read_back"], account["read_back"])
            accounts[name]["read_back"] = most
    return {"headers": headers, "accounts": accounts}


def main() -> None:
    """Do the one task that was asked for."""
    request = json.loads(sys.stdin.buffer.read())
    tasks = {
        "examine": examine,
        "arrays": arrays,
        "sanitise": sanitise,
        "attacks": plan.prepare,
    }
    result = tasks[request["task"]](request)
    text = json.dumps(result, allow_nan=False)
    (Path(request["output"]) / "result.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
