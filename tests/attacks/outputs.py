"""What a job leaves in /output, to be carried out by whoever collects it."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.attacks.attack import under
from tests.attacks.jobs import DECLARED, JobAttack, Loot


def paths(loot: Loot) -> Iterator[Path]:
    """Yield everything that was handed over, following nothing."""
    for top, folders, files in os.walk(loot.files):
        yield from (Path(top) / name for name in (*folders, *files))


def of_kind(*kinds: int) -> Callable[[Loot], bool]:
    """Return whether something of this kind was handed over."""
    return lambda loot: any(stat.S_IFMT(path.lstat().st_mode) in kinds for path in paths(loot))


def holding(text: bytes) -> Callable[[Loot], bool]:
    """Return whether a file with this text was handed over, or a link to one."""
    return lambda loot: any(
        path.is_file() and text in path.read_bytes()[:4096] for path in paths(loot)
    )


def undeclared(loot: Loot) -> bool:
    """Return whether a name that the manifest does not declare was handed over."""
    return any(path.relative_to(loot.files).as_posix() not in DECLARED for path in paths(loot))


def with_mode(bits: int) -> Callable[[Loot], bool]:
    """Return whether a file with one of these bits of its mode was handed over."""
    return lambda loot: any(
        path.lstat().st_mode & bits for path in paths(loot) if not path.is_dir()
    )


def several_names(loot: Loot) -> bool:
    """Return whether a file with more than one name was handed over."""
    return any(path.lstat().st_nlink > 1 for path in paths(loot) if not path.is_dir())


def total(loot: Loot) -> int:
    """Return the lengths of all files that were handed over."""
    return sum(path.lstat().st_size for path in paths(loot) if path.is_file())


def changed(loot: Loot) -> bool:
    """Return whether somebody else's file was written."""
    return any(path.is_file() and path.read_bytes() != b"mine" for path in loot.valuable.rglob("*"))


def link_file(target: Path, valuable: Path) -> None:
    (target / "model.safetensors").symlink_to(valuable / "model.safetensors")


def link_folder(target: Path, valuable: Path) -> None:
    (target / "run").symlink_to(valuable)


def link_deeper(target: Path, valuable: Path) -> None:
    (target / "run").mkdir()
    (target / "run/best").symlink_to(valuable)


MODEL = 'OUTPUT + "/model.safetensors"'
SECRET_LINK = f'os.symlink(TARGET["secret"], {MODEL})'
TRY = """
try:
    {code}
except OSError:
    pass
"""


def tried(code: str) -> str:
    """Return a program that does one thing and does not mind where it may not."""
    return TRY.format(code=code)


ODD_NAMES = {
    "a hidden name": ".hidden.safetensors",
    "a name that reads backwards": "model\u202esrotnesefas.ledom",
    "a name with letters that join nothing": "model\u200d.safetensors",
    "a name in decomposed letters": unicodedata.normalize("NFD", "modèle.safetensors"),
    "a name in letters of full width": "\uff4dodel.safetensors",
    "a name that differs by case": "Model.safetensors",
    "a name with a line break": "model\n.safetensors",
    "a name that moves a terminal": "\x1b[31mmodel.safetensors",
    "a name with a bell and a null's picture": "\x07model\u2400",
    "a name of private characters": "\ue000\ue001.safetensors",
    "a name that ends with a dot": "model.safetensors.",
    "a name that ends with a space": "model.safetensors ",
    "a name that reads as an option": "-rf",
    "a name as long as there is": "x" * 255,
    "a name that is markup": "<img src=x onerror=alert(1)>",
    "a name that tells a patient's": "kim-hyejin-1971.bin",
}

ATTACKS = under(
    "leaving",
    [
        JobAttack("a link to a secret", SECRET_LINK, shows=holding(b"canary")),
        JobAttack(
            "a link upwards",
            f'os.symlink("../" * 20 + TARGET["secret"], {MODEL})',
            shows=of_kind(stat.S_IFLNK),
        ),
        JobAttack(
            "a link to the collector's own descriptors",
            f'os.symlink("/proc/self/environ", {MODEL})',
            shows=of_kind(stat.S_IFLNK),
        ),
        JobAttack(
            "a link in place of a directory",
            'os.symlink(os.path.dirname(TARGET["secret"]), OUTPUT + "/run")',
            shows=of_kind(stat.S_IFLNK),
        ),
        JobAttack(
            "a link in place of a directory further down",
            """
            os.mkdir(OUTPUT + "/run")
            os.symlink(os.path.dirname(TARGET["secret"]), OUTPUT + "/run/best")
            """,
            shows=of_kind(stat.S_IFLNK),
        ),
        JobAttack(
            "a second name of a secret",
            tried(f'os.link(TARGET["secret"], {MODEL})'),
            shows=holding(b"canary"),
        ),
        JobAttack(
            "a second name of the data",
            tried(f'os.link(TARGET["data"] + "/labels.csv", {MODEL})'),
            shows=holding(b"subject"),
        ),
        JobAttack(
            "two names of one file",
            f"""
            open({MODEL}, "w").write("x")
            os.link({MODEL}, OUTPUT + "/metrics.json")
            """,
            shows=several_names,
        ),
        JobAttack(
            "two names of one file, counted once",
            f"""
            open({MODEL}, "wb").write(b"x" * (1 << 20))
            for number in range(100):
                os.link({MODEL}, OUTPUT + f"/{{number}}")
            """,
            shows=lambda loot: total(loot) > 50 << 20,
        ),
        JobAttack("a pipe", f"os.mkfifo({MODEL})", shows=of_kind(stat.S_IFIFO)),
        JobAttack(
            "a socket",
            """
            os.chdir(OUTPUT)
            try:
                socket.socket(socket.AF_UNIX).bind("model.safetensors")
            except OSError:
                pass
            """,
            shows=of_kind(stat.S_IFSOCK),
        ),
        JobAttack(
            "a character device",
            tried(f"os.mknod({MODEL}, 0o600 | stat.S_IFCHR, os.makedev(1, 5))"),
            shows=of_kind(stat.S_IFCHR),
        ),
        JobAttack(
            "a disk",
            tried(f"os.mknod({MODEL}, 0o600 | stat.S_IFBLK, os.makedev(7, 0))"),
            shows=of_kind(stat.S_IFBLK),
        ),
        JobAttack(
            "a file that is a directory",
            f'os.mkdir({MODEL}); open({MODEL} + "/inside", "w").write("x")',
            shows=undeclared,
        ),
        *[
            JobAttack(
                name,
                f'open({MODEL}, "w").write("x"); os.chmod({MODEL}, 0o{mode:o})',
                shows=with_mode(mode & 0o7111),
            )
            for name, mode in (
                ("a set-user-id file", 0o4755),
                ("a set-group-id file", 0o2755),
                ("a program", 0o755),
            )
        ],
        JobAttack(
            "a file that everybody may write",
            f'open({MODEL}, "w").write("x"); os.chmod({MODEL}, 0o666)',
            shows=with_mode(0o022),
        ),
        JobAttack(
            "times that say something",
            f'open({MODEL}, "w").write("x"); os.utime({MODEL}, (1234567890, 1234567890))',
            shows=lambda loot: any(path.lstat().st_mtime == 1234567890 for path in paths(loot)),
        ),
        JobAttack(
            "attributes that say something",
            """
            open(OUTPUT + "/model.safetensors", "w").write("x")
            try:
                os.setxattr(OUTPUT + "/model.safetensors", "user.patient", b"kim")
            except OSError:
                pass
            """,
            shows=lambda loot: any(os.listxattr(p) for p in paths(loot) if p.is_file()),
        ),
        JobAttack(
            "a hole of many bytes",
            f'open({MODEL}, "wb").truncate(1 << 36)',
            shows=lambda loot: total(loot) > 16 << 20,
        ),
        JobAttack(
            "two holes, each within the limit",
            """
            for name in ("model.safetensors", "metrics.json"):
                open(OUTPUT + "/" + name, "wb").truncate(12 << 20)
            """,
            shows=lambda loot: total(loot) > 16 << 20,
        ),
        JobAttack(
            "figures of more bytes than figures have",
            'open(OUTPUT + "/metrics.json", "wb").write(b" " * (1 << 20))',
            shows=lambda loot: total(loot) > 1 << 19,
        ),
        *[
            JobAttack(
                name,
                f'open(OUTPUT + "/" + {odd!a}, "w").write("data")',
                shows=undeclared,
            )
            for name, odd in ODD_NAMES.items()
        ],
        JobAttack(
            "a name that is no text",
            tried('open(os.fsencode(OUTPUT) + b"/model\\xff\\xfe", "w").write("data")'),
            shows=undeclared,
        ),
        JobAttack(
            "a hidden directory",
            'os.mkdir(OUTPUT + "/.git"); open(OUTPUT + "/.git/config", "w").write("data")',
            shows=undeclared,
        ),
        JobAttack(
            "a file beside the declared ones",
            'open(OUTPUT + "/run.log", "w").write("kim")',
            shows=undeclared,
        ),
        JobAttack(
            "very many files",
            """
            for number in range(3000):
                open(OUTPUT + f"/{number}", "w").close()
            """,
            shows=lambda loot: len(list(paths(loot))) > 100,
        ),
        JobAttack(
            "very deep directories",
            'os.makedirs(OUTPUT + "/d" * 100)',
            shows=lambda loot: len(list(paths(loot))) > 50,
        ),
        JobAttack(
            "a name that is swapped while it is collected",
            f"""
            open({MODEL}, "w").write("x")
            if os.fork() == 0:
                os.setsid()
                stop = time.monotonic() + 20
                while time.monotonic() < stop:
                    for what in ("link", "file"):
                        new = OUTPUT + "/new"
                        if what == "link":
                            os.symlink(TARGET["secret"], new)
                        else:
                            open(new, "w").write("x")
                        os.rename(new, {MODEL})
            time.sleep(0.2)
            """,
            bare=False,
            shows=lambda loot: of_kind(stat.S_IFLNK)(loot) or holding(b"canary")(loot),
        ),
        JobAttack(
            "a link that already lies in the target",
            f'open({MODEL}, "w").write("stolen")',
            lay=link_file,
            shows=changed,
        ),
        JobAttack(
            "a link on the way in the target",
            """
            os.makedirs(OUTPUT + "/run/best")
            open(OUTPUT + "/run/best/model.safetensors", "w").write("stolen")
            """,
            lay=link_deeper,
            # cp refuses to replace a link by a directory, so it has no naive twin here.
            bare=False,
            shows=changed,
        ),
        JobAttack(
            "a link higher up in the target",
            """
            os.makedirs(OUTPUT + "/run/best")
            open(OUTPUT + "/run/best/model.safetensors", "w").write("stolen")
            """,
            lay=link_folder,
            bare=False,
            shows=changed,
        ),
    ],
)
