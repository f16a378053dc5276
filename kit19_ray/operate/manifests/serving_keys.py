"""The Secret with a server's API keys. Made once and never changed by us: whoever rotates them edits it, and the
servers read the file again.

It holds the file the server reads, with the key's hash only, and beside it the key itself, which clients get from
there; only the file is mounted.
"""

from __future__ import annotations

import hashlib
import secrets

from kit19_ray.operate.api.spec import KitRunSpec
from kit19_ray.operate.manifests import naming
from kit19_ray.operate.manifests.naming import RunRef
from kit19_ray.utils.json_types import Json

FOLDER, FILE, CLIENT = "/etc/kit19-keys", "api-keys", "key"
PATH = f"{FOLDER}/{FILE}"
VOLUME = "kit19-keys"


def name(run: RunRef, spec: KitRunSpec) -> str | None:
    """Name of the Secret that the server's pods mount; None where they mount none."""
    if not spec.mounts_keys:
        return None
    return spec.serve.keys_secret or naming.keys_name(run)


def secret(run: RunRef, spec: KitRunSpec) -> Json | None:
    """The Secret that is to be there, without its keys; None where the spec names one, or none is needed."""
    if not spec.mounts_keys or spec.serve.keys_secret:
        return None
    metadata = {"name": naming.keys_name(run), "namespace": run.namespace, "labels": naming.labels(run, "serve")}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata | naming.owner(run)}


def with_a_key(manifest: Json) -> Json:
    """The Secret with a key that nobody has seen."""
    key = f"sk-{secrets.token_urlsafe(32)}"
    line = f"kit19 sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"
    return manifest | {"stringData": {FILE: line, CLIENT: key}}


def volume(secret_name: str) -> Json:
    """The pods' volume: the file and nothing else."""
    return {"name": VOLUME, "secret": {"secretName": secret_name, "items": [{"key": FILE, "path": FILE}]}}


def mount() -> Json:
    """Where it is; a folder, because a file mounted alone is never renewed."""
    return {"name": VOLUME, "mountPath": FOLDER, "readOnly": True}
