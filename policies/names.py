"""Names and paths that strangers write: what they may look like, and how a bad one is quoted."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

from policies.errors import Invalid, _

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", re.ASCII)
KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
BUILD = re.compile(r"[A-Za-z_]\w{0,63}(?:\.[A-Za-z_]\w{0,63}){0,8}:[A-Za-z_]\w{0,63}", re.ASCII)

# Most paths are of these: nothing in them needs a closer look.
_PLAIN_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?"
_PLAIN_PATH = re.compile(f"{_PLAIN_PART}(?:/{_PLAIN_PART})*", re.ASCII)

# Bidirectional overrides, joiners and private characters make a name read as another.
_TEXT_CATEGORIES = ("L", "N", "M")


def shown(text: object, length: int = 48) -> str:
    """Return ``text`` fit for a terminal or a page: bad characters as ``?``, cut at ``length``."""
    if not isinstance(text, str):
        return type(text).__name__
    clean = "".join(
        c if (c.isascii() and c.isprintable()) or unicodedata.category(c)[0] == "L" else "?"
        for c in text[: length + 1]
    )
    if not text:
        return "?"
    clean = re.sub(r"[<>&\"'`{}]", "?", clean)
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def meant(text: object, known: Iterable[str]) -> str | None:
    """Return the known word that ``text`` most resembles, or None."""
    words = [word for word in known if isinstance(word, str)]
    if not isinstance(text, str) or len(text) > 64:
        return None
    by_case = {word.casefold(): word for word in words}
    close = difflib.get_close_matches(text.casefold(), list(by_case), n=1, cutoff=0.6)
    return by_case[close[0]] if close else None


def unknown(what: str, text: object, known: Iterable[str], field: str, code: str) -> Invalid:
    """Return the error for an unknown word, with what was probably meant.

    ``what`` is a translatable sentence that holds ``{name}``.
    """
    words = list(known)
    guess = meant(text, words)
    if guess is not None:
        return Invalid(
            what + " " + _("Did you mean {guess}?"),
            field=field,
            code=code,
            name=shown(text),
            guess=shown(guess),
        )
    if words:
        few = ", ".join(shown(word) for word in sorted(words)[:12])
        return Invalid(
            what + " " + _("Known: {known}."), field=field, code=code, name=shown(text), known=few
        )
    return Invalid(what, field=field, code=code, name=shown(text))


def is_inert(text: str, *, lines: bool = False) -> bool:
    """Whether ``text`` has no control, formatting, private or unassigned character.

    With ``lines`` tabs and line feeds are allowed.
    """
    return all(
        unicodedata.category(c)[0] != "C" and unicodedata.category(c) not in ("Zl", "Zp")
        for c in text
        if not (lines and c in "\t\n")
    )


def check_title(text: object, field: str, length: int = 64) -> str:
    """Return a name for people (letters of any script, digits, spaces, ``. _ -``), or raise."""
    ok = (
        isinstance(text, str)
        and 0 < len(text) <= length
        and text == text.strip()
        and "  " not in text
        and unicodedata.normalize("NFC", text) == text
        and all(unicodedata.category(c)[0] in _TEXT_CATEGORIES or c in " ._-" for c in text)
        and unicodedata.category(text[0])[0] in ("L", "N")
    )
    if not ok:
        raise Invalid(
            _("A name has letters, digits, spaces, and . _ - and at most {length} of them."),
            field=field,
            code="name.title",
            length=length,
        )
    return str(text)


def check_path(text: object, field: str, *, length: int = 200, depth: int = 12) -> str:
    """Return a relative path that stays inside its directory, or raise Invalid.

    Refused: absolute and drive paths, ``..``, ``.``, empty and hidden parts, backslashes, control
    and look-alike characters, a leading ``-`` (it would read as an option), over-long names.
    """
    reason = path_fault(text, length=length, depth=depth)
    if reason is not None:
        raise Invalid(reason, field=field, code="name.path")
    return str(text)


def path_fault(text: object, *, length: int = 200, depth: int = 12) -> str | None:
    """Return the sentence that says what is wrong with a relative path, or None."""
    if not isinstance(text, str) or not text:
        return _("Write a path inside the submission, such as train.py.")
    if len(text) > length:
        return _("This path is too long.")
    if len(text) <= 255 and text.count("/") < depth and _PLAIN_PATH.fullmatch(text):
        return None
    if text.startswith("/") or "\\" in text or re.match(r"[A-Za-z]:", text):
        return _("A path must be relative, with / between its parts.")
    if not is_inert(text) or unicodedata.normalize("NFC", text) != text:
        return _("A path must not hold control, invisible or decomposed characters.")
    if any(
        not (c.isalnum() or unicodedata.category(c)[0] == "M" or c in "/ ._-+=@()") for c in text
    ):
        return _("A path has letters, digits, and the signs . _ - + = @ ( ) only.")
    parts = text.split("/")
    if len(parts) > depth:
        return _("This path is nested too deeply.")
    if ".." in parts or "." in parts or "" in parts:
        return _("A path must stay inside the submission, without empty, . or .. parts.")
    for part in parts:
        if part.startswith("."):
            return _("Hidden files are not accepted.")
        if part.startswith("-") or part != part.strip() or part.endswith("."):
            return _("A part of a path must not begin with - or end with a space or a dot.")
        if len(part.encode()) > 255:
            return _("This path is too long.")
    return None


def path_key(text: str) -> str:
    """Return the form in which two paths that a file system may confuse are equal."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
