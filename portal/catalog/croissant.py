"""Croissant 1.0 metadata (JSON-LD) of a published version: words and counts, never data.

Source: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

from __future__ import annotations

from typing import Any

from portal.catalog.models import DatasetVersion

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "sc": "https://schema.org/",
    "source": "cr:source",
}
FORMATS = {
    "dicom": ("application/dicom", "**/*.dcm"),
    "mammography": ("application/dicom", "**/*.dcm"),
    "photos": ("image/jpeg", "**/*.jpg"),
}
COLUMNS = {"file": "sc:Text", "subject": "sc:Text", "label": "sc:Text", "split": "sc:Text"}


def document(version: DatasetVersion, *, url: str) -> dict[str, Any]:
    """Return the JSON-LD document; ``url`` is the dataset's page.

    The only file with a content URL is the open synthetic sample: the data are not distributed.
    """
    dataset = version.dataset
    encoding, pattern = FORMATS[dataset.kind]
    sample = getattr(dataset, "sample", None)
    published = version.published_at
    distribution: list[dict[str, Any]] = []
    if sample is not None:
        distribution = [
            {
                "@type": "cr:FileObject",
                "@id": "sample.zip",
                "name": "sample.zip",
                "description": "Synthetic sample with the same layout, made from public parameters",
                "contentUrl": f"{url}sample.zip",
                "contentSize": f"{sample.bytes} B",
                "encodingFormat": "application/zip",
                "sha256": sample.sha256,
            },
            {
                "@type": "cr:FileObject",
                "@id": "labels.csv",
                "name": "labels.csv",
                "containedIn": {"@id": "sample.zip"},
                "contentUrl": f"{dataset.slug}/labels.csv",
                "encodingFormat": "text/csv",
            },
            {
                "@type": "cr:FileSet",
                "@id": "images",
                "name": "images",
                "containedIn": {"@id": "sample.zip"},
                "encodingFormat": encoding,
                "includes": pattern,
            },
        ]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": dataset.slug,
        "alternateName": [dataset.title, *([dataset.title_ko] if dataset.title_ko else [])],
        "description": dataset.description,
        "license": dataset.licence,
        "url": url,
        "version": f"{version.number}.0.0",
        "datePublished": published.date().isoformat() if published else None,
        "creator": {"@type": "sc:Organization", "name": dataset.unit.organisation.name},
        "isAccessibleForFree": False,
        "conditionsOfAccess": "Training inside the sandbox after approval by the committee",
        "isLiveDataset": False,
        "size": f"{version.files} files of {version.subjects} subjects",
        "rai:personalSensitiveInformation": [
            "De-identified by DICOM PS3.15 Annex E; a security officer examined a random sample"
        ],
        "distribution": distribution,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "labels",
                "name": "labels",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"labels/{column}",
                        "name": column,
                        "dataType": kind,
                        "source": {
                            "fileObject": {"@id": "labels.csv"},
                            "extract": {"column": column},
                        },
                    }
                    for column, kind in COLUMNS.items()
                ],
            }
        ]
        if sample is not None
        else [],
    }
