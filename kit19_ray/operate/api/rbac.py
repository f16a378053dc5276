"""What the operator may do, each right with its reason: the source of the chart's Roles and of k8s/.

`RULES` belong to a Role in each namespace it works in, or to one ClusterRole; `LEASE_RULES` to a Role in its own
namespace. `EDIT_RULES` and `VIEW_RULES` are for people.
"""

from __future__ import annotations

from dataclasses import dataclass

from kit19_ray.utils.json_types import Json


@dataclass(frozen=True)
class Rule:
    """One rule of a Role and why the operator needs it; `names` narrow it to these objects."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    reason: str
    names: tuple[str, ...] = ()

    def manifest(self) -> Json:
        """As Kubernetes has it."""
        narrowed = {"resourceNames": list(self.names)} if self.names else {}
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)} | narrowed


NAMESPACE_LEASE = "kit19-namespace"
"""The Lease in each namespace by which one release works there."""

RULES = (
    Rule(
        "kit19.dev",
        ("kitruns",),
        ("get", "list", "watch", "patch", "delete"),
        "watch the runs; take an earlier version's finalizer off; delete them when ttlSecondsAfterFinished is over",
    ),
    Rule("kit19.dev", ("kitruns/status",), ("get", "patch"), "write what is known of a run"),
    Rule(
        "kit19.dev",
        ("kitruns/finalizers",),
        ("update",),
        "own children with blockOwnerDeletion where OwnerReferencesPermissionEnforcement is on",
    ),
    Rule(
        "ray.io",
        ("rayjobs", "rayservices"),
        ("get", "list", "watch", "create", "patch", "delete"),
        "the children of a run; server-side apply is a patch",
    ),
    Rule(
        "networking.k8s.io",
        ("ingresses", "networkpolicies"),
        ("get", "list", "watch", "create", "patch", "delete"),
        "the way in that serve.ingress asks for; who may reach the pods of a run",
    ),
    Rule(
        "",
        ("secrets",),
        ("get",),
        "read storage.credentialsSecret: progress and scores are read with the run's own credentials, and a missing "
        "Secret is told before a cluster is asked for; no list and no watch. `rbac.secretNames` of the chart narrows "
        "it to names: what cannot be read is then taken to be there",
    ),
    Rule(
        "",
        ("secrets",),
        ("create",),
        "the Secret with a server's API keys, made once and never changed; Kubernetes cannot narrow `create` by name",
    ),
    Rule(
        "coordination.k8s.io",
        ("leases",),
        ("get", "update"),
        "hold the namespace, so that a second release that watches it leaves its KitRuns alone",
        (NAMESPACE_LEASE,),
    ),
    Rule("coordination.k8s.io", ("leases",), ("create",), "the same Lease; Kubernetes cannot narrow `create` by name"),
    Rule("", ("events",), ("create", "patch"), "an Event for each transition"),
)

EDIT_RULES = (
    Rule(
        "kit19.dev",
        ("kitruns",),
        ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"),
        "aggregated to admin and edit. Whoever may create a KitRun gets pods of the namespace with any of its "
        "ServiceAccounts, Secrets and volumes, as whoever may create a Pod",
    ),
)
VIEW_RULES = (Rule("kit19.dev", ("kitruns",), ("get", "list", "watch"), "aggregated to view"),)

LEASE_RULES = (
    Rule(
        "coordination.k8s.io",
        ("leases",),
        ("get", "create", "update"),
        "one operator works at a time; the others wait for its lease to end",
    ),
)


def manifests(rules: tuple[Rule, ...]) -> list[Json]:
    """`rules` of a Role or ClusterRole."""
    return [rule.manifest() for rule in rules]
