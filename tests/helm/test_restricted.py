"""The checker itself: a clean pod passes, and each single violation of the standard is found."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.helm.restricted import VOLUMES, violations

CLEAN: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "a",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            },
        }
    ],
    "volumes": [{"name": "v", "emptyDir": {}}],
}
POD_CONTEXT = [
    ({"runAsNonRoot": False}, "Running as Non-root"),
    ({"runAsUser": 0}, "Running as Non-root user"),
    ({"seccompProfile": {"type": "Unconfined"}}, "Seccomp"),
    ({"seLinuxOptions": {"type": "spc_t"}}, "SELinux"),
    ({"seLinuxOptions": {"user": "root"}}, "SELinux"),
    ({"seLinuxOptions": {"role": "sysadm_r"}}, "SELinux"),
    ({"appArmorProfile": {"type": "Unconfined"}}, "AppArmor"),
    ({"windowsOptions": {"hostProcess": True}}, "HostProcess"),
]
ONLY_POD_CONTEXT = [({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}, "Sysctls")]
CONTAINER_CONTEXT = [
    *POD_CONTEXT,
    ({"privileged": True}, "Privileged Containers"),
    ({"allowPrivilegeEscalation": True}, "Privilege Escalation"),
    ({"allowPrivilegeEscalation": None}, "Privilege Escalation"),
    ({"capabilities": {"drop": ["NET_RAW"]}}, "Capabilities"),
    ({"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}, "Capabilities"),
    ({"capabilities": {}}, "Capabilities"),
    ({"procMount": "Unmasked"}, "/proc Mount Type"),
]
CONTAINER = [
    ({"ports": [{"containerPort": 1, "hostPort": 1}]}, "Host Ports"),
    ({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}, "Host Probes / Lifecycle Hooks"),
    ({"readinessProbe": {"tcpSocket": {"host": "10.0.0.1"}}}, "Host Probes / Lifecycle Hooks"),
    (
        {"lifecycle": {"preStop": {"httpGet": {"host": "10.0.0.1"}}}},
        "Host Probes / Lifecycle Hooks",
    ),
]
POD = [
    ({"hostNetwork": True}, "Host Namespaces"),
    ({"hostPID": True}, "Host Namespaces"),
    ({"hostIPC": True}, "Host Namespaces"),
    ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "Volume Types"),
    ({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]}, "Volume Types"),
]
KINDS = ["containers", "initContainers", "ephemeralContainers"]


def test_clean_pod_breaks_nothing() -> None:
    assert violations(CLEAN) == []


@pytest.mark.parametrize("kind", sorted(VOLUMES))
def test_volume_kinds_of_the_standard_pass(kind: str) -> None:
    assert violations({**CLEAN, "volumes": [{"name": "v", kind: {}}]}) == []


@pytest.mark.parametrize(("change", "control"), POD)
def test_pod_field_is_found(change: dict[str, Any], control: str) -> None:
    assert control in violations({**CLEAN, **change})


@pytest.mark.parametrize(("change", "control"), POD_CONTEXT + ONLY_POD_CONTEXT)
def test_pod_security_context_is_found(change: dict[str, Any], control: str) -> None:
    pod = copy.deepcopy(CLEAN)
    pod["securityContext"].update(change)
    assert control in violations(pod)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("change", "control"), CONTAINER_CONTEXT)
def test_container_security_context_is_found(
    kind: str, change: dict[str, Any], control: str
) -> None:
    pod = copy.deepcopy(CLEAN)
    bad = copy.deepcopy(CLEAN["containers"][0])
    bad["securityContext"].update(change)
    pod[kind] = [*pod.get(kind, []), bad]
    assert violations(pod) == [control]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("change", "control"), CONTAINER)
def test_container_field_is_found(kind: str, change: dict[str, Any], control: str) -> None:
    pod = copy.deepcopy(CLEAN)
    pod[kind] = [*pod.get(kind, []), {**CLEAN["containers"][0], **change}]
    assert violations(pod) == [control]


@pytest.mark.parametrize("field", ["runAsNonRoot", "seccompProfile"])
def test_what_nobody_sets_is_found(field: str) -> None:
    pod = copy.deepcopy(CLEAN)
    del pod["securityContext"][field]
    assert len(violations(pod)) == 1


def test_unconfined_apparmor_annotation_is_found() -> None:
    name = "container.apparmor.security.beta.kubernetes.io/a"
    assert violations(CLEAN, {name: "unconfined"}) == ["AppArmor"]
    assert violations(CLEAN, {name: "runtime/default"}) == []
