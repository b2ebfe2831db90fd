"""Lists are read to their end, whichever way a page says where the next begins."""

from __future__ import annotations

from typing import Any

import pytest

from client.api import Portal

ROWS = list(range(1, 8))


class ByOffset(Portal):
    """Answers as lists with limit and offset do."""

    def get(self, path: str, **query: Any) -> Any:
        start = int(query.get("offset", 0))
        page = ROWS[start : start + 3]
        more = start + 3 < len(ROWS)
        return {"results": page, "next": f"http://x/{path}?offset={start + 3}" if more else None}


class ByLast(Portal):
    """Answers as the audit trail does: newest first, while every reading adds a row."""

    def __init__(self) -> None:
        super().__init__("http://x")
        self.rows = list(ROWS)

    def get(self, path: str, **query: Any) -> Any:
        self.rows.append(len(self.rows) + 1)
        before = int(query.get("before", 10**6))
        page = [row for row in reversed(self.rows) if row < before][:3]
        more = page[-1] > 1
        return {"results": page, "next": f"http://x/{path}?before={page[-1]}" if more else None}


@pytest.mark.parametrize("portal", [ByOffset("http://x"), ByLast()])
def test_a_list_is_read_to_its_end_and_no_row_twice(portal: Portal) -> None:
    rows = list(portal.pages("rows"))
    assert len(rows) == len(set(rows))
    assert set(ROWS) <= set(rows)
