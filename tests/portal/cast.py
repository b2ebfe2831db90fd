"""The people and the dataset that most tests of requests, jobs and releases need."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.apps import apps

from portal.access import actions, decisions, grants
from portal.access.models import AccessRequest, Agreement, Grant
from portal.access.queries import current_agreement
from portal.accounts.models import Person
from portal.catalog.models import Dataset, DatasetVersion

PDF = b"%PDF-1.7\nan approval\n%%EOF\n"

ANSWERS: dict[str, Any] = {
    "purpose": "commercial",
    "title": "Lesion detection",
    "aim": "Find out whether a small network tells lesions from normal images.",
    "method": "A convolutional network, trained on single views and judged by AUC.",
    "days": 30,
    "expertise": "Five years of image analysis.",
    "means": "None that we know of.",
    "gain": "None.",
    "protection": "A closed office and managed machines.",
    "linkage": "There is none.",
    "relation": "None.",
    "access_control": "Two people, named below.",
    "outputs": "One model and its figures.",
    "pledge": True,
}


@dataclass
class Cast:
    """Who is who; every role sits in a unit of its own, so that only rules keep people apart."""

    steward: Person
    committee: list[Person]  # two internal members, one external
    reviewers: list[Person]
    officer: Person
    auditor: Person
    administrator: Person
    applicant: Person
    analyst: Person
    stranger: Person
    version: DatasetVersion
    answers: dict[str, Any] = field(default_factory=dict)

    def draft(self, **changes: Any) -> AccessRequest:
        """Return a complete draft with its ethics document."""
        request = actions.create_request(
            by=self.applicant, version=self.version, fields={**self.answers, **changes}
        )
        actions.add_document(
            by=self.applicant, request=request, stream=io.BytesIO(PDF), filename="approval.pdf"
        )
        return request

    def submitted(self, **changes: Any) -> AccessRequest:
        """Return a request in review."""
        return actions.submit_request(by=self.applicant, request=self.draft(**changes))

    def vote(self, request: AccessRequest, voter: Person, choice: str = "approve") -> None:
        """Vote on a request as it is now."""
        request.refresh_from_db()
        decisions.cast_vote(
            by=voter, request=request, choice=choice, bound_to=request.bound_to, comment="Because."
        )

    def approved(self, **changes: Any) -> AccessRequest:
        """Return an approved request."""
        request = self.submitted(**changes)
        for member in self.committee:
            self.vote(request, member)
        request.refresh_from_db()
        return request

    def sign(self, request: AccessRequest, agreement: Agreement | None = None) -> Grant:
        """Sign for an approved request."""
        return grants.sign_agreement(
            by=self.applicant,
            request=request,
            agreement=agreement or current_agreement(),
            typed_name=self.applicant.name,
            language="en",
        )

    def granted(self, **changes: Any) -> Grant:
        """Return an active grant for applicant and analyst."""
        return self.sign(self.approved(**changes))


def build(make_person: Callable[..., Person], make_unit: Callable[..., Any]) -> Cast:
    """Make everybody, and a published version without files."""

    def hospital(unit: str) -> Any:
        return make_unit(unit, "Hospital", external=False)

    def outside(unit: str, organisation: str) -> Any:
        return make_unit(unit, organisation, external=True)

    steward = make_person("steward@hospital.example", "steward", unit=hospital("Radiology"))
    company = outside("Research", "Company")
    applicant = make_person("applicant@company.example", unit=company)
    analyst = make_person("analyst@company.example", unit=company)
    dataset = Dataset.objects.create(
        slug="mammography",
        kind="mammography",
        title="Mammography",
        description="Four views.",
        steward=steward,
        unit=steward.unit,
    )
    version = DatasetVersion.objects.create(dataset=dataset, number=1, state="published")
    return Cast(
        steward=steward,
        committee=[
            make_person("one@hospital.example", "committee", unit=hospital("Ethics")),
            make_person("two@hospital.example", "committee", unit=hospital("Law")),
            make_person("three@university.example", "committee", unit=outside("Law", "University")),
        ],
        reviewers=[
            make_person("first@hospital.example", "reviewer", unit=hospital("Data office")),
            make_person("second@hospital.example", "reviewer", unit=hospital("Security")),
            make_person("third@university.example", "reviewer", unit=outside("CS", "University")),
        ],
        officer=make_person("officer@hospital.example", "officer", unit=hospital("IT")),
        auditor=make_person("auditor@ministry.example", "auditor", unit=outside("A", "Ministry")),
        administrator=make_person(
            "admin@hospital.example", "administrator", unit=hospital("Operations")
        ),
        applicant=applicant,
        analyst=analyst,
        stranger=make_person("stranger@other.example", unit=outside("X", "Other")),
        version=version,
        answers={**ANSWERS, "analysts": [applicant.email, analyst.email]},
    )


def default_agreement() -> None:
    """Put in what migrations put in: a test with real transactions empties every table."""
    agreement = importlib.import_module("portal.access.migrations.0002_default_agreement")
    agreement.add(apps, None)


@pytest.fixture
def cast(make_person: Callable[..., Person], make_unit: Callable[..., Any]) -> Cast:
    """Everybody, and a published version without files."""
    default_agreement()
    return build(make_person, make_unit)
