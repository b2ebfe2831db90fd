"""Telling somebody outside what was seen, by the ways in which a job ends and speaks."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.attacks.attack import under
from tests.attacks.jobs import JobAttack, Loot

FAILED = ("failed", "exit")
TELL = 'os.write(int(os.environ["GLOVEBOX_PROGRESS_FD"]), json.dumps({line}).encode() + b"\\n")'


def words(*texts: str) -> Callable[[Loot], bool]:
    """Return whether one of these texts was told."""
    return lambda loot: any(text in loot.told for text in texts)


def many(loot: Loot) -> bool:
    return len(loot.ticks) > 1


def digits(loot: Loot) -> bool:
    """Return whether a number with more than four significant digits came."""
    return any(
        isinstance(value, float) and value != float(f"{value:.4g}")
        for *_, values in loot.ticks
        for value in values.values()
    )


def named(loot: Loot) -> bool:
    return any(set(values) - {"loss", "accuracy"} for *_, values in loot.ticks)


ATTACKS = under(
    "saying",
    [
        JobAttack("by the exit code", "os._exit(77)", shows=words("77"), ends=FAILED),
        JobAttack(
            "by exiting with a text", 'sys.exit("canary-kim")', shows=words("canary"), ends=FAILED
        ),
        JobAttack(
            "by the signal that ends it",
            "os.kill(os.getpid(), signal.SIGUSR2)",
            shows=words("-12"),
            ends=FAILED,
        ),
        JobAttack(
            "by the text of an exception",
            'raise ValueError("canary-kim")',
            shows=words("canary"),
            ends=FAILED,
        ),
        JobAttack(
            "by the name of an exception",
            'raise type("CanaryKim", (ValueError,), {})()',
            shows=words("CanaryKim"),
            ends=FAILED,
        ),
        JobAttack(
            "by the name of an exception that claims to be built in",
            """
            kind = type("CanaryKim", (ValueError,), {"__module__": "builtins"})
            import builtins
            builtins.CanaryKim = kind
            raise kind()
            """,
            shows=words("CanaryKim"),
            ends=FAILED,
        ),
        JobAttack(
            "by a note on an exception",
            """
            error = KeyError(); error.add_note("canary-kim")
            raise error
            """,
            shows=words("canary"),
            ends=FAILED,
        ),
        JobAttack(
            "by a group of exceptions",
            'raise ExceptionGroup("canary-kim", [ValueError("canary-kim")])',
            shows=words("canary"),
            ends=FAILED,
        ),
        JobAttack(
            "by the cause of an exception",
            'raise RuntimeError from KeyError("canary-kim")',
            shows=words("canary"),
            ends=FAILED,
        ),
        JobAttack(
            "by a file that was never handed in",
            """
            code = compile("\\n" * 76 + "raise KeyError", CODE + "/canary-kim.py", "exec")
            exec(code)
            """,
            shows=words("canary"),
            ends=FAILED,
        ),
        JobAttack(
            "by a line that does not exist",
            """
            exec(compile("\\n" * 77776 + "raise KeyError", CODE + "/train.py", "exec"))
            """,
            shows=words("77777"),
            ends=FAILED,
        ),
        JobAttack(
            "by a syntax error somewhere else",
            'raise SyntaxError("x", (CODE + "/canary-kim.py", 77777, 1, "canary"))',
            shows=words("canary", "77777"),
            ends=FAILED,
        ),
        JobAttack(
            "by a name of a function or a module",
            """
            exec("def canary_kim(): raise KeyError\\ncanary_kim()")
            """,
            shows=words("canary"),
            ends=FAILED,
        ),
        JobAttack(
            "by a forged fault",
            'line = {"fault": {"type": "CanaryKim", "file": "canary.py", "line": 77777}}\n'
            + TELL.format(line="line")
            + "\nprint(line, file=sys.stderr); sys.exit(1)",
            shows=words("anary", "77777"),
            ends=FAILED,
        ),
        JobAttack(
            "by a forged cause",
            TELL.format(
                line='{"fault": {"type": "KeyError", "file": "", "line": 0, "cause": "canary"}}'
            )
            + '\nprint("canary", file=sys.stderr); os._exit(1)',
            shows=words("canary"),
            ends=FAILED,
        ),
        JobAttack("by what it prints", 'print("canary-kim")', shows=words("canary")),
        JobAttack(
            "by what it complains", 'print("canary-kim", file=sys.stderr)', shows=words("canary")
        ),
        JobAttack(
            "by the name of its process",
            'open("/proc/self/comm", "w").write("canary"); print(open("/proc/self/comm").read())',
            shows=words("canary"),
            ends=None,
        ),
        JobAttack(
            "by the names of its files",
            'open(OUTPUT + "/canary-kim", "w").close()',
            shows=words("canary"),
        ),
        JobAttack(
            "by the sizes of its files",
            """
            for name in ("model.safetensors", "diary"):
                open(OUTPUT + "/" + name, "wb").write(b"x" * 77777)
            """,
            shows=words("77777"),
        ),
        JobAttack(
            "by its environment",
            """
            os.environ["CANARY"] = "canary-kim"
            os.execve(sys.executable, [sys.executable, "-c",
                      "import os; print(os.environ['CANARY'])"], os.environ)
            """,
            shows=words("canary"),
        ),
        JobAttack(
            "by the time that it takes",
            "time.sleep(1.07)",
            shows=lambda loot: any(f"{n / 10:.1f}" in loot.told for n in range(10, 99)),
        ),
        JobAttack(
            "by the digits of a number",
            shows=digits,
            code=TELL.format(line='{"step": 1, "values": {"loss": 0.12345678901234}}'),
        ),
        JobAttack(
            "by the digits of a large number",
            shows=digits,
            code=TELL.format(line='{"step": 1, "values": {"loss": 123456789012.345}}'),
        ),
        JobAttack(
            "by a number out of its range",
            code=TELL.format(line='{"step": 1, "values": {"accuracy": 77.0}}'),
            shows=lambda loot: any(values.get("accuracy", 0) > 1 for *_, values in loot.ticks),
        ),
        JobAttack(
            "by the sign of zero",
            code=TELL.format(line='{"step": 1, "values": {"loss": -0.0}}'),
            shows=lambda loot: any(
                math.copysign(1, value) < 0 for *_, v in loot.ticks for value in v.values()
            ),
        ),
        JobAttack(
            "by a number that is none",
            code=TELL.format(line='{"step": 1, "values": {"loss": float("nan")}}'),
            shows=lambda loot: any(
                math.isnan(value) for *_, v in loot.ticks for value in v.values()
            ),
        ),
        JobAttack(
            "by a number below all measure",
            code=TELL.format(line='{"step": 1, "values": {"loss": 1.234e-300}}'),
            shows=lambda loot: any(
                0 < abs(value) < 1e-100 for *_, v in loot.ticks for value in v.values()
            ),
        ),
        JobAttack(
            "by a text for a number",
            code=TELL.format(line='{"step": 1, "values": {"loss": "canary"}}'),
            shows=lambda loot: "canary" in str(loot.ticks),
        ),
        JobAttack(
            "by the name of a number",
            shows=named,
            code=TELL.format(line='{"step": 1, "values": {"canary_kim": 1.0}}'),
        ),
        JobAttack(
            "by a name beside a declared one",
            shows=named,
            code=TELL.format(line='{"step": 1, "values": {"loss": 1.0, "canary": 1.0}}'),
        ),
        JobAttack(
            "by the number of a step",
            code=TELL.format(line='{"step": 123456789012, "values": {"loss": 1.0}}'),
            shows=lambda loot: any(step >= 1 << 20 for _, step, _ in loot.ticks),
        ),
        JobAttack(
            "by the order of numbers",
            code=TELL.format(line='{"step": 1, "values": {"loss": 1.0, "accuracy": 0.5}}'),
            shows=lambda loot: any(list(values) != sorted(values) for *_, values in loot.ticks),
        ),
        JobAttack(
            "by when it speaks",
            """
            for step in range(12):
                """
            + TELL.format(line='{"step": step, "values": {"loss": 1.0}}')
            + """
                time.sleep(0.05 * (step % 3))
            """,
            shows=many,
        ),
        JobAttack(
            "by how often it speaks",
            """
            for step in range(300):
                """
            + TELL.format(line='{"step": step, "values": {"loss": step / 300}}'),
            shows=many,
        ),
        JobAttack(
            "by speaking through many lines at once",
            """
            line = b"".join(b'{"step": %d, "values": {"loss": 0.5}}\\n' % n for n in range(100))
            os.write(int(os.environ["GLOVEBOX_PROGRESS_FD"]), line)
            """,
            shows=many,
        ),
    ],
)
