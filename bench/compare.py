"""``python -m bench.compare``: Glovebox deid side by side with others' tools.

Runs every tool over the same files, a planted value in each hiding place and pydicom's own test
files, and writes the tables of docs/deid-comparison.md; the text around them is written by hand.
The others run in an environment of their own (``bench/peers.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import leaks, peers, retention
from bench.deid import ROOT, _readable_files
from policies.errors import CannotRun

PAGE = ROOT / "docs" / "deid-comparison.md"
BEGIN, END = "<!-- {name}: written by python -m bench.compare -->", "<!-- {name}: end -->"
OURS = ("glovebox", "glovebox-headers")
# As clean_kept.py names them, and as the page does.
TOOLS = {
    "glovebox": "Glovebox",
    "glovebox-headers": "Glovebox, headers only",
    "dicom-anonymizer": "dicom-anonymizer",
    "dicom-anonymizer-2026c": "dicom-anonymizer, 2026c",
    "dicognito": "dicognito",
    "deid": "deid",
    "deid-strict": "deid, strict",
    "pydicom": "(pydicom copies)",
}
NAME_SECRETS = ("hwangbo", "myunghee", "7712345k")


class Failed(RuntimeError):
    """A tool's process did not answer."""


def clean(tool: str, source: Path, target: Path, theirs: Path) -> dict[str, str]:
    """Run one tool over a folder; what became of each file."""
    ours = tool in OURS
    done = subprocess.run(
        [
            sys.executable if ours else str(theirs),
            # -P: the folder of the script is not searched, where bench.deid would hide a package.
            "-P", str(Path(__file__).with_name("clean_kept.py")), tool, str(source), str(target),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT) if ours else ""},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"{tool} ended with {done.returncode}: {done.stderr[-2000:]}")
    answers: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def names(folder: Path, theirs: Path) -> dict[str, str]:
    """Run each tool's own command on a file whose name says whose it is; does an output's?"""
    from synthetic import dicom_files

    source = folder / "HWANGBO MYUNGHEE"
    source.mkdir(parents=True)
    (source / "7712345K.dcm").write_bytes(dicom_files.written(dicom_files.base()))
    key = folder / "key"
    deid = [sys.executable, "-P", "-m", "deid"]
    commands: dict[str, list[str]] = {
        "glovebox": [*deid, "{in}", "{out}", "--key", str(key), "--report", str(folder / "r")],
        "dicom-anonymizer": [str(theirs.with_name("dicom-anonymizer")), "{in}", "{out}"],
        # Its installed command breaks off (its entrance is called without arguments).
        "dicognito": [str(theirs), "-P", "-m", "dicognito", "-q", "-o", "{out}", "{in}"],
        "deid": [
            str(theirs.with_name("deid")), "-o", "{out}", "identifiers", "-a", "all",
            "--input", "{in}",
        ],
    }  # fmt: skip
    found = {}
    subprocess.run(
        [*deid, "keygen", str(key)], check=True, env=_our_environment(), stderr=subprocess.DEVNULL
    )
    for tool, command in commands.items():
        out = folder / f"of {tool}"
        if tool != "glovebox":
            out.mkdir()
        filled = [part.replace("{in}", str(source)).replace("{out}", str(out)) for part in command]
        subprocess.run(
            filled,
            env=_our_environment() if tool in OURS else {**os.environ, "PYTHONPATH": ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        written = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
        tells = any(secret in path.lower() for path in written for secret in NAME_SECRETS)
        found[tool] = "failed" if not written else "LEAK" if tells else "gone"
    return found


def _our_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def measure_leaks(
    folder: Path, theirs: Path
) -> tuple[list[leaks.Place], dict[str, dict[str, str]]]:
    """Every place by every tool."""
    places = leaks.places()
    source = folder / "planted"
    source.mkdir()
    files = {each.name: f"{number:03d}.dcm" for number, each in enumerate(places)}
    for each in places:
        (source / files[each.name]).write_bytes(each.file)
    outcomes = {}
    for tool in TOOLS:
        target = folder / f"planted by {tool}"
        answers = clean(tool, source, target, theirs)
        outcomes[tool] = {
            each.name: leaks.outcome(each, answers[files[each.name]], target / files[each.name])
            for each in places
        }
        print(f"  leaks, {tool}: {dict(Counter(outcomes[tool].values()))}", flush=True)
    return places, outcomes


def measure_retention(
    folder: Path, theirs: Path
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, retention.Share]], int]:
    """pydicom's readable files by every tool; the shares over those that all tools wrote."""
    source = folder / "readable"
    _readable_files(source)
    answers = {}
    for tool in TOOLS:
        answers[tool] = clean(tool, source, folder / f"readable by {tool}", theirs)
        print(f"  retention, {tool}: {dict(Counter(answers[tool].values()))}", flush=True)
    common = [
        name
        for name in sorted(answers["glovebox"])
        if all(answers[tool][name] == "written" for tool in TOOLS)
    ]
    before = {name: (source / name).read_bytes() for name in common}
    shares = {}
    for tool in TOOLS:
        target = folder / f"readable by {tool}"
        after = {name: (target / name).read_bytes() for name in common}
        shares[tool] = retention.measure(before, after)
    return answers, shares, len(common)


def leak_tables(
    places: list[leaks.Place], outcomes: Mapping[str, Mapping[str, str]]
) -> tuple[str, str]:
    """The counts by group, and every place."""
    head = ["places with a planted value", "places", *TOOLS.values()]
    rows = []
    for group in (*leaks.GROUPS, None):
        chosen = [each for each in places if group in (None, each.group)]
        cells = [_counted(leaks.counts(outcomes[tool], chosen)) for tool in TOOLS]
        rows.append([group or "**all**", str(len(chosen)), *cells])
    every = []
    for group in leaks.GROUPS:
        for each in (each for each in places if each.group == group):
            every.append([words(each.name), group, *(outcomes[tool][each.name] for tool in TOOLS)])
    return _table(head, rows), _table(["place", "group", *TOOLS.values()], every)


def words(name: str) -> str:
    """The name of a place for readers."""
    return name.replace("_", " ")


def _counted(counts: Mapping[str, int]) -> str:
    more = [f"{counts[kind]} {kind}" for kind in ("held", "failed") if counts[kind]]
    return f"**{counts['LEAK']}**" + (f" ({', '.join(more)})" if more else "")


def retention_table(
    answers: Mapping[str, Mapping[str, str]],
    shares: Mapping[str, Mapping[str, retention.Share]],
    common: int,
) -> str:
    """What is left, by tool."""
    total = len(answers["glovebox"])
    written = [str(sum(each == "written" for each in answers[tool].values())) for tool in TOOLS]
    rows = [[f"files written, of {total}", "", *written]]
    for what, share in shares["glovebox"].items():
        cells = [
            # Where tools differ in what there is to compare, each says its own number.
            str(found) + ("" if found.all == share.all else f" of {found.all}")
            for found in (shares[tool][what] for tool in TOOLS)
        ]
        rows.append([what, f"{share.all:,}", *cells])
    held = Counter(each for each in answers["glovebox"].values() if each != "written")
    reasons = ", ".join(f"{count} {reason}" for reason, count in held.most_common())
    return (
        _table([f"over the {common} files that all wrote", "of", *TOOLS.values()], rows)
        + f"\n\nGlovebox did not write: {reasons}."
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def put(page: str, name: str, block: str) -> str:
    """The page with one marked block written anew."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise CannotRun(f"The page has no block {name} to write into.")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{block}\n\n{end}{after}"


def _leaks(folder: Path, theirs: Path) -> dict[str, str]:
    counted, every = leak_tables(*measure_leaks(folder, theirs))
    return {"leaks": counted, "places": every}


def _names(folder: Path, theirs: Path) -> dict[str, str]:
    found = names(folder / "names", theirs)
    return {"names": _table([TOOLS[tool] for tool in found], [list(found.values())])}


def _retention(folder: Path, theirs: Path) -> dict[str, str]:
    return {"retention": retention_table(*measure_retention(folder, theirs))}


PARTS: dict[str, Callable[[Path, Path], dict[str, str]]] = {
    "leaks": _leaks,
    "names": _names,
    "retention": _retention,
}


def main() -> int:
    """Measure and write the page; 3 where it could not run."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="the page to write")
    args = parser.parse_args()
    unknown = sorted(set(args.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    try:
        theirs = peers.python()
        for part in args.parts or PARTS:
            with tempfile.TemporaryDirectory(prefix="glovebox-compare-") as name:
                blocks = PARTS[part](Path(name), theirs)
            page = args.page.read_text(encoding="utf-8")
            for block, text in blocks.items():
                page = put(page, block, text)
            args.page.write_text(page, encoding="utf-8")
    except (CannotRun, Failed) as error:
        print(f"could not run: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
