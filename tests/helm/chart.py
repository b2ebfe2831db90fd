"""Render the chart without Helm: exactly the part of its template language that the chart uses.

Helm is in neither Debian 12 nor PyPI's well-kept packages, and tests must run without a network.
This reader is stricter than Helm and never more lenient: an unknown function, a missing value that
would be printed, an unclosed block or a non-list to walk is an error here. What it knows:

* actions with trim marks, comments, ``define``, ``include``, ``if``/``else if``/``else``,
  ``range`` (with one or two variables), ``with``, variables, parentheses, pipelines;
* the functions of FUNCTIONS; maps are walked in the order of their keys, as Go does.

``test_chart.py`` compares it with the real ``helm template`` where there is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "glovebox"

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+)|(?P<path>\$?[A-Za-z_]*(?:\.[A-Za-z_]\w*)+"""
    r"""|\$\w*|\.)|(?P<word>[A-Za-z]\w*)|(?P<sign>:=|=|\||\(|\)|,))"""
)


class TemplateError(Exception):
    """The template, or the values given to it, are wrong."""


@dataclass
class Node:
    """A piece of a template: text, an expression, or a block with its branches."""

    kind: str
    value: str = ""
    #: (condition or what is walked, body); the last of an if may have the condition "".
    branches: list[tuple[str, list[Node]]] = field(default_factory=list)


def _pieces(source: str) -> Iterator[tuple[str, str]]:
    at, trim = 0, False
    for found in _ACTION.finditer(source):
        text = source[at : found.start()]
        text = text.lstrip() if trim else text
        yield "text", text.rstrip() if found[1] else text
        yield "action", found[2].strip()
        at, trim = found.end(), bool(found[3])
    yield "text", source[at:].lstrip() if trim else source[at:]


def parse(source: str) -> list[Node]:
    """Return the nodes of a template. Raises TemplateError."""
    root: list[Node] = []
    stack: list[tuple[Node, list[Node]]] = []
    body = root
    for kind, text in _pieces(source):
        word, _, rest = text.partition(" ")
        if kind == "text":
            if "{{" in text or "}}" in text:
                raise TemplateError(f"unclosed action in {text!r}")
            body.append(Node("text", text))
        elif text.startswith("/*"):
            continue
        elif word in ("if", "range", "with", "define"):
            node = Node(word, branches=[(rest.strip(), [])])
            body.append(node)
            stack.append((node, body))
            body = node.branches[0][1]
        elif word == "else":
            if not stack or stack[-1][0].kind != "if":
                raise TemplateError("else without if")
            condition = rest.strip().removeprefix("if ") if rest else ""
            stack[-1][0].branches.append((condition, []))
            body = stack[-1][0].branches[-1][1]
        elif word == "end":
            if not stack:
                raise TemplateError("end without a block")
            body = stack.pop()[1]
        else:
            body.append(Node("print", text))
    if stack:
        raise TemplateError(f"{stack[-1][0].kind} without end")
    return root


def _quote(value: Any) -> str:
    return json.dumps(_text(value), ensure_ascii=False)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, str)):
        return str(value)
    raise TemplateError(f"cannot print {type(value).__name__}")


def _to_yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=False, sort_keys=True)).rstrip("\n")


def _to_json(value: Any) -> str:
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # As Go's encoder does, so that JSON is safe inside HTML.
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _required(message: str, value: Any) -> Any:
    if value is None or value == "":
        raise TemplateError(message)
    return value


def _dict(*items: Any) -> dict[str, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "append": lambda items, item: [*items, item],
    "dict": _dict,
    "first": lambda items: items[0],
    "int": int,
    "list": lambda *items: list(items),
    "nindent": lambda width, text: "\n" + "\n".join(" " * width + x for x in text.split("\n")),
    "not": lambda value: not value,
    "quote": _quote,
    "required": _required,
    "splitList": lambda separator, text: text.split(separator),
    "squote": lambda value: "'" + _text(value) + "'",
    "toJson": _to_json,
    "toYaml": _to_yaml,
    "trimPrefix": lambda prefix, text: text.removeprefix(prefix),
    "trimSuffix": lambda suffix, text: text.removesuffix(suffix),
    "trunc": lambda width, text: text[:width],
}


class Renderer:
    """Holds the named templates of a chart and renders against one context."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        self.context = context
        self.named: dict[str, list[Node]] = {}

    def define(self, nodes: list[Node]) -> None:
        for node in nodes:
            if node.kind == "define":
                name = json.loads(node.branches[0][0])
                if name in self.named:
                    raise TemplateError(f"{name} is defined twice")
                self.named[name] = node.branches[0][1]

    def render(self, nodes: list[Node], dot: Any, variables: dict[str, Any]) -> str:
        """Return the text of nodes; ``variables`` of a block end with it, assignments do not."""
        return "".join(self._node(node, dot, variables) for node in nodes)

    def _node(self, node: Node, dot: Any, variables: dict[str, Any]) -> str:
        if node.kind == "text":
            return node.value
        if node.kind == "define":
            return ""
        if node.kind == "print":
            return self._print(node.value, dot, variables)
        condition, body = node.branches[0]
        if node.kind == "if":
            for condition, body in node.branches:
                if not condition or self.evaluate(condition, dot, variables):
                    return self._block(body, dot, variables, {})
            return ""
        if node.kind == "with":
            value = self.evaluate(condition, dot, variables)
            return self._block(body, value, variables, {}) if value else ""
        return self._range(condition, body, dot, variables)

    def _block(self, body: list[Node], dot: Any, outer: dict[str, Any], own: dict[str, Any]) -> str:
        inner = {**outer, **own}
        text = self.render(body, dot, inner)
        # What was assigned with = belongs to the block that declared it.
        outer.update({name: inner[name] for name in outer if name not in own})
        return text

    def _range(self, head: str, body: list[Node], dot: Any, variables: dict[str, Any]) -> str:
        names: list[str] = []
        if ":=" in head:
            left, head = head.split(":=", 1)
            names = [name.strip() for name in left.split(",")]
        walked = self.evaluate(head, dot, variables)
        if walked is None:
            return ""
        if isinstance(walked, dict):
            pairs: list[tuple[Any, Any]] = sorted(walked.items())
        elif isinstance(walked, list):
            pairs = list(enumerate(walked))
        else:
            raise TemplateError(f"range over {type(walked).__name__}")
        out = ""
        for key, value in pairs:
            own = dict(
                zip(names, (key, value) if len(names) == 2 else (value,), strict=bool(names))
            )
            out += self._block(body, value, variables, own)
        return out

    def _print(self, text: str, dot: Any, variables: dict[str, Any]) -> str:
        assigned = re.fullmatch(r"(\$\w+)\s*(:?=)\s*(.*)", text, re.DOTALL)
        if assigned:
            if assigned[2] == "=" and assigned[1] not in variables:
                raise TemplateError(f"{assigned[1]} is not declared")
            variables[assigned[1]] = self.evaluate(assigned[3], dot, variables)
            return ""
        return _text(self.evaluate(text, dot, variables))

    def evaluate(self, text: str, dot: Any, variables: dict[str, Any]) -> Any:
        """Return the value of a pipeline. Raises TemplateError."""
        tokens, at = [], 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise TemplateError(f"cannot read {text[at:]!r}")
            tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        value = self._pipeline(tokens, dot, variables)
        if tokens:
            raise TemplateError(f"left over in {text!r}")
        return value

    def _pipeline(self, tokens: list[tuple[str, str]], dot: Any, variables: dict[str, Any]) -> Any:
        value = self._command(tokens, dot, variables, ())
        while tokens and tokens[0] == ("sign", "|"):
            tokens.pop(0)
            value = self._command(tokens, dot, variables, (value,))
        return value

    def _command(
        self,
        tokens: list[tuple[str, str]],
        dot: Any,
        variables: dict[str, Any],
        last: tuple[Any, ...],
    ) -> Any:
        if not tokens:
            raise TemplateError("an empty command")
        kind, word = tokens[0]
        if kind != "word" or word in ("true", "false"):
            if last:
                raise TemplateError(f"cannot pipe into {word}")
            return self._term(tokens, dot, variables)
        tokens.pop(0)
        arguments = []
        while tokens and tokens[0] not in (("sign", "|"), ("sign", ")")):
            arguments.append(self._term(tokens, dot, variables))
        if word == "include":
            name, context = (*arguments, *last)
            if name not in self.named:
                raise TemplateError(f"no template {name}")
            return self.render(self.named[name], context, {"$": context})
        if word not in FUNCTIONS:
            raise TemplateError(f"unknown function {word}")
        return FUNCTIONS[word](*arguments, *last)

    def _term(self, tokens: list[tuple[str, str]], dot: Any, variables: dict[str, Any]) -> Any:
        kind, text = tokens.pop(0)
        if kind == "string":
            return json.loads(text)
        if kind == "number":
            return int(text)
        if kind == "path":
            return self._path(text, dot, variables)
        if (kind, text) == ("sign", "("):
            value = self._pipeline(tokens, dot, variables)
            if not tokens or tokens.pop(0) != ("sign", ")"):
                raise TemplateError("unclosed parenthesis")
            return value
        if text in ("true", "false"):
            return text == "true"
        if text in FUNCTIONS and not FUNCTIONS[text].__code__.co_argcount:
            return FUNCTIONS[text]()
        raise TemplateError(f"unexpected {text!r}")

    def _path(self, path: str, dot: Any, variables: dict[str, Any]) -> Any:
        start, *keys = path.split(".")
        if start and start not in variables:
            raise TemplateError(f"{start} is not declared")
        value = variables[start] if start else dot
        for key in filter(None, keys):
            if not isinstance(value, Mapping):
                raise TemplateError(f"{path}: nothing at {key}")
            value = value.get(key)
        return value


def merge(base: Any, over: Any) -> Any:
    """Lay values over the chart's defaults, as Helm does: maps merge, all else is replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}
    return over


def values_of(name: str) -> dict[str, Any]:
    """Return one of the chart's example values, ``full`` or ``minimal``."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    return loaded


def render(
    values: dict[str, Any], *, release: str = "gb", namespace: str = "glovebox"
) -> dict[str, str]:
    """Return the text of each template by file name.

    Raises TemplateError, and jsonschema's ValidationError for values the chart's schema refuses.
    """
    merged = merge(yaml.safe_load((CHART / "values.yaml").read_text()), values)
    jsonschema.validate(merged, json.loads((CHART / "values.schema.json").read_text()))
    context = {
        "Values": merged,
        "Release": {"Name": release, "Namespace": namespace, "Service": "Helm"},
    }
    renderer = Renderer(context)
    files = {path.name: parse(path.read_text()) for path in sorted(CHART.glob("templates/*"))}
    for nodes in files.values():
        renderer.define(nodes)
    return {
        name: renderer.render(nodes, context, {"$": context})
        for name, nodes in files.items()
        if not name.endswith(".tpl")
    }


def objects(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the Kubernetes objects of rendered templates."""
    return [
        document
        for name, text in texts.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
