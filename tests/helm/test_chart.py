"""What the chart installs: valid, restricted, with no right more than is used."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from sandbox_runner.backends.kubernetes_settings import parse_settings
from tests.helm.chart import CHART, TemplateError, merge, objects, parse, render, values_of
from tests.helm.restricted import violations

Object = dict[str, Any]
EXAMPLES = ["full", "minimal"]
VERSIONS = ["1.37", "1.33"]


@pytest.fixture(scope="module", params=EXAMPLES)
def installed(request: pytest.FixtureRequest) -> list[Object]:
    return objects(render(values_of(request.param)))


@pytest.fixture(scope="module")
def full() -> list[Object]:
    return objects(render(values_of("full")))


def named(found: list[Object], kind: str, name: str = "") -> Object:
    rows = [o for o in found if o["kind"] == kind and name in ("", o["metadata"]["name"])]
    assert len(rows) == 1, f"{kind} {name}: {len(rows)}"
    return rows[0]


def pod_templates(found: list[Object]) -> Iterator[tuple[str, Object]]:
    for item in found:
        if "template" in item.get("spec", {}):
            yield item["metadata"]["name"], item["spec"]["template"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(installed: list[Object], version: str) -> None:
    for item in installed:
        kubernetes_validate.validate(item, version, strict=True)
    assert len(installed) > 20


def test_every_pod_is_restricted_and_limited(installed: list[Object]) -> None:
    seen = []
    for name, template in pod_templates(installed):
        assert violations(template["spec"], template["metadata"].get("annotations")) == [], name
        for container in [
            *template["spec"]["containers"],
            *template["spec"].get("initContainers", []),
        ]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "@sha256:" in container["image"]
            for amounts in container["resources"].values():
                assert {"cpu", "memory", "ephemeral-storage"} <= set(amounts)
        seen.append(name)
    assert seen == ["gb-migrate", "gb-web", "gb-worker-long", "gb-worker-short", "gb-beat"]


def test_no_object_is_made_twice(installed: list[Object]) -> None:
    keys = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in installed]
    assert len(keys) == len(set(keys))


def test_selectors_meet_their_pods_and_no_others(full: list[Object]) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pod_templates(full)}
    for item in full:
        selector = item.get("spec", {}).get("selector")
        if item["kind"] in ("Deployment", "PodDisruptionBudget"):
            selector = selector["matchLabels"]
        if item["kind"] in ("Deployment", "PodDisruptionBudget", "Service"):
            met = {name for name, has in labels.items() if selector.items() <= has.items()}
            assert met == {item["metadata"]["name"]}


def test_secrets_are_only_named(installed: list[Object]) -> None:
    assert not [item for item in installed if item["kind"] == "Secret"]


def mounted(found: list[Object], name: str) -> set[str]:
    spec = dict(pod_templates(found))[name]["spec"]
    secrets = {v["name"]: v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    return {
        secrets[m["name"]]
        for c in spec["containers"]
        for m in c["volumeMounts"]
        if m["name"] in secrets
    }


def test_each_process_sees_its_own_keys(full: list[Object]) -> None:
    """The web process holds no data key (architecture, three kinds of code)."""
    assert mounted(full, "gb-web") == {"portal-session", "portal-view"}
    assert mounted(full, "gb-beat") == {"portal-session"}
    assert mounted(full, "gb-migrate") == {"portal-session"}
    everything = {"portal-session", "portal-view", "portal-data", "portal-sign"}
    assert mounted(full, "gb-worker-long") == mounted(full, "gb-worker-short") == everything


def test_only_workers_hold_a_token(full: list[Object]) -> None:
    for name, template in pod_templates(full):
        expected = name.startswith("gb-worker-")
        assert template["spec"]["automountServiceAccountToken"] is expected, name
    for account in (item for item in full if item["kind"] == "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_worker_may_do_this_and_nothing_else(full: list[Object]) -> None:
    role = named(full, "Role")
    assert role["metadata"]["namespace"] == "glovebox-sandbox"
    rights = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert rights == {
        *(("batch", "jobs", verb) for verb in ("create", "get", "list", "watch", "delete")),
        *(("", what, verb) for what in ("pods", "events") for verb in ("get", "list", "watch")),
        ("", "pods/log", "get"),
        *(("networking.k8s.io", "networkpolicies", verb) for verb in ("get", "list")),
    }
    for rule in named(full, "ClusterRole")["rules"]:
        assert rule["verbs"] == ["get"] and rule["resourceNames"]
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        binding = named(full, kind)
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "gb-worker", "namespace": "glovebox"}
        ]


def test_sandbox_namespace_enforces_the_restricted_standard(installed: list[Object]) -> None:
    labels = named(installed, "Namespace")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_sandbox_pods_reach_nothing(installed: list[Object]) -> None:
    in_sandbox = [
        item
        for item in installed
        if item["kind"] == "NetworkPolicy" and item["metadata"]["namespace"] == "glovebox-sandbox"
    ]
    (policy,) = in_sandbox
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_portal_reaches_only_what_is_named(full: list[Object]) -> None:
    denied = named(full, "NetworkPolicy", "gb-deny-all")["spec"]
    assert set(denied["policyTypes"]) == {"Ingress", "Egress"} and set(denied) == {
        "podSelector",
        "policyTypes",
    }
    for _, template in pod_templates(full):
        selector = denied["podSelector"]["matchLabels"]
        assert selector.items() <= template["metadata"]["labels"].items()
    worker = named(full, "NetworkPolicy", "gb-worker")["spec"]
    assert worker["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "worker"
    assert worker["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.96.0.1/32"}}]
    for policy in (item for item in full if item["kind"] == "NetworkPolicy"):
        for rule in [*policy["spec"].get("egress", []), *policy["spec"].get("ingress", [])]:
            assert rule.get("to") or rule.get("from"), "an empty rule allows everything"
            assert rule["ports"]


def test_nobody_reaches_the_portal_until_it_is_said_who() -> None:
    found = objects(render(values_of("minimal")))
    policies = [item for item in found if item["kind"] == "NetworkPolicy"]
    assert not [policy for policy in policies if policy["spec"].get("ingress")]
    assert not [item for item in found if item["kind"] == "Ingress"]


def test_quota_and_limits_cover_what_jobs_use(installed: list[Object]) -> None:
    hard = named(installed, "ResourceQuota")["spec"]["hard"]
    assert {"pods", "limits.memory", "requests.memory", "limits.ephemeral-storage"} <= set(hard)
    assert hard["count/services"] == "0"
    (limit,) = named(installed, "LimitRange")["spec"]["limits"]
    assert limit["type"] == "Pod" and {"cpu", "memory"} <= set(limit["max"])


def test_the_backend_reads_what_the_chart_writes(installed: list[Object]) -> None:
    text = named(installed, "ConfigMap")["data"]["cluster.json"]
    settings = parse_settings(json.loads(text))
    assert settings.namespace == "glovebox-sandbox"
    assert settings.image("pytorch-cpu").endswith("2" * 64)
    assert settings.runtime_class("gvisor").isolation in ("gvisor", "kata")
    (worker,) = [t for name, t in pod_templates(installed) if name == "gb-worker-long"]
    container = worker["spec"]["containers"][0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(settings.staging_root), str(settings.outbox_root)} <= mounts
    env = {row["name"]: row.get("value") for row in container["env"]}
    assert env["GLOVEBOX_KUBERNETES"] == "/etc/glovebox/cluster/cluster.json"
    assert env["GLOVEBOX_WORK"].startswith(str(settings.staging_root))


BAD_VALUES: list[tuple[str, Any]] = [
    ("image.digest", "latest"),
    ("image.digest", ""),
    ("image.repository", 'x"\n        privileged: true'),
    ("portal.url", "http://glovebox.example.org"),
    ("portal.url", ""),
    ("portal.uid", 0),
    ("portal.database.secret", ""),
    ("portal.keys.data", ""),
    ("portal.env", {"lower": "x"}),
    ("portal.unknown", 1),
    ("sandbox.uid", 0),
    ("sandbox.nameserver", "10.96.0.10"),
    ("sandbox.namespace", "a\nb"),
    ("sandbox.images", {"x": "registry.example.org/x:latest"}),
    ("sandbox.images", {"x": "x' || true || '@sha256:" + "1" * 64}),
    ("sandbox.runtimeClasses", [{"name": "runc", "isolation": "none", "userNamespaces": True}]),
    ("sandbox.claims.staging", "x' || 'a' == 'a"),
    ("sandbox.serviceAccount", "x' || true || '"),
    ("sandbox.seccompProfile", "../../unconfined"),
    ("sandbox.podSecurityVersion", "v1"),
    ("network.egress", [{}]),
    ("network.egress", [{"to": [], "ports": []}]),
    ("network.apiServer.cidrs", ["everywhere"]),
    ("worker.queues.short.replicas", 0),
]


@pytest.mark.parametrize(("path", "value"), BAD_VALUES)
def test_wrong_values_are_refused(path: str, value: Any) -> None:
    for key in reversed(path.split(".")):
        value = {key: value}
    with pytest.raises(jsonschema.ValidationError):
        render(merge(values_of("full"), value))


def test_nothing_is_installed_from_the_bare_defaults() -> None:
    with pytest.raises(jsonschema.ValidationError):
        render({})


def test_text_in_values_stays_text() -> None:
    """A value with YAML in it lands in its own field, quoted."""
    hostile = 'x"\n  privileged: true\n---\nkind: Secret'
    found = objects(render(merge(values_of("full"), {"portal": {"env": {"A": hostile}}})))
    assert not [item for item in found if item["kind"] == "Secret"]
    env = dict(pod_templates(found))["gb-web"]["spec"]["containers"][0]["env"]
    assert {"name": "A", "value": hostile} in env


@pytest.mark.parametrize(
    "source",
    [
        "{{ if .a }}x",
        "x{{ end }}",
        "{{ else }}",
        "{{ nope .a }}",
        "{{ .Values.nothing.at.all }}",
        "{{ .Values.nothing }}",
        "{{ $x }}",
        "{{ $x = 1 }}",
        "{{ .Values.web | toYaml | }}",
        "{{ (toYaml .Values.web }}",
        "{{ .Values.web",
        '{{ include "no.such" . }}',
        "{{ range .Release.Name }}{{ end }}",
    ],
)
def test_the_reader_is_strict(source: str) -> None:
    from tests.helm.chart import Renderer

    context = {"Values": {"web": {"a": 1}}, "Release": {"Name": "gb"}}
    with pytest.raises((TemplateError, TypeError)):
        Renderer(context).render(parse(source), context, {"$": context})


@pytest.mark.skipif(shutil.which("helm") is None, reason="no helm on this machine")
@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_itself_gives_the_same_objects(example: str) -> None:
    values = CHART / "ci" / f"{example}-values.yaml"
    command = ["helm", "template", "gb", str(CHART), "--namespace=glovebox", f"--values={values}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    key = lambda o: (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"])  # noqa: E731
    theirs = sorted((o for o in yaml.safe_load_all(text) if o), key=key)
    assert theirs == sorted(objects(render(values_of(example))), key=key)
