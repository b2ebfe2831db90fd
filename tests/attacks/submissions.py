"""What is handed in: files that are none, and manifests that would widen their own box."""

from __future__ import annotations

import os
import py_compile
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from tests.attacks.attack import under
from tests.attacks.jobs import MANIFEST, JobAttack

REFUSED = ("refused", "manifest")


def device(submission: Path, _: Path) -> None:
    os.mknod(submission / "stolen", 0o666 | stat.S_IFCHR, os.makedev(1, 5))


def disk(submission: Path, _: Path) -> None:
    os.mknod(submission / "stolen", 0o666 | stat.S_IFBLK, os.makedev(7, 0))


def pipe(submission: Path, _: Path) -> None:
    os.mkfifo(submission / "stolen")


def local_socket(submission: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(submission)
        try:
            server.bind("stolen")
        finally:
            os.chdir(here)


def link(submission: Path, secret: Path) -> None:
    (submission / "stolen").symlink_to(secret)


def linked_folder(submission: Path, secret: Path) -> None:
    (submission / "folder").symlink_to(secret.parent)


def linked_program(submission: Path, secret: Path) -> None:
    (submission / "train.py").rename(submission / "real.py")
    (submission / "train.py").symlink_to("real.py")


def second_name(submission: Path, secret: Path) -> None:
    (submission / "stolen").hardlink_to(secret)


def set_user_id(submission: Path, _: Path) -> None:
    (submission / "stolen").write_bytes(b"x")
    (submission / "stolen").chmod(0o6755)


def hidden(submission: Path, _: Path) -> None:
    (submission / ".stolen").write_bytes(b"x")


def compiled(submission: Path, _: Path) -> None:
    """What reviewers read says one thing, and a cache that Python never checks says another."""
    (submission / "honest.py").write_text("VALUE = 'other'", encoding="utf-8")
    py_compile.compile(
        str(submission / "honest.py"),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    (submission / "honest.py").write_text("VALUE = 'honest'", encoding="utf-8")


def compiled_alone(submission: Path, _: Path) -> None:
    """A module without anything to read."""
    source = submission / "honest.py"
    source.write_text("VALUE = 'other'", encoding="utf-8")
    py_compile.compile(str(source), cfile=str(submission / "honest.pyc"))
    source.unlink()


def backwards(submission: Path, _: Path) -> None:
    (submission / "model\u202eyp.tset").write_bytes(b"x")


def many(submission: Path, _: Path) -> None:
    (submission / "many").mkdir()
    for number in range(2500):
        (submission / "many" / str(number)).touch()


def deep(submission: Path, _: Path) -> None:
    (submission / "/".join("d" * 40)).mkdir(parents=True)


def vast(submission: Path, _: Path) -> None:
    with (submission / "stolen").open("wb") as file:
        file.truncate(1 << 40)


def is_kind(kind: int) -> str:
    return f"""
        try:
            if stat.S_IFMT(os.lstat(CODE + "/stolen").st_mode) == {kind}:
                escaped()
        except OSError:
            pass
        """


STEALS = """
        for path in ("/stolen", "/folder/secret.txt"):
            try:
                if "canary" in open(CODE + path).read():
                    escaped()
            except OSError:
                pass
        """

FILES: tuple[tuple[str, Callable[[Path, Path], None], str, tuple[str, str]], ...] = (
    ("a link to a secret", link, STEALS, REFUSED),
    ("a link to a directory with a secret", linked_folder, STEALS, REFUSED),
    ("a second name of a secret", second_name, STEALS, REFUSED),
    ("a program that is a link", linked_program,
     'escaped() if os.path.islink(CODE + "/train.py") else None', REFUSED),
    ("a device", device, is_kind(stat.S_IFCHR), REFUSED),
    ("a disk", disk, is_kind(stat.S_IFBLK), REFUSED),
    ("a pipe", pipe, is_kind(stat.S_IFIFO), REFUSED),
    ("a socket", local_socket, is_kind(stat.S_IFSOCK), REFUSED),
    ("a set-user-id file", set_user_id,
     'escaped() if os.stat(CODE + "/stolen").st_mode & 0o6000 else None', REFUSED),
    ("a hidden file", hidden,
     'escaped() if os.path.exists(CODE + "/.stolen") else None', ("finished", "exit")),
    ("compiled code that is not what reviewers read", compiled,
     'import honest; escaped() if honest.VALUE == "other" else None', ("finished", "exit")),
    ("compiled code without anything to read", compiled_alone,
     'import honest; escaped() if honest.VALUE == "other" else None', ("failed", "exit")),
    ("a name that reads backwards", backwards,
     'escaped() if any("\\u202e" in name for name in os.listdir(CODE)) else None', REFUSED),
    ("more files than there may be", many,
     'escaped() if len(os.listdir(CODE + "/many")) > 2000 else None', REFUSED),
    ("directories without end", deep,
     'escaped() if os.path.exists(CODE + "/d" * 40) else None', REFUSED),
    ("a file larger than the disk", vast,
     'escaped() if os.stat(CODE + "/stolen").st_size > 1 << 39 else None', REFUSED),
)  # fmt: skip

# What a manifest asks for -> the text that replaces a line of the ordinary one, or is added.
ASKS = {
    "more memory than the policy gives": ('memory = "512Mi"', 'memory = "900Ti"'),
    "memory below nothing": ('memory = "512Mi"', 'memory = "-1"'),
    "processors without end": ("cpus = 1", "cpus = 1000000"),
    "no processor at all, and so no limit": ("cpus = 1", "cpus = 0"),
    "a number that is none": ("cpus = 1", "cpus = nan"),
    "time without end": ('time = "60s"', 'time = "9999h"'),
    "output without end": ('output = "16Mi"', 'output = "900Ti"'),
    "processes without end": ("processes = 64", "processes = 1000000"),
    "GPUs without end": ("processes = 64", "processes = 64\ngpus = 1000"),
    "a GPU by its name": ("processes = 64", 'processes = 64\ngpus = "all"'),
    "a limit of its own": ("processes = 64", "processes = 64\nopen_files = 1000000"),
    "an image by its path": ("[datasets]", 'image = "../../../etc"\n[datasets]'),
    "an image of somebody else's": ("[datasets]", 'image = "docker.io/evil/image"\n[datasets]'),
    "a program outside": ('"train.py"', '"../../../../bin/sh"'),
    "a program by an absolute path": ('"train.py"', '"/bin/sh"'),
    "a program that is an option": ('"train.py"', '"-c"'),
    "no program": ('entrypoint = "train.py"', ""),
    "a recipe outside": ('entrypoint = "train.py"', 'recipe = "../../stage"'),
    "a dataset by its path": ('mini = "1"', '"../mini" = "1"'),
    "a dataset over the program": ('mini = "1"', '"../code" = "1"'),
    "an output outside": ('"model.safetensors"', '"../../escape.safetensors"'),
    "an output by an absolute path": ('"model.safetensors"', '"/etc/cron.d/x.safetensors"'),
    "a hidden output": ('"model.safetensors"', '".bashrc.safetensors"'),
    "an output of another kind": ('"model.safetensors"', '"model.pt"'),
    "one output under two names": ('"run/best/model.safetensors"', '"Model.safetensors"'),
    "an output of the collector's": ('"model.safetensors"', '".a.partial"'),
    "mounts": ("[datasets]", '[mounts]\n"/" = "/host"\n[datasets]'),
    "a network": ("[datasets]", "[network]\nallow = true\n[datasets]"),
    "variables": ("[datasets]", '[env]\nLD_PRELOAD = "x"\n[datasets]'),
    "less isolation": ("[datasets]", 'isolation = "none"\n[datasets]'),
    "another backend": ("[datasets]", 'backend = "rehearse"\n[datasets]'),
    "another user": ("[datasets]", 'user = "root"\n[datasets]'),
    "a metric that is text": ('loss = "curve"', 'loss = "text"'),
    "a metric with a name that says something": ('loss = "curve"', '"patient kim" = "curve"'),
    "a metric of many digits": (
        "min = 0, max = 1",
        "min = 0, max = 1, digits = 300",
    ),
}

ATTACKS = [
    *under(
        "submitting",
        [JobAttack(name, code, prepare=prepare, ends=ends) for name, prepare, code, ends in FILES],
    ),
    *under(
        "widening",
        [
            JobAttack(
                f"asking for {name}",
                # Should it ever be taken, that is enough.
                "escaped()",
                manifest=MANIFEST.replace(old, new, 1),
                bare=False,
                ends=REFUSED,
            )
            for name, (old, new) in ASKS.items()
        ],
    ),
]
