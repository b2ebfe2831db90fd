"""Each test exports its checkpoints to a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import override_settings

from tests.portal.browse import browse
from tests.portal.cast import cast

__all__ = ["browse", "cast", "exported"]


@pytest.fixture(autouse=True)
def exported(tmp_path: Path) -> Iterator[Path]:
    with override_settings(AUDIT_CHECKPOINTS=tmp_path / "exported"):
        yield tmp_path / "exported"
