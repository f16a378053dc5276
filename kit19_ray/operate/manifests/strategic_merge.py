"""Strategic merge of pod templates, as `kubectl patch` and KubeRay's users know it. Pure.

Maps merge key by key, null takes a key away, lists of named things merge by the key Kubernetes merges them by, every
other list is replaced. `$patch: delete` takes a named thing away, `$patch: replace` replaces a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kit19_ray.utils.json_types import Json

# patchMergeKey of k8s.io/api/core/v1 (PodSpec, Container)
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """`base` with `patch` over it; neither is changed."""
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    out = dict(base)
    for key, value in patch.items():
        before = out.get(key)
        if value is None:
            out.pop(key, None)
        elif isinstance(value, Mapping):
            out[key] = merge(before if isinstance(before, Mapping) else {}, value)
        elif isinstance(value, Sequence) and not isinstance(value, str) and key in MERGE_KEYS:
            out[key] = _merge_lists(before or [], value, MERGE_KEYS[key])
        else:
            out[key] = value
    return out


def _merge_lists(base: Sequence[Json], patch: Sequence[Json], by: str) -> list[Json]:
    out = list(base)
    for item in patch:
        at = next((n for n, one in enumerate(out) if one.get(by) == item.get(by)), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del out[at]
        elif at is None:
            out.append(merge({}, item))
        else:
            out[at] = merge(out[at], item)
    return out
