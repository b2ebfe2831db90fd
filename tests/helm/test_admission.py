"""The admission policy admits the pods that the backend makes, and no pod with one thing changed.

Its expressions are evaluated by a CEL interpreter, as the API server would.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cel
import pytest

from sandbox_runner.backends.kubernetes_manifests import job_manifest
from sandbox_runner.backends.kubernetes_settings import ClusterSettings, parse_settings
from sandbox_runner.spec import Mount, SandboxSpec
from tests.helm.chart import merge, objects, render, values_of
from tests.helm.restricted import violations

Object = dict[str, Any]
USERNS = {
    "sandbox": {"runtimeClasses": [{"name": "new", "isolation": "kata", "userNamespaces": True}]}
}


def install(values: Object) -> tuple[Object, ClusterSettings]:
    found = objects(render(values))
    (policy,) = [
        o for o in found if o["metadata"]["name"] == "gb-sandbox-pods" and "variables" in o["spec"]
    ]
    (config,) = [o for o in found if o["kind"] == "ConfigMap"]
    return policy["spec"], parse_settings(json.loads(config["data"]["cluster.json"]))


def pod_of(settings: ClusterSettings, spec: SandboxSpec | None = None) -> Object:
    """The pod that the Job controller would make of the backend's Job."""
    root = settings.staging_root
    spec = spec or SandboxSpec(
        id="job-1",
        argv=("python", "/code/train.py"),
        mounts=(Mount(root / "a", "/code"), Mount(root / "b", "/data/x")),
        output=Path("/tmp/out"),
    )
    manifest = job_manifest(spec, settings, settings.runtime_classes[0])
    template = manifest["spec"]["template"]
    return {"metadata": {**template["metadata"], "name": "gb-x"}, "spec": template["spec"]}


def refusals(policy: Object, pod: Object, old: Object | None = None) -> list[str]:
    """Return the messages of the validations that do not hold. What fails to evaluate, refuses."""
    operation = "CREATE" if old is None else "UPDATE"
    scope: Object = {"object": pod, "oldObject": old, "request": {"operation": operation}}
    for condition in policy["matchConditions"]:
        if not cel.evaluate(condition["expression"], scope):
            return []
    variables: Object = {}
    scope["variables"] = variables
    for variable in policy["variables"]:
        variables[variable["name"]] = cel.evaluate(variable["expression"], scope)
    found = []
    for rule in policy["validations"]:
        try:
            held = cel.evaluate(rule["expression"], scope)
        except Exception:  # failurePolicy is Fail
            held = False
        if held is not True:
            found.append(rule["message"])
    return found


@pytest.fixture(scope="module")
def full() -> tuple[Object, ClusterSettings]:
    return install(values_of("full"))


@pytest.mark.parametrize("values", ["full", "minimal", "userns"])
def test_pods_of_the_backend_are_admitted(values: str) -> None:
    example = merge(values_of("minimal"), USERNS) if values == "userns" else values_of(values)
    policy, settings = install(example)
    pod = pod_of(settings)
    assert refusals(policy, pod) == []
    assert violations(pod["spec"]) == []
    without = SandboxSpec(id="job-2", argv=("true",))
    assert refusals(policy, pod_of(settings, without)) == []
    gpus = SandboxSpec(id="job-3", argv=("true",), image="pytorch-cpu")
    assert (
        refusals(policy, pod_of(settings, replace(gpus, limits=replace(gpus.limits, gpus=1)))) == []
    )


def each_container(change: Callable[[Object], Any]) -> Callable[[Object], None]:
    def apply(pod: Object) -> None:
        change(pod["spec"]["initContainers"][0])

    return apply


def context(**fields: Any) -> Callable[[Object], None]:
    return each_container(lambda c: c["securityContext"].update(fields))


def drop_context(field: str) -> Callable[[Object], None]:
    return each_container(lambda c: c["securityContext"].pop(field))


def field(name: str, value: Any) -> Callable[[Object], None]:
    return lambda pod: pod["spec"].update({name: value})


def without(name: str) -> Callable[[Object], None]:
    return lambda pod: pod["spec"].pop(name)


def container_field(name: str, value: Any) -> Callable[[Object], None]:
    return each_container(lambda c: c.update({name: value}))


def pod_context(**fields: Any) -> Callable[[Object], None]:
    return lambda pod: pod["spec"]["securityContext"].update(fields)


def volume(**source: Any) -> Callable[[Object], None]:
    return lambda pod: pod["spec"]["volumes"].append({"name": "more", **source})


def staging(pod: Object) -> Object:
    (found,) = [v for v in pod["spec"]["volumes"] if v["name"] == "staging"]
    claim: Object = found["persistentVolumeClaim"]
    return claim


def mount_outbox(pod: Object) -> None:
    mount = {"name": "outbox", "mountPath": "/mnt/o", "subPath": "other-job"}
    pod["spec"]["initContainers"][0]["volumeMounts"].append(mount)


def whole_claim(pod: Object) -> None:
    for mount in pod["spec"]["initContainers"][0]["volumeMounts"]:
        mount.pop("subPath", None)


def carrier_with_another_image(pod: Object) -> None:
    pod["spec"]["containers"][0]["image"] = pod["spec"]["initContainers"][0]["image"]


PROBE = {"tcpSocket": {"port": 1}}
CHANGES: dict[str, Callable[[Object], Any]] = {
    "no label": lambda pod: pod["metadata"].pop("labels"),
    "other label": lambda pod: pod["metadata"]["labels"].update({"glovebox/role": "portal"}),
    "no runtime class": without("runtimeClassName"),
    "runc": field("runtimeClassName", "runc"),
    "image of nobody": container_field("image", "registry.example.org/x@sha256:" + "9" * 64),
    "image by tag": container_field("image", "registry.example.org/pytorch-cpu:latest"),
    "default account": field("serviceAccountName", "default"),
    "worker's account": field("serviceAccountName", "gb-worker"),
    "no account": without("serviceAccountName"),
    "token": field("automountServiceAccountToken", True),
    "token by default": without("automountServiceAccountToken"),
    "service links": field("enableServiceLinks", True),
    "service links by default": without("enableServiceLinks"),
    "host network": field("hostNetwork", True),
    "host pids": field("hostPID", True),
    "host ipc": field("hostIPC", True),
    "shared processes": field("shareProcessNamespace", True),
    "host aliases": field("hostAliases", [{"ip": "10.0.0.1", "hostnames": ["x"]}]),
    "cluster DNS": field("dnsPolicy", "ClusterFirst"),
    "DNS by default": without("dnsPolicy"),
    "real resolver": field("dnsConfig", {"nameservers": ["10.96.0.10"]}),
    "second resolver": field("dnsConfig", {"nameservers": ["127.0.0.1", "8.8.8.8"]}),
    "search domains": field("dnsConfig", {"nameservers": ["127.0.0.1"], "searches": ["x"]}),
    "no DNS settings": without("dnsConfig"),
    "root allowed": pod_context(runAsNonRoot=False),
    "another user": pod_context(runAsUser=10001),
    "root": pod_context(runAsUser=0),
    "root group": pod_context(runAsGroup=0),
    "sysctls": pod_context(sysctls=[{"name": "kernel.shm_rmid_forced", "value": "1"}]),
    "groups": pod_context(supplementalGroups=[0]),
    "no pod context": without("securityContext"),
    "unconfined": pod_context(seccompProfile={"type": "Unconfined"}),
    "runtime's seccomp where the chart names one": pod_context(
        seccompProfile={"type": "RuntimeDefault"}
    ),
    "another profile": pod_context(
        seccompProfile={"type": "Localhost", "localhostProfile": "allow-all.json"}
    ),
    "container's own seccomp": context(seccompProfile={"type": "RuntimeDefault"}),
    "container's own user": context(runAsUser=1000),
    "writable root": context(readOnlyRootFilesystem=False),
    "root writable by default": drop_context("readOnlyRootFilesystem"),
    "escalation": context(allowPrivilegeEscalation=True),
    "escalation by default": drop_context("allowPrivilegeEscalation"),
    "privileged": context(privileged=True),
    "capability": context(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
    "capabilities kept": context(capabilities={"drop": ["NET_RAW"]}),
    "capabilities by default": drop_context("capabilities"),
    "unmasked proc": context(procMount="Unmasked"),
    "no container context": each_container(lambda c: c.pop("securityContext")),
    "no limits": each_container(lambda c: c.pop("resources")),
    "no disk limit": each_container(lambda c: c["resources"]["limits"].pop("ephemeral-storage")),
    "more than requested": each_container(lambda c: c["resources"]["limits"].update(memory="99Gi")),
    "host path": volume(hostPath={"path": "/"}),
    "secret": volume(secret={"secretName": "keys"}),
    "config map": volume(configMap={"name": "x"}),
    "token by projection": volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}),
    "volume of a driver": volume(csi={"driver": "x"}),
    "unbounded emptyDir": volume(emptyDir={"medium": "Memory"}),
    "emptyDir on disk": volume(emptyDir={"sizeLimit": "1Gi"}),
    "another claim": volume(persistentVolumeClaim={"claimName": "portal-home", "readOnly": True}),
    "writable staging": lambda pod: staging(pod).update(readOnly=False),
    "staging writable by default": lambda pod: staging(pod).pop("readOnly"),
    "outbox in the job": mount_outbox,
    "all of a claim": whole_claim,
    "a carrier of theirs": carrier_with_another_image,
    "environment": container_field("env", [{"name": "A", "value": "b"}]),
    "environment of a secret": container_field("envFrom", [{"secretRef": {"name": "keys"}}]),
    "device": container_field("volumeDevices", [{"name": "d", "devicePath": "/dev/x"}]),
    "hook": container_field("lifecycle", {"preStop": PROBE}),
    "port": container_field("ports", [{"containerPort": 80}]),
    "probe": container_field("livenessProbe", PROBE),
    "sidecar": container_field("restartPolicy", "Always"),
    "standard input": container_field("stdin", True),
    "terminal": container_field("tty", True),
    "restart": field("restartPolicy", "Always"),
    "no deadline": without("activeDeadlineSeconds"),
    "endless deadline": field("activeDeadlineSeconds", 2**31 - 1),
    "ephemeral container": field("ephemeralContainers", [{"name": "x", "image": "x"}]),
    "chosen node": field("nodeName", "control-plane"),
    "claimed device": field("resourceClaims", [{"name": "x"}]),
    "one more container": lambda pod: pod["spec"]["containers"].append(
        {"name": "x", "image": "busybox"}
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_thing_changed_is_refused(name: str, full: tuple[Object, ClusterSettings]) -> None:
    policy, settings = full
    pod = pod_of(settings)
    CHANGES[name](pod)
    assert len(refusals(policy, pod)) >= 1


def test_each_validation_is_needed(full: tuple[Object, ClusterSettings]) -> None:
    """Without any one of them some change above would pass that no other catches."""
    policy, settings = full
    alone: set[str] = set()
    for change in CHANGES.values():
        pod = pod_of(settings)
        change(pod)
        found = refusals(policy, pod)
        if len(found) == 1:
            alone.update(found)
    every = {rule["message"] for rule in policy["validations"]}
    # Needs a runtime class that offers user namespaces; tested below.
    user_namespaces = (
        "a runtime class that offers user namespaces must be used with hostUsers false"
    )
    assert alone == every - {user_namespaces}


def test_user_namespaces_are_used_where_they_are_offered() -> None:
    policy, settings = install(merge(values_of("minimal"), USERNS))
    pod = pod_of(settings)
    del pod["spec"]["hostUsers"]
    assert len(refusals(policy, pod)) == 1
    pod["spec"]["hostUsers"] = True
    assert len(refusals(policy, pod)) == 1


def test_image_cannot_be_changed_later(full: tuple[Object, ClusterSettings]) -> None:
    policy, settings = full
    old = pod_of(settings)
    changed = copy.deepcopy(old)
    changed["spec"]["initContainers"][0]["image"] = "busybox"
    assert refusals(policy, changed, old)


def test_pod_of_an_older_form_can_still_end(full: tuple[Object, ClusterSettings]) -> None:
    policy, settings = full
    old = pod_of(settings)
    old["spec"]["dnsPolicy"] = "Default"
    freed = copy.deepcopy(old)
    freed["metadata"]["finalizers"] = []
    assert refusals(policy, freed, old) == []


def test_policies_are_bound_and_deny() -> None:
    found = objects(render(values_of("full")))
    policies = {o["metadata"]["name"] for o in found if o["kind"] == "ValidatingAdmissionPolicy"}
    bindings = [o["spec"] for o in found if o["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert {binding["policyName"] for binding in bindings} == policies
    for binding in bindings:
        assert binding["validationActions"] == ["Deny"]
        selector = binding["matchResources"]["namespaceSelector"]["matchLabels"]
        assert selector == {"kubernetes.io/metadata.name": "glovebox-sandbox"}


def test_a_running_sandbox_cannot_be_entered() -> None:
    found = objects(render(values_of("full")))
    (doors,) = [
        o["spec"]
        for o in found
        if o["kind"] == "ValidatingAdmissionPolicy" and o["metadata"]["name"] == "gb-sandbox-doors"
    ]
    resources = {
        r for rule in doors["matchConstraints"]["resourceRules"] for r in rule["resources"]
    }
    assert {"pods/exec", "pods/attach", "pods/portforward", "pods/ephemeralcontainers"} <= resources
    assert [rule["expression"] for rule in doors["validations"]] == ["false"]
    assert doors["failurePolicy"] == "Fail"
