"""Read a submission's code without running it, and point reviewers at lines worth a look.

Advice only: what Python does cannot be known by reading it, and the sandbox is what enforces. So
a finding is no accusation (a training may well use subprocess), and no finding is no clearance.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Characters of one string or bytes constant beyond which it may carry data.
LONG_CONSTANT: Final = 2000
LARGEST_FILE: Final = 1 << 20

# Module -> (rule, what a reviewer may want to know).
MODULES: Final = {
    "socket": ("network", "uses the network, which does not exist inside"),
    "ssl": ("network", "uses the network, which does not exist inside"),
    "http": ("network", "uses the network, which does not exist inside"),
    "urllib": ("network", "uses the network, which does not exist inside"),
    "requests": ("network", "uses the network, which does not exist inside"),
    "aiohttp": ("network", "uses the network, which does not exist inside"),
    "httpx": ("network", "uses the network, which does not exist inside"),
    "ftplib": ("network", "uses the network, which does not exist inside"),
    "smtplib": ("network", "uses the network, which does not exist inside"),
    "paramiko": ("network", "uses the network, which does not exist inside"),
    "subprocess": ("process", "starts other programs"),
    "pty": ("process", "starts other programs"),
    "ctypes": ("native", "calls native code directly"),
    "cffi": ("native", "calls native code directly"),
    "mmap": ("native", "maps memory directly"),
    "pickle": ("pickle", "reads or writes pickles, which run code when they are read"),
    "dill": ("pickle", "reads or writes pickles, which run code when they are read"),
    "marshal": ("pickle", "reads or writes code objects"),
    "zlib": ("packing", "packs data"),
    "lzma": ("packing", "packs data"),
    "base64": ("packing", "encodes data"),
}
CALLS: Final = {
    "eval": ("dynamic-code", "runs text as code"),
    "exec": ("dynamic-code", "runs text as code"),
    "compile": ("dynamic-code", "makes code from text"),
    "__import__": ("dynamic-code", "imports a module whose name is computed"),
    "os.system": ("process", "starts other programs"),
    "os.popen": ("process", "starts other programs"),
    "os.fork": ("process", "starts other processes"),
    "os.execv": ("process", "replaces itself by another program"),
    "os.symlink": ("links", "makes links"),
    "os.link": ("links", "makes links"),
    "os.mkfifo": ("links", "makes pipes"),
    "os.mknod": ("links", "makes devices"),
    "importlib.import_module": ("dynamic-code", "imports a module whose name is computed"),
}
#: Where a submission has business; other absolute paths are named.
OWN_PATHS: Final = ("/code", "/data", "/output", "/tmp", "/dev/shm", "/dev/null")  # noqa: S108


@dataclass(frozen=True)
class Advice:
    """One line worth a look. ``message`` is ours; it never quotes the submission."""

    file: str
    line: int
    rule: str
    message: str


def scan(code: Path) -> list[Advice]:
    """Return advice on every Python file under ``code``, by file and line.

    Never raises for what a submission holds: what cannot be read is itself advice.
    """
    found: list[Advice] = []
    for path in sorted(code.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(code).as_posix()
        if path.suffix in (".so", ".pyd", ".pyc", ".whl", ".egg", ".exe", ".dll"):
            found.append(Advice(name, 0, "native", "is compiled code, which cannot be read"))
        elif path.suffix == ".py":
            found += _scan_file(name, path)
        elif path.stat().st_size > LARGEST_FILE:
            found.append(Advice(name, 0, "large", "is large for a submission"))
    return found


def _scan_file(name: str, path: Path) -> list[Advice]:
    if path.stat().st_size > LARGEST_FILE:
        return [Advice(name, 0, "large", "is too large to be read as code")]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", 0) or 0
        return [Advice(name, line, "unreadable", "is not valid Python")]
    try:
        advice = {Advice(name, line, *why) for line, why in _walk(tree)}
    except RecursionError:
        return [Advice(name, 0, "unreadable", "is nested too deeply to be read")]
    return sorted(advice, key=lambda each: (each.line, each.rule))


def _walk(tree: ast.AST) -> Iterator[tuple[int, tuple[str, str]]]:
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if why := MODULES.get(alias.name.split(".")[0]):
                    yield line, why
        elif isinstance(node, ast.ImportFrom):
            if why := MODULES.get((node.module or "").split(".")[0]):
                yield line, why
        elif isinstance(node, ast.Call):
            yield from ((line, why) for why in _call(node))
        elif isinstance(node, ast.Constant):
            yield from ((line, why) for why in _constant(node.value))
        elif isinstance(node, ast.Attribute) and node.attr in (
            "__globals__",
            "__subclasses__",
            "__builtins__",
        ):
            yield line, ("dynamic-code", "reaches into the interpreter")


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def _call(node: ast.Call) -> Iterator[tuple[str, str]]:
    name = _dotted(node.func)
    if why := CALLS.get(name):
        yield why
    if name in ("torch.save", "torch.load"):
        yield "pickle", "reads or writes pickles; safetensors is what may leave"
    if name.rsplit(".", 1)[-1] == "register_buffer":
        yield "buffer", "adds a buffer, which is saved with the weights: look at what fills it"


def _constant(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str | bytes) and len(value) > LONG_CONSTANT:
        yield "constant", "holds a long constant, which may carry data or code"
    if isinstance(value, str) and value.startswith("/") and len(value) > 1 and "\n" not in value:
        own = any(value == path or value.startswith(path + "/") for path in OWN_PATHS)
        if not own and " " not in value:
            yield "path", "names a path outside of /code, /data and /output"
