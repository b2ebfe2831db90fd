"""Make ``deid/dicom/iods.json`` from the maps of the standard that highdicom carries.

Run with ``python scripts/make_dicom_tables.py`` where highdicom is installed. The result is the
project's own compact form (which tags an IOD defines at its top level with their type, and which
tags each sequence may hold anywhere in the standard), so highdicom is not needed at run time.
Source of the facts: PS3.3 annex A and C by way of highdicom's JSON files (MIT).
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import highdicom
from pydicom.datadict import tag_for_keyword

TARGET = Path(__file__).parent.parent / "deid" / "dicom" / "iods.json"
STRICTNESS = {"1": 0, "1C": 1, "2": 2, "2C": 3, "3": 4, "None": 4, "": 4}


def standard(name: str) -> dict[str, object]:
    """Return one of highdicom's maps."""
    path = Path(highdicom.__file__).parent / "_standard" / f"{name}.json"
    loaded: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def main() -> None:
    """Write the compact file."""
    sop_classes = standard("sop_class_iod_map")
    iods = standard("iod_module_map")
    modules = standard("module_attribute_map")
    top: dict[str, dict[str, str]] = {}
    children: dict[str, dict[str, str]] = defaultdict(dict)
    wanted = {module["key"] for iod in sop_classes.values() for module in iods[iod]}  # type: ignore
    for key in sorted(wanted & set(modules)):
        table: dict[str, str] = {}
        for attribute in modules[key]:  # type: ignore[attr-defined]
            tag = tag_for_keyword(attribute["keyword"])
            if tag is None:
                continue
            code = f"{tag:08X}"
            kind = str(attribute["type"])
            holder = table
            if attribute["path"]:
                parent = tag_for_keyword(attribute["path"][-1])
                if parent is None:
                    continue
                holder = children[f"{parent:08X}"]
            if code not in holder or STRICTNESS[kind] < STRICTNESS[holder[code]]:
                holder[code] = kind
        top[key] = table

    def packed(table: dict[str, str]) -> dict[str, str]:
        by_kind: dict[str, list[str]] = defaultdict(list)
        for code, kind in sorted(table.items()):
            by_kind["3" if kind in ("None", "") else kind].append(code)
        return {kind: "".join(codes) for kind, codes in sorted(by_kind.items())}

    document = {
        "sop_classes": dict(sorted(sop_classes.items())),
        "iods": {
            iod: [m["key"] for m in iods[iod] if m["key"] in top]  # type: ignore[attr-defined]
            for iod in sorted(set(sop_classes.values()))  # type: ignore[type-var]
        },
        "modules": {key: packed(table) for key, table in sorted(top.items())},
        "sequences": {key: packed(table) for key, table in sorted(children.items())},
    }
    TARGET.write_text(json.dumps(document, indent=0, separators=(",", ":")) + "\n")
    print(TARGET.name, TARGET.stat().st_size)


if __name__ == "__main__":
    main()
