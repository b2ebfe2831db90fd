"""Every string of the pages has its Korean, and the compiled files are the current ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import translations

CATALOGUES = translations.catalogues()


def _name(path: Path) -> str:
    return path.relative_to(translations.ROOT).parts[-5]


@pytest.mark.parametrize("path", CATALOGUES, ids=_name)
def test_every_string_has_its_korean_with_the_same_placeholders(path: Path) -> None:
    assert list(translations.faults(path, CATALOGUES[path])) == []


def test_no_string_is_translated_in_two_ways() -> None:
    assert list(translations.contradictions()) == []


def test_a_missing_placeholder_and_a_stale_file_are_found(tmp_path: Path) -> None:
    source = translations.ROOT / "portal" / "accounts" / "waiting.py"
    messages = translations.collect([source])
    for message in messages.values():
        message.translation = "번역"
    messages["{count} more"] = translations.Message("{count} more", "", "더")
    path = tmp_path / "django.po"
    path.write_text(translations.written(messages))
    path.with_suffix(".mo").write_bytes(b"old")
    found = " ".join(translations.faults(path, [source]))
    assert "no longer used: '{count} more'" in found
    assert "not current" in found
    assert translations.placeholders("{count} more") != translations.placeholders("더")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    odd = translations.Message('a "quote" \\ and\ntwo lines', "plurals", '줄\n바꿈 \\ "')
    path = tmp_path / "django.po"
    path.write_text(translations.written({odd.text: odd}))
    assert translations.read(path)[odd.text].translation == odd.translation


def test_gettext_reads_the_compiled_file(tmp_path: Path) -> None:
    import gettext

    messages = {
        "one": translations.Message("one", "", "하나"),
        "{n} file": translations.Message("{n} file", "{n} files", "파일 {n}개"),
        "not yet": translations.Message("not yet"),
    }
    path = tmp_path / "django.mo"
    path.write_bytes(translations.compiled(messages))
    with path.open("rb") as stream:
        korean = gettext.GNUTranslations(stream)
    assert korean.gettext("one") == "하나"
    assert korean.ngettext("{n} file", "{n} files", 3) == "파일 {n}개"
    assert korean.gettext("not yet") == "not yet"
