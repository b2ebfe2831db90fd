"""Encode masked frames again without loss, in the family that they came in.

Runs in the process without keys. What was encoded is decoded again and compared: a frame that does
not come back sample by sample is not handed out, and the picture is then written uncompressed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID, RLELossless


def encoded(
    frames: NDArray[Any], attributes: Mapping[str, Any], stored: int, syntax: str
) -> list[bytes] | None:
    """Each of ``[frames, rows, columns(, samples)]`` as a codestream, None where it cannot be."""
    samples = int(attributes["SamplesPerPixel"])
    data = Dataset()
    data.Rows, data.Columns = frames.shape[1:3]
    data.SamplesPerPixel = samples
    data.PhotometricInterpretation = str(attributes["PhotometricInterpretation"])
    data.BitsAllocated = frames.dtype.itemsize * 8
    data.BitsStored = min(stored, data.BitsAllocated)
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(frames.dtype.kind == "i")
    if samples > 1:
        data.PlanarConfiguration = 0
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    found = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encoder, decoder = get_encoder(UID(syntax)), get_decoder(UID(syntax))
            for frame in frames:
                coded = encoder.encode(
                    np.ascontiguousarray(frame),
                    rows=data.Rows,
                    columns=data.Columns,
                    samples_per_pixel=samples,
                    photometric_interpretation=data.PhotometricInterpretation,
                    bits_allocated=data.BitsAllocated,
                    bits_stored=data.BitsStored,
                    pixel_representation=data.PixelRepresentation,
                    number_of_frames=1,
                    planar_configuration=0,
                    # GDCM's encoder ends the process at sizes that it does not like.
                    encoding_plugin="pydicom" if syntax == RLELossless else "",
                )
                data.PixelData = encapsulate([coded])
                again = decoder.as_array(data, as_rgb=False)[0]  # type: ignore[arg-type]
                if again.dtype != frame.dtype or not np.array_equal(again, frame):
                    return None
                found.append(bytes(coded))
    except Exception:  # whatever an encoder cannot encode is written uncompressed
        return None
    return found
