"""The restricted Pod Security Standard, field by field, as a function over a pod's spec.

https://kubernetes.io/docs/concepts/security/pod-security-standards/, with the checks of the
baseline that it includes. Windows fields and relaxations for user namespaces are left out: what
is stricter here than the standard fails a test and lets nothing through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


def containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in ("containers", "initContainers", "ephemeralContainers"):
        yield from spec.get(key, ())


def violations(spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of the standard's controls that this pod breaks, sorted, without doubles."""
    found = set(_pod(spec))
    for name, value in (annotations or {}).items():
        local = value == "runtime/default" or value.startswith("localhost/")
        if name.startswith(APPARMOR_ANNOTATION) and not local:
            found.add("AppArmor")
    for container in containers(spec):
        found.update(_container(container, spec.get("securityContext", {})))
    return sorted(found)


def _pod(spec: Mapping[str, Any]) -> Iterator[str]:
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "Host Namespaces"
    for volume in spec.get("volumes", ()):
        if set(volume) - {"name"} - VOLUMES or set(volume) == {"name"}:
            yield "Volume Types"
    context = spec.get("securityContext", {})
    for sysctl in context.get("sysctls", ()):
        if sysctl.get("name") not in SAFE_SYSCTLS:
            yield "Sysctls"
    yield from _either(context)
    if context.get("runAsNonRoot") is False:
        yield "Running as Non-root"
    if context.get("runAsUser") == 0:
        yield "Running as Non-root user"


def _either(context: Mapping[str, Any]) -> Iterator[str]:
    """Fields that pods and containers share."""
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "HostProcess"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "SELinux"
    profile = context.get("appArmorProfile", {}).get("type", "RuntimeDefault")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield "AppArmor"
    seccomp = context.get("seccompProfile", {}).get("type", "RuntimeDefault")
    if seccomp not in ("RuntimeDefault", "Localhost"):
        yield "Seccomp"


def _container(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    yield from _either(context)
    if context.get("privileged"):
        yield "Privileged Containers"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "Privilege Escalation"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        yield "Capabilities"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "Capabilities"
    if context.get("procMount", "Default") != "Default":
        yield "/proc Mount Type"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "Host Ports"
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "Running as Non-root"
    if context.get("runAsUser") == 0:
        yield "Running as Non-root user"
    if "seccompProfile" not in context and "seccompProfile" not in pod:
        yield "Seccomp"
    yield from _host_probes(container)


def _host_probes(container: Mapping[str, Any]) -> Iterator[str]:
    """Probes and hooks that name a host let a pod make the kubelet knock elsewhere (v1.34)."""
    lifecycle = container.get("lifecycle", {})
    probes = [container.get(key, {}) for key in ("livenessProbe", "readinessProbe", "startupProbe")]
    for handler in (*probes, lifecycle.get("postStart", {}), lifecycle.get("preStop", {})):
        if any(handler.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield "Host Probes / Lifecycle Hooks"
