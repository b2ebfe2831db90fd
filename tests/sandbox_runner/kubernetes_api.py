"""A small API server that speaks enough of Kubernetes for the real client to run against it.

It keeps Jobs, refuses manifests that Kubernetes' schemas refuse, answers 409 and 404 as the real
one does, and plays a script of pods and events a test gives it: one step for each look at the pods.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import kubernetes_validate

Object = dict[str, Any]
NAMESPACE = "glovebox-sandbox"


def pod(
    job: Object | None = None,
    carrier: Object | None = None,
    *,
    phase: str = "Running",
    **status: Any,
) -> Object:
    """A pod whose two containers are in these states."""
    statuses: Object = {"phase": phase, **status}
    if job is not None:
        statuses["initContainerStatuses"] = [{"name": "job", "state": job}]
    if carrier is not None:
        statuses["containerStatuses"] = [{"name": "carrier", "state": carrier}]
    return {
        "metadata": {
            "name": "gb-pod",
            "uid": "pod-uid",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "status": statuses,
    }


def ended(code: int, reason: str = "") -> Object:
    return {
        "terminated": {"exitCode": code, "reason": reason or ("Error" if code else "Completed")}
    }


RUNNING = {"running": {"startedAt": "2099-01-01T00:00:00Z"}}


def event(reason: str, message: str, uid: str = "job-uid") -> Object:
    return {"reason": reason, "message": message, "involvedObject": {"uid": uid}}


class FakeApi:
    """Its state is open to tests; ``script`` holds (pods, events) a look, the last one stays."""

    def __init__(self) -> None:
        self.jobs: dict[str, Object] = {}
        self.script: list[tuple[list[Object], list[Object]]] = [([], [])]
        self.logs: dict[str, bytes] = {}
        self.labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.policies: list[Object] = [
            {"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}
        ]
        self.runtime_classes = {"gvisor"}
        self.requests: list[str] = []
        #: Status codes to answer with, before anything else, one a request.
        self.failures: list[int] = []
        self.on_create: Callable[[Object], None] = lambda job: None

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """Return the JSON of an answer, bytes of a log, or a status code."""
        self.requests.append(f"{method} {path}")
        if self.failures:
            return self.failures.pop(0)
        jobs = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
        core = f"/api/v1/namespaces/{NAMESPACE}"
        if path == "/version/":
            return {"gitVersion": "v1.37.0"}
        if path == jobs and method == "POST":
            return self._create(body)
        if path == jobs:
            return {"items": list(self.jobs.values())}
        if path.startswith(jobs + "/"):
            name = path.rsplit("/", 1)[1]
            if name not in self.jobs:
                return 404
            return self.jobs.pop(name) if method == "DELETE" else self.jobs[name]
        if path == core:
            return {"metadata": {"labels": self.labels}}
        if path == f"{core}/pods":
            pods = self.script[0][0]
            if len(self.script) > 1:
                self.events = self.script.pop(0)[1]
            else:
                self.events = self.script[0][1]
            return {"items": pods}
        if path == f"{core}/events":
            uid = query["fieldSelector"][0].removeprefix("involvedObject.uid=")
            rows = [row for row in self.events if row["involvedObject"]["uid"] == uid]
            return {"items": rows}
        if path == f"{core}/pods/gb-pod/log":
            return self.logs.get(query["container"][0], b"")
        if path == f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies":
            return {"items": self.policies}
        if path.startswith("/apis/node.k8s.io/v1/runtimeclasses/"):
            return {} if path.rsplit("/", 1)[1] in self.runtime_classes else 404
        return 404

    def _create(self, body: Object) -> Any:
        try:
            kubernetes_validate.validate(body, "1.37", strict=True)
        except kubernetes_validate.ValidationError:
            return 422
        name = body["metadata"]["name"]
        if name in self.jobs:
            return 409
        body["metadata"]["uid"] = "job-uid"
        self.jobs[name] = body
        self.on_create(body)
        return body


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            url = urlparse(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            answer = api.answer(self.command, url.path, parse_qs(url.query), body)
            status = answer if isinstance(answer, int) else 200
            if not isinstance(answer, bytes):
                answer = json.dumps({"code": status} if status != 200 else answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def serve(api: FakeApi, kubeconfig: Path) -> Iterator[None]:
    """Serve on a free port, and write a kubeconfig that leads there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(api))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": address}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
