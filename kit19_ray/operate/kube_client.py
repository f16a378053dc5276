"""The API server as the operator uses it: a few verbs on plain manifests, blocking, each with a time limit."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes
import urllib3

from kit19_ray.operate.api.crd import GROUP, PLURAL, VERSION
from kit19_ray.operate.manifests import naming
from kit19_ray.utils.json_types import Json

_TIMEOUT = (5, 30)  # seconds to connect, to answer
_STREAM_TIMEOUT = (5, 300)  # seconds to connect, between two pieces
_RUNS = f"/apis/{GROUP}/{VERSION}"
_PATHS = {
    "RayJob": ("/apis/ray.io/v1", "rayjobs"),
    "RayService": ("/apis/ray.io/v1", "rayservices"),
    "Ingress": ("/apis/networking.k8s.io/v1", "ingresses"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Secret": ("/api/v1", "secrets"),
}
OBSERVED = ("RayJob", "RayService", "Ingress", "NetworkPolicy")


# Server-side apply says the first (with status 500), strict field validation the second.
_UNKNOWN_FIELD = re.compile(r"(\.spec[\w.\[\]/=\"-]{0,300}): field not declared in schema|unknown field \"([^\"]+)\"")


class KubeError(Exception):
    """What the API server refuses, or that it cannot be reached.

    Args:
        status: HTTP status; 0 when there was no answer.
        message: the server's own words.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status, self.message = status, message

    @property
    def unknown_field(self) -> str | None:
        """The field of an object that its kind does not have in this cluster: an older version of whose kind it is."""
        found = _UNKNOWN_FIELD.search(self.message)
        return (found[1] or found[2]) if found else None


class Cluster:
    """A connection with a ServiceAccount's or a kubeconfig's rights."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def connect(cls) -> Cluster:
        """The cluster this pod is in, else the one of KUBECONFIG."""
        try:
            kubernetes.config.load_incluster_config()
        except kubernetes.config.ConfigException:
            kubernetes.config.load_kube_config()
        return cls(kubernetes.client.ApiClient())

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """The JSON answer.

        Raises:
            ApiError: the server refuses, or cannot be reached.
        """
        answer = self._call(method, path, body, content_type, query, _TIMEOUT)
        loaded: Json = json.loads(answer.data)
        return loaded

    def stream(self, path: str, query: Mapping[str, str]) -> Iterator[bytes]:
        """What the server sends, as it comes, until it ends.

        Raises:
            ApiError: the server refuses, cannot be reached, or says nothing for some minutes.
        """
        answer = self._call("GET", path, None, "application/json", query, _STREAM_TIMEOUT)
        try:
            yield from answer.stream()
        except urllib3.exceptions.HTTPError as error:
            raise KubeError(0, f"the connection broke: {error}") from None
        finally:
            answer.release_conn()

    def _call(
        self,
        method: str,
        path: str,
        body: Any,
        content_type: str,
        query: Mapping[str, str] | None,
        timeout: tuple[int, int],
    ) -> Any:
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        try:
            return self._client.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=timeout,
            )
        except kubernetes.client.ApiException as error:
            raise KubeError(error.status or 0, _said(error)) from None
        except urllib3.exceptions.HTTPError as error:
            raise KubeError(0, f"the API server cannot be reached: {error}") from None

    def serves(self, group: str, version: str) -> bool:
        """Whether the API server knows a group in a version."""
        return self._found(f"/apis/{group}/{version}") is not None

    def run(self, namespace: str, name: str) -> Json | None:
        """A KitRun, or None when there is none."""
        return self._found(f"{_RUNS}/namespaces/{namespace}/{PLURAL}/{name}")

    def children(self, run: naming.RunRef) -> list[Json]:
        """The RayJobs, RayServices, Ingresses and NetworkPolicies that belong to a KitRun."""
        found: list[Json] = []
        selector = {"labelSelector": f"{naming.RUN_LABEL}={run.label}"}
        for kind in OBSERVED:
            api, plural = _PATHS[kind]
            listed = self.request("GET", f"{api}/namespaces/{run.namespace}/{plural}", query=selector)
            found += [item | {"kind": kind} for item in listed["items"] if _owned(item, run)]
        return found

    def create(self, manifest: Json) -> Json:
        """Creates an object. A field that its kind does not have here is refused, or seen to be missing in the answer.

        Raises:
            ApiError: 409 when there is one; 400 for an unknown field.
        """
        api, plural = _PATHS[manifest["kind"]]
        metadata = manifest["metadata"]
        path = f"{api}/namespaces/{metadata['namespace']}/{plural}"
        created = self.request("POST", path, manifest, query={"fieldValidation": "Strict"})
        if lost := _lost(manifest["spec"], created["spec"], ".spec"):  # a server before 1.25 drops it and says nothing
            self._delete(f"{path}/{metadata['name']}", "Background")
            raise KubeError(400, f"{lost}: field not declared in schema")
        return created

    def create_once(self, manifest: Json) -> None:
        """Creates an object, unless there is one of its name, which stays as it is.

        Raises:
            ApiError: it is refused; 409 when the one that is there goes with a KitRun that was deleted.
        """
        api, plural = _PATHS[manifest["kind"]]
        metadata = manifest["metadata"]
        try:
            self.request("POST", f"{api}/namespaces/{metadata['namespace']}/{plural}", manifest)
        except KubeError as error:
            if error.status != 409:
                raise
            try:
                reason = self.stranger(manifest, may_be_nobodys=True)
            except KubeError as other:
                if other.status == 403:  # it may be made and not be read
                    return
                raise
            if reason:
                raise KubeError(409, reason) from None

    def apply(self, manifest: Json, manager: str = naming.MANAGER) -> Json:
        """Server-side apply, and the object as it is then; the manager's fields are its own, whoever changed them.

        A field that its kind does not have here is refused: by the server, or, where one before 1.25 drops it and says
        nothing, by what is seen to be missing; an object that was only just made is then taken away again.

        Raises:
            ApiError: it is refused.
        """
        api, plural = _PATHS[manifest["kind"]]
        metadata = manifest["metadata"]
        path = f"{api}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        applied = self.request("PATCH", path, manifest, "application/apply-patch+yaml", query)
        if manifest["kind"].startswith("Ray") and (lost := _lost(manifest["spec"], applied["spec"], ".spec")):
            if applied["metadata"].get("generation") == 1:
                self._delete(path, "Background")
            raise KubeError(400, f"{lost}: field not declared in schema")
        return applied

    def stranger(self, manifest: Json, may_be_nobodys: bool = False) -> str | None:
        """Why an object of this name may not be written to: it is another owner's; None where nothing is in the way.

        Args:
            may_be_nobodys: one without an owner is no stranger.
        """
        api, plural = _PATHS[manifest["kind"]]
        metadata = manifest["metadata"]
        found = self._found(f"{api}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}")
        owners = {owner["uid"] for owner in metadata.get("ownerReferences", [])}
        theirs = {owner["uid"] for owner in (found or {}).get("metadata", {}).get("ownerReferences", [])}
        if found is None or owners & theirs or (may_be_nobodys and not theirs):
            return None
        return f"{manifest['kind']} {metadata['name']} is of a KitRun that was deleted; waiting for it to go"

    def release(self, namespace: str, name: str, finalizers: list[str]) -> None:
        """Takes a finalizer of ours off a KitRun; `finalizers` are those that stay.

        Raises:
            ApiError: 409 when they changed meanwhile.
        """
        path = f"{_RUNS}/namespaces/{namespace}/{PLURAL}/{name}"
        self.request("PATCH", path, {"metadata": {"finalizers": finalizers}}, "application/merge-patch+json")

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Deletes a child when what hangs on it is gone; one that is not there is no error."""
        api, plural = _PATHS[kind]
        self._delete(f"{api}/namespaces/{namespace}/{plural}/{name}", "Foreground")

    def delete_run(self, namespace: str, name: str) -> None:
        """Deletes a KitRun."""
        self._delete(f"{_RUNS}/namespaces/{namespace}/{PLURAL}/{name}", "Background")

    def write_status(self, namespace: str, name: str, version: str, status: Json) -> None:
        """Replaces the status, provided that the KitRun is still at resourceVersion `version`.

        Raises:
            ApiError: 409 when it is not.
        """
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/status", "value": status},
        ]
        path = f"{_RUNS}/namespaces/{namespace}/{PLURAL}/{name}/status"
        self.request("PATCH", path, patch, "application/json-patch+json")

    def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """A Secret's values, or None when there is none."""
        found = self._found(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        if found is None:
            return None
        return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}

    def lease(self, namespace: str, name: str) -> Json | None:
        """A Lease, or None when there is none."""
        return self._found(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}")

    def write_lease(self, lease: Json, new: bool) -> Json:
        """Creates or updates a Lease.

        Raises:
            ApiError: 409 when another was faster.
        """
        metadata = lease["metadata"]
        path = f"/apis/coordination.k8s.io/v1/namespaces/{metadata['namespace']}/leases"
        return self.request("POST", path, lease) if new else self.request("PUT", f"{path}/{metadata['name']}", lease)

    def _found(self, path: str) -> Json | None:
        try:
            return self.request("GET", path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def _delete(self, path: str, policy: str) -> None:
        try:
            self.request("DELETE", path, query={"propagationPolicy": policy})
        except KubeError as error:
            if error.status != 404:
                raise


def _lost(sent: Json, kept: Json, path: str) -> str | None:
    """The first field of `sent` that `kept` does not have; within lists nothing is looked for."""
    for key, value in sent.items():
        if key not in kept:
            return f"{path}.{key}"
        if (
            isinstance(value, dict)
            and isinstance(kept[key], dict)
            and (lost := _lost(value, kept[key], f"{path}.{key}"))
        ):
            return lost
    return None


def _owned(item: Json, run: naming.RunRef) -> bool:
    """Whether a child is this KitRun's, not one of a KitRun of the same name that is gone."""
    owners = item["metadata"].get("ownerReferences", [])
    return any(owner["uid"] == run.uid for owner in owners)


def _said(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
