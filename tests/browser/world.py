"""A whole portal for browser tests: web server, workers and beat as processes, on a real folder.

``python -m tests.browser.world FOLDER`` makes one and keeps it until Ctrl-C, to look at by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import datasets, originals, people, processes
from demo.people import Person

ADMINISTRATORS = ("administrator1@example.org", "administrator2@example.org")
OPERATOR = ("Demonstration Hospital", "KR", False)


@dataclass
class World:
    """Where the portal answers, and who is who in it."""

    url: str
    folder: Path
    cast: dict[str, Person] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Person:
        return self.cast[key]

    def version(self, slug: str, number: int = 1) -> dict[str, Any]:
        """Return a version as its steward sees it."""
        found: dict[str, Any] = self["steward"].portal.get(f"datasets/{slug}/versions/{number}")
        return found

    def wait_for(self, slug: str, state: str, *, seconds: float = 240) -> dict[str, Any]:
        """Wait until a version is in a state."""
        until = time.monotonic() + seconds
        while (version := self.version(slug))["state"] != state:
            if time.monotonic() > until:
                raise TimeoutError(f"{slug} is {version['state']} ({version['reason']})")
            time.sleep(0.5)
        return version

    def zip_of(self, *, patients: int = 2) -> Path:
        """Return originals to upload: phantoms with planted identifiers, made once."""
        target = self.folder / f"phantoms-{patients}.zip"
        if not target.exists():
            originals.mammography(target, patients=patients, seed=5)
        return target

    def offer(self, slug: str = "mammography", *, patients: int = 2) -> None:
        """Create a dataset, upload its originals, have them de-identified."""
        steward = self["steward"].portal
        words = dict(datasets.DATASETS["mammography"])
        if slug != "mammography":
            words |= {"title": f"Phantoms, {slug}", "title_ko": f"팬텀, {slug}"}
        steward.post("datasets", slug=slug, **words)
        steward.post(f"datasets/{slug}/versions")
        steward.put_file(
            f"datasets/{slug}/versions/1/originals",
            self.zip_of(patients=patients),
            content_type="application/zip",
        )
        steward.post(f"datasets/{slug}/versions/1/ingest")
        self.wait_for(slug, "de_identified")

    def publish(self, slug: str = "mammography") -> None:
        """Have an officer find everything clean and sign."""
        officer, path = self["officer"].portal, f"datasets/{slug}/versions/1"
        officer.post(f"{path}/examination")
        until = time.monotonic() + 120
        while not all(item["ready"] for item in officer.pages(f"{path}/examination")):
            assert time.monotonic() < until, "the pictures were not drawn"
            time.sleep(0.5)
        for item in officer.pages(f"{path}/examination"):
            officer.post(f"{path}/examination/{item['id']}/finding", finding="clean")
        officer.post(f"{path}/sign")


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """Run a portal in ``folder`` with everybody signed up and every role given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = World(f"http://localhost:{port}", folder)
    environment = os.environ | {
        "GLOVEBOX_HOME": str(folder / "data"),
        "GLOVEBOX_KEYS": str(folder / "keys"),
        "GLOVEBOX_URL": made.url,
        "GLOVEBOX_TICK_SECONDS": "1",
        "GLOVEBOX_PLAIN_PLACE": "any",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("GLOVEBOX_ROLE", None)
    administrators = _initialised(environment)
    with processes.portal(folder / "data", f"127.0.0.1:{port}", environment):
        made.cast = people.cast()
        for person in made.cast.values():
            people.join(made.url, person)
        for place, facts in enumerate(administrators, start=1):
            made.cast[f"administrator{place}"] = _administrator(made.url, place, facts)
        first, second = (made[f"administrator{place}"].portal for place in (1, 2))
        everybody = {key: one for key, one in made.cast.items() if "administrator" not in key}
        people.place(everybody, first)
        people.appoint(everybody, first, second)
        yield made


def _initialised(environment: dict[str, str]) -> list[dict[str, Any]]:
    arguments = [word for email in ADMINISTRATORS for word in ("--administrator", email)]
    command = [sys.executable, "-m", "glovebox_cli", "portal", "init", "--json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["administrators"]
    return found


def _administrator(url: str, place: int, facts: dict[str, Any]) -> Person:
    person = Person(
        f"administrator{place}", f"administrator{place}", OPERATOR, "Portal administration"
    )
    person.password, person.totp_secret = facts["password"], facts["totp_secret"]
    person.portal = people.sign_in(url, facts["email"], person.password, person.totp_secret)
    return person


def main() -> None:
    """Make a portal to look at, and tell how to sign in."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    with world(folder) as made:
        facts = {"url": made.url, "cast": {}}
        for key, person in made.cast.items():
            facts["cast"][key] = {
                "email": person.email,
                "password": person.password,
                "totp_secret": person.totp_secret,
            }
        (folder / "world.json").write_text(json.dumps(facts))
        print(made.url, flush=True)
        made.offer()
        print("offered", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(60)


if __name__ == "__main__":
    main()
