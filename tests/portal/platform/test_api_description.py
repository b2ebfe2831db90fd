"""The API's description is whole: nothing in it had to be guessed or renamed."""

from __future__ import annotations

from pathlib import Path

from django.core.management import call_command


def test_the_description_is_valid_and_without_a_warning(tmp_path: Path) -> None:
    target = tmp_path / "openapi.yaml"
    # --fail-on-warn ends with a CommandError at the first one.
    call_command("spectacular", "--file", str(target), "--validate", "--fail-on-warn")
    assert "operationId: v1_roles_decide" in target.read_text()
