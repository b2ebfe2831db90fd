"""The documentation says what the code does: made pages, links, pictures, variables, names."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import make_docs  # noqa: E402 - a script, found by its folder

DOCS = ROOT / "docs"
PICTURES = DOCS / "pictures"
CODE = ("policies", "deid", "sandbox_runner", "bundle", "client", "synthetic", "demo", "portal")
ALSO_READING = ("scripts", "tests", "bench")
PEOPLE = (
    "applicant", "steward", "committee", "officer", "reviewer", "auditor", "administrator",
    "downloader",
)  # fmt: skip
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """Every page that people read, the made ones included."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(kept.strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", [name for name in make_docs.PAGES if name.endswith(".md")])
def test_a_made_page_is_what_the_code_makes(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == make_docs.PAGES[name](), "run make docs"


def test_the_api_s_description_is_what_the_portal_serves() -> None:
    assert (DOCS / "openapi.yaml").read_text(encoding="utf-8") == make_docs.openapi()


def test_the_conformance_page_has_every_row_of_the_table() -> None:
    text = (DOCS / "conformance.md").read_text(encoding="utf-8")

    rows = re.findall(r"^\| `(?:\([0-9A-FX]{4},[0-9A-FX]{4}\)|private)` \|", text, re.MULTILINE)

    assert len(rows) == 656


def test_the_command_s_page_has_every_command() -> None:
    import glovebox_cli

    text = make_docs.command_line()

    found = [" ".join(words) for words, *_ in make_docs._commands(glovebox_cli.build_parser(), ())]
    assert {"deid", "portal init", "sandbox run", "audit verify", "login"} <= set(found)
    assert all(f"## {words}\n" in text for words in found)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        inside = place.is_relative_to(ROOT)
        if not inside or not place.exists() or (anchor and anchor not in anchors(place)):
            dead.append(target)
    assert not dead


def shown() -> dict[Path, set[Path]]:
    """Each picture that a page shows, with the pages that show it."""
    found: dict[Path, set[Path]] = {}
    for page in pages():
        for _alt, target in PICTURE.findall(page.read_text(encoding="utf-8")):
            found.setdefault((page.parent / target).resolve(), set()).add(page)
    return found


def test_every_picture_is_shown_on_some_page() -> None:
    # Of one page in several forms (phone, dark, Korean) one shows what it is about.
    forms = re.compile(r"(-ko|-dark|-phone)+$")
    subjects = {forms.sub("", path.stem) for path in shown()}

    unseen = [
        path.name for path in PICTURES.glob("*.png") if forms.sub("", path.stem) not in subjects
    ]

    assert not sorted(unseen)


def test_a_picture_says_in_words_what_it_shows() -> None:
    mute = [
        f"{page.name}: {target}"
        for page in pages()
        for words, target in PICTURE.findall(page.read_text(encoding="utf-8"))
        if len(words.split()) < 3
    ]
    assert not mute


def variables_read(folder: Path) -> Iterator[str]:
    """Give each GLOVEBOX_ variable that the code of a folder reads from its environment."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in ("get", "getenv", "setdefault", "pop") and node.args:
                    yield from _named(node.args[0])
            elif isinstance(node, ast.Subscript):
                yield from _named(node.slice)


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and str(node.value).startswith("GLOVEBOX_"):
        yield str(node.value)


def documented() -> set[str]:
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(GLOVEBOX_[A-Z0-9_]+)`", text, re.MULTILINE))


def test_every_variable_that_is_read_is_in_operations() -> None:
    read = {name for room in CODE for name in variables_read(ROOT / room)}

    assert len(read) > 30
    assert not sorted(read - documented())


def test_operations_names_no_variable_that_nobody_reads() -> None:
    read = {name for room in (*CODE, *ALSO_READING) for name in variables_read(ROOT / room)}

    assert not sorted(documented() - read)


@pytest.mark.parametrize("name", PEOPLE)
def test_each_kind_of_person_has_a_page_that_the_readme_leads_to(name: str) -> None:
    assert (DOCS / "people" / f"{name}.md").is_file()
    assert f"docs/people/{name}.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_at_most_two_screens() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()

    assert len(lines) <= 90
    assert max(map(len, lines)) <= 200


def test_a_test_that_a_page_names_exists() -> None:
    """The threat model says which test shows what; such a name must not outlive its test."""
    known = {
        f"{path.relative_to(ROOT)}::{node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    files = {name.split("::")[0] for name in known}
    wrong = []
    for page in pages():
        for name in re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", page.read_text(encoding="utf-8")):
            if name not in known and name not in files:
                wrong.append(f"{page.name}: {name}")
    assert not wrong


def test_no_page_names_a_person() -> None:
    """Examples speak of roles and of example.org; nobody is invented."""
    addresses = {
        address
        for page in pages()
        for address in re.findall(r"[\w.+-]+@([\w-]+\.[\w.-]+)", page.read_text(encoding="utf-8"))
    }
    titled = [
        f"{page.name}: {found}"
        for page in pages()
        for found in re.findall(
            r"\b(?:Dr|Mr|Ms|Mrs|Prof)\.? [A-Z]\w+|\b(?:Alice|Bob|Carol|Eve|Mallory|Jane|John) \w+",
            page.read_text(encoding="utf-8"),
        )
    ]
    assert not {address for address in addresses if not address.rstrip(".").endswith("example.org")}
    assert not titled
