"""The table of attacks in docs/threat-model.md: what stops each, and which probes show it.

`make docs` writes it; a test holds that every probe stands in a row and every row has a probe.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from tests.attacks import (
    environment,
    exits,
    files,
    network,
    outputs,
    privilege,
    processes,
    resources,
    runner,
    submissions,
    together,
)
from tests.attacks.attack import Attack

MODULES = (
    network,
    files,
    processes,
    privilege,
    resources,
    environment,
    outputs,
    exits,
    submissions,
    together,
    runner,
)
SAME = "the same"
DOORS = "the same doors, on the runner's side"


@dataclass(frozen=True)
class Row:
    """One kind of attack, and what stops it on each backend; ``remains`` is what does not."""

    attack: str
    bubblewrap: str
    gvisor: str
    kubernetes: str
    remains: str = ""


ROWS: Mapping[str, Row] = {
    "sockets": Row(
        "sockets of every family, raw, packet, netlink, vsock; other calling conventions",
        "a filter lets only local sockets be made; a network namespace without a device",
        "the same filter before its own kernel; `--network=none`",
        "a policy that denies all traffic, both ways; gVisor or Kata beneath",
        "on a cluster, a network plug-in that does not enforce the policy",
    ),
    "services": Row(
        "services on loopback, metadata addresses, name servers, sockets of other programs",
        "no family but local; names and paths of a network and a root of its own",
        SAME,
        "no route, no resolver, no service variables, no token",
    ),
    "files": Row(
        "reading what was not given: the host's files, by links, races, descriptors, `/proc`",
        "a root of its own with nothing of home, etc, run and var",
        "the same root behind a file server of its own",
        "the image's root; volumes by sub-path; no path of a node",
        "`/proc/self/mountinfo` shows host path names under bubblewrap",
    ),
    "writing": Row(
        "writing the data, the submission, the interpreter, the host",
        "read-only mounts, under the host's user without rights",
        "read-only for gVisor and, beneath it, for the host's kernel",
        "read-only root and staging volume",
    ),
    "tables": Row(
        "tables of the kernel: secrets, counters of what others do, one's own rights",
        "what tells of the machine is covered; `/proc` is read-only",
        "its own kernel has its own tables",
        "gVisor's or Kata's own kernel",
        "processor time and free memory under bubblewrap (see side channels)",
    ),
    "mounting": Row(
        "mounting, mounting again, taking away what covers a table",
        "no capability, no namespace, and the calls refused",
        SAME,
        "no capability; seccomp of the runtime; gVisor or Kata",
    ),
    "processes": Row(
        "seeing, signalling, tracing and outliving others",
        "a process namespace that ends with its first process; tracing refused",
        "its own kernel; the host sees one process tree, which ends whole",
        "a pod of one job; the runtime ends all of it",
        "whoever has an account on the host sees names and arguments of processes",
    ),
    "calls": Row(
        "calls into the deep parts of the kernel",
        "a list of allowed calls with the reason for each; all others do not exist",
        "the same list, and then a kernel in user space",
        "`RuntimeDefault` or your profile, and then gVisor or Kata",
        "bugs in allowed calls (bubblewrap), in gVisor's own host calls, in drivers of GPUs",
    ),
    "rights": Row(
        "capabilities, set-user-id programs, namespaces, other users",
        "a user without rights inside and out, `no_new_privs`, no second user namespace",
        "no capabilities, `noNewPrivileges`; gVisor's own users",
        "drop `ALL`, no escalation, fixed non-root user",
    ),
    "limits": Row(
        "more than one's share: memory, processes, time, disk, files, words; all at once",
        "control groups, sized file systems, clock and log of the runner",
        "the same around it; the kernel's own memory counts too",
        "requests equal limits, sized volumes, deadlines; `podPidsLimit` of the node",
        "memory bandwidth and caches are shared",
    ),
    "traces": Row(
        "variables, names and numbers of the host and its people",
        "an environment, a name and tables of its own",
        SAME,
        "`env -i` before the program",
        "the processor's model and the kernel's version",
    ),
    "inherited": Row(
        "files, directories and connections that the runner had open",
        "every descriptor but the named ones is closed",
        "the same, and gVisor hands on only the standard three",
        "another machine's process: nothing to inherit",
    ),
    "leaving": Row(
        "links, devices, odd names, holes, modes, times in what is left; links in the target",
        "after the last process is gone: plain files of declared names, by descriptor, bytes only",
        SAME,
        "a carrier of ours by the same rules, and then " + DOORS,
        "what the bytes themselves say: see below",
    ),
    "saying": Row(
        "exit codes, exceptions, prints, names, times, numbers and when they are sent",
        "of each only words of a table, rounded, seldom, and charged in bits",
        SAME,
        DOORS,
        "a few bits: which way it ended, in which ten seconds, at which line; charged or rounded",
    ),
    "submitting": Row(
        "submissions with links, devices, set-user-id files, compiled code, too much of anything",
        "refused with the file's name before anything runs; compiled code is left out",
        SAME,
        DOORS,
    ),
    "widening": Row(
        "manifests that ask for more than there is to give",
        "refused with the field's name; unknown words are errors",
        SAME,
        DOORS,
    ),
    "after": Row(
        "what an earlier job left: files, memory, queues, keys, listeners, read times",
        "file systems, IPC and network of each job go with it",
        SAME,
        "volumes of the pod go with it",
    ),
    "at once": Row(
        "another job at the same time: its files, sockets, processes, signals, reading",
        "nothing shared but read-only files",
        SAME,
        "pods; gVisor or Kata beneath",
    ),
    "locks": Row(
        "locks and wake-ups on what two jobs both have open",
        "**not stopped**: see below",
        "locks and wake-ups stay within its own kernel",
        "as gVisor; Kata's kernel has its own",
        "two jobs at once can talk under bubblewrap; nobody else is held up by it",
    ),
    "page cache": Row(
        "asking which pages or names of shared data another job has read",
        "the calls that tell it are refused or lose the flag that asks",
        SAME,
        "gVisor's and Kata's kernels do not answer for the host",
        "how long a read takes tells it still, on every backend",
    ),
    "runner": Row(
        "outliving a runner that is told to end, interrupted, killed, or stopped and killed",
        "a supervisor ends the sandbox when the runner is gone; a sweep removes the rest",
        SAME,
        "the Job has its own deadline; the next runner takes it up or deletes it",
    ),
}


def probes() -> Mapping[str, list[Attack]]:
    """Return every probe by its row."""
    found: defaultdict[str, list[Attack]] = defaultdict(list)
    for module in MODULES:
        for attack in module.ATTACKS:
            found[attack.row].append(attack)
    return found


def table() -> str:
    """Return the table in Markdown, and every probe's name below it."""
    found = probes()
    head = ["attack", "bubblewrap", "gVisor", "Kubernetes", "probes", "what remains"]
    rows = [head, ["---"] * len(head)]
    for key, row in ROWS.items():
        count = f"[{len(found[key])}](#every-probe)"
        rows.append([row.attack, row.bubblewrap, row.gvisor, row.kubernetes, count, row.remains])
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    total = sum(map(len, found.values()))
    bare = sum(attack.bare for attacks in found.values() for attack in attacks)
    parts = [
        f"{total} probes, each run on every backend that a machine has (`make verify-attacks`); "
        f"{bare} of them are first shown to succeed without a sandbox. The column of Kubernetes "
        "says what its manifests ask for: the probes have not run on a cluster yet.",
        "\n".join(lines),
        "### Every probe",
    ]
    for key, row in ROWS.items():
        names = "; ".join(
            f"**{attack.name}**" if attack.known else attack.name for attack in found[key]
        )
        parts.append(
            f"<details><summary>{row.attack}: {len(found[key])}</summary>\n\n{_plain(names)}\n\n"
            "</details>"
        )
    parts.append("Bold ones get through under bubblewrap, or everywhere, as the table says.")
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """Return text in which nothing but the bold is markup."""
    return text.replace("<", "&lt;").replace("|", "&#124;").replace("_", "\\_")
