"""Clean Structured Content (PS3.15 E.3.4): the content tree of a report, node by node (PS3.3 C.17).

A node is kept only if its value type, its relationship, its concept's code and its value are all
understood; otherwise it goes with all below it. What says who or where, says so as an attribute of
a header does, so it follows that attribute's rule. The new tree is built, not edited: references
by place (R- relationships) are written anew with the places that their targets now have.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from deid.dicom import codes, values
from deid.dicom.concepts import NEVER, REQUIRED_NAMES, SAME_AS
from deid.dicom.plan import Plan, Rule, rule_for
from deid.dicom.stream import Element, text_of
from deid.profile import Profile
from deid.quarantine import Quarantined

OPTION = "clean_structured_content"
STORAGE = "1.2.840.10008.5.1.4.1.1.88."
CONTENT = 0x0040A730
CHARACTER_SET = 0x00080005
RELATIONSHIP, VALUE_TYPE, CONCEPT = 0x0040A010, 0x0040A040, 0x0040A043
OBSERVED, OBSERVATION_UID = 0x0040A032, 0x0040A171
CONTINUITY, TEMPLATE = 0x0040A050, 0x0040A504
DATE_TIME, DATE, TIME = 0x0040A120, 0x0040A121, 0x0040A122
PERSON_NAME, UID, TEXT = 0x0040A123, 0x0040A124, 0x0040A160
CONCEPT_CODE, MEASURED, UNITS = 0x0040A168, 0x0040A300, 0x004008EA
NUMBER, QUALIFIER = 0x0040A30A, 0x0040A301
TEMPORAL_RANGE, SAMPLES, OFFSETS, MOMENTS = 0x0040A130, 0x0040A132, 0x0040A138, 0x0040A13A
REFERENCED, REFERENCED_CLASS, REFERENCED_INSTANCE = 0x00081199, 0x00081150, 0x00081155
GRAPHIC_DATA, GRAPHIC_TYPE = 0x00700022, 0x00700023
PIXEL_ORIGIN, FRAME_OF_REFERENCE, FIDUCIAL = 0x00480301, 0x30060024, 0x0070031A
TARGET = 0x0040DB73
TEMPLATE_IDENTIFIER, MAPPING_RESOURCE = 0x0040DB00, 0x00080105
SCHEME_IDENTIFICATION, VERIFYING_OBSERVER = 0x00080110, 0x0040A073

RELATIONSHIPS = frozenset(
    {
        "CONTAINS", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES",
        "INFERRED FROM", "SELECTED FROM",
    }
)  # fmt: skip
TEMPORAL_RANGES = frozenset({"POINT", "MULTIPOINT", "SEGMENT", "MULTISEGMENT", "BEGIN", "END"})
# How many numbers each kind of graphic has; 0 for any number of points (C.18.6, C.18.9).
FLAT_GRAPHICS = {"POINT": 2, "MULTIPOINT": 0, "POLYLINE": 0, "CIRCLE": 4, "ELLIPSE": 8}
SOLID_GRAPHICS = {
    "POINT": 3, "MULTIPOINT": 0, "POLYLINE": 0, "POLYGON": 0, "ELLIPSE": 12, "ELLIPSOID": 18,
}  # fmt: skip
NAMELESS = frozenset(
    {"CONTAINER", "IMAGE", "COMPOSITE", "WAVEFORM", "SCOORD", "SCOORD3D", "TCOORD"}
)
ANONYMOUS = values.DUMMIES["PN"]
REMOVED = values.DUMMIES["UT"]
GONE = frozenset({"remove", "empty", "dummy"})
# Years a unit of UCUM has: ages beyond the oldest group are no longer said in any unit.
YEARS = {"a": 1.0, "mo": 1 / 12, "wk": 7 / 365.25, "d": 1 / 365.25}
OLDEST_YEARS = 90
MOST_ROUNDS = 64


class Worker(Protocol):
    """What cleaning a tree needs of the cleaning of its file."""

    own: frozenset[str]
    profile: Profile

    def element(
        self, element: Element, rule: Rule, encodings: tuple[str, ...]
    ) -> Element | None: ...

    def data_set(
        self, elements: list[Element], rules: dict[int, Rule], encodings: tuple[str, ...]
    ) -> list[Element]: ...


@dataclass(eq=False)
class Node:
    """A kept node: what it says, its old place, and the place it refers to where it only refers."""

    elements: list[Element]
    place: tuple[int, ...]
    relationship: str = ""
    kind: str = ""
    target: tuple[int, ...] = ()
    children: list[Node] = field(default_factory=list)


def is_report(sop_class: str) -> bool:
    """Whether a SOP class is that of a structured report or a key object selection."""
    return sop_class.startswith(STORAGE)


def document(
    elements: list[Element], plan: Plan, work: Worker, encodings: tuple[str, ...]
) -> list[Element]:
    """The top level's part of a report's tree; raises :class:`Quarantined` if none can stand."""
    tree = _Tree(plan, work)
    root = tree.node(elements, encodings, (1,), relationship="", kind="CONTAINER")
    if root is None or not any(element.tag == CONCEPT for element in root.elements):
        raise Quarantined("structured-report")
    had = bool(root.children)
    _prune(root)
    if had and not root.children:
        raise Quarantined("structured-report")
    if not had and any(element.tag == CONTENT and element.items for element in elements):
        raise Quarantined("structured-report")
    return _written(root, dict(_numbered(root, (1,))))


def own_tags() -> frozenset[int]:
    """The attributes of the top level that :func:`document` answers for."""
    return _NODE_TAGS


def rules_beside(rules: Mapping[int, Rule]) -> dict[int, Rule]:
    """The rules for the top level of a report, without what :func:`document` answers for."""
    beside = {tag: rule for tag, rule in rules.items() if tag not in _NODE_TAGS}
    # A report only names schemes that are not public, and none of those is left.
    beside.pop(SCHEME_IDENTIFICATION, None)
    observers = beside.get(VERIFYING_OBSERVER)
    if observers is not None and observers.action == "empty":
        # A verified report has an observer (PS3.3 C.17.2): one without a name.
        beside[VERIFYING_OBSERVER] = observers._replace(action="items")
    return beside


def items(
    element: Element, plan: Plan, work: Worker, encodings: tuple[str, ...]
) -> list[list[Element]]:
    """The items of a sequence of content without relationships (PS3.3 section 10.2)."""
    tree = _Tree(plan, work)
    found = (tree.node(item, encodings, (), relationship="") for item in element.items or ())
    return [sorted(node.elements, key=_by_tag) for node in found if node is not None]


class _Tree:
    def __init__(self, plan: Plan, work: Worker) -> None:
        self.work = work
        self.rules = plan.inside(CONTENT)
        self.measured = plan.inside(MEASURED)
        self.references = plan.inside(REFERENCED)
        self.profile = work.profile

    def child(
        self, item: list[Element], encodings: tuple[str, ...], place: tuple[int, ...]
    ) -> Node | None:
        """A node below another one, by value or by reference; None when it goes."""
        given = {element.tag: element for element in item}
        relationship = codes.keyword(given.get(RELATIONSHIP))
        if relationship not in RELATIONSHIPS:
            return None
        if TARGET not in given:
            return self.node(item, encodings, place, relationship=relationship)
        # By reference: it has no value of its own (C.17.3.2.5).
        raw = bytes(given[TARGET].value)
        if given.keys() & _NODE_TAGS or not raw or len(raw) % 4:
            return None
        if relationship == "HAS CONCEPT MOD":
            return None  # a modifier stands where it modifies (C.17.3.2.4)
        target = struct.unpack(f"<{len(raw) // 4}I", raw)
        if target == place[: len(target)]:
            return None  # a node cannot refer to one that it lies in
        return Node([], place, relationship, target=target)

    def node(
        self,
        item: list[Element],
        encodings: tuple[str, ...],
        place: tuple[int, ...],
        *,
        relationship: str,
        kind: str = "",
    ) -> Node | None:
        given = {element.tag: element for element in item}
        value_type = codes.keyword(given.get(VALUE_TYPE))
        if value_type not in _VALUES or (kind and value_type != kind):
            return None
        if CHARACTER_SET in given and not kind:
            return None  # words in another writing than the report's: not understood
        name = codes.of_sequence(given.get(CONCEPT), encodings, self.work.own)
        if name is None and (CONCEPT in given or value_type not in NAMELESS):
            return None
        children: list[Node] = []
        if place:
            kept = self.children(given.get(CONTENT), encodings, place)
            if kept is None:
                return None
            children = kept
        value = self.value(value_type, name, given, encodings, has_children=bool(children))
        if value is None:
            return None
        elements = [Element(VALUE_TYPE, "CS", value_type.encode()), *value]
        if name is not None:
            elements.append(Element(CONCEPT, "SQ", items=[name.elements()]))
        for tag in (OBSERVED, OBSERVATION_UID):
            extra = self.attribute(given.get(tag), encodings)
            if extra is not None:
                elements.append(extra)
        if relationship:
            elements.append(Element(RELATIONSHIP, "CS", relationship.encode()))
        return Node(elements, place, relationship, value_type, children=children)

    def children(
        self, sequence: Element | None, encodings: tuple[str, ...], place: tuple[int, ...]
    ) -> list[Node] | None:
        """The nodes below; None where one goes without which its parent means something else."""
        kept = []
        for number, item in enumerate((sequence.items if sequence else None) or (), 1):
            node = self.child(item, encodings, (*place, number))
            if node is not None:
                kept.append(node)
            elif _relationship(item) == "HAS CONCEPT MOD":
                return None
        return kept

    def value(
        self,
        value_type: str,
        name: codes.Code | None,
        given: Mapping[int, Element],
        encodings: tuple[str, ...],
        *,
        has_children: bool,
    ) -> list[Element] | None:
        """The elements of a node's value; None when nothing may be left of it."""
        concept = (name.scheme, name.value) if name else ("", "")
        same = SAME_AS.get(concept)
        if concept in NEVER:
            return None
        if value_type == "PNAME":
            # No report's person keeps a name; the templates want some of them to have one.
            required = concept in REQUIRED_NAMES and PERSON_NAME in given
            return [Element(PERSON_NAME, "PN", ANONYMOUS)] if required else None
        if same is not None:
            rule = rule_for(same, "3", self.profile)
            if rule.action in GONE:
                return None
            if value_type == "TEXT":
                return self.text_as(rule, given, encodings)
        if value_type == "TEXT":
            cleaned = self.attribute(given.get(TEXT), encodings)
            if cleaned is None and has_children and TEXT in given:
                # What was measured or seen stays, without the words that said so.
                cleaned = Element(TEXT, "UT", REMOVED)
            return None if cleaned is None else [cleaned]
        return _VALUES[value_type](self, given, encodings)

    def text_as(
        self, rule: Rule, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        element = given.get(TEXT)
        if element is None or rule.action not in ("keep", "text", "pseudonym", "uid"):
            return None
        # A pseudonym is that of the attribute: the crosswalk and its form go by the tag.
        written = Element(TEXT, element.vr, element.value)
        cleaned = self.work.element(written, rule._replace(vr=element.vr, type="3"), encodings)
        if cleaned is None or not len(cleaned.value):
            return None
        return [Element(TEXT, "UT", cleaned.value)]

    def attribute(self, element: Element | None, encodings: tuple[str, ...]) -> Element | None:
        """One attribute by its rule; None where the rule leaves no value of its own."""
        if element is None:
            return None
        rule = self.rules.get(element.tag)
        if rule is None or rule.action in GONE:
            return None
        cleaned = self.work.element(element, rule, encodings)
        return cleaned if cleaned is not None and len(cleaned.value) else None

    def code(
        self, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        code = codes.of_sequence(given.get(CONCEPT_CODE), encodings, self.work.own)
        return None if code is None else [Element(CONCEPT_CODE, "SQ", items=[code.elements()])]

    def number(
        self, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        qualifier = codes.of_sequence(given.get(QUALIFIER), encodings, self.work.own)
        measured = given.get(MEASURED)
        found: list[Element] = []
        if qualifier is not None:
            found.append(Element(QUALIFIER, "SQ", items=[qualifier.elements()]))
        if measured is not None and measured.items is not None and len(measured.items) == 1:
            inner = self.measure({each.tag: each for each in measured.items[0]}, encodings)
            return None if inner is None else [*found, Element(MEASURED, "SQ", items=[inner])]
        if NUMBER in given:
            return self.measure(given, encodings)
        empty = measured is not None and not measured.items and not len(measured.value)
        return [*found, Element(MEASURED, "SQ", items=[])] if empty else None

    def measure(
        self, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        """A number and its unit. More exact forms of the number could hold another one and go."""
        number = given.get(NUMBER)
        unit = codes.of_sequence(given.get(UNITS), encodings, self.work.own)
        if number is None or unit is None or number.items is not None or not len(number.value):
            return None
        if not values.is_number(number.value, "DS", self.work.own):
            return None
        years = YEARS.get(unit.value, 0.0) if unit.scheme == "UCUM" else 0.0
        written = text_of(number.value)
        if not written or "\\" in written or abs(float(written)) * years >= OLDEST_YEARS:
            return None
        return [
            Element(NUMBER, "DS", bytes(number.value)),
            Element(UNITS, "SQ", items=[unit.elements()]),
        ]

    def container(
        self, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        continuity = codes.keyword(given.get(CONTINUITY))
        kept = b"CONTINUOUS" if continuity == "CONTINUOUS" else b"SEPARATE"
        found = [Element(CONTINUITY, "CS", kept)]
        template = given.get(TEMPLATE)
        if template is not None and template.items and len(template.items) == 1:
            inner = {each.tag: each for each in template.items[0]}
            identifier = codes.keyword(inner.get(TEMPLATE_IDENTIFIER))
            resource = codes.keyword(inner.get(MAPPING_RESOURCE))
            # Templates of DICOM have numbers of up to five figures (PS3.16 annex A).
            numbered = identifier.isdigit() and len(identifier) <= 5
            if resource == "DCMR" and numbered and identifier not in self.work.own:
                item = [
                    Element(MAPPING_RESOURCE, "CS", b"DCMR"),
                    Element(TEMPLATE_IDENTIFIER, "CS", identifier.encode()),
                ]
                found.append(Element(TEMPLATE, "SQ", items=[item]))
        return found

    def reference(
        self, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        element = given.get(REFERENCED)
        if element is None or element.items is None or len(element.items) != 1:
            return None
        before = {each.tag: text_of(each.value) for each in element.items[0]}
        if not values.is_registered(before.get(REFERENCED_CLASS, "")):
            return None
        instance = before.get(REFERENCED_INSTANCE, "")
        if "." not in instance or not values.is_uid(instance.encode()):
            return None
        item = self.work.data_set(element.items[0], self.references, encodings)
        whole = {REFERENCED_CLASS, REFERENCED_INSTANCE} <= {each.tag for each in item}
        return [Element(REFERENCED, "SQ", items=[item])] if whole else None

    def coordinates(
        self, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        found = self.graphic(given, encodings, FLAT_GRAPHICS, 2)
        origin = codes.keyword(given.get(PIXEL_ORIGIN))
        if found is not None and origin in ("FRAME", "VOLUME"):
            found.append(Element(PIXEL_ORIGIN, "CS", origin.encode()))
        fiducial = self.attribute(given.get(FIDUCIAL), encodings)
        return found if found is None or fiducial is None else [*found, fiducial]

    def coordinates_in_space(
        self, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        found = self.graphic(given, encodings, SOLID_GRAPHICS, 3)
        frame = self.attribute(given.get(FRAME_OF_REFERENCE), encodings)
        if found is None or frame is None:
            return None
        fiducial = self.attribute(given.get(FIDUCIAL), encodings)
        return [*found, frame] if fiducial is None else [*found, frame, fiducial]

    def graphic(
        self,
        given: Mapping[int, Element],
        encodings: tuple[str, ...],
        kinds: Mapping[str, int],
        dimensions: int,
    ) -> list[Element] | None:
        kind = codes.keyword(given.get(GRAPHIC_TYPE))
        data = self.attribute(given.get(GRAPHIC_DATA), encodings)
        if kind not in kinds or data is None:
            return None
        count, rest = divmod(len(data.value), 4)
        if rest or count % dimensions or (kinds[kind] and count != kinds[kind]):
            return None
        return [data, Element(GRAPHIC_TYPE, "CS", kind.encode())]

    def times(
        self, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        kind = codes.keyword(given.get(TEMPORAL_RANGE))
        said = [self.attribute(given.get(tag), encodings) for tag in (SAMPLES, OFFSETS, MOMENTS)]
        found = [element for element in said if element is not None]
        if kind not in TEMPORAL_RANGES or not found:
            return None
        return [Element(TEMPORAL_RANGE, "CS", kind.encode()), *found]


_Reader = Callable[[_Tree, Mapping[int, Element], tuple[str, ...]], list[Element] | None]


def _attribute(tag: int) -> _Reader:
    def read(
        tree: _Tree, given: Mapping[int, Element], encodings: tuple[str, ...]
    ) -> list[Element] | None:
        cleaned = tree.attribute(given.get(tag), encodings)
        return None if cleaned is None else [cleaned]

    return read


# PNAME goes by _Tree.value alone, and tables of values are not understood.
_VALUES: Mapping[str, _Reader] = {
    "CONTAINER": _Tree.container,
    "TEXT": _attribute(TEXT),
    "CODE": _Tree.code,
    "NUM": _Tree.number,
    "DATETIME": _attribute(DATE_TIME),
    "DATE": _attribute(DATE),
    "TIME": _attribute(TIME),
    "UIDREF": _attribute(UID),
    "PNAME": _attribute(PERSON_NAME),
    "IMAGE": _Tree.reference,
    "COMPOSITE": _Tree.reference,
    "WAVEFORM": _Tree.reference,
    "SCOORD": _Tree.coordinates,
    "SCOORD3D": _Tree.coordinates_in_space,
    "TCOORD": _Tree.times,
}
_NODE_TAGS = frozenset(
    {
        CONTENT, VALUE_TYPE, CONCEPT, OBSERVED, OBSERVATION_UID, CONTINUITY, TEMPLATE, DATE_TIME,
        DATE, TIME, PERSON_NAME, UID, TEXT, CONCEPT_CODE, MEASURED, UNITS, NUMBER, QUALIFIER,
        TEMPORAL_RANGE, SAMPLES, OFFSETS, MOMENTS, REFERENCED, GRAPHIC_DATA, GRAPHIC_TYPE,
        PIXEL_ORIGIN, FRAME_OF_REFERENCE, FIDUCIAL,
    }
)  # fmt: skip


def _by_tag(element: Element) -> int:
    return element.tag


def _relationship(item: list[Element]) -> str:
    return next((text_of(each.value) for each in item if each.tag == RELATIONSHIP), "")


def _numbered(
    node: Node, place: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Old and new places of a node and all below it."""
    if not node.target:
        yield node.place, place
    for number, child in enumerate(node.children, 1):
        yield from _numbered(child, (*place, number))


def _prune(root: Node) -> None:
    """Take out nodes that refer to what has gone, until none does."""
    for _round in range(MOST_ROUNDS):
        if not _pruned(root, frozenset(old for old, _new in _numbered(root, (1,)))):
            return
    raise Quarantined("structured-report")


def _pruned(node: Node, places: frozenset[tuple[int, ...]]) -> bool:
    kept = []
    changed = False
    for child in node.children:
        if child.target and child.target not in places:
            changed = True
            continue
        changed |= _pruned(child, places)
        # Coordinates are those of something (C.17.3.2.4), so they go with what they lie in.
        pointless = child.kind in ("SCOORD", "TCOORD") and not any(
            grandchild.relationship == "SELECTED FROM" for grandchild in child.children
        )
        if pointless:
            changed = True
        else:
            kept.append(child)
    node.children = kept
    return changed


def _written(node: Node, places: Mapping[tuple[int, ...], tuple[int, ...]]) -> list[Element]:
    if node.target:
        target = places[node.target]
        return [
            Element(RELATIONSHIP, "CS", node.relationship.encode()),
            Element(TARGET, "UL", struct.pack(f"<{len(target)}I", *target)),
        ]
    elements = list(node.elements)
    if node.children:
        inner = [_written(child, places) for child in node.children]
        elements.append(Element(CONTENT, "SQ", items=inner))
    return sorted(elements, key=_by_tag)
