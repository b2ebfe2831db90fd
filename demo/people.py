"""The people of the demonstration: they sign up, set a second factor up, and get their roles."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import struct
import time
from dataclasses import dataclass, field

from client.api import Portal
from policies.errors import GloveboxError

HOSPITAL = ("Demonstration Hospital", "KR", False)
COMPANY = ("Demonstration Company", "KR", True)
UNIVERSITY = ("Demonstration University", "KR", True)


@dataclass
class Person:
    """Somebody with an account; ``roles`` are given by the two administrators."""

    key: str
    name: str
    organisation: tuple[str, str, bool]
    unit: str
    roles: tuple[str, ...] = ()
    language: str = "en"
    password: str = ""
    totp_secret: str = ""
    portal: Portal = field(default_factory=lambda: Portal("http://127.0.0.1:8000"))

    @property
    def email(self) -> str:
        """The address they sign in with."""
        return f"{self.key}@example.org"


def cast() -> dict[str, Person]:
    """Return everybody but the administrators, by a short name."""
    people = [
        Person("steward", "Steward", HOSPITAL, "Radiology", ("steward",)),
        Person("officer", "Security officer", HOSPITAL, "Data protection", ("officer",)),
        Person("committee1", "Committee member 1", HOSPITAL, "Ethics", ("committee",), "ko"),
        Person("committee2", "Committee member 2", HOSPITAL, "Surgery", ("committee",)),
        Person("committee3", "Committee member 3", UNIVERSITY, "Statistics", ("committee",)),
        Person("reviewer1", "Reviewer 1", HOSPITAL, "Research IT", ("reviewer",)),
        Person("reviewer2", "Reviewer 2", UNIVERSITY, "Informatics", ("reviewer",), "ko"),
        Person("auditor", "Auditor", UNIVERSITY, "Audit", ("auditor",)),
        Person("applicant", "Applicant", COMPANY, "Research"),
        Person("stranger", "Applicant without a grant", COMPANY, "Sales"),
    ]
    return {person.key: person for person in people}


def one_time_code(secret: str, at: float | None = None) -> str:
    """Return the six digits of RFC 6238 (SHA-1, 30 s) for a base32 secret."""
    key = base64.b32decode(secret.upper() + "=" * (-len(secret) % 8))
    counter = struct.pack(">Q", int((time.time() if at is None else at) // 30))
    digest = hmac.new(key, counter, hashlib.sha1).digest()
    offset = digest[-1] & 15
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def sign_in(url: str, email: str, password: str, totp_secret: str = "") -> Portal:
    """Return a portal as that person sees it."""
    code = one_time_code(totp_secret) if totp_secret else ""
    answer = Portal(url).post("tokens", email=email, password=password, totp=code, name="demo")
    return Portal(url, answer["token"])


def join(url: str, person: Person) -> None:
    """Sign up, set one-time codes up, and sign in again with one."""
    person.password = secrets.token_urlsafe(12)
    Portal(url).post(
        "people",
        email=person.email,
        name=person.name,
        password=person.password,
        language=person.language,
    )
    first = sign_in(url, person.email, person.password)
    started = first.post("me/totp")
    person.totp_secret = started["secret"]
    first.call(
        "PUT",
        "me/totp",
        json={"proof": started["proof"], "code": one_time_code(person.totp_secret)},
    )
    person.portal = sign_in(url, person.email, person.password, person.totp_secret)


def place(people: dict[str, Person], administrator: Portal) -> None:
    """Say to which unit each person belongs."""
    ids = {row["email"]: row["id"] for row in administrator.pages("people")}
    organisations: dict[str, int] = {}
    units: dict[tuple[str, str], int] = {}
    for person in people.values():
        name, country, external = person.organisation
        if name not in organisations:
            made = administrator.post(
                "organisations", name=name, country=country, external=external
            )
            organisations[name] = made["id"]
        if (name, person.unit) not in units:
            made = administrator.post("units", organisation=organisations[name], name=person.unit)
            units[name, person.unit] = made["id"]
        administrator.call(
            "PATCH", f"people/{ids[person.email]}", json={"unit": units[name, person.unit]}
        )


def appoint(people: dict[str, Person], first: Portal, second: Portal) -> int:
    """Give every role: proposed by one administrator, confirmed by the other; return how many."""
    ids = {row["email"]: row["id"] for row in first.pages("people")}
    count = 0
    for person in people.values():
        for role in person.roles:
            proposed = first.post("roles", person=ids[person.email], role=role)
            confirmed = second.post(f"roles/{proposed['id']}/confirm")
            if confirmed["state"] != "in_force":
                raise GloveboxError(f"the role {role} was confirmed and is not in force")
            count += 1
    return count
