"""The order of an inspection: files, contents, architecture, influence, evaluation.

Hostile bytes are parsed in the worker's sandbox, the network runs in the oracle's; this process
holds the labels and the policy, and handles numbers only. A step that cannot be done is a finding
that blocks or asks for review, never a silent pass.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.document import Policy
from policies.findings import Finding, finding_from_mapping, has_hard_block
from policies.privacy import lighter, privacy_finding, sheltered
from policies.release import (
    ArtefactFact,
    TensorFact,
    check_artefact_facts,
    check_budget,
    check_config,
    check_metrics,
    check_room,
    check_tensors,
)
from policies.submission import Manifest
from sandbox_runner import cancelling
from sandbox_runner.backends import choose
from sandbox_runner.graph_oracle import GraphOracle
from sandbox_runner.inspection import (
    agreement,
    evaluation,
    faults,
    influence,
    inputs,
    sanitising,
    workroom,
)
from sandbox_runner.inspection.attacks import attacking, membership, task
from sandbox_runner.inspection.report import Report
from sandbox_runner.inspection.safetensors_file import Header, Tensor
from sandbox_runner.inspection.weights_file import is_onnx
from sandbox_runner.oracle import OUTPUTS_A_PICTURE, Oracle, OracleFault

#: Pictures are prepared at this size for the search where the manifest names none.
DEFAULT_SIZE: Final = (128, 128)


class Gate:
    """One inspection. Arguments as of :func:`sandbox_runner.inspection.inspect`."""

    def __init__(
        self,
        *,
        artefacts: Path,
        submission: Path,
        manifest: Manifest,
        datasets: Mapping[str, Path],
        policy: Policy,
        workdir: Path,
        backend: str,
        minimum_isolation: str,
        progress: Callable[[str, float], None] | None,
        cancel: threading.Event | None = None,
        privacy: Mapping[str, Any] | None = None,
    ) -> None:
        self.given, self.artefacts = artefacts, artefacts
        self.submission, self.manifest = submission, manifest
        self.datasets: Mapping[str, Path] = dict(datasets)
        self.policy, self.workdir = policy, workdir
        self.backend = choose(backend, minimum_isolation)
        if cancel is not None:
            self.backend = cancelling.CancellableBackend(self.backend, cancel)
        self._cancel, self._progress = cancel, progress
        self._privacy = privacy
        self._weights: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self.findings: list[Finding] = []
        self.metrics: dict[str, Any] = {}
        self.official: dict[str, Any] = {}
        self.settings = evaluation.read_settings(manifest)
        self.task = task.read(manifest)
        self.rewritten: sanitising.Chosen | None = None
        self.sanitising: dict[str, Any] = {}
        self.answers: dict[bytes, NDArray[np.float64]] = {}

    def progress(self, step: str, share: float) -> None:
        """Say how far it is; raise Cancelled where somebody asked for the end."""
        cancelling.check(self._cancel)
        if self._progress is not None:
            self._progress(step, share)

    def inspect(self) -> Report:
        """Do every step and return the report."""
        self.workdir.mkdir(parents=True, exist_ok=True, mode=0o700)
        rooms = inputs.Inputs.prepare(
            self.workdir,
            artefacts=self.given,
            submission=self.submission,
            datasets=self.datasets,
            policy=self.policy,
        )
        try:
            self.artefacts, self.submission, self.datasets = (
                rooms.artefacts,
                rooms.submission,
                rooms.datasets,
            )
            self.progress("files", 0.0)
            kinds = self.files(rooms)
            self._weights = {n: d for n, d in rooms.digests.items() if kinds[n] == "weights"}
            self.progress("contents", 0.0)
            headers, samples = self._contents(kinds)
            if headers:
                self._network(headers, samples)
            if self.policy.release.sanitise:
                self._sanitise(headers, "weights" in kinds.values())
        finally:
            rooms.remove()
        self.progress("done", 1.0)
        return Report(
            tuple(sheltered(lighter(self.findings, self.policy))),
            self.official,
            self.metrics,
            dict(rooms.digests),
            self.rewritten.directory if self.rewritten else None,
            self.sanitising,
        )

    def _block(self, rule: str, artefact: str, message: str) -> None:
        self.findings.append(Finding(rule, "block", artefact, message, hard=True))

    def files(self, rooms: inputs.Inputs) -> dict[str, str]:
        """Find what is wrong with the set of files; return each one's kind ("" if undeclared)."""
        declared = self.manifest.outputs.names
        if rooms.refused:
            self.findings.append(
                Finding(
                    "artefacts.kind",
                    "block",
                    "",
                    "There is something that is not a plain file of a plain name, or too much.",
                    {"count": len(rooms.refused)},
                    {"refused": [f"{each.path}: {each.why}" for each in rooms.refused[:20]]},
                    hard=True,
                )
            )
        facts = [
            ArtefactFact(name, (rooms.artefacts / name).stat().st_size) for name in rooms.digests
        ]
        self.findings += check_artefact_facts(facts, declared, self.policy)
        self._kinds = {name: declared.get(name, "") for name in rooms.digests}
        return self._kinds

    def _contents(self, kinds: Mapping[str, str]) -> tuple[dict[str, Header], int]:
        """Let the worker read every file; return the headers and the number of members."""
        try:
            answer, _ = workroom.ask(
                "examine",
                {"files": dict(kinds), "size": list(self._size)},
                datasets=self.datasets,
                artefacts=self.artefacts,
                policy=self.policy,
                workdir=self.workdir,
                backend=self.backend,
                image=self.manifest.image,
                progress=lambda share: self.progress("contents", share),
            )
        except workroom.WorkerFault:
            return self._unread()
        return self.read(answer)

    def _unread(self) -> tuple[dict[str, Header], int]:
        self._block(
            "contents.unread", "", "The files could not be examined; nothing of them may leave."
        )
        return {}, 0

    def read(self, answer: Mapping[str, Any]) -> tuple[dict[str, Header], int]:
        """Take what the worker's :func:`examine` answered, and judge metrics and configuration.

        It has opened hostile files, so it is not believed where it says nothing: every file that
        :meth:`files` found is one that it read, or one that it blocks.
        """
        try:
            found = [finding_from_mapping(row) for row in answer["findings"]]
            headers = {name: _header(row) for name, row in answer["headers"].items()}
            documents = dict(answer["documents"])
            samples = int(answer["training_samples"])
            self._tensor_rows = {
                name: list(row["tensors"]) for name, row in answer["headers"].items()
            }
            self._graphs = {
                name: {key: int(value) for key, value in row.items()}
                for name, row in answer["graphs"].items()
            }
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            return self._unread()
        self.findings += found
        if not _accounts_for(self._kinds, headers, self._graphs, documents, found):
            return self._unread()
        if "metrics" in documents:
            self.metrics, checked = check_metrics(
                self.manifest.metrics, documents["metrics"], self.policy
            )
            self.findings += checked
        if "config" in documents:
            name = self.manifest.outputs.config
            with (self.artefacts / name).open("rb") as stream:
                data = stream.read(self.policy.release.config_bytes + 1)
            self.findings += check_config(self.manifest.config, documents["config"], data, name)
        return headers, samples

    def _network(self, headers: Mapping[str, Header], samples: int) -> None:
        """Hold the tensors against the network, then measure it."""
        artefact = next(iter(headers))
        graph = self._graphs.get(artefact)
        self.weigh(samples, artefact)
        if graph:
            self.findings.append(
                Finding(
                    "onnx.graph",
                    "info",
                    artefact,
                    "What the model's graph holds beside its tensors; it is counted with them.",
                    {key: value for key, value in graph.items() if key != "half"},
                )
            )
        self.findings.append(
            privacy_finding(self.manifest.private, self._privacy, self._weights, artefact)
        )
        if not self.manifest.build:
            self._block(
                "architecture.undeclared",
                artefact,
                "Weights leave only with the network they belong to: name it in [model] build.",
            )
            return
        self.progress("network", 0.0)
        weights = [(self.artefacts / name, header) for name, header in headers.items()]
        log = self.workdir / "oracle.log"
        self._sealed_pictures: evaluation.Sealed | None = None
        try:
            with Oracle(self.submission, self.manifest, weights, self.backend, log=log) as oracle:
                if not self.fits(oracle.describe(), artefact):
                    return
                oracle.load()
                oracle.outputs = self._outputs()
                self._sealed_pictures = self._sealed()
                if graph is None:
                    self._measure(oracle, self._sealed_pictures, artefact, headers)
                    if self.policy.release.sanitise:
                        self._rewrite(oracle, headers)
                elif not self._measure_graph(oracle, artefact, headers, half=bool(graph["half"])):
                    return
        except OracleFault as fault:
            self.findings.append(faults.faulty(fault, artefact))
            if fault.reason in ("build", "load"):
                return
        # Also of a network that failed so far: what it remembers must not hide behind a crash.
        self._attack(headers, artefact)

    def _outputs(self) -> int:
        """Return how many numbers an answer may have."""
        return self.task.outputs if self.task else OUTPUTS_A_PICTURE

    def _graph_oracle(self, model: Path, log: str) -> GraphOracle:
        return GraphOracle(
            model,
            self.policy.release,
            self.backend,
            self.manifest.image,
            log=self.workdir / log,
        )

    def _measure_graph(
        self, network: Oracle, artefact: str, headers: Mapping[str, Header], *, half: bool
    ) -> bool:
        """Measure what leaves: the graph; return whether it answers as the network does."""
        sealed = self._sealed_pictures
        with contextlib.ExitStack() as stack:
            try:
                graph = stack.enter_context(
                    self._graph_oracle(self.artefacts / artefact, "graph.log")
                )
            except OracleFault as fault:
                self.findings.append(agreement.not_run(artefact, fault.reason))
                return False
            graph.outputs = self._outputs()
            agreed = agreement.check(
                network,
                graph,
                self._made(np.random.default_rng(), agreement.MADE)
                if sealed is None
                else sealed.pixels,
                half=half,
                artefact=artefact,
                progress=lambda share: self.progress("agreement", share),
            )
            self.findings += agreed.findings
            if agreed.answers is None:
                return False
            self._measure(graph, sealed, artefact, headers)
            if sealed is not None:
                # Attacks ask the network: these are its own answers.
                self._remember(sealed, agreed.answers)
            if self.policy.release.sanitise:
                self._rewrite(graph, headers)
        return True

    def _remember(self, sealed: evaluation.Sealed, answers: NDArray[np.float32]) -> None:
        self.answers = {
            membership.digest(picture): answer.astype(np.float64)
            for picture, answer in zip(sealed.pixels, answers, strict=True)
        }

    def _facts(self) -> list[TensorFact]:
        return [
            TensorFact(row["name"], tuple(row["shape"]), row["dtype"], row["nonfinite"])
            for rows in self._tensor_rows.values()
            for row in rows
        ]

    def weigh(self, samples: int, artefact: str) -> None:
        """Hold the size of the weights against the policy's budgets."""
        graph = self._graphs.get(artefact)
        beside = 8 * graph["bytes"] if graph else 0
        self.findings += check_budget(
            self._facts(), samples, self.policy, artefact=artefact, beside_bits=beside
        )
        self.findings += check_room(self._facts(), self.policy, artefact=artefact)

    def fits(self, declared: Sequence[TensorFact], artefact: str) -> bool:
        """Hold the files' tensors against the network's; return whether they may be loaded."""
        checked = check_tensors(
            declared,
            self._facts(),
            self.policy,
            artefact=artefact,
            complete=artefact not in self._graphs,
        )
        self.findings += checked
        return not any(found.severity == "block" for found in checked)

    def _rewrite(self, oracle: Oracle, headers: Mapping[str, Header]) -> None:
        """Let the worker rewrite the weights with as much noise as the network's answers bear."""

        def write(
            noise: float, drafts: int, zero: Mapping[str, Sequence[str]]
        ) -> sanitising.Drafts:
            answer, folder = workroom.ask(
                "sanitise",
                {"files": dict(zero), "noise": noise, "drafts": drafts},
                datasets={},
                artefacts=self.artefacts,
                policy=self.policy,
                workdir=self.workdir,
                backend=self.backend,
                image=self.manifest.image,
            )
            return sanitising.Drafts(
                tuple(folder / str(draft) for draft in range(drafts)),
                {name: _header(row) for name, row in answer["headers"].items()},
                dict(answer["accounts"]),
            )

        files = {name: (self.artefacts / name, header) for name, header in headers.items()}
        target = self.workdir / "sanitised"
        try:
            tuning = sanitising.Tuning(
                oracle, files, self._open_pictures(), write, target, self.progress
            )
            self.rewritten = tuning.choose()
        except (workroom.WorkerFault, sanitising.NotRewritten, KeyError, TypeError, ValueError):
            self.rewritten = None  # and that is what the finding is about

    def _open_pictures(self) -> NDArray[np.float32]:
        """Return pictures by which the noise is chosen: open ones, never sealed ones."""
        if self.task is not None and self.task.latent:
            return self._made(np.random.default_rng(0), sanitising.PICTURES)
        answer, folder = workroom.ask(
            "arrays",
            {
                "size": list(self._size),
                "positive_label": "",
                "open": sanitising.PICTURES,
                # How much noise there is must not depend on whom a private training was of.
                "training": self.manifest.private is None,
            },
            datasets=self.datasets,
            artefacts=None,
            policy=self.policy,
            workdir=self.workdir,
            backend=self.backend,
            image=self.manifest.image,
        )
        if "fault" not in answer:
            pixels = evaluation.read_sealed(answer, folder).pixels
            if len(pixels):
                return pixels
        return self._made(np.random.default_rng(0), influence.PICTURES)

    def _sanitise(self, headers: Mapping[str, Header], has_weights: bool) -> None:
        """Measure the rewritten weights in a process that never saw the others.

        Where they are missing, none may leave: that block is never lifted.
        """
        if not has_weights:
            return
        if self.rewritten is None:
            self._block(
                "sanitise.missing",
                next(iter(headers), ""),
                "The policy asks for weights to be rewritten before they leave, and these could "
                "not be: the other findings say why.",
            )
            return
        artefact = next(iter(headers))
        chosen, bits = self.rewritten, self.policy.release.sanitise_bits
        facts = sanitising.account(chosen, headers, bits)
        # What leaves is no longer of full precision, and its lowest bits are ours.
        lifted = ("tensors.precision", "tensors.room")
        self.findings = [f for f in self.findings if f.rule not in lifted]
        self.findings += sanitising.check(facts, artefact)
        before, self.official = self.official, {}
        weights = [(chosen.directory / name, h) for name, h in chosen.drafts.headers.items()]
        log = self.workdir / "oracle-sanitised.log"
        try:
            name = next(iter(headers))
            rewritten = (
                self._graph_oracle(chosen.directory / name, log.name)
                if is_onnx(name)
                else Oracle(self.submission, self.manifest, weights, self.backend, log=log)
            )
            with rewritten as oracle:
                oracle.load()
                sealed = self._sealed_pictures
                if sealed is not None and self.settings is not None:
                    answers = evaluation.ask_shuffled(oracle, sealed.pixels)
                    self.official = evaluation.official(sealed, answers, self.settings, self.policy)
        except OracleFault as fault:
            self.findings.append(faults.faulty(fault, artefact))
        most = self.policy.release.sanitise_loss
        self.findings += sanitising.check_loss(before, self.official, most, artefact)
        self.sanitising = facts | {"before": before}

    def _attack(self, headers: Mapping[str, Header], artefact: str) -> None:
        """Attack the network in a process that has not met the sealed pictures yet."""
        if has_hard_block(self.findings):
            # It stays, whatever attacks find: they would only take time.
            return
        self.progress("attacks", 0.0)
        self.findings += attacking.attack(
            attacking.Scene(
                self.artefacts,
                self.submission,
                self.manifest,
                self.datasets,
                self.policy,
                self.workdir,
                self.backend,
            ),
            headers,
            artefact,
            self.answers,
            lambda share: self.progress("attacks", share),
        )

    def _sealed(self) -> evaluation.Sealed | None:
        """Return the sealed pictures and labels, or None with a finding that says why not."""
        if self.settings is None:
            self._unmeasured(
                "Name the task in [config]: size = [height, width], task and positive_label."
            )
            return None
        try:
            answer, folder = workroom.ask(
                "arrays",
                {
                    "size": list(self.settings.size),
                    "positive_label": self.settings.positive_label,
                },
                datasets=self.datasets,
                artefacts=None,
                policy=self.policy,
                workdir=self.workdir,
                backend=self.backend,
                image=self.manifest.image,
            )
            if "fault" in answer:
                self._unmeasured("The sealed split is too large at this size.")
                return None
            sealed = evaluation.read_sealed(answer, folder)
            left_out = int(answer["unknown"]) + int(answer["unreadable"])
        except (workroom.WorkerFault, KeyError, TypeError, ValueError, OSError):
            self._unmeasured("The sealed split could not be prepared.")
            return None
        if left_out:
            self.findings.append(
                Finding(
                    "evaluation.left-out",
                    "review",
                    "",
                    "Some sealed pictures could not be read, or are of a class not in training.",
                    {"count": left_out},
                )
            )
        if not len(sealed.pixels):
            self._unmeasured("The datasets have no sealed split.")
            return None
        return sealed

    def _unmeasured(self, why: str) -> None:
        self.findings.append(
            Finding("evaluation.none", "review", "", f"There are no official metrics. {why}")
        )

    def _measure(
        self,
        oracle: Oracle,
        sealed: evaluation.Sealed | None,
        artefact: str,
        headers: Mapping[str, Header],
    ) -> None:
        """Ask the network: for the official metrics, and for tensors that do nothing."""
        if sealed is not None and self.settings is not None:
            answers = evaluation.ask_shuffled(
                oracle, sealed.pixels, lambda share: self.progress("evaluation", share)
            )
            self.findings += evaluation.check_steady(oracle, sealed.pixels, answers)
            self.official = evaluation.official(sealed, answers, self.settings, self.policy)
            self._remember(sealed, answers)
        self.progress("influence", 0.0)
        pictures = self._few_pictures(sealed)
        constants = {
            row["name"] for rows in self._tensor_rows.values() for row in rows if row["constant"]
        }
        for name, header in headers.items():
            self.findings += influence.check(
                oracle, self.artefacts / name, header, constants, pictures, artefact
            )

    def _few_pictures(self, sealed: evaluation.Sealed | None) -> NDArray[np.float32]:
        if sealed is not None:
            chosen = np.random.default_rng(0).permutation(len(sealed.pixels))
            return sealed.pixels[chosen[: influence.PICTURES]]
        # Noise does not wake what real pictures do: of a task without labels, open ones are asked.
        try:
            pictures = self._open_pictures()
        except (workroom.WorkerFault, KeyError, TypeError, ValueError, OSError):
            return self._made(np.random.default_rng(0), influence.PICTURES)
        return pictures[:: max(1, len(pictures) // influence.PICTURES)][: influence.PICTURES]

    def _made(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Return noise of the form that the task's network takes."""
        if self.task is not None and self.task.latent:
            return rng.normal(size=(count, self.task.latent)).astype(np.float32)
        return rng.random((count, 1, *self._size), dtype=np.float32)

    @property
    def _size(self) -> tuple[int, int]:
        return self.task.size if self.task else DEFAULT_SIZE


def _accounts_for(
    kinds: Mapping[str, str],
    headers: Mapping[str, Header],
    graphs: Mapping[str, Any],
    documents: Mapping[str, Any],
    found: Sequence[Finding],
) -> bool:
    """Whether the worker has read or blocked each file, and read nothing that was not given."""
    refused = {each.artefact for each in found if each.hard}
    weights = {name for name, kind in kinds.items() if kind == "weights"}
    others = {kind: name for name, kind in kinds.items() if kind in ("metrics", "config")}
    return (
        weights - refused <= headers.keys() <= weights
        and graphs.keys() == {name for name in headers if is_onnx(name)}
        and {kind for kind, name in others.items() if name not in refused}
        <= documents.keys()
        <= others.keys()
    )


def _header(row: Mapping[str, Any]) -> Header:
    """Return the header that the worker has read."""
    tensors = tuple(
        Tensor(
            str(t["name"]),
            str(t["dtype"]),
            tuple(int(side) for side in t["shape"]),
            int(t["start"]),
            int(t["end"]),
        )
        for t in row["tensors"]
    )
    return Header(tensors, int(row["data_start"]), int(row["data_bytes"]))
