"""Before and after of files: ``python -m deid.pictures ORIGINALS PUBLISHED WANTED OUT``.

WANTED is a JSON list of ``{"name", "source", "target"}`` (the row's digest and target). OUT gets
``NAME-before.png`` and ``NAME-after.png``, and ``pictures.json`` with, by name, the picture's size
in pixels of the image, or ``unseen`` with the reason. Holds no key.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deid import intake, output
from deid.decoding import Decoder
from deid.quarantine import Quarantined
from deid.spill import Buffer
from policies.errors import UserError


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
    sizes = []
    try:
        cleaned = (published / wanted["target"]).read_bytes()
        for side, data in (("before", original), ("after", cleaned)):
            size, picture = decoder.ask({"operation": "picture"}, data)
            output.write(out, f"{wanted['name']}-{side}.png", [picture])
            sizes.append((int(size["width"]), int(size["height"])))
    except OSError:
        return {"unseen": "missing"}
    except Quarantined as held:
        return {"unseen": held.reason}
    width, height = sizes[1]
    return {"width": width, "height": height, "same_size": sizes[0] == sizes[1]}


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
