"""The rights: no more than listed here, and each with its reason."""

from __future__ import annotations

from kit19_ray.operate.api import rbac


def test_no_right_is_wider_than_it_must_be() -> None:
    for rule in (*rbac.RULES, *rbac.LEASE_RULES):
        assert "*" not in (rule.group, *rule.resources, *rule.verbs) and rule.reason
    verbs: dict[str, set[str]] = {}
    for rule in rbac.RULES:
        for resource in rule.resources:
            verbs.setdefault(resource, set()).update(rule.verbs)
    assert verbs["secrets"] == {"get", "create"}  # never list, watch, update or delete
    assert "pods" not in verbs and "deletecollection" not in set().union(*verbs.values())


def test_a_rule_is_written_as_kubernetes_has_it() -> None:
    assert rbac.manifests(rbac.LEASE_RULES) == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
    ]
