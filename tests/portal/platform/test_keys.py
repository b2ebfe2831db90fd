"""Each process opens the keys of its role, and a wrapped key opens for its context alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.test import override_settings

from policies.errors import CannotRun
from portal import keys

pytestmark = pytest.mark.usefixtures("portal_home")


@pytest.mark.parametrize(
    ("role", "readable"),
    [
        ("web", {"view"}),
        ("worker", {"data", "view", "sign"}),
        ("beat", set()),
        ("all", {"data", "view", "sign"}),
        ("", {"view"}),
        ("WORKER", {"view"}),
        ("superuser", {"view"}),
    ],
)
def test_who_reads_which_keys(
    role: str, readable: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOVEBOX_ROLE", role)
    found = set()
    for folder, read in (
        ("data", lambda: keys.master("data")),
        ("view", lambda: keys.master("view")),
        ("sign", lambda: keys.signing_key("release")),
    ):
        try:
            read()
            found.add(folder)
        except CannotRun as error:
            assert error.code == "keys.role"
    assert found == readable


def test_a_process_that_was_told_nothing_is_the_web_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOVEBOX_ROLE")
    with pytest.raises(CannotRun):
        keys.master("data")


def test_the_web_process_never_opens_a_data_key(tmp_path: Path) -> None:
    """Watched from outside its own code: by Python's audit hook on every opened file."""
    program = """
import os, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
os.environ.pop("GLOVEBOX_ROLE")
from portal import wsgi
assert os.environ["GLOVEBOX_ROLE"] == "web"
from portal import keys
keys.master("view")
from policies.errors import CannotRun
for forbidden in (lambda: keys.master("data"), lambda: keys.signing_key("release"),
                  lambda: keys.signing_key("audit")):
    try:
        forbidden()
    except CannotRun:
        print("refused")
print(sum("/keys/data/" in name or "/keys/sign/" in name for name in opened))
print(sum("/keys/view/" in name for name in opened) > 0)
"""
    environment = {
        **os.environ,
        "GLOVEBOX_HOME": str(tmp_path / "data"),
        "GLOVEBOX_KEYS": str(tmp_path / "keys"),
    }
    make = "import django; django.setup(); from portal import keys; keys.make_all()"
    subprocess.run([sys.executable, "-c", make], env=environment, check=True)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, text=True, capture_output=True
    )
    assert done.stdout.split() == ["refused", "refused", "refused", "0", "True"]


def test_a_wrapped_key_opens_for_its_wrapper_and_context_alone() -> None:
    by, key = keys.new_key(), keys.new_key()
    wrapped = keys.wrap(key, by=by, context="version 7")
    assert keys.unwrap(wrapped, by=by, context="version 7") == key
    assert key not in wrapped
    assert keys.wrap(key, by=by, context="version 7") != wrapped
    for other in (
        lambda: keys.unwrap(wrapped, by=keys.new_key(), context="version 7"),
        lambda: keys.unwrap(wrapped, by=by, context="version 8"),
        lambda: keys.unwrap(b"", by=by, context="version 7"),
    ):
        with pytest.raises(keys.WrongKey):
            other()
    for at in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[at] ^= 1
        with pytest.raises(keys.WrongKey):
            keys.unwrap(bytes(changed), by=by, context="version 7")


def test_a_lost_key_is_noticed_and_not_replaced(tmp_path: Path) -> None:
    with override_settings(KEYS=tmp_path / "keys"):
        with pytest.raises(CannotRun) as caught:
            keys.master("data")
        assert caught.value.code == "keys.missing"
        assert str(tmp_path) not in str(caught.value)
        assert not (tmp_path / "keys").exists()
        assert keys.public_keys("release") == {}


def test_keys_are_made_once_and_for_their_user_alone(tmp_path: Path) -> None:
    with override_settings(KEYS=tmp_path / "keys"):
        assert {"data/master.key", "view/master.key"} < set(keys.make_all())
        first = keys.master("data"), keys.master("view"), keys.public_keys("release")
        assert keys.make_all() == []
        assert (keys.master("data"), keys.master("view")) == first[:2]
        assert set(keys.public_keys("release")) == set(first[2])
        assert first[0] != first[1]
        for path in (tmp_path / "keys").rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_what_a_signing_key_signs_its_published_half_verifies() -> None:
    for name in ("release", "audit"):
        private = keys.signing_key(name)
        public = keys.public_keys(name)[keys.public_key_id(private.public_key())]
        assert isinstance(public, Ed25519PublicKey)
        public.verify(private.sign(b"statement"), b"statement")
    assert set(keys.public_keys("release")).isdisjoint(keys.public_keys("audit"))
