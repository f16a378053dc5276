"""The NetworkPolicy of a KitRun: it is there before any pod is. Pure, a part of `plan`."""

from __future__ import annotations

from kit19_ray.operate.controller.actions import Apply, Planning
from kit19_ray.operate.manifests import children
from kit19_ray.operate.manifests.naming import BUILD_ANNOTATION


def protect(work: Planning) -> None:
    """Applies the policy, before everything else that is planned, where there are or will be pods and it is missing or
    another one; takes it away where none is asked for.

    A refusal counts as one of the stage whose pods come next, which then does not start.
    """
    wanted, found = children.network_policy(work.run, work.spec), work.one("NetworkPolicy")
    if wanted is None:
        if found:
            work.delete(found)
        return
    coming = [action.stage for action in work.actions if isinstance(action, Apply)]
    present = [child.stage for child in work.observed.children if child.kind in ("RayJob", "RayService")]
    differs = found is None or found.build != wanted["metadata"]["annotations"][BUILD_ANNOTATION]
    if differs and (coming or present):
        work.actions.insert(0, Apply(wanted, (coming or present)[0]))
