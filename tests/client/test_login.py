"""Signing in from a script: what stands in the environment is what the portal is sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import glovebox_cli


class Answers(BaseHTTPRequestHandler):
    """Answers every request with a token, and keeps what was sent."""

    sent: list[dict[str, Any]]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.sent.append(json.loads(self.rfile.read(length)))
        body = json.dumps({"id": 1, "token": "gbx_x", "expires_at": "2030-01-01"}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def portal() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server's address, and what it was sent."""
    Answers.sent = []
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Answers.sent
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_script_signs_in_by_its_environment(
    portal: tuple[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, sent = portal
    monkeypatch.setattr(glovebox_cli, "ROOMS", (("client.cli", "requests"),))
    monkeypatch.setenv("GLOVEBOX_CREDENTIALS", str(tmp_path / "kept.json"))
    monkeypatch.setenv("GLOVEBOX_PASSWORD", "a long enough password 1")
    monkeypatch.setenv("GLOVEBOX_TOTP", "123456")
    # Beside a submission this names its folder: it must never be taken for a code.
    monkeypatch.setenv("GLOVEBOX_CODE", str(tmp_path))
    assert glovebox_cli.main(["login", url, "--email", "me@example.org"]) == 0
    assert [(body["email"], body["totp"]) for body in sent] == [("me@example.org", "123456")]
