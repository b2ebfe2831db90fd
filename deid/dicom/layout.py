"""The device and layout of an image: what burns its text into the same place of every image."""

from __future__ import annotations

from deid.dicom.header import value_of
from deid.dicom.stream import Element
from deid.vault import Pseudonyms

# Manufacturer, model, modality, photometric interpretation, SOP class; rows and columns as bytes.
_TEXTS = (0x00080070, 0x00081090, 0x00080060, 0x00280004, 0x00080016)
_SIZES = (0x00280010, 0x00280011)


def layout(elements: list[Element], pseudonyms: Pseudonyms) -> str:
    """A name that all images of one device and layout share, empty for what is no image.

    It is made with the data set's own key from the original header, so that it says nothing of a
    device that the profile removes.
    """
    sizes = {each.tag: bytes(each.value).hex() for each in elements if each.tag in _SIZES}
    if len(sizes) < len(_SIZES) or not all(sizes.values()):
        return ""
    texts = (" ".join(value_of(elements, tag).split()) for tag in _TEXTS)
    return pseudonyms.name("layout", "\x1f".join([*texts, *(sizes[tag] for tag in _SIZES)]))
