"""Concepts of reports that say who, where or by what: by scheme and code (PS3.16)."""

from __future__ import annotations

from collections.abc import Mapping

# A person that the templates require to be named (TID 1003, 1020).
REQUIRED_NAMES = frozenset({("DCM", "121008"), ("DCM", "113870")})
# What a node says is what this attribute says in a header (TID 1001 to 1010, 1020, 1021, 1204).
SAME_AS: Mapping[tuple[str, str], int] = {
    ("DCM", "121009"): 0x00080080,  # Person Observer's Organization Name: InstitutionName
    ("DCM", "113873"): 0x00080080,  # Organization Name
    ("DCM", "121017"): 0x00080081,  # Device Observer Physical Location: InstitutionAddress
    ("DCM", "121197"): 0x00080081,  # Device Subject Physical Location
    ("DCM", "121434"): 0x00080081,  # Service Delivery Location
    ("DCM", "121012"): 0x00181002,  # Device Observer UID: DeviceUID
    ("DCM", "121013"): 0x00081010,  # Device Observer Name: StationName
    ("DCM", "121193"): 0x00081010,  # Device Subject Name
    ("DCM", "113877"): 0x00081010,  # Device Name
    ("DCM", "121014"): 0x00080070,  # Device Observer Manufacturer
    ("DCM", "121194"): 0x00080070,  # Device Subject Manufacturer
    ("DCM", "113878"): 0x00080070,  # Device Manufacturer
    ("DCM", "121015"): 0x00081090,  # Device Observer Model Name
    ("DCM", "121195"): 0x00081090,  # Device Subject Model Name
    ("DCM", "113879"): 0x00081090,  # Device Model Name
    ("DCM", "121016"): 0x00181000,  # Device Observer Serial Number
    ("DCM", "121196"): 0x00181000,  # Device Subject Serial Number
    ("DCM", "113880"): 0x00181000,  # Device Serial Number
    ("DCM", "121148"): 0x00181000,  # Unit Serial Identifier
    ("DCM", "121022"): 0x00080050,  # Accession Number
    ("DCM", "121029"): 0x00100010,  # Subject Name
    ("DCM", "121030"): 0x00100020,  # Subject ID
    ("DCM", "121031"): 0x00100030,  # Subject Birth Date
    ("LN", "21112-8"): 0x00100030,  # Birth date
    ("DCM", "121032"): 0x00100040,  # Subject Sex
    ("DCM", "121033"): 0x00101010,  # Subject Age
    ("SCT", "397669002"): 0x00101010,  # Age
    ("LN", "30525-0"): 0x00101010,  # Age
    ("LN", "29463-7"): 0x00101030,  # Body weight
    ("SCT", "27113001"): 0x00101030,  # Body weight
    ("LN", "8302-2"): 0x00101020,  # Body height
    ("SCT", "50373000"): 0x00101020,  # Body height
    ("SCT", "372148003"): 0x00102160,  # Ethnic group
}
# Numbers and names of persons, orders, specimens and lots, which no attribute's rule keeps.
NEVER = frozenset(
    ("DCM", value)
    for value in (
        "110119", "110122", "110182", "110190", "111700", "111705", "111706", "111718", "111724",
        "113511", "113512", "113513", "113514", "113516", "113871", "113872", "121020", "121021",
        "121036", "121040", "121041", "121043", "121124", "121149", "122143", "125010", "128774",
        "128775",
    )
)  # fmt: skip
