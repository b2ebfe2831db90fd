"""The API's description as a page: rendered here, so that it needs nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.generators import SchemaGenerator

METHODS = ("get", "post", "put", "patch", "delete")


def _fields(schema: dict[str, Any], content: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return name, type and need of each field of a JSON body."""
    body = ((content or {}).get("application/json") or {}).get("schema") or {}
    if body.get("type") == "array":
        body = body.get("items", {})
    reference = body.get("$ref", "").rpartition("/")[2]
    if reference:
        body = schema["components"]["schemas"][reference]
    needed = set(body.get("required", ()))
    return [
        {"name": name, "type": field.get("type", "object"), "needed": name in needed}
        for name, field in body.get("properties", {}).items()
    ]


def operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each method of each address, in the order of addresses."""
    rows = []
    for address, methods in sorted(schema["paths"].items()):
        for method in METHODS:
            if method not in methods:
                continue
            operation = methods[method]
            answers: list[tuple[str, dict[str, Any]]] = sorted(operation["responses"].items())
            status, answer = answers[0] if answers else ("", {})
            rows.append(
                {
                    "address": address,
                    "method": method.upper(),
                    "description": operation.get("description", ""),
                    "parameters": operation.get("parameters", []),
                    "sends": _fields(schema, operation.get("requestBody", {}).get("content")),
                    "status": status,
                    "gets": _fields(schema, answer.get("content")),
                }
            )
    return rows


def page(request: HttpRequest) -> HttpResponse:
    """Show every operation of /api/v1/ with what it takes and gives."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    return render(request, "api_docs.html", {"operations": operations(schema)})
