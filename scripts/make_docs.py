"""Write the pages of docs/ that are made from the code: ``make docs``.

usage: make_docs.py [--check | --pages]

Without options the pages are written and the browser tests run with GLOVEBOX_PICTURES=1, which
takes every picture of docs/pictures anew (some minutes). ``--pages`` writes the pages alone.
``--check`` writes nothing and ends with 1 where a page is not what the code would make.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deid.dicom import plan
    from deid.profile import Profile

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MADE = "<!-- Made by `make docs`; change the code, not this page. -->"

STATE_WORDS: Mapping[str, str] = {
    "access_request": "Access request",
    "grant": "Grant",
    "dataset_version": "Dataset version",
    "job": "Job",
    "release": "Release",
}
# Each action of deid.dicom.plan as this page says it.
ACTION_WORDS: Mapping[str, str] = {
    "keep": "keep",
    "remove": "remove",
    "empty": "empty",
    "dummy": "dummy",
    "uid": "new UID",
    "date": "date",
    "text": "clean text",
    "age": "age",
    "code": "code",
    "code-value": "code",
    "scheme": "code",
    "pseudonym": "pseudonym",
    "constant": "constant",
    "items": "clean items",
    "content": "clean nodes",
    "layer": "new name",
}
NOWHERE = "remove (no IOD)"
HELD = "file held"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def states() -> str:
    """Return docs/states.md: a diagram and a table for each state machine."""
    from policies.workflow import MACHINES, diagram

    parts = [
        "# States",
        MADE,
        "Each machine is one table in `policies/workflow.py`; nothing moves in any other way. A "
        "state has one owner, who must move it on. *System* is the portal itself: a worker, beat, "
        "or the last vote that decided.",
    ]
    for machine in MACHINES.values():
        title = STATE_WORDS[machine.name]
        owners = [
            [state.replace("_", " "), owner, "final" if state in machine.final_states else ""]
            for state, owner in machine.owners.items()
        ]
        steps = [
            [part.replace("_", " ") for part in (step.state, step.action, step.actor, step.next)]
            for step in machine.transitions
        ]
        parts += [
            f"## {title}",
            f"```mermaid\n{diagram(machine)}```",
            table(["state", "owner", ""], owners),
            f"<details><summary>Every step of: {title.lower()}</summary>",
            table(["from", "action", "by", "to"], steps),
            "</details>",
        ]
    return "\n\n".join(parts) + "\n"


def conformance() -> str:
    """Return docs/conformance.md: what each shipped profile does to each row of Table E.1-1."""
    from deid.dicom import plan
    from deid.profile import OPTION_CODES, load, shipped

    profiles = [load(name) for name in shipped()]
    kinds = [reach(profile) for profile in profiles]
    rows, counts = [], dict.fromkeys((profile.name for profile in profiles), 0)
    for row in plan.table().values():
        cells = []
        for profile, types in zip(profiles, kinds, strict=True):
            cell = effect(row.tag, types.get(row.tag, {}), profile)
            counts[profile.name] += cell not in ("remove", NOWHERE, HELD)
            cells.append(cell)
        rows.append([f"`{_tag(row.tag)}`", row.keyword, row.basic, *cells])
    chosen = [
        [f"`{option}`", f"{code} {meaning}"]
        + ["yes" if profile.has(option) else "" for profile in profiles]
        for option, (code, meaning) in OPTION_CODES.items()
    ]
    names = [f"`{profile.name}`" for profile in profiles]
    return (
        "\n\n".join(
            [
                "# What is done to each attribute",
                MADE,
                "What the shipped profiles of `glovebox deid` do to each row of PS3.15 Table "
                f"E.1-1 ({len(rows)} rows, edition of `deid/dicom/table_e1_1.csv`). The cells come "
                "from the function that the cleaner itself calls (`deid.dicom.plan.rule_for`).",
                "An attribute stands in the output only if the IOD of its SOP class, or the "
                "sequence that it stands in, defines it (PS3.3); whatever else a file carries is "
                f"removed first. *{NOWHERE}* marks attributes that no IOD of the maps defines, so "
                "they never stay. Where the action depends on the attribute's type in its module, "
                "each is named: 1 (needs a value), 2 (may be empty), 3 (may be absent). A test "
                "reads this page, plants a value for every cell and looks at what the cleaner "
                "writes (`tests/deid/test_conformance.py`).",
                "Afterwards every file gets, whatever the profile: the SOP class, a SOP Instance "
                "UID, the patient's pseudonym as Patient ID (and as Patient's Name unless the "
                "profile has a keep-list), the attributes that say how it was de-identified "
                "(PS3.15 E.1.1), and this program in the Contributing Equipment Sequence.",
                table(
                    ["word", "what is done"],
                    [
                        ["remove", "the attribute goes (X), or the sequence that it stands in"],
                        [HELD, "it stands only in files that the profile quarantines whole"],
                        ["empty", "the attribute stays without a value (Z)"],
                        ["dummy", "a fixed value of its VR that says nothing (D)"],
                        ["new UID", "a keyed UID under 2.25, the same for the same UID (U)"],
                        [
                            "pseudonym",
                            "a keyed pseudonym, the same for the same value; the numbers and names "
                            "of patients all become the one of the file's patient",
                        ],
                        [
                            "date",
                            "moved by the patient's one shift of whole days; times of day stay (C)",
                        ],
                        ["clean text", "words outside the clinical vocabulary go (C)"],
                        ["age", "kept up to 89; above that one group (C)"],
                        ["code", "kept where it has the form of a code"],
                        ["clean items", "a sequence whose items are cleaned by these same rules"],
                        [
                            "clean nodes",
                            "content items: each is cleaned by its value type, or goes (C)",
                        ],
                        ["new name", "a name that only links parts of one file"],
                        ["constant", "one value for everybody, named in the profile"],
                        ["keep", "the value stands, if it is a valid value of its VR (K)"],
                    ],
                ),
                "## Options of each profile",
                table(["option", "code and meaning", *names], chosen),
                "*Clean Pixel Data* masks text in the picture, what lies outside of the regions "
                "that an ultrasound device declares, and the banners of known devices "
                "(`[regions]`, [decision 17](adr/0017-pixels-in-batches-and-without-loss.md)); no "
                "text is kept. *Clean Recognizable Visual Features* masks faces in photographs; "
                "DICOM volumes of the head are held for a person instead (`head_volumes`), "
                "volumes that do not say which part of the body "
                "they show are always in the officer's sample, and DICOM files do not claim the "
                "option.",
                "*Clean Structured Content* takes structured reports and key object selections "
                "apart node by node (`deid/dicom/content.py`): a node stays if its value type, its "
                "relationship, its code and its value are understood, and goes with all below it "
                "otherwise; codes stay only of public schemes, with the dictionary's meaning; "
                "names of persons go, or are *Anonymous* where the template wants one; what says "
                "who, when or where follows the rule of the attribute that says it in a header. A "
                "verified report keeps one observer without a name for each that it had. A tree "
                "that would not stand without what goes (a private title, an unknown modifier of "
                "the whole) is quarantined. *Clean Graphics* does the same for softcopy "
                "presentation states (`deid/dicom/graphics.py`): words are cleaned, lines stay as "
                "numbers, and a file with lines that may be handwriting goes to a person. Overlays "
                "and curves are removed with the option too, because bitmaps and samples cannot be "
                "cleaned of words here. Without the options those files are quarantined, and "
                "waveforms, volumetric presentation states and encapsulated documents always are.",
                "## Rows",
                "Not removed outright: "
                + ", ".join(f"{count} by `{name}`" for name, count in counts.items())
                + ".",
                "Gone whatever an option would keep: "
                + ", ".join(row.keyword for row in plan.table().values() if _never(row))
                + ".",
                table(["tag", "keyword", "basic", *names], rows),
            ]
        )
        + "\n"
    )


def _never(row: plan.Row) -> bool:
    """Whether a row's options change nothing, because the attribute or all around it goes."""
    from deid.dicom import plan

    if not row.options or "X" in row.tag:
        return False
    # The item that says who contributed is written anew.
    return int(row.tag, 16) in plan.ALWAYS_GONE or row.keyword.startswith("Contribution")


def reach(profile: Profile) -> Mapping[str, Mapping[str, str]]:
    """Return where an attribute of each type (1, 2, 3) may stand under a profile, by tag.

    The answers: ``open`` (the rules decide), ``nodes`` (only in content items), ``closed`` (only
    in sequences that go), ``held`` (only in files that are quarantined), ``observer`` (reports
    keep its items where the table empties it). The freest one counts.
    """
    from deid.dicom import clean, content, plan

    iods, rules = plan._iods(), plan.Plan(profile)
    found: dict[str, dict[str, str]] = {}
    seen: set[tuple[int, str]] = set()

    def table_rule(tag: int, kind: str) -> plan.Rule:
        return plan.rule_for(tag, kind, profile)

    def visit(kinds: Iterable[tuple[int, str]], how: str, kept: Mapping[int, plan.Rule]) -> None:
        deeper = []
        for tag, kind in kinds:
            here = "closed" if how == "nodes" and tag not in content.own_tags() else how
            types = found.setdefault(f"{tag:08X}", {})
            if here == "open" and tag in kept and kept[tag].action != table_rule(tag, kind).action:
                here = "observer"
            types[kind[0]] = min(here, types.get(kind[0], here), key=REACH.index)
            if f"{tag:08X}" in iods.sequences:
                inner = here
                if here in ("open", "observer"):
                    action = kept[tag].action if tag in kept else ""
                    inner = {"items": "open", "content": "nodes"}.get(action, "closed")
                elif here == "nodes" and tag != content.CONTENT:
                    inner = "open" if tag == content.REFERENCED else "closed"
                deeper.append((tag, inner))
        for tag, inner in deeper:
            if (tag, inner) not in seen:
                seen.add((tag, inner))
                packed = iods.sequences[f"{tag:08X}"]
                visit(plan._unpacked(packed), inner, rules.inside(tag))

    for sop_class, iod in iods.sop_classes.items():
        types: dict[int, str] = dict.fromkeys(plan.ALSO_TOP, "3")
        for module in iods.iods[iod]:
            for tag, kind in plan._unpacked(iods.modules.get(module, {})):
                types[tag] = min(kind, types.get(tag, kind))
        how = "held" if clean.held_whole(sop_class, profile) else "open"
        top: Mapping[int, plan.Rule] = rules.top(sop_class)
        report = content.is_report(sop_class) and how == "open"
        nodes = {tag for tag in types if report and tag in content.own_tags()}
        if report:
            top = content.rules_beside(top)
        visit(((tag, kind) for tag, kind in types.items() if tag not in nodes), how, top)
        visit(((tag, kind) for tag, kind in types.items() if tag in nodes), "nodes", top)
    return found


REACH = ("observer", "open", "nodes", "closed", "held")


def effect(tag: str, kinds: Mapping[str, str], profile: Profile) -> str:
    """Return what a profile does to one row, in words; by type where it differs."""
    from deid.dicom import plan

    if tag == "PRIVATE":
        return "keep the safe list" if profile.has("retain_safe_private") else "remove"
    if "X" in tag:  # a repeating group: curves, overlays
        return ACTION_WORDS[plan.rule_for(int(tag.replace("X", "0"), 16), "3", profile).action]
    if tag == "00020003":
        return "new UID"  # the file meta information is written anew from the cleaned data set
    if not kinds:
        return NOWHERE
    closed = {
        "observer": f"{ACTION_WORDS['empty']}, in reports {ACTION_WORDS['items']}",
        "nodes": ACTION_WORDS["content"],
        "closed": ACTION_WORDS["remove"],
        "held": HELD,
    }
    by_kind = {
        kind: closed.get(how) or ACTION_WORDS[plan.rule_for(int(tag, 16), kind, profile).action]
        for kind, how in sorted(kinds.items())
    }
    if len(set(by_kind.values())) == 1:
        return next(iter(by_kind.values()))
    merged: dict[str, list[str]] = {}
    for kind, word in by_kind.items():
        merged.setdefault(word, []).append(kind)
    return "; ".join(f"{word} ({', '.join(which)})" for word, which in merged.items())


def _tag(tag: str) -> str:
    return f"({tag[:4]},{tag[4:]})" if len(tag) == 8 else tag.lower()


def command_line() -> str:
    """Return docs/cli.md: every command with its arguments, from the parsers themselves."""
    import glovebox_cli

    parts = [
        "# The command line",
        MADE,
        "`.venv/bin/glovebox COMMAND`. Exit codes: 0 held or done, 1 ran and found something "
        "against the rules, 2 wrong use, 3 could not run. With `--json` one JSON document goes to "
        "standard output and people's words to standard error. Commands of a room whose packages "
        "are not installed are left out. [operations.md](operations.md) says which variables of "
        "the environment the commands read.",
    ]
    for words, parser, summary in _commands(glovebox_cli.build_parser(), ()):
        usage = parser.usage or _usage(words, parser)
        parts += [f"## {' '.join(words)}", f"{_sentence(summary)}", f"```\n{usage}\n```"]
        rows = [
            [f"`{_name(action)}`", _help(action)]
            for action in parser._actions
            if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
        ]
        if rows:
            parts.append(table(["argument", "meaning"], rows))
    return "\n\n".join(parts) + "\n"


def _commands(
    parser: argparse.ArgumentParser, words: tuple[str, ...], summary: str = ""
) -> Iterable[tuple[tuple[str, ...], argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, child in action.choices.items():
                yield from _commands(child, (*words, name), helps.get(name, ""))
            return
    yield words, parser, summary


def _usage(words: tuple[str, ...], parser: argparse.ArgumentParser) -> str:
    """Return one usage line; argparse's own breaks lines differently in each Python."""
    given = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    needed = [a for a in given if a.required and a.option_strings]
    places = [a for a in given if not a.option_strings]
    line = ["glovebox", *words]
    line += [f"[{_name(a)}]" if a.nargs == "?" else _name(a) for a in places]
    line += [_name(a) for a in needed]
    if any(a.option_strings and not a.required for a in given):
        line.append("[options]")
    return " ".join(line)


def _name(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if not metavar and action.choices:
        metavar = "|".join(map(str, action.choices))
    if not action.option_strings:
        return metavar or action.dest.upper()
    if action.nargs == 0:
        return action.option_strings[-1]
    return f"{action.option_strings[-1]} {metavar or action.dest.upper()}"


def _help(action: argparse.Action) -> str:
    words = action.help or ""
    if isinstance(action, argparse._AppendAction):
        words = f"{words}; may be given more than once".removeprefix("; ")
    # The number of processors of whoever ran this is nobody else's default.
    if action.dest == "workers":
        words += "how many processes; default: one a processor"
    elif "default" not in words and not isinstance(action.default, bool | list | None):
        words = (
            f"{words}; default: {action.default}".removeprefix("; ") if action.default else words
        )
    if action.required and action.option_strings:
        words = f"{words}; needed".removeprefix("; ")
    return words


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."


def openapi() -> str:
    """Return docs/openapi.yaml, as the portal serves it at /api/schema/."""
    _django()
    from django.utils import translation
    from drf_spectacular.drainage import GENERATOR_STATS
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.renderers import OpenApiYamlRenderer
    from drf_spectacular.validation import validate_schema

    with translation.override("en"), GENERATOR_STATS.silence():
        schema = SchemaGenerator().get_schema(request=None, public=True)
    validate_schema(schema)
    text: str = OpenApiYamlRenderer().render(schema, renderer_context={}).decode()
    return text


def openapi_complaints() -> list[str]:
    """Return what drf-spectacular warns of while it makes the document."""
    _django()
    from drf_spectacular.drainage import GENERATOR_STATS
    from drf_spectacular.generators import SchemaGenerator

    GENERATOR_STATS.reset()
    with GENERATOR_STATS.silence():
        SchemaGenerator().get_schema(request=None, public=True)
    found = [*GENERATOR_STATS._warn_cache, *GENERATOR_STATS._error_cache]
    GENERATOR_STATS.reset()
    return sorted(map(str, found))


def _django() -> None:
    """Load the portal once, in a folder that is thrown away: nothing is read from any portal."""
    from django.apps import apps
    from django.conf import settings

    if settings.configured and apps.ready:
        return
    folder = tempfile.mkdtemp(prefix="glovebox-docs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(
        GLOVEBOX_HOME=f"{folder}/data",
        GLOVEBOX_KEYS=f"{folder}/keys",
        DJANGO_SETTINGS_MODULE="portal.settings",
    )
    import django

    django.setup()


def threat_model() -> str:
    """Return docs/threat-model.md with the table of attacks as the probes have it."""
    from tests.attacks import rows

    page = (DOCS / "threat-model.md").read_text(encoding="utf-8")
    before, begin, rest = page.partition("<!-- Made by `make docs` from tests/attacks/rows.py: -->")
    _, end, after = rest.partition("<!-- End of what was made. -->")
    if not begin or not end:
        raise SystemExit("docs/threat-model.md has lost the marks around its table of attacks")
    return f"{before}{begin}\n\n{rows.table()}\n\n{end}{after}"


PAGES: Mapping[str, Callable[[], str]] = {
    "threat-model.md": threat_model,
    "states.md": states,
    "conformance.md": conformance,
    "cli.md": command_line,
    "openapi.yaml": openapi,
}


def stale() -> list[str]:
    """Return the pages that are not what the code would make."""
    return [
        name
        for name, make in PAGES.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != make()
    ]


def take_pictures() -> int:
    """Run the browser tests so that they write docs/pictures; return pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "browser", "tests/browser"]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"GLOVEBOX_PICTURES": "1"}, check=False
    ).returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description="Write the pages of docs/ made from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where one is stale")
    parser.add_argument("--pages", action="store_true", help="take no pictures")
    args = parser.parse_args(argv)
    if args.check:
        found = stale()
        for name in found:
            print(f"docs/{name} is not what the code makes; run make docs", file=sys.stderr)
        return 1 if found else 0
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
        print(f"docs/{name}")
    for complaint in openapi_complaints():
        print(f"openapi: {complaint}", file=sys.stderr)
    return 0 if args.pages else take_pictures()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
