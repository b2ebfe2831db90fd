"""Step 4: a company asks, a committee decides, an agreement is signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demo.narration import StepFailed
from demo.people import Person

ANSWERS: dict[str, Any] = {
    "purpose": "commercial",
    "title": "Lesion detection for a second reader",
    "aim": "Whether a small network can point a radiologist to views that deserve a second look.",
    "method": "A convolutional network on whole views, split by patient, judged by AUC, "
    "sensitivity and specificity on the sealed split.",
    "days": 90,
    "expertise": "Six years of work on medical images; two earlier models in clinical use.",
    "means": "None: no other data of these patients are held.",
    "gain": "None.",
    "protection": "ISO 27001; work on managed machines only.",
    "linkage": "None.",
    "relation": "No shares, staff or funds in common with the owner.",
    "access_control": "The named analysts only; the released model stays in the company.",
    "outputs": "One network of about 16,000 parameters and its figures.",
    "pledge": True,
}
ETHICS = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 100]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)


def ask(applicant: Person, slug: str, work: Path, **changes: Any) -> int:
    """Fill a request in, attach the ethics document, and submit it; return its number."""
    portal = applicant.portal
    answers = ANSWERS | {"analysts": [applicant.email]} | changes
    made = portal.post("requests", dataset=slug, version=1, answers=answers)
    document = work / "ethics-approval.pdf"
    document.write_bytes(ETHICS)
    portal.post_file(
        f"requests/{made['id']}/documents",
        document,
        content_type="application/pdf",
        kind="ethics",
    )
    portal.post(f"requests/{made['id']}/submit")
    return int(made["id"])


def vote(committee: list[Person], number: int) -> str:
    """Let each member vote; check on the way that nobody sees another's vote too early."""
    state = ""
    for place, member in enumerate(committee):
        shown = member.portal.get(f"requests/{number}")
        if shown["voting"]["votes"]:
            raise StepFailed("a vote was visible before the quorum had voted")
        after = member.portal.post(
            f"requests/{number}/votes",
            choice="approve",
            bound_to=shown["bound_to"],
            comment=f"Judged by the criteria, member {place + 1}.",
        )
        state = after["state"]
    return state


def sign(applicant: Person, number: int) -> dict[str, Any]:
    """Sign the current agreement; return the grant."""
    agreements = applicant.portal.get("agreements")["results"]
    newest = max(agreements, key=lambda row: row["number"])
    grant: dict[str, Any] = applicant.portal.post(
        f"requests/{number}/sign-agreement",
        agreement=newest["id"],
        typed_name=applicant.name,
        language="en",
    )
    return grant | {"agreement": f"{newest['name']} {newest['number']}"}


def obtain(
    applicant: Person, committee: list[Person], slug: str, work: Path, **changes: Any
) -> dict[str, Any]:
    """Go the whole way from a request to a grant."""
    number = ask(applicant, slug, work, **changes)
    state = vote(committee, number)
    if state != "approved":
        raise StepFailed(f"the request is {state}")
    return sign(applicant, number)
