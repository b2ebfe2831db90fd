"""A private training through the real engine: the worker keeps the record, the gate believes it."""

from __future__ import annotations

import io

import pytest

from portal.jobs import actions, engine, storage
from portal.jobs.models import Job
from tests.portal.cast import Cast
from tests.portal.jobs.material import MODEL, archive, files, fill

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sandbox,
]

MANIFEST = """
[job]
name = "private"
recipe = "private"
[model]
build = "model:build"
[datasets]
mammography = "1"
[resources]
cpus = 1
memory = "2Gi"
time = "5m"
output = "16Mi"
[private]
epsilon = 4.0
steps = 10
rate = 0.3
learning_rate = 0.5
[config]
size = [16, 16]
positive_label = "lesion"
"""


def private(model: str = MODEL) -> io.BytesIO:
    return archive({"glovebox.toml": MANIFEST, "model.py": model})


def advanced(cast: Cast, stream: io.BytesIO) -> Job:
    fill(cast.version, files(subjects=72))
    job = actions.submit(by=cast.applicant, grant=cast.granted(), stream=stream)
    engine.advance(job.pk)
    job.refresh_from_db()
    return job


@pytest.mark.slow
def test_a_private_job_from_upload_to_inspection(cast: Cast) -> None:
    job = advanced(cast, private())
    assert (job.state, job.reason) == ("finished", "exit"), (job.message, storage.read_log(job))
    assert job.privacy is not None
    weights = job.artefacts.get(kind="weights")
    assert job.privacy["weights"] == {"model.safetensors": weights.sha256}
    found = job.inspection.findings.get(rule="privacy.epsilon")
    assert (found.severity, found.evidence["delta"]) == ("info", 0.001)
    assert 3.9 < found.evidence["epsilon"] <= 4.0
    # Nothing was measured on the training data, and nothing said.
    assert job.inspection.metrics == {}
    assert storage.read_log(job) == ""


def test_a_network_that_is_not_of_the_closed_list_is_refused_by_name(cast: Cast) -> None:
    model = MODEL.replace("torch.nn.ReLU()", "torch.nn.BatchNorm2d(4)")
    job = advanced(cast, private(model))
    assert (job.state, job.reason, job.field) == ("refused", "manifest", "model.build")
    assert job.message.startswith("1 is a BatchNorm2d")
    assert job.privacy is None
