"""Message files of the pages: ``python scripts/translations.py update|check``.

``update`` collects every marked string into the .po files (translations stay; those of strings
that are gone are dropped; a string that another file translates is filled in) and compiles them.
``check`` says what is missing, differs in its placeholders or is out of date; exit code 1.

Plain Python: xgettext and msgfmt are not on every machine that runs the tests.
"""

from __future__ import annotations

import ast
import contextlib
import re
import string
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[1]
LANGUAGE = "ko"
APPS = ("accounts", "audit", "catalog", "ingest", "access", "jobs", "releases")
# Templates of apps that are not called like their folder.
FOLDERS = {"accounts": ("accounts", "account", "mfa", "allauth")}
# The core has no Django; the portal translates its sentences.
SHARED = ("policies", "deid", "sandbox_runner", "portal/pages", "portal/voting")
ONE = {"_", "gettext", "gettext_lazy", "gettext_noop"}
TWO = {"ngettext", "ngettext_lazy"}
LITERAL = r"u?(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
CALL = re.compile(rf"\b(_|gettext|ngettext)\(\s*({LITERAL})\s*(?:,\s*({LITERAL}))?", re.S)
HEADER = (
    "Project-Id-Version: glovebox\n"
    f"Language: {LANGUAGE}\n"
    "MIME-Version: 1.0\n"
    "Content-Type: text/plain; charset=UTF-8\n"
    "Content-Transfer-Encoding: 8bit\n"
    "Plural-Forms: nplurals=1; plural=0;\n"
)


@dataclass
class Message:
    """One string, its plural where it has one, and its translation ("": none yet)."""

    text: str
    plural: str = ""
    translation: str = ""
    places: list[str] = field(default_factory=list)


Messages = dict[str, Message]


def catalogues() -> dict[Path, list[Path]]:
    """Return each .po file with the files whose strings it holds."""
    templates = ROOT / "portal" / "templates"
    shared = [path for name in SHARED for path in (ROOT / name).rglob("*.py")]
    shared += [*(ROOT / "portal").glob("*.py"), *templates.glob("*.html")]
    shared += [path for name in ("parts", "pages") for path in (templates / name).rglob("*.html")]
    found = {_po(ROOT / "portal"): sorted(shared)}
    for app in APPS:
        folder = ROOT / "portal" / app
        sources = [path for path in folder.rglob("*.py") if "migrations" not in path.parts]
        for name in FOLDERS.get(app, (app,)):
            sources += (templates / name).rglob("*.html")
        found[_po(folder)] = sorted(sources)
    return found


def _po(folder: Path) -> Path:
    return folder / "locale" / LANGUAGE / "LC_MESSAGES" / "django.po"


def marked(path: Path) -> Iterator[tuple[str, str]]:
    """Give every marked string of a file as (text, plural)."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        for match in CALL.finditer(templatize(source)):
            text, plural = (ast.literal_eval(part) if part else "" for part in match.groups()[1:])
            yield text, plural if match[1] == "ngettext" else ""
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            words = [part.value for part in node.args[:2] if isinstance(part, ast.Constant)]
            if name in ONE and words and isinstance(words[0], str) and words[0]:
                yield words[0], ""
            elif name in TWO and len(words) == 2:
                yield str(words[0]), str(words[1])


def collect(sources: Iterable[Path]) -> Messages:
    """Return the strings of some files, in their order."""
    found: Messages = {}
    for path in sources:
        place = path.relative_to(ROOT).as_posix()
        for text, plural in marked(path):
            message = found.setdefault(text, Message(text))
            message.plural = message.plural or plural
            if place not in message.places:
                message.places.append(place)
    return found


def read(path: Path) -> Messages:
    """Return the messages of a .po file, without its header."""
    found: Messages = {}
    if not path.exists():
        return found
    fields: dict[str, str] = {}
    name = ""
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if not line.strip() and fields:
            text = fields.get("msgid", "")
            if text:
                translation = fields.get("msgstr[0]", fields.get("msgstr", ""))
                found[text] = Message(text, fields.get("msgid_plural", ""), translation)
            fields = {}
        elif line.startswith('"'):
            fields[name] += ast.literal_eval(line)
        elif line.startswith("msg"):
            name, _space, value = line.partition(" ")
            fields[name] = ast.literal_eval(value)
    return found


def _quoted(name: str, value: str) -> list[str]:
    def quote(part: str) -> str:
        escaped = part.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'

    lines = value.splitlines(keepends=True)
    if len(lines) < 2:
        return [f"{name} {quote(value)}"]
    return [f'{name} ""', *(quote(line) for line in lines)]


def written(messages: Messages) -> str:
    """Return a .po file's text."""
    lines = [*_quoted("msgid", ""), *_quoted("msgstr", HEADER), ""]
    for message in messages.values():
        lines += [f"#: {place}" for place in message.places]
        lines += _quoted("msgid", message.text)
        if message.plural:
            lines += _quoted("msgid_plural", message.plural)
            lines += _quoted("msgstr[0]", message.translation)
        else:
            lines += _quoted("msgstr", message.translation)
        lines.append("")
    return "\n".join(lines)


def compiled(messages: Messages) -> bytes:
    """Return a .mo file's bytes (GNU gettext manual, section 10.3)."""
    pairs = {"": HEADER}
    for message in messages.values():
        if message.translation:
            key = f"{message.text}\0{message.plural}" if message.plural else message.text
            pairs[key] = message.translation
    rows = sorted((key.encode(), value.encode()) for key, value in pairs.items())
    start = 28 + 16 * len(rows)
    texts, table = b"", []
    for column in (0, 1):
        for row in rows:
            table.append(struct.pack("<II", len(row[column]), start + len(texts)))
            texts += row[column] + b"\0"
    head = struct.pack("<IIIIIII", 0x950412DE, 0, len(rows), 28, 28 + 8 * len(rows), 0, 0)
    return head + b"".join(table) + texts


def placeholders(text: str) -> set[str]:
    """Return the names that a string is filled with, in either style."""
    names = {f"%({name})" for name in re.findall(r"%\((\w+)\)", text)}
    with contextlib.suppress(ValueError):  # a lone brace: the string is never filled
        names |= {f"{{{name}}}" for _text, name, *_rest in string.Formatter().parse(text) if name}
    return names


def faults(path: Path, sources: Iterable[Path]) -> Iterator[str]:
    """Say what is wrong with one .po file and its .mo."""
    wanted, have = collect(sources), read(path)
    for text, message in wanted.items():
        translation = have[text].translation if text in have else ""
        if not translation:
            yield f"not translated: {text!r} ({message.places[0]})"
        elif placeholders(translation) != placeholders(message.plural or text):
            yield f"other placeholders: {text!r}"
    yield from (f"no longer used: {text!r}" for text in have if text not in wanted)
    mo = path.with_suffix(".mo")
    if not wanted and not path.exists():
        return
    if not mo.exists() or mo.read_bytes() != compiled(have):
        yield "the .mo file is not current"


def contradictions() -> Iterator[str]:
    """Say which string has different translations in different files: one of them never shows."""
    seen: dict[str, tuple[str, Path]] = {}
    for path in catalogues():
        for text, message in read(path).items():
            other = seen.setdefault(text, (message.translation, path))
            if message.translation and other[0] and other[0] != message.translation:
                yield f"{path.relative_to(ROOT)}: {text!r} is translated otherwise elsewhere"


def update() -> None:
    """Bring every .po and .mo up to date with the sources."""
    files = catalogues()
    known: dict[str, str] = {}
    for path in files:
        known.update({m.text: m.translation for m in read(path).values() if m.translation})
    for path, sources in files.items():
        wanted = collect(sources)
        have = read(path)
        for text, message in wanted.items():
            own = have[text].translation if text in have else ""
            message.translation = own or known.get(text, "")
        if not wanted:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written(wanted), encoding="utf-8")
        path.with_suffix(".mo").write_bytes(compiled(wanted))
        missing = sum(not message.translation for message in wanted.values())
        print(f"{path.relative_to(ROOT)}: {len(wanted)} strings, {missing} not translated")


def check() -> int:
    """Print every fault; return the exit code."""
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path, sources in catalogues().items()
        for fault in faults(path, sources)
    ]
    found += contradictions()
    print("\n".join(found) or "every string has its Korean")
    return 1 if found else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["update"]:
        update()
    elif sys.argv[1:] == ["check"]:
        sys.exit(check())
    else:
        sys.exit(__doc__)
