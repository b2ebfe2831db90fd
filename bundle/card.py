"""The model card, as Markdown and as HTML. Every value in it is inert text."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bundle import members
from policies.errors import Invalid

#: The sections of a card in their order: key of the facts, heading.
SECTIONS = (
    ("summary", "Summary"),
    ("intended_use", "Intended use"),
    ("out_of_scope", "Not for"),
    ("data", "Training data"),
    ("training", "Training"),
    ("evaluation", "Evaluation by the platform"),
    ("weights", "Weights"),
    ("metrics", "Metrics declared by the applicant"),
    ("findings", "Inspection"),
    ("privacy", "Privacy"),
    ("limits", "Limits"),
    ("licence", "Licence"),
    ("contact", "Contact"),
)
TITLE = "title"
PICTURE = "Measured on the sealed split: value, 95 % interval and target; reported curves below."

NO_PROOF = (
    "No inspection proves that a model holds nothing of its training data. Allow-lists and budgets "
    "bound what can leave, scans raise the cost of hiding it, and differential privacy, where it "
    "is stated, limits it."
)

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c2733;background:#fff}h1,h2{line-height:1.2}table{border-collapse:collapse;"
    "width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;"
    "border-bottom:1px solid #d5dde5;overflow-wrap:anywhere}th{font-weight:600}"
    "figure{margin:1rem 0}figure svg{max-width:100%;height:auto}figcaption{color:#51606e}"
)
_MARKDOWN_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>@:])")

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _text(value: object) -> str:
    """Return one line of printable text."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{_text(k)}: {_text(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(item) for item in value)
    words = " ".join(str(value).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)


def _label(key: object) -> str:
    return _text(str(key).replace("_", " "))


def _table(value: object) -> Table | None:
    """Return headings and rows of a mapping or of a list of mappings; None for plain text."""
    if isinstance(value, Mapping):
        return (("", ""), [(_label(k), _text(v)) for k, v in value.items()])
    if isinstance(value, Sequence) and value and all(isinstance(row, Mapping) for row in value):
        columns = list(dict.fromkeys(str(key) for row in value for key in row))
        rows = [tuple(_text(row[c]) if c in row else "" for c in columns) for row in value]
        return (tuple(_label(c) for c in columns), rows)
    return None


def _lines(value: object) -> list[str]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_text(item) for item in value]
    return [_text(value)]


def check(facts: Mapping[str, Any]) -> None:
    """Raise Invalid, naming the key, for facts that are not a section of a card."""
    for key in facts:
        if key != TITLE and key not in dict(SECTIONS):
            raise Invalid("A model card has no section {key}.", field=f"model_card.{key}", key=key)


def escape_markdown(text: str) -> str:
    """Return text in which neither Markdown nor HTML means anything, and no link is made."""
    marked = _MARKDOWN_MARKS.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    return marked.replace("www\\.", "www&#46;")


def markdown(facts: Mapping[str, Any], *, pictured: bool = False) -> str:
    """Return the card as CommonMark with tables; ``pictured``: the picture lies beside it."""
    check(facts)
    out = [f"# {escape_markdown(_text(facts.get(TITLE, 'Model')))}", ""]
    if pictured:
        out += [f"![{PICTURE}]({members.CARD_PICTURE})", ""]
    for key, heading in SECTIONS:
        value = facts.get(key)
        if value in (None, "", [], {}, ()):
            continue
        out += [f"## {heading}", ""]
        table = _table(value)
        if table is None:
            lines = [escape_markdown(line) for line in _lines(value)]
            out += [f"- {line}" for line in lines] if len(lines) > 1 else lines
        else:
            names, rows = table
            out.append("| " + " | ".join(escape_markdown(name) for name in names) + " |")
            out.append("|" + " --- |" * len(names))
            out += ["| " + " | ".join(escape_markdown(c) for c in row) + " |" for row in rows]
        out.append("")
    return "\n".join([*out, f"> {NO_PROOF}", ""])


def page(facts: Mapping[str, Any], picture: str = "") -> str:
    """Return the card as one HTML page: no script, no link, nothing fetched.

    ``picture`` is what :func:`bundle.pictures.svg` drew.
    """
    check(facts)
    title = html.escape(_text(facts.get(TITLE, "Model")))
    out = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main><h1>{title}</h1>",
    ]
    if picture:
        out.append(f"<figure>{picture}<figcaption>{PICTURE}</figcaption></figure>")
    for key, heading in SECTIONS:
        value = facts.get(key)
        if value in (None, "", [], {}, ()):
            continue
        out.append(f"<h2>{heading}</h2>")
        table = _table(value)
        if table is None:
            lines = [html.escape(line) for line in _lines(value)]
            if len(lines) > 1:
                out.append("<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>")
            else:
                out.append(f"<p>{lines[0]}</p>")
            continue
        names, rows = table
        out.append("<table>")
        if any(names):
            heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
            out.append(f"<thead><tr>{heads}</tr></thead>")
        out.append("<tbody>")
        for row in rows:
            first = f'<th scope="row">{html.escape(row[0])}</th>'
            rest = "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
            out.append(f"<tr>{first}{rest}</tr>")
        out.append("</tbody></table>")
    return "\n".join([*out, f"<p><em>{html.escape(NO_PROOF)}</em></p></main></body></html>", ""])
