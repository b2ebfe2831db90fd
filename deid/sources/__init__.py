"""Intake: originals from an S3 prefix, DICOMweb or a C-STORE sender into a folder of their own."""
