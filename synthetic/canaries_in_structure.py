"""Places to hide that are not attributes: structure, encodings, compressed frames, SOP classes."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from synthetic.canaries import PLACES, Canary, place
from synthetic.dicom_files import (
    COLUMNS,
    JPEG_BASELINE,
    MG,
    NAME,
    PREFIX,
    ROWS,
    SECRET,
    base,
    before,
    compressed,
    jpeg_frame,
    raw,
    written,
)


@place(SECRET, "SECRETCREATOR")
def private_with_creator() -> bytes:
    data = base()
    block = data.private_block(0x0019, "SECRETCREATOR", create=True)
    block.add_new(0x01, "LO", SECRET)
    return written(data)


@place(SECRET)
def private_without_creator() -> bytes:
    data = base()
    data.add(DataElement(0x00191001, "LO", SECRET))
    return written(data)


@place(SECRET)
def private_sequence_in_un() -> bytes:
    inner = raw(0x0019, 0x1002, b"LO", SECRET.encode())
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    creator = raw(0x0019, 0x0010, b"LO", b"SECRETCREATOR")
    return before(written(base()), (0x0020, 0x000D), creator + raw(0x0019, 0x1001, b"UN", item))


@place(SECRET)
def public_sequence_in_un() -> bytes:
    inner = struct.pack("<HHI", 0x0008, 0x0104, len(SECRET)) + SECRET.encode()
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    return before(written(base()), (0x0010, 0x0010), raw(0x0008, 0x1032, b"UN", item))


@place(SECRET)
def undefined_length_un_sequence() -> bytes:
    inner = struct.pack("<HHI", 0x0008, 0x0104, len(SECRET)) + SECRET.encode()
    body = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner
    body += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    header = struct.pack("<HH2s2xI", 0x0008, 0x1032, b"UN", 0xFFFFFFFF)
    return before(written(base()), (0x0010, 0x0010), header + body)


@place(SECRET)
def deep_sequences() -> bytes:
    data = base()
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "R-10242", "SNM3", SECRET
    modifier = Dataset()
    modifier.CodeValue, modifier.CodingSchemeDesignator = "R-102D6", "SNM3"
    modifier.CodeMeaning = SECRET
    code.ViewModifierCodeSequence = Sequence([modifier])
    data.ViewCodeSequence = Sequence([code])
    data.RequestAttributesSequence = Sequence([Dataset()])
    data.RequestAttributesSequence[0].RequestedProcedureDescription = SECRET
    return written(data)


@place("CANARYZQ1", "99CANARYZQ")
def private_code() -> bytes:
    data = base()
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "CANARYZQ1", "99CANARYZQ"
    code.CodeMeaning = "view"
    data.ViewCodeSequence = Sequence([code])
    return written(data)


@place(SECRET)
def modality_lut_explanation() -> bytes:
    data = base()
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTExplanation, lut.ModalityLUTType = [4, 0, 16], SECRET, "US"
    lut.add(DataElement(0x00283006, "US", [0, 1, 2, 3]))
    data.VOILUTSequence = Sequence([lut])
    return written(data)


@place(SECRET, b"\xa5\x5a" * 32)
def overlays() -> bytes:
    data = base()
    data.add(DataElement(0x60000010, "US", 16))
    data.add(DataElement(0x60000011, "US", 32))
    data.add(DataElement(0x60000022, "LO", SECRET))
    data.add(DataElement(0x60000040, "CS", "G"))
    data.add(DataElement(0x60001500, "LO", SECRET))
    data.add(DataElement(0x60003000, "OW", b"\xa5\x5a" * 32))
    data.add(DataElement(0x60004000, "LT", SECRET))
    return written(data)


@place(SECRET)
def curves() -> bytes:
    data = base()
    data.add(DataElement(0x50000022, "LO", SECRET))
    data.add(DataElement(0x50003000, "OW", (SECRET * 2).encode()))
    return written(data)


@place(SECRET)
def icon_image() -> bytes:
    data = base()
    icon = Dataset()
    icon.Rows = icon.Columns = 8
    icon.PixelData = (SECRET * 8).encode()
    icon["PixelData"].VR = "OB"
    data.IconImageSequence = Sequence([icon])
    return written(data)


@place(SECRET)
def icc_profile() -> bytes:
    data = base()
    data.ICCProfile = b"desc" + SECRET.encode() * 4
    return written(data)


@place(SECRET)
def original_attributes() -> bytes:
    data = base()
    inner = Dataset()
    inner.PatientName = SECRET
    outer = Dataset()
    outer.ModifiedAttributesSequence = Sequence([inner])
    outer.ModifyingSystem = SECRET
    data.OriginalAttributesSequence = Sequence([outer])
    return written(data)


@place(SECRET)
def contributing_equipment() -> bytes:
    data = base()
    item = Dataset()
    item.Manufacturer, item.InstitutionName, item.StationName = "HOLOGIC", SECRET, SECRET
    data.ContributingEquipmentSequence = Sequence([item])
    return written(data)


@place(SECRET)
def digital_signature() -> bytes:
    data = base()
    signature = Dataset()
    signature.CertificateOfSigner = (SECRET * 4).encode()
    data.DigitalSignaturesSequence = Sequence([signature])
    return written(data)


@place(SECRET)
def referenced_and_other_patients() -> bytes:
    data = base()
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = SECRET, SECRET
    data.OtherPatientIDsSequence = Sequence([other])
    return written(data)


@place(f"{PREFIX}.55")
def referenced_images() -> bytes:
    data = base()
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MG, f"{PREFIX}.55"
    data.ReferencedImageSequence = Sequence([item])
    data.SourceImageSequence = Sequence([item])
    return written(data)


@place(SECRET)
def preamble() -> bytes:
    file = written(base())
    return (SECRET * 16).encode() + file[128:]


@place(SECRET)
def meta_group() -> bytes:
    meta = FileMetaDataset()
    meta.SourceApplicationEntityTitle = SECRET
    meta.ImplementationVersionName = SECRET
    meta.PrivateInformationCreatorUID = UID(f"{PREFIX}.66")
    meta.PrivateInformation = SECRET.encode()
    return written(base(), meta=meta)


@place(SECRET)
def data_set_trailing_padding() -> bytes:
    return written(base()) + struct.pack("<HH2s2xI", 0xFFFC, 0xFFFC, b"OB", 8) + SECRET.encode()


@place(SECRET, may_hold=True)
def trailing_bytes() -> bytes:
    return written(base()) + SECRET.encode() * 3


@place(SECRET)
def pixel_data_longer_than_the_picture() -> bytes:
    data = base()
    data.PixelData += SECRET.encode() * 4
    return written(data)


@place(SECRET)
def unused_high_bits() -> bytes:
    data = base()
    words = np.frombuffer(data.PixelData, "<u2").copy()
    for index, letter in enumerate(SECRET * 4):
        words[2 * index] |= (ord(letter) & 0xF0) << 8
        words[2 * index + 1] |= (ord(letter) & 0x0F) << 12
    data.PixelData = words.tobytes()
    return written(data)


PLACES[-1] = Canary("unused_high_bits", unused_high_bits, (), False)  # has a test of its own


@place(SECRET)
def wrong_vr_for_a_number() -> bytes:
    file = written(base())
    rows = raw(0x28, 0x10, b"US", struct.pack("<H", ROWS))
    aspect = raw(0x28, 0x34, b"IS", SECRET.encode())
    return file.replace(rows, rows + b"").replace(
        raw(0x28, 0x11, b"US", struct.pack("<H", COLUMNS)),
        raw(0x28, 0x11, b"US", struct.pack("<H", COLUMNS)) + aspect,
    )


@place(SECRET)
def numbers_that_are_text() -> bytes:
    file = written(base())
    # FrameAnchorage-like numeric attribute with more values than its multiplicity.
    return before(file, (0x0020, 0x000D), raw(0x0018, 0x9310, b"FD", SECRET.encode() * 3))


@place(SECRET)
def text_after_a_nul() -> bytes:
    file = written(base())
    return file.replace(
        raw(0x18, 0x15, b"CS", b"BREAST"), raw(0x18, 0x15, b"CS", b"BREAST\0" + SECRET.encode())
    )


@place(SECRET)
def name_with_another_vr() -> bytes:
    file = written(base())
    return file.replace(
        raw(0x10, 0x10, b"PN", NAME.encode()), raw(0x10, 0x10, b"LO", SECRET.encode())
    )


@place(SECRET)
def unknown_public_tag() -> bytes:
    return before(written(base()), (0x0020, 0x000D), raw(0x0018, 0xEEEE, b"LO", SECRET.encode()))


@place(SECRET)
def command_and_directory_groups() -> bytes:
    data = base()
    data.add(DataElement(0x00041511, "UI", f"{PREFIX}.44"))
    data.add(DataElement(0x00041130, "CS", SECRET))
    return written(data)


@place("HWANGBO", SECRET)
def implicit_little_endian() -> bytes:
    data = base()
    data.PatientComments = SECRET
    data.InstitutionName = SECRET
    return written(data, ImplicitVRLittleEndian)


@place("HWANGBO", SECRET)
def explicit_big_endian() -> bytes:
    data = base()
    data.InstitutionName = SECRET
    data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    return written(data, ExplicitVRBigEndian)


@place("HWANGBO", SECRET)
def deflated() -> bytes:
    data = base()
    data.InstitutionName = SECRET
    return written(data, DeflatedExplicitVRLittleEndian)


PLACES[-1] = Canary("deflated", deflated, (b"HWANGBO", SECRET.encode()), False)


@place(SECRET)
def jpeg_segments() -> bytes:
    return compressed(jpeg_frame(secret=SECRET.encode()), JPEG_BASELINE)


@place(SECRET)
def jpeg_after_its_end() -> bytes:
    return compressed(jpeg_frame() + SECRET.encode() * 2, JPEG_BASELINE)


@place(SECRET)
def jpeg_2000_comment() -> bytes:
    from openjpeg.utils import encode_array

    grey = np.random.default_rng(3).integers(100, 110, (ROWS, COLUMNS)).astype(np.uint8)
    frame = encode_array(grey, photometric_interpretation=2, codec_format=0)
    note = SECRET.encode()
    comment = b"\xff\x64" + struct.pack(">HH", len(note) + 4, 1) + note
    start = frame.index(b"\xff\x90")
    return compressed(frame[:start] + comment + frame[start:], "1.2.840.10008.1.2.4.90")


@place(SECRET)
def fragment_of_nothing_but_text() -> bytes:
    data = base()
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.PixelData = encapsulate([jpeg_frame(), SECRET.encode() * 4])
    data["PixelData"].is_undefined_length = True
    return written(data, JPEG_BASELINE)


PLACES[-1] = Canary(
    "fragment_of_nothing_but_text", fragment_of_nothing_but_text, (SECRET.encode(),), True
)


@place(SECRET)
def basic_offset_table() -> bytes:
    file = compressed(jpeg_frame(), JPEG_BASELINE)
    table = struct.pack("<HHI", 0xFFFE, 0xE000, 4) + bytes(4)
    return file.replace(table, struct.pack("<HHI", 0xFFFE, 0xE000, 8) + SECRET.encode()[:8])


PLACES[-1] = Canary("basic_offset_table", basic_offset_table, (SECRET.encode(),), True)


@place(SECRET, may_hold=True)
def structured_report() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.88.11", "SR")
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(data, keyword)
    node = Dataset()
    node.ValueType, node.TextValue = "TEXT", SECRET
    data.ContentSequence = Sequence([node])
    return written(data)


@place(SECRET, may_hold=True)
def encapsulated_pdf() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.104.1", "DOC")
    del data.PixelData
    data.EncapsulatedDocument = b"%PDF-1.4 " + SECRET.encode() * 3
    data.DocumentTitle = SECRET
    return written(data)


@place(SECRET, may_hold=True)
def presentation_state() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.11.1", "PR")
    del data.PixelData
    note, text = Dataset(), Dataset()
    text.UnformattedTextValue = SECRET
    note.TextObjectSequence = Sequence([text])
    data.GraphicAnnotationSequence = Sequence([note])
    return written(data)


@place(SECRET, may_hold=True)
def waveform() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.9.1.1", "ECG")
    del data.PixelData
    note = Dataset()
    note.UnformattedTextValue = SECRET
    data.WaveformAnnotationSequence = Sequence([note])
    return written(data)


@place(SECRET, may_hold=True)
def private_sop_class() -> bytes:
    data = base(f"{PREFIX}.5", "OT")
    data.PatientComments = SECRET
    return written(data)


@place(SECRET)
def secondary_capture_of_an_unknown_kind() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.6", "US")  # a retired class without an IOD of its own
    data.SeriesDescription = SECRET
    data.add(DataElement(0x00181011, "LO", SECRET))
    return written(data)


@place(SECRET, f"{PREFIX}.33", may_hold=True)
def names_and_references_in_a_structured_report() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.88.11", "SR")
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(data, keyword)
    person, reference = Dataset(), Dataset()
    person.ValueType, person.PersonName = "PNAME", SECRET
    reference.ValueType, reference.UID = "UIDREF", f"{PREFIX}.33"
    data.ContentSequence = Sequence([person, reference])
    return written(data)


@place(zlib.compress(SECRET.encode() * 3), may_hold=True)
def attachment_of_an_encapsulated_pdf() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.104.1", "DOC")
    del data.PixelData
    attached = zlib.compress(SECRET.encode() * 3)
    data.EncapsulatedDocument = b"%PDF-1.4 /FlateDecode stream\n" + attached + b"\nendstream"
    return written(data)


@place(SECRET, may_hold=True)
def encapsulated_cda() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.104.2", "DOC")
    del data.PixelData
    data.MIMETypeOfEncapsulatedDocument = "text/XML"
    data.EncapsulatedDocument = b"<ClinicalDocument><family>" + SECRET.encode() + b"</family>"
    return written(data)


@place(SECRET, may_hold=True)
def encapsulated_stl() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.104.3", "M3D")
    del data.PixelData
    data.EncapsulatedDocument = SECRET.encode().ljust(80) + bytes(4)
    return written(data)


@place(SECRET, may_hold=True)
def mpeg_4_metadata() -> bytes:
    data = base("1.2.840.10008.5.1.4.1.1.77.1.4.1", "XC")
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.NumberOfFrames = 7, 1
    note = struct.pack(">I4s", 8 + len(SECRET), b"\xa9nam") + SECRET.encode()
    told = struct.pack(">I4s", 8 + len(note), b"udta") + note
    movie = struct.pack(">I4s4sI", 16, b"ftyp", b"mp42", 0)
    movie += struct.pack(">I4s", 8 + len(told), b"moov") + told
    data.PixelData = encapsulate([movie])
    data["PixelData"].is_undefined_length = True
    return written(data, "1.2.840.10008.1.2.4.102")


@place(SECRET, may_hold=True)
def directory_of_a_medium() -> bytes:
    data, record = Dataset(), Dataset()
    data.SOPClassUID = "1.2.840.10008.1.3.10"
    data.SOPInstanceUID = f"{PREFIX}.22"
    record.OffsetOfTheNextDirectoryRecord = record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    record.RecordInUseFlag, record.DirectoryRecordType = 0xFFFF, "PATIENT"
    record.PatientName, record.PatientID = SECRET, SECRET
    data.FileSetID = SECRET
    data.DirectoryRecordSequence = Sequence([record])
    return written(data)
