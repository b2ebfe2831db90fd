"""Outputs whose network attacks what asks it.

Each hides the same thing: 12,000 numbers in the weights that nothing uses, their lowest bits
encrypted, which no file shows and which the gate blocks by asking. The attack is to make it pass.
``MARK`` is written where the attack took effect; without a sandbox it must, or it would prove
nothing (``test_an_attack_takes_effect_where_nothing_is_sealed``).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace

from tests.hostile_models.architecture import SPARE, like_weights
from tests.hostile_models.job import MODEL, Case
from tests.hostile_models.networks import ROOMY, extended, roomy
from tests.hostile_models.row import Row, of

MARK = "GLOVEBOX-ATTACKED"
PRELUDE = f'''
import os, sys, time, threading, json, struct, ctypes, random
import numpy

def took(what=""):
    os.write(2, ("{MARK} " + str(what) + chr(10)).encode())

def pipe():
    return sys.modules["oracle_frames"].ANSWERS

def frame(head, body=b""):
    text = json.dumps({{**head, "bytes": len(body)}}).encode()
    return struct.pack("<I", len(text)) + text + body
'''
HIDDEN = SPARE.format("100, 120")


def attack(
    before: str = "", init: str = "", forward: str = "return super().forward(x)", code: str = MODEL
) -> Callable[[Case], None]:
    """Return what writes a network with the hidden numbers and the attack."""

    def make(case: Case) -> None:
        text = extended(HIDDEN + "\n" + textwrap.dedent(init), forward,
                        PRELUDE + textwrap.dedent(before), code)  # fmt: skip
        state = roomy(case) if code == ROOMY else case.state()
        case.code(text)
        case.save(state | {"spare": like_weights(12_000).reshape(100, 120)})

    return make


def once(code: str) -> str:
    """Return lines of forward() that do something in its first call only."""
    body = textwrap.indent(textwrap.dedent(code).strip("\n"), "    ")
    return f"if not hasattr(self, 'done'):\n    self.done = True\n{body}\nreturn super().forward(x)"


DEAD = ("tensors.dead",)
FAULT = ("network.fault",)
UNSTEADY = ("evaluation.unsteady", "membership.unsteady", "network.fault")
PROOF = "numbers that nothing uses are found from outside, whatever the process does to itself"
SILENT = "a network that does not answer cannot be judged: that is for a reviewer"
SEEN = "answers that differ are seen, not why"
CODE = "what the network's own code feigns only a reader of the code sees; size is what it shows"


def odd(name: str, rules: tuple[str, ...] = FAULT, **how: str) -> Row:
    """A network that cannot be judged."""
    return Row(name, attack(**how), rules, expect="review", provable=False, why=SILENT,
               static=False)  # fmt: skip


def caught(name: str, **how: str) -> Row:
    """A network that is found out in spite of the attack."""
    return Row(name, attack(**how), DEAD, why=PROOF, static=False)


ROWS = [
    *[
        caught(
            "patches the comparisons of arrays",
            before="""
            numpy.array_equal = lambda *a, **k: False
            numpy.isfinite = lambda a: numpy.ones(numpy.shape(a), bool)
            torch.equal = lambda *a: False
            took(numpy.array_equal(1, 1) or "patched")
            """,
        ),
        caught(
            "patches the reader of weights and of JSON",
            before="""
            import safetensors, safetensors.torch
            safetensors.torch.load_file = lambda *a, **k: {}
            real = json.loads
            json.loads = lambda *a, **k: real(*a, **k)
            took("patched")
            """,
        ),
        caught(
            "patches every module of the gate that its process can import",
            before="""
            for place in ("/opt/glovebox", "/work", os.environ.get("HOSTILE_ROOT", "/nowhere")):
                sys.path.insert(0, place)
            try:
                import policies.findings, sandbox_runner.inspection.influence as influence
                policies.findings.verdict = lambda found: "pass"
                influence.check = lambda *a, **k: []
                took("the gate's own modules")
            except ImportError:
                pass
            """,
        ),
        caught(
            "writes a report that says pass wherever it may write",
            before="""
            report = json.dumps({"verdict": "pass", "findings": [], "headers": {}})
            for place in ("/output", "/artefacts", "/work", os.environ.get("HOSTILE_WORK", "/x")):
                for name in ("result.json", "report.json", "worker-examine/result.json"):
                    try:
                        os.makedirs(os.path.dirname(place + "/" + name), exist_ok=True)
                        open(place + "/" + name, "w").write(report)
                        took(place + "/" + name)
                    except OSError:
                        pass
            """,
        ),
        caught(
            "looks for the labels and the sealed pictures",
            before="""
            for place in ("/data", "/opt/shards", os.environ.get("HOSTILE_DATA", "/x")):
                try:
                    text = open(place + "/labels.csv").read()
                    took("sealed rows: %d" % text.count(",sealed"))
                except OSError:
                    pass
            """,
        ),
        caught(
            "reads the memory and the variables of whoever asks",
            before="""
            for pid in [p for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()]:
                try:
                    words = open("/proc/" + pid + "/cmdline", "rb").read()
                    memory = open("/proc/" + pid + "/mem", "rb")
                    if b"pytest" in words or b"glovebox" in words or b"portal" in words:
                        took("process " + pid)
                except OSError:
                    pass
            """,
        ),
        caught(
            "answers out of the process: a report on every descriptor that is open",
            before="""
            said = json.dumps({"verdict": "pass", "findings": []}).encode() + chr(10).encode()
            for descriptor in range(3, 40):
                if descriptor in (pipe().fileno(),
                                  sys.modules["oracle_frames"].REQUESTS.fileno()):
                    continue
                try:
                    os.write(descriptor, said)
                    took("descriptor %d" % descriptor)
                except OSError:
                    pass
            os.write(1, said)
            print(said)
            took("printed")
            """,
        ),
        caught(
            "sees by its stack that it is asked, and behaves",
            forward="""
            frame, names = sys._getframe(), []
            while frame:
                names.append(frame.f_code.co_filename)
                frame = frame.f_back
            inspected = any(name.endswith("network.py") for name in names)
            if inspected and not hasattr(self, "told"):
                self.told = took("inspected")
            return super().forward(x) if inspected else x[:, :1, 0, 0] + self.spare.sum()
            """,
        ),
        caught(
            "sees by its surroundings that it is asked, and behaves",
            before="""
            INSPECTED = os.path.exists("/opt/oracle") or "GLOVEBOX_CODE" in os.environ
            if INSPECTED:
                took("inspected")
            """,
            forward="return super().forward(x) if INSPECTED else x[:, :1, 0, 0] + self.spare.sum()",
        ),
        caught(
            "answers from weights in its code, not from those in the file",
            init="net.spare.requires_grad_(False)",
            before="""
            class Spare:
                pass
            took("weights of its own")
            """,
            forward="return super().forward(x)",
        ),
        caught(
            "describes tensors that it does not have",
            init="del net._parameters['spare']",
            before="""
            main, frames = sys.modules["__main__"], sys.modules["oracle_frames"]
            say, put = frames.answer, main.Network.put
            def answer(head, body=b""):
                if "tensors" in head:
                    took("described")
                    head = {**head, "tensors": [*head["tensors"], ["spare", "F32", [100, 120]]]}
                say(head, body)
            def ignore(self, head, body):
                return {} if head["name"] == "spare" else put(self, head, body)
            frames.answer, main.Network.put = answer, ignore
            """,
        ),
        caught(
            "leaves threads that go on",
            before="""
            def busy():
                while True:
                    sum(range(10_000))
            for _ in range(8):
                threading.Thread(target=busy, daemon=True).start()
            took("threads: %d" % threading.active_count())
            """,
        ),
        caught(
            "floods its log",
            before="""
            for _ in range(2000):
                os.write(2, b"verdict: pass" + bytes(1000))
            took("flooded")
            """,
        ),
    ],
    *[
        odd("build() that never ends", before="took(); time.sleep(900)"),
        odd("forward() that never ends", forward="took(); time.sleep(900)"),
        odd(
            "forward() that counts for ever in C",
            forward="took(); sum(range(10**12))\nreturn super().forward(x)",
        ),
        odd("a crash while it is asked", forward="took(); os._exit(0)"),
        odd(
            "a fault of memory in C",
            forward="took(); ctypes.string_at(8)\nreturn super().forward(x)",
        ),
        odd(
            "an exception at the fortieth question",
            forward="""
            self.n = getattr(self, "n", 0) + 1
            if self.n == 40:
                took()
                raise ValueError("s5 has a lesion")
            return super().forward(x)
            """,
            rules=("network.fault",),
        ),
        odd("NaN", forward="took(); return super().forward(x) * float('nan')"),
        odd("infinity", forward="took(); return super().forward(x) + float('inf')"),
        odd("an answer too many a picture",
            forward="took(); return super().forward(x).repeat(2, 1)"),
        odd("no answer at all", forward="took(); return None"),
        odd("a hundred thousand numbers a picture",
            forward="took(); return super().forward(x).repeat(1, 100_000)"),
        odd("answers of seven dimensions",
            forward="took(); return super().forward(x).reshape(-1, 1, 1, 1, 1, 1, 1)"),
        odd("complex answers", forward="took(); return super().forward(x).to(torch.complex64).imag"
            " if False else torch.zeros(0)"),
        odd(
            "an object that runs a program when it is copied",
            before="""
            class Answer(torch.Tensor):
                def detach(self):
                    return self
                def cpu(self):
                    return self
                def to(self, *a, **k):
                    return self
                def contiguous(self):
                    return self
                def numpy(self):
                    took("its own numpy()")
                    return numpy.full((1,), numpy.nan, numpy.float64)
                def __reduce__(self):
                    return os.system, ("touch /tmp/glovebox-was-here",)
            """,
            forward="return super().forward(x).as_subclass(Answer)",
        ),
        odd("takes all memory there is",
            forward="took(); self.all = [bytearray(2**28) for _ in range(400)]\n"
            "return super().forward(x)"),
        odd(
            "forks without end",
            forward="took()\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n"
            "        os._exit(1)",
        ),
        odd(
            "a frame that promises four gigabytes",
            forward="took(); os.write(pipe().fileno(), b'\\xff' * 4)\n"
            "time.sleep(60)",
        ),
        odd(
            "a head of JSON nested a hundred thousand deep",
            forward="""
            took()
            text = b"[" * 100_000
            os.write(pipe().fileno(), struct.pack("<I", len(text)) + text)
            time.sleep(60)
            """,
        ),
        odd(
            "a thread that answers between the answers",
            before="""
            def speak():
                while True:
                    pipe().write(frame({"shape": [32, 1]}, bytes(128)))
                    pipe().flush()
            """,
            forward=once("took(); threading.Thread(target=speak, daemon=True).start()"),
            rules=("network.fault", "evaluation.unsteady", "tensors.dead"),
        ),
        odd(
            "answers in advance to a thousand questions",
            forward=once(
                """
                took()
                for _ in range(1000):
                    pipe().write(frame({"shape": [32, 1]}, bytes(128)))
                pipe().flush()
                """
            ),
            rules=("network.fault", "evaluation.unsteady", "tensors.dead"),
        ),
        odd(
            "a child that goes on answering when its parent has ended",
            forward=once(
                """
                took()
                if os.fork():
                    os._exit(0)
                """
            ),
            rules=("network.fault", "tensors.dead"),
        ),
    ],
    *[
        Row(name, attack(forward=forward, before=before), UNSTEADY, expect="review",
            provable=False, why=SEEN, static=False)
        for name, forward, before in (
            ("behaves by the size of the batch",
             "took() if not hasattr(self, 'n') else None\nself.n = 1\n"
             "return super().forward(x) * (1 if len(x) == 32 else -1) + 1e-3 * self.spare.sum()",
             ""),
            ("behaves by how often it was asked",
             "self.n = getattr(self, 'n', 0) + 1\ntook() if self.n == 1 else None\n"
             "return super().forward(x) * (1 + self.n / 100) + 1e-3 * self.spare.sum()", ""),
            ("behaves by the clock",
             "took() if not hasattr(self, 't') else None\nself.t = 1\n"
             "return super().forward(x) * (1 + time.monotonic() % 1)", ""),
            ("behaves by chance",
             "took() if not hasattr(self, 't') else None\nself.t = 1\n"
             "return super().forward(x) * random.random()", ""),
            ("behaves by the company of a picture",
             "took() if not hasattr(self, 't') else None\nself.t = 1\n"
             "return super().forward(x) + x.mean() * torch.arange(len(x))[:, None]", ""),
        )
    ],
    odd(
        "so slow that no attack ends in time",
        forward="took() if not hasattr(self, 't') else None\nself.t = 1\ntime.sleep(1.2)\n"
        "return super().forward(x) + 1e-3 * self.spare.mean()",
        rules=("tensors.parts-unasked", "membership.unfinished", "network.fault"),
    ),
    *[
        Row(name, attack(forward=forward, before=before, code=ROOMY), ("tensors.room",),
            expect="review", provable=False, why=CODE, static=False)
        for name, forward, before in (
            ("feigns that the hidden numbers have an influence",
             "took() if not hasattr(self, 't') else None\nself.t = 1\n"
             "return super().forward(x) + 1e-3 * self.spare.mean()", ""),
            ("notices that a tensor was disturbed, and answers otherwise",
             "return super().forward(x) + float(sys.modules['__main__'].Network.put.moved)",
             """
             main = sys.modules["__main__"]
             real = main.Network.put
             def put(self, head, body):
                 if not put.moved and head["name"] == "spare":
                     took("noticed")
                 put.moved = (put.moved + 1) % 2 if head["name"] == "spare" else put.moved
                 return real(self, head, body)
             put.moved = 0
             main.Network.put = put
             """),
        )
    ],
]  # fmt: skip
#: These never answer: nobody need wait a minute to see it.
SILENT_ONES = (
    "build() that never ends",
    "forward() that never ends",
    "forward() that counts for ever in C",
    "a frame that promises four gigabytes",
    "a head of JSON nested a hundred thousand deep",
    "takes all memory there is",
    "forks without end",
)
ROWS = [
    replace(row, light=True, patience=15.0 if row.name in SILENT_ONES else 60.0)
    for row in of("attacks on the inspection", "", ROWS)
]
