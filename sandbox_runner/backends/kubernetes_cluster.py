"""The few calls to the cluster's API that the backend needs, each safe to repeat.

Answers are plain JSON values: what is judged is what the API server said.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from policies.errors import CannotRun, Conflict, GloveboxError
from sandbox_runner.backends.kubernetes_manifests import (
    DIGEST,
    JOB,
    ROLE_LABEL,
    Manifest,
)

#: Seconds to connect, seconds between bytes.
TIMEOUT = (5, 60)


class Unreachable(GloveboxError):
    """The API did not answer, or not sensibly; it may, if asked again."""


class Refused(GloveboxError):
    """The API server will not have this Job."""


def _no_rights() -> CannotRun:
    return CannotRun(
        "The cluster does not let the runner do this; see the worker's role in the chart.",
        code="sandbox.kubernetes.rights",
    )


class Cluster:
    """A cluster's API, seen through one namespace."""

    def __init__(self, namespace: str) -> None:
        """Connect by ``KUBECONFIG`` or, in a pod, by the service account. Raises CannotRun."""
        settings = client.Configuration()
        try:
            load: Any = config.load_incluster_config
            if os.environ.get("KUBECONFIG"):
                # Named, because the client reads the variable once, when it is imported.
                load = functools.partial(config.load_kube_config, os.environ["KUBECONFIG"])
            load(client_configuration=settings)
        except (ConfigException, OSError) as error:
            raise CannotRun(
                "There is no cluster: set KUBECONFIG, or run in a pod with a service account.",
                code="sandbox.kubernetes.cluster",
            ) from error
        settings.retries = False
        self.namespace = namespace
        self._api = client.ApiClient(settings)
        # Untyped: asked for the bare answer, their methods return no model.
        self._batch: Any = client.BatchV1Api(self._api)
        self._core: Any = client.CoreV1Api(self._api)

    def _ask(self, call: Any, *args: Any, **options: Any) -> Any:
        """Return the JSON of an answer, None for "not found". Raises Unreachable, CannotRun."""
        try:
            answer = call(*args, **options, _preload_content=False, _request_timeout=TIMEOUT)
            return json.loads(answer.data)
        except ApiException as error:
            if error.status == 404:
                return None
            if error.status in (401, 403):
                raise _no_rights() from error
            raise Unreachable from error
        except (HTTPError, ValueError, OSError) as error:
            raise Unreachable from error

    def version(self) -> str:
        """Return the API server's version."""
        answer = self._ask(client.VersionApi(self._api).get_code)
        return str(answer.get("gitVersion", "")) if isinstance(answer, dict) else ""

    def create(self, manifest: Manifest) -> bool:
        """Make the Job; return False where the same one is already there.

        Raises Conflict where another of its name is, or one that is being deleted; Refused where
        the API server will not have it.
        """
        try:
            self._batch.create_namespaced_job(
                self.namespace, manifest, _preload_content=False, _request_timeout=TIMEOUT
            )
        except ApiException as error:
            if error.status == 409:
                return self._is_same(manifest)
            quota = error.status == 403 and "quota" in str(error.body)
            if error.status in (400, 422) or quota:
                raise Refused from error
            if error.status in (401, 403):
                raise _no_rights() from error
            raise Unreachable from error
        except (HTTPError, OSError) as error:
            # It may have been made all the same: the next call finds out.
            raise Unreachable from error
        return True

    def _is_same(self, manifest: Manifest) -> bool:
        there = self.job(manifest["metadata"]["name"])
        if there is None or there["metadata"].get("deletionTimestamp"):
            raise Unreachable  # on its way out; the name is free in a moment
        wanted = manifest["metadata"]["annotations"][DIGEST]
        if there["metadata"].get("annotations", {}).get(DIGEST) != wanted:
            raise Conflict("Another sandbox of the same id is in the cluster.")
        return False

    def job(self, name: str) -> Manifest | None:
        """Return the Job, None if there is none."""
        found: Manifest | None = self._ask(self._batch.read_namespaced_job, name, self.namespace)
        return found

    def jobs(self) -> frozenset[str]:
        """Return the names of all Jobs of ours."""
        found = self._ask(
            self._batch.list_namespaced_job,
            self.namespace,
            label_selector=f"{ROLE_LABEL}=sandbox",
        )
        return frozenset(item["metadata"]["name"] for item in (found or {}).get("items", ()))

    def pods(self, name: str) -> list[Manifest]:
        """Return the Job's pods."""
        found = self._ask(
            self._core.list_namespaced_pod,
            self.namespace,
            label_selector=f"batch.kubernetes.io/job-name={name}",
        )
        return list((found or {}).get("items", ()))

    def events(self, uids: frozenset[str]) -> list[Manifest]:
        """Return the events about objects with these uids: never those of an older namesake."""
        rows: list[Manifest] = []
        for uid in sorted(uids):
            found = self._ask(
                self._core.list_namespaced_event,
                self.namespace,
                field_selector=f"involvedObject.uid={uid}",
            )
            rows += (found or {}).get("items", ())
        return rows

    def delete(self, name: str) -> None:
        """Delete the Job once its pods are gone; nothing happens where it is already gone."""
        self._ask(
            self._batch.delete_namespaced_job,
            name,
            self.namespace,
            body={"propagationPolicy": "Foreground"},
        )

    def log(self, pod: str, container: str = JOB, limit: int = 1024 * 1024) -> Iterator[bytes]:
        """Yield what a container wrote, from its start, as it comes, at most ``limit`` bytes.

        Ends when the container does or the connection breaks.
        """
        left = limit
        try:
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=True,
                _preload_content=False,
                _request_timeout=TIMEOUT,
            )
        except (ApiException, HTTPError, OSError):
            return
        try:
            while left > 0 and (data := answer.read1(min(left, 65536))):
                left -= len(data)
                yield data
        except (HTTPError, OSError):
            return
        finally:
            answer.close()

    def namespace_labels(self) -> dict[str, str]:
        """Return the labels of the sandbox namespace, empty where there is none."""
        found = self._ask(self._core.read_namespace, self.namespace)
        return dict((found or {}).get("metadata", {}).get("labels", {}))

    def network_policies(self) -> list[Manifest]:
        """Return the NetworkPolicies of the sandbox namespace."""
        found = self._ask(
            client.NetworkingV1Api(self._api).list_namespaced_network_policy, self.namespace
        )
        return list((found or {}).get("items", ()))

    def has_runtime_class(self, name: str) -> bool:
        """Return whether the cluster has a RuntimeClass of this name."""
        return self._ask(client.NodeV1Api(self._api).read_runtime_class, name) is not None
