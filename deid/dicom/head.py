"""Which volumes show a head: a face can be rendered from them, so a person decides (PS3.15 E.3.2).

Devices say what they show in many places and languages, and often in one of them only. Each place
is read; what merely sounds like a head (the head of the femur) is taken out first. What says
nothing anywhere is not held, but a person has to look at it (``names_part``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from deid.dicom import values
from deid.dicom.header import encodings_of
from deid.dicom.stream import DicomFile, Element, text_of

STORAGE = "1.2.840.10008.5.1.4.1.1."
CRANIOFACIAL = STORAGE + "13.1.2"
VOLUME_CLASSES = frozenset(
    {STORAGE + end for end in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "13.1.1")}
    | {CRANIOFACIAL}
)

BODY_PART = 0x00180015
_TEXTS = frozenset(
    {
        BODY_PART, 0x00081030, 0x0008103E, 0x00181030, 0x00321060, 0x00400254, 0x00400007,
        0x00189423, 0x00189424, 0x00400280,
    }
)  # fmt: skip
# Anatomic regions and structures, procedures and protocols; anatomy of a frame lies deeper.
_ANATOMY = frozenset({0x00082218, 0x00082228})
_CODED = _ANATOMY | {0x00081032, 0x0008103F, 0x00321064, 0x00400008, 0x00400260}
_GROUPS = frozenset({0x52009229, 0x52009230, 0x00209071, 0x00400275})
_CODE_VALUE, _CODE_MEANING = 0x00080100, 0x00080104
ITEMS = 3
"""So many items of a sequence are read: frames of one volume show one part."""

# SNOMED CT and the older SNOMED RT codes of PS3.16 CID 4 and CID 4031.
CODES = frozenset(
    """
    69536005 T-D1100 12738006 T-A0100 89545001 T-D1200 89546000 T-11100 774007 T-D1000
    45048000 T-D1600 363654007 T-D14AE 2095001 T-22000 91609006 T-11180 70925003 T-11170
    56329008 T-A9000 53334005 T-D1217 81745001 T-AA000 117590005 T-AB000 55060009 T-A5400
    31258000 T-A7020 38266002 T-D0010
    """.split()  # noqa: SIM905 - a list of words reads better as text
)
# Whole words, without accents: English, German, French, Spanish, Italian, Portuguese, Dutch, Latin.
WORDS = frozenset(
    """
    face facial neuro orbit orbits orbita orbitae orbite orbites orbitas sinus sinuses pns nnh
    paranasal pituitary hypophyse hypophysis sella iac iacs tmj tmjs temporal mandible mandibula
    maxilla maxillary maxillofacial jaw neck headneck dental teeth tooth eye eyes ear ears nose
    nasal mouth tongue parotid mastoid mastoids petrous zygoma posfossa nasopharynx pharynx larynx
    kopf gesicht hals kiefer auge augen felsenbein felsenbeine gesichtsschadel mittelgesicht
    tete crane visage cou cerveau rocher rochers machoire
    cabeza cara cuello cerebro mandibula craneo
    testa collo cervello volto cabeca pescoco rosto
    hoofd hals hersenen schedel aangezicht
    carotid carotids carotis carotides willis stroke cbct hn wb
    mprage mp2rage flair fmri dti tractography
    wholebody ganzkorper polytrauma
    """.split()  # noqa: SIM905
)
# Parts of words: compounds, plurals, and words that other languages run together.
PARTS = (
    "head", "brain", "skull", "crani", "krani", "cereb", "cerveb", "enceph", "encef", "hirn",
    "schadel", "schaedel", "schedel",
    "두부", "뇌", "머리", "안면", "얼굴", "두경부", "두개", "부비동", "안와", "측두", "턱관절",
    "경부", "전신", "하악", "상악", "중이",
    "頭", "头", "脳", "脑", "腦", "顔", "顏", "颅", "顱", "颈", "頸", "副鼻腔", "眼窩", "鼻窦",
    "全身",
    "голов", "мозг", "череп", "лица", "шеи",
)  # fmt: skip
# Parts of the body without a head, as PS3.16 annex L writes them: what says anything else (UNKNOWN,
# HD, C-spine) does not say that no face is in it.
ELSEWHERE = frozenset(
    """
    abdomen abdomenpelvis adrenal ankle anus aorta arm axilla back bileduct bladder breast bronchus
    buttock calcaneus calf cardiac chest chestabdomen chestabdpelvis clavicle coccyx colon
    coronaryartery duodenum elbow esophagus extremity femur fibula finger foot forearm gallbladder
    groin hand heart hip humerus ileum ilium jejunum joint kidney knee leg liver lspine lsspine
    lumbar lung lungs mediastinum ovary pancreas patella pelvis penis perineum prostate radius
    radiusulna rectum renal rib ribs sacrum scapula scrotum shoulder sijoint spleen sternum stomach
    testis thigh thorax thoracic thumb tibia tibiafibula tlspine toe tspine ulna ureter urethra
    uterus vagina wrist
    """.split()  # noqa: SIM905
)
PHRASES = ("whole body", "total body", "corps entier", "cuerpo entero", "circle of willis")
# What sounds like a head and is none.
_OTHERS = re.compile(
    r"""
      \b(?:femoral|femur|humeral|humerus|radial|radius|fibular|metatarsal|metacarpal|pancreatic
         |pancreas|hip|bladder|uterine|surgical)\W+(?:heads?|necks?)\b
    | \b(?:head|neck)\W+of\W+(?:the\W+)?(?:femur|humerus|radius|fibula|pancreas|bladder|talus)\b
    | \bhead\W*first\b | \bhead\W*(?:coil|holder|phones?|rest)\b
    | \b(?:over|a|bulk)head\b | \bhead(?:er|ers|ed|ing|phones?)\b
    | \b(?:huft|huef?t|femur|humerus|radius|pankreas)kopf\w*
    | \bcranio\W*caudal\w* | \bcaudo\W*cranial\w* | \bcranial\W+angulation\b
    | \b(?:coronary|tarsal|pilonidal|carotid|urogenital)\W+sinus\b
    | \bsinus\W+(?:tarsi|rhythm|rhythmus|tachycardia|bradycardia)\b
    | \btemporal\W+(?:resolution|average|averaging|mip|mean|subtraction|filter|phase)\b
    | 자궁경부 | 대퇴경부 | 대퇴골\s*경부
    """,
    re.VERBOSE,
)
_WORD = re.compile(r"[^\W\d_]+")


def is_head(file: DicomFile, sop_class: str) -> bool:
    """Whether an image may be part of a volume that a face can be rendered from."""
    if sop_class not in VOLUME_CLASSES:
        return False
    return sop_class == CRANIOFACIAL or any(
        names_head(text) or text.strip() in CODES for text in _said(file.elements, ("iso8859",))
    )


def names_part(file: DicomFile) -> bool:
    """Whether a volume says at all what part of the body it shows: else it may be a head."""
    return any(
        (
            element.tag == BODY_PART
            and not ELSEWHERE.isdisjoint(_WORD.findall(text_of(element.value).casefold()))
        )
        or (element.tag in _ANATOMY and element.items)
        for element in _all(file.elements)
    )


def names_head(text: str) -> bool:
    """Whether a text names the head, a part of it, or the whole body."""
    plain = unicodedata.normalize("NFD", text.casefold())
    plain = unicodedata.normalize(
        "NFC", "".join(letter for letter in plain if not "\u0300" <= letter <= "\u036f")
    )
    plain = _OTHERS.sub(" ", re.sub(r"[\s_^\-]+", " ", plain))
    return (
        any(part in plain for part in PARTS)
        or any(phrase in plain for phrase in PHRASES)
        or not WORDS.isdisjoint(_WORD.findall(plain))
    )


def _all(elements: list[Element]) -> Iterator[Element]:
    """The elements of the top level and of the groups that hold the anatomy of frames."""
    for element in elements:
        yield element
        if element.tag in _GROUPS:
            for item in (element.items or [])[:ITEMS]:
                yield from _all(item)


def _said(elements: list[Element], inherited: tuple[str, ...]) -> Iterator[str]:
    encodings = encodings_of(elements)
    encodings = inherited if encodings == ("iso8859",) else encodings
    for element in _all(elements):
        if element.tag in _TEXTS and element.items is None:
            yield from _readings(element, encodings)
        elif element.tag in _CODED:
            for item in (element.items or [])[:ITEMS]:
                for inner in item:
                    if inner.tag in (_CODE_VALUE, _CODE_MEANING) and inner.items is None:
                        yield from _readings(inner, encodings)


def _readings(element: Element, encodings: tuple[str, ...]) -> Iterator[str]:
    """A text as declared, and, where it is no ASCII, in the ways it may have been meant."""
    yield values.words(element.value, encodings)
    if not bytes(element.value).isascii():
        yield from values.guesses(element.value)
