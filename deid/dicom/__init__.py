"""DICOM: reading, the confidentiality profile (PS3.15 Annex E), cleaning, writing."""
