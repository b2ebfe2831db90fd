"""What a job leaves behind can be anything; only plain files of declared names are taken."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from policies.document import default_policy
from policies.submission import parse_manifest
from sandbox_runner.collect import collect
from tests.attacks.attack import Assault, Attack

MANIFEST = parse_manifest(
    '[job]\nentrypoint = "train.py"\n[outputs]\nweights = ["model.safetensors"]\n',
    default_policy(),
)
SECRET = b"canary"


def link_to_a_host_file(output: Path, secret: Path) -> None:
    (output / "model.safetensors").symlink_to(secret)


def relative_link(output: Path, secret: Path) -> None:
    (output / "model.safetensors").symlink_to(os.path.relpath(secret, output))


def link_to_an_open_descriptor(output: Path, secret: Path) -> None:
    (output / "model.safetensors").symlink_to("/proc/self/environ")


def hard_link(output: Path, secret: Path) -> None:
    (output / "model.safetensors").hardlink_to(secret)


def two_names_of_one_file(output: Path, secret: Path) -> None:
    (output / "model.safetensors").write_bytes(b"x")
    (output / "metrics.json").hardlink_to(output / "model.safetensors")


def fifo(output: Path, secret: Path) -> None:
    os.mkfifo(output / "model.safetensors")


def local_socket(output: Path, secret: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(output)
        try:
            server.bind("model.safetensors")
        finally:
            os.chdir(here)


def directory_of_that_name(output: Path, secret: Path) -> None:
    (output / "model.safetensors").mkdir()


def set_user_id(output: Path, secret: Path) -> None:
    (output / "model.safetensors").write_bytes(b"x")
    (output / "model.safetensors").chmod(0o4755)


def vast_hole(output: Path, secret: Path) -> None:
    with (output / "metrics.json").open("wb") as file:
        file.truncate(1 << 40)


def device(output: Path, secret: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(output / "model.safetensors", 0o600 | stat.S_IFCHR, os.makedev(1, 5))


REFUSED = [
    link_to_a_host_file,
    relative_link,
    link_to_an_open_descriptor,
    hard_link,
    two_names_of_one_file,
    fifo,
    local_socket,
    directory_of_that_name,
    set_user_id,
    vast_hole,
    device,
]


@pytest.mark.parametrize("leave", REFUSED, ids=lambda each: each.__name__)
def test_nothing_but_plain_files_is_collected(
    leave: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    output, target, secret = tmp_path / "output", tmp_path / "target", tmp_path / "secret"
    output.mkdir()
    secret.write_bytes(SECRET)
    leave(output, secret)

    artefacts, rejected = collect(output, target, MANIFEST, default_policy())

    assert artefacts == ()
    assert rejected, "what was refused is listed with why"
    assert list(target.iterdir()) == []


def test_undeclared_hidden_and_odd_names_are_listed_and_not_taken(tmp_path: Path) -> None:
    output, target = tmp_path / "output", tmp_path / "target"
    output.mkdir()
    odd = [".hidden", "new\nline", "\x1b[31mred", "right‮to-left", "extra.bin", "a" * 255]
    for name in odd:
        (output / name).write_bytes(b"data")
    (output / "metrics.json").write_bytes(b"{}")

    artefacts, rejected = collect(output, target, MANIFEST, default_policy())

    assert [each.path for each in artefacts] == ["metrics.json"]
    assert len(rejected) == len(odd)
    listed = "".join(each.path for each in rejected)
    assert listed.isascii() and listed.isprintable(), "names are shown inert"


def test_a_link_in_the_target_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    output, target, valuable = tmp_path / "output", tmp_path / "target", tmp_path / "valuable"
    output.mkdir()
    target.mkdir()
    valuable.write_bytes(b"mine")
    (output / "metrics.json").write_bytes(b"{}")
    (target / "metrics.json").symlink_to(valuable)

    collect(output, target, MANIFEST, default_policy())

    assert valuable.read_bytes() == b"mine"
    assert (target / "metrics.json").read_bytes() == b"{}"
    assert not (target / "metrics.json").is_symlink()


NESTED = parse_manifest(
    '[job]\nentrypoint = "train.py"\n[outputs]\nweights = ["run/best/model.safetensors"]\n',
    default_policy(),
)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_link_on_the_way_in_the_target_is_replaced_and_never_written_through(
    tmp_path: Path, depth: int
) -> None:
    output, target, elsewhere = tmp_path / "output", tmp_path / "target", tmp_path / "elsewhere"
    (output / "run/best").mkdir(parents=True)
    (output / "run/best/model.safetensors").write_bytes(b"weights")
    (elsewhere / "best").mkdir(parents=True)
    valuables = [elsewhere / "model.safetensors", elsewhere / "best/model.safetensors"]
    for valuable in valuables:
        valuable.write_bytes(b"mine")
    link = target / ("run", "run/best")[depth]
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)

    artefacts, _ = collect(output, target, NESTED, default_policy())

    assert [valuable.read_bytes() for valuable in valuables] == [b"mine", b"mine"]
    assert [each.path for each in artefacts] == ["run/best/model.safetensors"]
    assert (target / "run/best/model.safetensors").read_bytes() == b"weights"
    assert not any(path.is_symlink() for path in target.rglob("*"))


@pytest.mark.parametrize("depth", [0, 1])
def test_a_link_on_the_way_in_the_output_is_not_followed(tmp_path: Path, depth: int) -> None:
    output, target, elsewhere = tmp_path / "output", tmp_path / "target", tmp_path / "elsewhere"
    for place in (elsewhere, elsewhere / "best"):
        place.mkdir()
        (place / "model.safetensors").write_bytes(SECRET)
    link = output / ("run", "run/best")[depth]
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)

    artefacts, rejected = collect(output, target, NESTED, default_policy())

    assert artefacts == () and rejected
    assert not any(path.is_file() for path in target.rglob("*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_our_fault_and_not_the_file_s(tmp_path: Path) -> None:
    output, target = tmp_path / "output", tmp_path / "target"
    output.mkdir()
    target.mkdir()
    (output / "model.safetensors").write_bytes(b"x" * 100_000)
    options = ["-t", "tmpfs", "-o", "size=16k"]
    subprocess.run(["mount", *options, "none", str(target)], check=True)
    try:
        with pytest.raises(OSError, match="No space left"):
            collect(output, target, MANIFEST, default_policy())
        assert list(target.iterdir()) == []
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_only_content_is_taken(tmp_path: Path) -> None:
    output, target = tmp_path / "output", tmp_path / "target"
    output.mkdir()
    (output / "metrics.json").write_bytes(b"{}")
    (output / "metrics.json").chmod(0o777)
    os.utime(output / "metrics.json", (1_000_000, 1_000_000))

    collect(output, target, MANIFEST, default_policy())

    status = (target / "metrics.json").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_mtime != 1_000_000


@pytest.mark.sandbox
def test_nothing_is_written_after_the_end_and_a_swapped_name_is_not_followed(
    assault: Callable[[Attack], Assault],
) -> None:
    came_of_it = assault(
        Attack(
            "a survivor",
            """
            open(OUTPUT + "/plain", "w").write("fine")
            swap = OUTPUT + "/model.safetensors"
            for late in (True, False):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork():
                        os._exit(0)
                    if late:
                        time.sleep(1)
                        open(OUTPUT + "/late", "w").write("too late")
                    while True:
                        os.symlink("/etc/passwd", swap + ".new"); os.rename(swap + ".new", swap)
                        open(swap + ".new", "w").write("x"); os.rename(swap + ".new", swap)
                os.wait()
            time.sleep(0.3)
            """,
        )
    )

    left = {path.name: path for path in came_of_it.output.rglob("*")}
    assert left.pop("plain").read_text() == "fine"
    assert set(left) <= {"model.safetensors", "model.safetensors.new"}
    assert all(not path.is_symlink() and path.read_text() in ("", "x") for path in left.values())
    assert not came_of_it.leftovers()


@pytest.mark.sandbox
def test_what_a_sealed_program_leaves_arrives_as_plain_files_only(
    assault: Callable[[Attack], Assault],
) -> None:
    came_of_it = assault(
        Attack(
            "everything odd at once",
            """
            os.symlink("/proc/self/environ", OUTPUT + "/link")
            os.mkfifo(OUTPUT + "/fifo")
            try:
                socket.socket(socket.AF_UNIX).bind(OUTPUT + "/socket")
            except OSError:
                pass  # gVisor makes none on this machine's file systems
            open(OUTPUT + "/one", "w").write("x")
            os.link(OUTPUT + "/one", OUTPUT + "/two")
            with open(OUTPUT + "/hole", "wb") as file:
                file.truncate(1 << 40)
            open(OUTPUT + "/.hidden", "w").write("x")
            os.makedirs(OUTPUT + "/d" * 40)
            open(OUTPUT + "/plain", "w").write("fine")
            """,
        )
    )

    output = came_of_it.output
    assert [path.name for path in output.rglob("*") if path.is_file()] == ["plain"]
    assert not any(path.is_symlink() for path in output.rglob("*"))
    assert len(came_of_it.result.left_behind) >= 6
