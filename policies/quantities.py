"""Sizes and times as people write them: ``4Gi``, ``30m``; and back, without losing anything."""

from __future__ import annotations

import re

from policies.errors import Invalid, _

BYTE_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
SECOND_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# Both bounds keep arithmetic on the results inside what every backend and column can hold.
LARGEST_BYTES = 2**50
LARGEST_SECONDS = 366 * 86400

_BYTES = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,6}))? ?(Ki|Mi|Gi|Ti|k|K|M|G|T|)B?", re.ASCII)
_SECONDS = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")


def parse_bytes(value: object, field: str = "") -> int:
    """Return a number of bytes from ``4Gi``, ``512Mi``, ``1.5G`` or a plain whole number.

    Suffixes are Kubernetes' own: Ki, Mi, Gi, Ti are powers of 1024; k, M, G, T of 1000.
    Raises Invalid naming ``field``.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Invalid(
            _("Write a size such as 512Mi or 4Gi."), field=field, code="quantity.bytes-type"
        )
    if isinstance(value, int):
        amount = value
    else:
        match = _BYTES.fullmatch(value.strip()) if len(value) <= 32 else None
        if match is None:
            raise Invalid(
                _("This is not a size; write for example 512Mi or 4Gi."),
                field=field,
                code="quantity.bytes",
            )
        whole, fraction, unit = match.groups()
        scale = BYTE_UNITS["k" if unit == "K" else unit]
        amount = int(whole) * scale
        if fraction:
            amount += int(fraction) * scale // 10 ** len(fraction)
    if not 0 <= amount <= LARGEST_BYTES:
        raise Invalid(
            _("The size must be between 0 and 1024Ti."), field=field, code="quantity.bytes-range"
        )
    return amount


def parse_seconds(value: object, field: str = "") -> int:
    """Return seconds from ``90s``, ``30m``, ``2h``, ``1h30m``, ``1d`` or a plain whole number.

    Raises Invalid naming ``field``.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Invalid(
            _("Write a time such as 30m or 2h."), field=field, code="quantity.seconds-type"
        )
    if isinstance(value, int):
        amount = value
    else:
        text = value.strip() if len(value) <= 48 else ""
        if re.fullmatch(r"[0-9]{1,9}", text):
            amount = int(text)
        else:
            match = _SECONDS.fullmatch(text)
            if match is None or not text:
                raise Invalid(
                    _("This is not a time; write for example 90s, 30m, 2h or 1h30m."),
                    field=field,
                    code="quantity.seconds",
                )
            parts = zip(match.groups(), ("d", "h", "m", "s"), strict=True)
            amount = sum(int(number) * SECOND_UNITS[unit] for number, unit in parts if number)
    if not 0 <= amount <= LARGEST_SECONDS:
        raise Invalid(
            _("The time must be between 0 and 366 days."),
            field=field,
            code="quantity.seconds-range",
        )
    return amount


def format_bytes(amount: int) -> str:
    """Return the shortest exact form: ``format_bytes(2**32) == "4Gi"``."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if amount and amount % BYTE_UNITS[unit] == 0:
            return f"{amount // BYTE_UNITS[unit]}{unit}"
    return str(amount)


def format_seconds(amount: int) -> str:
    """Return the exact form with the largest units first: ``format_seconds(5400) == "1h30m"``."""
    parts = []
    rest = amount
    for unit, size in sorted(SECOND_UNITS.items(), key=lambda item: -item[1]):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
