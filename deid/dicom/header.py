"""Clean a parsed data set: a new one is made of what may stay, so nothing is forgotten in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

from pydicom.charset import python_encoding

from deid.dicom import content, values
from deid.dicom import text as free_text
from deid.dicom.memory import REPEATED_BYTES, Known, Memory
from deid.dicom.plan import LETTERS, Plan, Rule
from deid.dicom.stream import Buffer, DicomFile, Element, text_of
from deid.vault import Pseudonyms

_OWN_TAGS = frozenset(
    {
        0x00100010, 0x00100020, 0x00101000, 0x00101001, 0x00101005, 0x00101060, 0x00080050,
        0x00200010, 0x00102154, 0x00101040, 0x00380010, 0x00402016, 0x00402017, 0x00321033,
        0x00100030,
    }
)  # fmt: skip
_BIRTH_DATE = 0x00100030
# Pixel values are checked by their own rules (deid/dicom/pixels.py).
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_LONG_VALUE = 1 << 16
# What these do depends on more than the value.
_BY_PLACE = frozenset({"content", "layer"})
PRIVATE_NUMBERS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "FL", "FD", "SV", "UV"})
TEXT_VRS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
ONE_VALUE = frozenset({"ST", "LT", "UT"})


@dataclass
class Identity:
    """Whose file it is: the patient as the project knows them, and their own words."""

    patient: str
    pseudonym: str
    shift: int
    own: frozenset[str]


@dataclass
class Cleaned:
    """The new top level, and what was done, by tag (8 hex digits) and the table's letter."""

    elements: list[Element]
    identity: Identity
    actions: dict[str, str] = field(default_factory=dict)
    mapped: dict[str, dict[str, str]] = field(default_factory=dict)


def value_of(elements: list[Element], tag: int) -> str:
    """One short top-level value as ASCII, empty when it is not there."""
    for element in elements:
        if element.tag == tag:
            return text_of(element.value) if element.items is None else ""
        if element.tag > tag:
            break
    return ""


def encodings_of(elements: list[Element]) -> tuple[str, ...]:
    """The Python codecs of a data set's SpecificCharacterSet."""
    declared = value_of(elements, 0x00080005).split("\\")
    # Looked up here and not by pydicom's own function, whose warnings repeat what stands there.
    known = [python_encoding[term.strip()] for term in declared if term.strip() in python_encoding]
    return tuple(known) or ("iso8859",)


def names_in(elements: list[Element], encodings: tuple[str, ...]) -> Iterator[str]:
    """Every person's name and every number of the patient in a data set, nested ones too."""
    for element in elements:
        if element.items is not None:
            for item in element.items:
                yield from names_in(item, encodings)
        elif (element.vr == "PN" or element.tag in _OWN_TAGS) and element.value:
            written = values.words(element.value, encodings)
            yield written
            if element.tag == _BIRTH_DATE and len(written) == 8:
                yield written[2:]  # as registers of many countries begin their numbers
            if not bytes(element.value).isascii():
                yield from values.guesses(element.value)


@cache
def name_of(tag: int) -> str:
    """A tag as the report writes it."""
    return f"{tag:08X}"


class HeaderCleaner:
    """Cleans data sets by one plan under one key; of files it keeps what their values became.

    What a value becomes depends on the plan, the key, the person with their own words, the
    encodings, and itself: the memory's keys are all of these.
    """

    def __init__(self, plan: Plan, pseudonyms: Pseudonyms, *, keep_map: bool = False) -> None:
        self.plan = plan
        self.pseudonyms = pseudonyms
        self.keep_map = keep_map
        self.memory = Memory()

    def identity(self, file: DicomFile, digest: Callable[[], str]) -> Identity:
        """The patient of a file; without a number, the study or the file's bytes stand for them."""
        encodings = encodings_of(file.elements)
        patient = ""
        for element in file.elements:
            if element.tag == 0x00100020 and element.items is None:
                patient = values.words(element.value, encodings)
        if not patient:
            study = value_of(file.elements, 0x0020000D)
            patient = f"study {study}" if study else f"file {digest()}"
        return Identity(
            patient=patient,
            pseudonym=self.pseudonyms.patient(patient),
            shift=self.pseudonyms.date_shift(patient),
            own=free_text.own_words(tuple(names_in(file.elements, encodings))),
        )

    def clean(self, file: DicomFile, sop_class: str, identity: Identity) -> Cleaned:
        """The cleaned top level, without pixel data's own checks and without markers."""
        work = _Work(self, identity, Cleaned([], identity))
        encodings = encodings_of(file.elements)
        rules = self.plan.top(sop_class)
        if content.is_report(sop_class) and self.plan.profile.has(content.OPTION):
            work.result.elements = work.report(file.elements, rules, encodings)
        else:
            work.result.elements = work.data_set(file.elements, rules, encodings, at_top=True)
        if self.plan.profile.safe_private:
            work.result.elements += work.safe_private(file.elements)
            work.result.elements.sort(key=lambda element: element.tag)
        return work.result


class _Work:
    """The cleaning of one file."""

    def __init__(self, cleaner: HeaderCleaner, identity: Identity, result: Cleaned) -> None:
        self.cleaner = cleaner
        self.profile = cleaner.plan.profile
        self.pseudonyms = cleaner.pseudonyms
        self.identity = identity
        self.own = identity.own
        self.result = result
        full = self.profile.has("retain_full_dates")
        self.days = 0 if full else identity.shift
        self.layers: dict[str, bytes] = {}

    def report(
        self, elements: list[Element], rules: dict[int, Rule], encodings: tuple[str, ...]
    ) -> list[Element]:
        """The top level of a structured report, its tree cleaned node by node."""
        tree = content.document(elements, self.cleaner.plan, self, encodings)
        kept = self.data_set(elements, content.rules_beside(rules), encodings, at_top=True)
        for tag in content.own_tags():
            self.result.actions.pop(f"{tag:08X}", None)
        self.result.actions[f"{content.CONTENT:08X}"] = LETTERS["content"]
        return sorted([*kept, *tree], key=lambda element: element.tag)

    def data_set(
        self,
        elements: list[Element],
        rules: dict[int, Rule],
        encodings: tuple[str, ...],
        *,
        at_top: bool = False,
    ) -> list[Element]:
        kept: list[Element] = []
        actions = self.result.actions
        present = set()
        known = self.known(encodings)
        for element in elements:
            tag = element.tag
            rule = rules.get(tag)
            if rule is None:
                name = name_of(tag)
                if at_top or name not in actions:
                    actions[name] = "X"
                continue
            present.add(tag)
            if rule.action == "items":
                sequence = self.sequence(element, rule, encodings)
                if sequence is None:
                    actions[name_of(tag)] = "X"
                else:
                    kept.append(sequence)
                continue
            new, letter = self.once(element, rule, encodings, known)
            if letter:
                actions[name_of(tag)] = letter
            if new is not None:
                kept.append(new)
        if at_top:
            for tag, constant in self.profile.constants.items():
                if tag not in present:
                    vr = rules[tag].vr if tag in rules else "LO"
                    kept.append(Element(tag, vr, constant.encode()))
                    actions[name_of(tag)] = "D"
            kept.sort(key=lambda each: each.tag)
        return kept

    def known(self, encodings: tuple[str, ...]) -> Known:
        """What is known of values in these encodings that the same person's files held before."""
        if self.cleaner.keep_map:
            return {}  # each file says again what it maps
        who = (self.identity.pseudonym, self.days, self.own, encodings)
        return self.cleaner.memory.of(who)

    def once(
        self, element: Element, rule: Rule, encodings: tuple[str, ...], known: Known
    ) -> tuple[Element | None, str]:
        """The element as it may stay and the letter of what was done, as :meth:`element` says.

        What is known already is not looked at again.
        """
        single = element.items is None and element.fragments is None
        if not single or len(element.value) > REPEATED_BYTES or rule.action in _BY_PLACE:
            new = self.element(element, rule, encodings)
            return new, _letter(element, new, rule)
        key = (element.tag, element.vr, rule, bytes(element.value))
        done = known.get(key)
        if done is not None:
            vr, value, letter = done
            return Element(element.tag, vr, value) if vr else None, letter
        new = self.element(element, rule, encodings)
        letter = _letter(element, new, rule)
        if new is None:
            self.cleaner.memory.add(known, key, ("", b"", letter))
        elif new.items is None:
            self.cleaner.memory.add(known, key, (new.vr, bytes(new.value), letter))
        return new, letter

    def element(self, element: Element, rule: Rule, encodings: tuple[str, ...]) -> Element | None:
        """The element as it may stay; itself when nothing changed; None when it goes."""
        action, vr = rule.action, element.vr
        if action == "items":
            return self.sequence(element, rule, encodings)
        if element.items is not None:
            if action == "content":
                items = content.items(element, self.cleaner.plan, self, encodings)
                if not items and rule.type not in ("1", "1C", "2", "2C"):
                    return None
                return Element(element.tag, "SQ", items=items)
            return Element(element.tag, "SQ", items=[]) if action == "empty" else None
        if action == "empty":
            return Element(element.tag, "SQ", items=[]) if vr == "SQ" else _new(element, vr, b"")
        if action == "constant":
            return _new(element, rule.vr, rule.extra.encode())
        if vr != rule.vr and not (" or " in rule.vr or vr == "UN"):
            return None
        if vr == "UN":
            vr = rule.vr
        if action == "keep":
            return self.kept(element, vr, rule, encodings)
        value: bytes | None
        if action == "uid":
            value = self.uids(element.value)
        elif action == "date":
            value = values.date(element.value, vr, self.days)
        elif action == "text":
            value = self.text(element.value, vr, encodings)
        elif action == "code":
            value = values.code(element.tag, element.value, self.own)
        elif action == "age":
            value = values.age(element.value)
        elif action == "code-value":
            value = values.code_value(element.value, self.own)
        elif action == "scheme":
            value = values.scheme(element.value)
        elif action == "pseudonym":
            value = self.pseudonym(element, rule, encodings)
        elif action == "dummy":
            value = self.dummy(element, vr)
        elif action == "layer":
            value = self.layer(values.words(element.value, encodings))
        else:
            return None
        if not value and len(element.value) and rule.type not in ("1", "1C", "2", "2C"):
            return None
        return _new(element, vr, value)

    def kept(
        self, element: Element, vr: str, rule: Rule, encodings: tuple[str, ...]
    ) -> Element | None:
        value = element.value
        if element.fragments is not None:
            return element
        if vr in ("DS", "IS"):
            if not values.is_number(value, vr, self.own):
                return None if rule.type == "3" else _new(element, vr, b"")
        elif vr in TEXT_VRS:
            cleaned = self.verbatim(value, encodings)
            return _new(element, vr, cleaned) if cleaned else None
        elif vr == "CS":
            return _new(element, vr, values.code(element.tag, value, self.own))
        elif vr == "UI":
            if not values.is_uid(value):
                return None
            # Who retains UIDs retains what stands in them; a device's own never names a patient.
            retained = self.profile.has("retain_uids")
            theirs = not retained and values.has_own_part(value, self.own)
            return _new(element, vr, self.uids(value) if theirs else bytes(value))
        elif vr in ("DA", "DT", "TM"):
            return _new(element, vr, values.date(value, vr, 0))
        elif vr in ("AE", "UR", "PN") or (
            element.tag not in PIXELS and not values.is_binary(element.tag, value, vr, self.own)
        ):
            return None
        if vr != element.vr:
            return Element(element.tag, vr, value)
        return element

    def sequence(self, element: Element, rule: Rule, encodings: tuple[str, ...]) -> Element | None:
        if element.items is None:
            return None if len(element.value) else Element(element.tag, "SQ", items=[])
        rules = self.cleaner.plan.inside(element.tag)
        items = []
        for item in element.items:
            inner = encodings
            if item and item[0].tag <= 0x00080005 and value_of(item, 0x00080005):
                inner = encodings_of(item)
            cleaned = self.data_set(item, rules, inner)
            if cleaned:
                items.append(cleaned)
        if element.items and not items and rule.type not in ("1", "1C", "2", "2C"):
            return None
        return Element(element.tag, "SQ", items=items)

    def safe_private(self, elements: list[Element]) -> list[Element]:
        """Numbers of the private blocks that the profile declares safe (PS3.15 E.3.10)."""
        blocks: dict[int, str] = {}
        kept: list[Element] = []
        for element in elements:
            group, number = element.tag >> 16, element.tag & 0xFFFF
            if not group & 1 or element.items is not None:
                continue
            if 0x10 <= number <= 0xFF:
                creator = text_of(element.value)
                if creator in self.profile.safe_private:
                    blocks[(group << 16) | (number << 8)] = creator
                    kept.append(Element(element.tag, "LO", creator.encode()))
                continue
            creator = blocks.get(element.tag & 0xFFFFFF00, "")
            if (element.tag & 0xFFFF00FF) in self.profile.safe_private.get(creator, ()):
                numeric = element.vr in PRIVATE_NUMBERS
                if element.vr in ("DS", "IS"):
                    numeric = values.is_number(element.value, element.vr, self.own)
                elif numeric:
                    numeric = values.is_binary(element.tag, element.value, element.vr, self.own)
                if numeric and len(element.value) <= 1024:
                    self.result.actions.pop(f"{element.tag:08X}", None)
                    kept.append(element)
        return kept

    def text(self, value: Buffer, vr: str, encodings: tuple[str, ...]) -> bytes:
        if len(value) > _LONG_VALUE:
            return b""
        written = values.words(value, encodings)
        parts = [written] if vr in ONE_VALUE else written.split("\\")
        longest = values.LONGEST.get(vr, 1 << 20)
        cleaned = [free_text.clean(part, self.own, self.uid) for part in parts]
        return "\\".join(part if len(part) <= longest else "" for part in cleaned).encode()

    def verbatim(self, value: Buffer, encodings: tuple[str, ...]) -> bytes:
        """A text that an option retains as it is, unless it holds the patient's own words."""
        written = values.words(value, encodings)
        if any(word in self.own for word in free_text.words_of(written)):
            return free_text.clean(written, self.own, self.uid).encode()
        return written.encode()

    def uid(self, uid: str) -> str:
        if values.is_registered(uid):
            return uid
        new = self.pseudonyms.uid(uid)
        if self.cleaner.keep_map:
            self.result.mapped.setdefault("uid", {})[uid] = new
        return new

    def uids(self, value: Buffer) -> bytes:
        parts = bytes(value).decode("latin-1").split("\\")
        stripped = (part.strip(" \0") for part in parts)
        return "\\".join(self.uid(part) if part else "" for part in stripped).encode()

    def pseudonym(self, element: Element, rule: Rule, encodings: tuple[str, ...]) -> bytes:
        written = values.words(element.value, encodings)
        if rule.extra == "patient":
            if self.cleaner.keep_map and element.tag == 0x00100020:
                self.result.mapped["patient"] = {written: self.identity.pseudonym}
            return self.identity.pseudonym.encode()
        if not written:
            return b""
        if rule.extra == "accession":
            new = self.pseudonyms.accession(written)
            if self.cleaner.keep_map:
                self.result.mapped.setdefault("accession", {})[written] = new
            return new.encode()
        return self.pseudonyms.device(written).encode()

    def layer(self, name: str) -> bytes:
        """The same new name for the same layer of one file."""
        return self.layers.setdefault(name, f"LAYER{len(self.layers) + 1}".encode())

    def dummy(self, element: Element, vr: str) -> bytes:
        return self.uids(element.value) if vr == "UI" else values.DUMMIES.get(vr, b"")


def _new(element: Element, vr: str, value: Buffer) -> Element:
    return Element(element.tag, vr, value)


def _letter(element: Element, new: Element | None, rule: Rule) -> str:
    """The letter of what was done to an element, empty where its value stands."""
    if new is None:
        return "X"
    if new is element or new.value == element.value:
        return ""
    return LETTERS[rule.action] if len(new.value) else "Z"
