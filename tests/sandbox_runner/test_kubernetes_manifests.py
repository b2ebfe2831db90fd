"""A SandboxSpec becomes one sealed Job, whatever stands in it, or is refused."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import CannotRun, Invalid
from sandbox_runner.backends.kubernetes_manifests import (
    DIGEST,
    ENVIRONMENT,
    job_manifest,
    job_name,
    literal,
    sealed_command,
)
from sandbox_runner.backends.kubernetes_settings import ClusterSettings, RuntimeClass
from sandbox_runner.lifecycle import INSIDE, RECIPES
from sandbox_runner.spec import Limits, Mount, SandboxSpec
from tests.helm.restricted import violations

GVISOR = RuntimeClass("gvisor", "gvisor")
KATA = RuntimeClass("kata-qemu", "kata", user_namespaces=True)
DIGEST_1, DIGEST_2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64
SETTINGS = ClusterSettings(
    namespace="glovebox-sandbox",
    images={"pytorch-cpu": f"registry.example.org:5000/pytorch-cpu@{DIGEST_2}"},
    carrier_image=f"registry.example.org/glovebox@{DIGEST_1}",
    runtime_classes=(GVISOR, KATA),
    staging_claim="staging",
    staging_root=Path("/srv/staging"),
    outbox_claim="outbox",
    outbox_root=Path("/srv/outbox"),
)
SPEC = SandboxSpec(
    id="job-1",
    argv=("python", "/code/train.py"),
    mounts=(
        Mount(Path("/srv/staging/code/abc"), "/code"),
        Mount(Path("/srv/staging/mammography-1"), "/data/mammography"),
    ),
    env={"OMP_NUM_THREADS": "2"},
    output=Path("/srv/out"),
    limits=Limits(cpus=1.5, memory_bytes=2**32, wall_seconds=90, gpus=1),
)


def make(spec: SandboxSpec = SPEC, settings: ClusterSettings = SETTINGS) -> dict[str, Any]:
    return job_manifest(spec, settings, settings.runtime_classes[0])


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def check_sealed(manifest: dict[str, Any], settings: ClusterSettings = SETTINGS) -> None:
    """What holds for every Job that is ever made, whatever the spec was."""
    for version in ("1.37", "1.33"):
        kubernetes_validate.validate(manifest, version, strict=True)
    template = manifest["spec"]["template"]
    pod = template["spec"]
    assert violations(pod, template["metadata"].get("annotations")) == []
    assert pod["runtimeClassName"] in {entry.name for entry in settings.runtime_classes}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["dnsPolicy"] == "None"
    assert pod["dnsConfig"] == {"nameservers": ["127.0.0.1"]}
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsUser"] == settings.uid > 0
    assert manifest["spec"]["backoffLimit"] == 0
    assert 0 < pod["activeDeadlineSeconds"] <= manifest["spec"]["activeDeadlineSeconds"]
    for volume in pod["volumes"]:
        assert set(volume) in ({"name", "emptyDir"}, {"name", "persistentVolumeClaim"})
        if "emptyDir" in volume:
            assert volume["emptyDir"]["medium"] == "Memory"
            assert int(volume["emptyDir"]["sizeLimit"]) > 0
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert "@sha256:" in container["image"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["limits"])
        assert "env" not in container and "envFrom" not in container
        assert not {"sh", "/bin/sh", "bash", "/bin/bash"} & {container["command"][0]}
        for mount in container["volumeMounts"]:
            claims = {v["name"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
            if mount["name"] in claims:
                assert mount["subPath"] and ".." not in mount["subPath"].split("/")
            assert not mount["mountPath"].startswith(("/var", "/etc", "/proc", "/sys", "/run"))


def expanded(word: str, environment: dict[str, str]) -> str:
    """What the kubelet makes of a word of a command: $(NAME) by environment, $$ is one $."""
    out, at = "", 0
    while at < len(word):
        if word[at] != "$" or at + 1 == len(word):
            out, at = out + word[at], at + 1
        elif word[at + 1] == "$":
            out, at = out + "$", at + 2
        elif word[at + 1] == "(" and ")" in word[at:]:
            name = word[at + 2 : word.index(")", at)]
            out += environment.get(name, f"$({name})")
            at = word.index(")", at) + 1
        else:
            out, at = out + word[at : at + 2], at + 2
    return out


def test_job_is_sealed_and_holds_what_was_asked() -> None:
    manifest = make()
    check_sealed(manifest)
    pod = pod_of(manifest)
    (job,) = pod["initContainers"]
    assert job["resources"]["limits"]["cpu"] == "1500m"
    assert job["resources"]["limits"]["memory"] == str(2**32)
    assert job["resources"]["limits"]["nvidia.com/gpu"] == "1"
    mounts = {mount["mountPath"]: mount for mount in job["volumeMounts"]}
    assert mounts["/data/mammography"]["subPath"] == "mammography-1"
    assert mounts["/data/mammography"]["readOnly"] is True
    sizes = {v["name"]: v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if "emptyDir" in v}
    assert sizes == {"tmp": str(2**30), "shm": str(2**30), "output": str(2**31)}


def test_only_the_carrier_sees_the_outbox_and_only_after_the_job() -> None:
    pod = pod_of(make())
    (job,), (carrier,) = pod["initContainers"], pod["containers"]
    assert "restartPolicy" not in job, "a sidecar would run beside the carrier"
    assert "outbox" not in {mount["name"] for mount in job["volumeMounts"]}
    by_name = {mount["name"]: mount for mount in carrier["volumeMounts"]}
    assert by_name["output"]["readOnly"] is True
    assert by_name["outbox"]["subPath"] == job_name("job-1")
    assert "staging" not in by_name


def test_without_output_there_is_no_carrier_and_no_outbox() -> None:
    pod = pod_of(make(replace(SPEC, output=None)))
    assert [container["name"] for container in pod["containers"]] == ["job"]
    assert "initContainers" not in pod
    assert "outbox" not in {volume["name"] for volume in pod["volumes"]}


def test_staging_claim_is_read_only_as_a_whole() -> None:
    (volume,) = [v for v in pod_of(make())["volumes"] if v["name"] == "staging"]
    assert volume["persistentVolumeClaim"] == {"claimName": "staging", "readOnly": True}


def test_program_starts_with_no_variable_of_the_cluster() -> None:
    command = pod_of(make())["initContainers"][0]["command"]
    start = command.index("/usr/bin/env")
    assert command[start + 1] == "-i"
    given_names = {word.split("=", 1)[0] for word in command[start + 2 :] if "=" in word}
    assert given_names == {*ENVIRONMENT, "OMP_NUM_THREADS"}
    assert command[-2:] == ["python", "/code/train.py"]


def test_host_users_only_where_the_runtime_offers_them() -> None:
    assert "hostUsers" not in pod_of(job_manifest(SPEC, SETTINGS, GVISOR))
    manifest = job_manifest(SPEC, SETTINGS, KATA)
    assert pod_of(manifest)["hostUsers"] is False
    check_sealed(manifest)


def test_seccomp_profile_of_the_node_is_used_when_named() -> None:
    settings = replace(SETTINGS, seccomp_profile="glovebox/sandbox.json")
    manifest = make(settings=settings)
    assert pod_of(manifest)["securityContext"]["seccompProfile"] == {
        "type": "Localhost",
        "localhostProfile": "glovebox/sandbox.json",
    }
    check_sealed(manifest, settings)


def test_queued_job_starts_suspended() -> None:
    """Kueue's webhook may be away: a Job that is not suspended would pass by the queue."""
    queued = make(settings=replace(SETTINGS, queue="training"))
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert make()["spec"]["suspend"] is False


def test_same_spec_same_job_and_any_change_another_digest() -> None:
    assert make() == make()
    other = make(replace(SPEC, argv=("python", "/code/other.py")))
    assert other["metadata"]["name"] == make()["metadata"]["name"]
    assert other["metadata"]["annotations"][DIGEST] != make()["metadata"]["annotations"][DIGEST]


@pytest.mark.parametrize(
    ("minimum", "name"), [("bubblewrap", "gvisor"), ("gvisor", "gvisor"), ("kata", "kata-qemu")]
)
def test_runtime_class_is_never_below_the_minimum(minimum: str, name: str) -> None:
    assert SETTINGS.runtime_class(minimum).name == name


@pytest.mark.parametrize("minimum", ["kata", "none", "", "GVISOR"])
def test_no_step_down(minimum: str) -> None:
    with pytest.raises(CannotRun):
        replace(SETTINGS, runtime_classes=(GVISOR,)).runtime_class(minimum)


def test_unknown_image_is_refused() -> None:
    with pytest.raises(CannotRun):
        make(replace(SPEC, image="ubuntu:latest"))


@pytest.mark.parametrize(
    "spec_id",
    [
        "",
        "a" * 64,
        "-a",
        "a-",
        "a b",
        "a\n",
        "a/b",
        "../a",
        "a,glovebox/role=portal",
        "é",
        "a\x00",
        "x: y",
    ],
)
def test_hostile_id_is_refused(spec_id: str) -> None:
    with pytest.raises(Invalid) as caught:
        make(replace(SPEC, id=spec_id))
    assert caught.value.field == "id"


@pytest.mark.parametrize(
    "target",
    [
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "/data/../var/run/secrets",
        "/code/./x",
        "/etc",
        "/",
        "/output",
        "/tmp",
        "/dev/shm",
        "/dev/termination-log",
        "/proc/self",
        "/opt/venv",
        "/opt/sdk",
        "/opt/glovebox/../venv",
        "/outbox",
        "data",
        "",
        "/data/",
        "/data//x",
        "/data/a:b",
        "/data/a\nb",
        "/database",
        "/data/" + "x" * 200,
    ],
)
def test_mount_outside_its_places_is_refused(target: str) -> None:
    with pytest.raises(Invalid):
        make(replace(SPEC, mounts=(Mount(Path("/srv/staging/a"), target),)))


@pytest.mark.parametrize(
    "source",
    [
        "/srv/staging",
        "/srv/staging/",
        "/srv/staging/..",
        "/srv/staging/../outbox/a",
        "/srv/staging-2/a",
        "/srv/outbox/a",
        "/",
        "/var/run/secrets",
        "relative",
        "/srv/staging/a\nb",
        "/srv/staging/a:b",
        "/srv/staging/a\x00b",
    ],
)
def test_source_outside_staging_is_refused(source: str) -> None:
    with pytest.raises(CannotRun):
        make(replace(SPEC, mounts=(Mount(Path(source), "/data/a"),)))


@pytest.mark.parametrize("target", [INSIDE, RECIPES, "/opt/oracle", "/code", "/data/a-1"])
def test_places_of_the_lifecycle_are_known(target: str) -> None:
    check_sealed(make(replace(SPEC, mounts=(Mount(Path("/srv/staging/a"), target),))))


def test_two_mounts_in_one_place_are_refused() -> None:
    mounts = (Mount(Path("/srv/staging/a"), "/code"), Mount(Path("/srv/staging/b"), "/code"))
    with pytest.raises(Invalid):
        make(replace(SPEC, mounts=mounts))


@pytest.mark.parametrize(
    "change",
    [
        {"stdin": b"secret"},
        {"extra_fds": (5,)},
        {"mounts": (Mount(Path("/srv/staging/a"), "/mnt/a", writable=True),)},
    ],
)
def test_what_a_pod_cannot_do_is_refused_not_left_out(change: dict[str, Any]) -> None:
    with pytest.raises(CannotRun):
        make(replace(SPEC, **change))


@pytest.mark.parametrize("name", [field for field in vars(Limits()) if field != "gpus"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, 2**60, True])
def test_limit_that_limits_nothing_is_refused(name: str, value: float) -> None:
    with pytest.raises(Invalid) as caught:
        make(replace(SPEC, limits=replace(Limits(), **{name: value})))
    assert caught.value.field == f"limits.{name}"


def test_negative_gpus_and_endless_time_are_refused() -> None:
    for change in ({"gpus": -1}, {"wall_seconds": 8 * 24 * 3600.0}):
        with pytest.raises(Invalid):
            make(replace(SPEC, limits=replace(Limits(), **change)))


@pytest.mark.parametrize("name", ["", "A=B", "-u", "A B", "A\n", "1A", "--split-string", "É"])
def test_environment_name_that_env_would_misread_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        make(replace(SPEC, env={name: "x"}))


@pytest.mark.parametrize("argv", [(), ("",), ("-S", "sh"), ("A=B", "python"), ("python", "\x00")])
def test_program_that_env_would_misread_is_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        make(replace(SPEC, argv=argv))


def test_command_too_long_for_the_cluster_is_refused() -> None:
    with pytest.raises(Invalid):
        make(replace(SPEC, env={"A": "x" * 70_000}))


@pytest.mark.parametrize("workdir", ["/", "/var/run/secrets", "tmp", "/tmp/../etc", ""])
def test_working_directory_elsewhere_is_refused(workdir: str) -> None:
    with pytest.raises(Invalid):
        make(replace(SPEC, workdir=workdir))


@given(st.text(alphabet=st.sampled_from("$()KUBERNETES_SERVICE_HOST ab{}"), max_size=40))
def test_no_word_is_expanded_by_the_kubelet(word: str) -> None:
    cluster = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES": "leak", "": "leak"}
    assert expanded(literal(word), cluster) == word


def test_the_expansion_would_leak_without_the_escape() -> None:
    cluster = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert expanded("x$(KUBERNETES_SERVICE_HOST)", cluster) == "x10.96.0.1"


@pytest.mark.skipif(not Path("/usr/bin/prlimit").exists(), reason="no prlimit here")
def test_the_command_starts_the_program_with_these_words_and_limits_only() -> None:
    """Run for real, with the kubelet's expansion and a cluster's environment around it."""
    cluster = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_PORT": "tcp://10.96.0.1:443"}
    program = (
        "import json,os,resource,sys;"
        "print(json.dumps([sys.argv[1:],dict(os.environ),resource.getrlimit(resource.RLIMIT_CORE),"
        "resource.getrlimit(resource.RLIMIT_NOFILE)]))"
    )
    hostile = ("$(KUBERNETES_SERVICE_HOST)", "; id", "$$x", "a b\n'\"", "--help", "A=B")
    spec = replace(SPEC, argv=(sys.executable, "-c", program, *hostile), env={"A": "$(B)"})
    command = [expanded(word, cluster) for word in sealed_command(spec)]
    told = subprocess.run(command, env=cluster, capture_output=True, check=True, timeout=60)
    words, environment, core, files = json.loads(told.stdout)
    assert tuple(words) == hostile
    assert not set(environment) & set(cluster)
    assert environment["A"] == "$(B)"
    assert core == [0, 0] and files == [4096, 4096]


ANY_TEXT = st.text(max_size=30)


@given(
    spec_id=st.one_of(ANY_TEXT, st.from_regex(r"[a-z0-9.-]{1,63}", fullmatch=True)),
    words=st.lists(ANY_TEXT, max_size=4),
    env=st.dictionaries(
        st.one_of(ANY_TEXT, st.from_regex(r"[A-Z_]{1,9}", fullmatch=True)), ANY_TEXT, max_size=2
    ),
    target=st.one_of(st.just("/data/x"), st.just("/code"), ANY_TEXT),
    source=st.one_of(st.just("a/b"), ANY_TEXT),
)
def test_any_spec_is_sealed_or_refused(
    spec_id: str, words: list[str], env: dict[str, str], target: str, source: str
) -> None:
    """Nothing in a spec can widen the pod: it validates, stays restricted, or is refused."""
    spec = replace(
        SPEC,
        id=spec_id,
        argv=("python", *words),
        env=env,
        mounts=(Mount(SETTINGS.staging_root / source, target),),
    )
    try:
        manifest = make(spec)
    except (Invalid, CannotRun):
        return
    check_sealed(manifest)
    # What a YAML or JSON reader gets back is what was written: no value becomes structure.
    assert json.loads(json.dumps(manifest)) == manifest
    labels = manifest["metadata"]["labels"]
    assert labels["glovebox/role"] == "sandbox"
    assert set(labels) == {"glovebox/role", "glovebox/job"}
    assert re.fullmatch(r"gb-[0-9a-f]{40}", manifest["metadata"]["name"])


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "a/b"},
        {"namespace": ""},
        {"namespace": "A"},
        {"images": {"x": "registry.example.org/x:latest"}},
        {"carrier_image": "glovebox"},
        {"runtime_classes": (RuntimeClass("runc", "none"),)},
        {"runtime_classes": (RuntimeClass("bwrap", "bubblewrap"),)},
        {"staging_root": Path("relative")},
        {"staging_root": Path("/")},
        {"outbox_claim": "staging"},
        {"uid": 0},
        {"uid": -1},
        {"nameserver": "8.8.8.8"},
        {"seccomp_profile": "../unconfined"},
        {"queue": "a b"},
        {"pull_secrets": ("a/b",)},
        {"keep_seconds": 0},
    ],
)
def test_settings_that_would_open_the_sandbox_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CannotRun):
        replace(SETTINGS, **change)
