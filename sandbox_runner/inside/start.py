"""Start a submission's program inside the sandbox, and say where it failed.

Runs as ``python start.py PROGRAM`` in the same process as the submission, which can therefore
forge all of this: the runner believes only what it can check (sandbox_runner/progress.py). The
message of an exception and its traceback stay in the log inside.
"""

# Plain strings for paths: this runs before every submission.
# ruff: noqa: PTH120, PTH123

from __future__ import annotations

import builtins
import errno
import json
import os
import sys
import types

CODE = os.environ.get("GLOVEBOX_CODE", "/code").rstrip("/")
# What Python code calls to start a process or a thread.
STARTS = {
    "fork",
    "forkpty",
    "_fork_exec",
    "fork_exec",
    "posix_spawn",
    "start_new_thread",
    "_start_new_thread",
    "_start_joinable_thread",
}
OUTPUT = os.environ.get("GLOVEBOX_OUTPUT", "/output")


def place(traceback: types.TracebackType | None) -> tuple[str, int]:
    """Return the innermost line of the submission itself, as a relative file and a number."""
    found = ("", 0)
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file.startswith(CODE + "/"):
            found = (file[len(CODE) + 1 :], traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def starting(traceback: types.TracebackType | None) -> bool:
    """Return whether the innermost code starts processes; a full pipe has the same error."""
    names: tuple[str, ...] = ()
    while traceback is not None:
        names = traceback.tb_frame.f_code.co_names
        traceback = traceback.tb_next
    return not STARTS.isdisjoint(names)


def cause(error: BaseException) -> str | None:
    """Return which limit was met, where the error itself shows it."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "processes"
    number = getattr(error, "errno", None)
    if number == errno.EAGAIN and starting(error.__traceback__):
        return "processes"
    try:
        room = os.statvfs(OUTPUT)
    except OSError:
        return None
    return "output-full" if room.f_bavail == 0 or room.f_favail == 0 else None


def report(error: BaseException) -> None:
    """Write the fault to the runner: the nearest built-in type, a file and a line."""
    descriptor = os.environ.get("GLOVEBOX_PROGRESS_FD", "")
    if not descriptor.isdigit():
        return
    name = next(
        (
            kind.__name__
            for kind in type(error).__mro__
            if vars(builtins).get(kind.__name__) is kind
        ),
        "other",
    )
    if name in ("Exception", "BaseException", "object") and type(error).__name__ != name:
        name = "other"
    file, line = place(error.__traceback__)
    if isinstance(error, SyntaxError) and str(error.filename).startswith(CODE + "/"):
        file, line = str(error.filename)[len(CODE) + 1 :], error.lineno or 0
    fault = {"type": name, "file": file, "line": line, "cause": cause(error)}
    try:
        os.write(int(descriptor), json.dumps({"fault": fault}).encode() + b"\n")
    except OSError:
        return


def main(program: str) -> None:
    """Run a program as ``__main__``, as ``python PROGRAM`` would."""
    sys.argv = [program, *sys.argv[2:]]
    sys.path[0] = os.path.dirname(program)
    # A module of its own under that name: this one's functions are still needed at the end.
    module = types.ModuleType("__main__")
    vars(module).update({"__file__": program, "__builtins__": builtins})
    sys.modules["__main__"] = module
    try:
        with open(program, "rb") as file:
            source = file.read()
        code = compile(source, program, "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102 - that is its purpose
    except SystemExit:
        raise
    except BaseException as error:
        report(error)
        raise


if __name__ == "__main__":
    main(sys.argv[1])
