"""Before and after of files: ``python -m deid.pictures ORIGINALS PUBLISHED WANTED OUT``.

WANTED is a JSON list of ``{"name", "source", "target"}`` (the row's digest and target). OUT gets
``NAME-before.png`` and ``NAME-after.png`` at full size, of several frames ``NAME-before-7.png`` and
``NAME-after-7.png`` too, and ``NAME-header.json`` with every difference of the two headers. It
holds what the original said, and is kept as the original is. ``pictures.json`` has, by name, the
picture's size in pixels of the image and its frames, or ``unseen`` with the reason. Holds no key.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deid import intake, output
from deid.decoding import Decoder
from deid.dicom import differences
from deid.quarantine import Quarantined
from deid.spill import Buffer
from policies.errors import UserError

FULL_SIZE = 8192  # pixels a side; larger ones than any detector makes are drawn smaller
MOST_FRAMES = 32


def draw(
    originals: Path, published: Path, wanted: Sequence[Mapping[str, str]], out: Path
) -> dict[str, dict[str, Any]]:
    """Draw the pictures and return the facts that ``pictures.json`` holds."""
    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, dict[str, Any]] = {each["name"]: {"unseen": "missing"} for each in wanted}
    by_source: dict[str, list[Mapping[str, str]]] = {}
    for each in wanted:
        by_source.setdefault(each["source"], []).append(each)
    decoder, reader = Decoder(), intake.Reader()
    try:
        for source in intake.walk(originals):
            if not by_source:
                break
            try:
                data = reader.read(source)
            except Quarantined:
                continue
            for each in by_source.pop(output.digest_of_bytes(data), []):
                facts[each["name"]] = _both(decoder, data, published, each, out)
    finally:
        decoder.close()
        reader.close()
    output.write(out, "pictures.json", [json.dumps(facts, sort_keys=True).encode()])
    return facts


def _both(
    decoder: Decoder, original: Buffer, published: Path, wanted: Mapping[str, str], out: Path
) -> dict[str, Any]:
    sizes, name = [], wanted["name"]
    try:
        cleaned = (published / wanted["target"]).read_bytes()
        for side, data in (("before", original), ("after", cleaned)):
            size, picture = decoder.ask({"operation": "picture", "largest": FULL_SIZE}, data)
            output.write(out, f"{name}-{side}.png", [picture])
            sizes.append((int(size["width"]), int(size["height"])))
        changed = header_differences(decoder, original, cleaned)
        output.write(out, f"{name}-header.json", [json.dumps(changed).encode()])
        frames, count = _frames(decoder, original, cleaned, name, out)
    except OSError:
        return {"unseen": "missing"}
    except Quarantined as held:
        return {"unseen": held.reason}
    width, height = sizes[1]
    return {
        "width": width,
        "height": height,
        "same_size": sizes[0] == sizes[1],
        "frames": frames,
        "frame_count": count,
    }


def header_differences(decoder: Decoder, before: Buffer, after: Buffer) -> list[dict[str, str]]:
    """What the header, or a photograph's metadata, said before and says now."""
    if after[128:132] == b"DICM":
        return differences.of_files(before, after)
    old, new = (
        {name: ("", text) for name, text in answer["metadata"].items()}
        for answer, _nothing in (
            decoder.ask({"operation": "metadata"}, data) for data in (before, after)
        )
    )
    return differences.between(old, new)


def _frames(
    decoder: Decoder, before: Buffer, after: Buffer, name: str, out: Path
) -> tuple[list[int], int]:
    """Draw single frames of both; none where the two do not have the same ones."""
    answers = []
    for data in (before, after):
        answers.append(decoder.ask({"operation": "frames", "most": MOST_FRAMES}, data))
    numbers = [int(number) for number in answers[1][0]["numbers"]]
    count = int(answers[1][0]["count"])
    if answers[0][0]["numbers"] != numbers:
        return [], count
    for side, (head, body) in zip(("before", "after"), answers, strict=True):
        place = 0
        for number, size in zip(numbers, head["sizes"], strict=True):
            output.write(out, f"{name}-{side}-{number}.png", [body[place : place + int(size)]])
            place += int(size)
    return numbers, count


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    originals, published, wanted, out = (Path(each) for each in argv)
    try:
        draw(originals, published, json.loads(wanted.read_text("utf-8")), out)
    except UserError as error:
        print(f"deid: {error}", file=sys.stderr)  # noqa: T201 - this is a command
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
