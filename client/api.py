"""A small client of the portal's HTTP API."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

import requests

from policies.errors import CannotRun, Conflict, Denied, Invalid, UserError, _

CHUNK = 1 << 20
KINDS: dict[int, type[UserError]] = {400: Invalid, 403: Denied, 404: Invalid, 409: Conflict}


class Portal:
    """Speaks to one portal as one person (or as a visitor, without a token)."""

    def __init__(self, url: str, token: str = "", *, timeout: float = 60) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._session = requests.Session()
        self._session.headers["Accept-Language"] = "en"
        # The environment's proxies and .netrc have no say over who a token is sent to.
        self._session.trust_env = False
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        data: IO[bytes] | bytes | None = None,
        files: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        content_type: str = "",
        stream: bool = False,
    ) -> requests.Response:
        """Send one request to ``/api/v1/<path>`` and return the answer.

        Raises Invalid, Denied or Conflict with the portal's sentence and field, CannotRun where
        the portal cannot be reached or fails.
        """
        headers = {"Content-Type": content_type} if content_type else {}
        try:
            answer = self._session.request(
                method,
                f"{self.url}/api/v1/{path}",
                json=json,
                data=data if data is not None else fields,
                files=files,
                params=query,
                headers=headers,
                timeout=self.timeout,
                stream=stream,
                allow_redirects=False,
            )
        except requests.RequestException:
            raise CannotRun(
                _("The portal at {url} does not answer."), code="client.unreachable", url=self.url
            ) from None
        if answer.status_code >= 400:
            raise self._error(answer)
        if answer.is_redirect:
            raise CannotRun(_("The portal sent us elsewhere; check the address."), code="client")
        return answer

    def _error(self, answer: requests.Response) -> UserError:
        try:
            error = answer.json()["error"]
            message, field, code = str(error["message"]), str(error["field"]), str(error["code"])
        except (ValueError, KeyError, TypeError):
            message, field, code = f"The portal answered {answer.status_code}.", "", ""
        if answer.status_code == 401:
            message = message or "Sign in first: glovebox login"
        kind = KINDS.get(answer.status_code, CannotRun if answer.status_code >= 500 else Denied)
        # The sentence is finished text: braces in it are no template.
        return kind("{sentence}", field=field, code=code, sentence=message)

    def get(self, path: str, **query: Any) -> Any:
        """Return a JSON document."""
        return self.call("GET", path, query=query or None).json()

    def post(self, path: str, **body: Any) -> Any:
        """Send a JSON document and return the answer's (None where it has none)."""
        answer = self.call("POST", path, json=body)
        return answer.json() if answer.content else None

    def put_file(self, path: str, file: Path, *, content_type: str) -> Any:
        """Send a file as the body, streamed."""
        with file.open("rb") as stream:
            return self.call("PUT", path, data=stream, content_type=content_type).json()

    def post_file(self, path: str, file: Path, *, content_type: str, **fields: Any) -> Any:
        """Send a file as a form with further fields."""
        with file.open("rb") as stream:
            answer = self.call(
                "POST", path, files={"file": (file.name, stream, content_type)}, fields=fields
            )
        return answer.json()

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """Give every row of a list, page by page, as each page says where the next begins."""
        page = self.get(path, limit=200, **query)
        while True:
            yield from page["results"]
            if not page["next"] or not page["results"]:
                return
            # Only what is asked, never where: the token goes to this portal and no other.
            asked = dict(parse_qsl(urlsplit(page["next"]).query))
            page = self.get(path, **asked)

    def download(self, path: str, target: Path) -> str:
        """Save an answer's body and return its SHA-256; a half download leaves no file."""
        digest = hashlib.sha256()
        part = target.with_name(f".{target.name}.part")
        try:
            with self.call("GET", path, stream=True) as answer, part.open("wb") as out:
                for chunk in answer.iter_content(CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        return digest.hexdigest()
