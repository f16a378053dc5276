"""The licence gate: which tasks a policy leaves out, and what the licences of the others ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kit19_ray.errors import DataError, quote
from kit19_ray.sources.catalog import Licence
from kit19_ray.tasks.task import Task

ALLOWED_USES: dict[str, tuple[str, ...]] = {
    "all": (),
    "no-derivatives-excluded": ("derivatives",),
    "commercial": ("derivatives", "commercial use"),  # what is trained on is changed as well
}
"""Policy -> the uses a source must allow."""


def forbids(licence: Licence) -> list[str]:
    """What a licence does not allow."""
    allowed = {"commercial use": licence.commercial, "derivatives": licence.derivatives}
    return [use for use, is_allowed in allowed.items() if not is_allowed]


def excluded(tasks: Mapping[str, Task], policy: str, named: Sequence[str] | None) -> dict[str, str]:
    """Task -> why `policy` leaves it out.

    Args:
        named: the tasks the config asks for by name; those are refused instead of left out.

    Raises:
        DataError: the policy excludes a task that was named.
    """
    found: dict[str, str] = {}
    for name, task in tasks.items():
        lacking = [use for use in ALLOWED_USES[policy] if use in forbids(task.source.licence)]
        if lacking:
            found[name] = f"its licence ({task.source.licence.name}) does not allow {' and '.join(lacking)}"
    refused = [name for name in found if name in (named or ())]
    if refused:
        raise DataError(
            "\n".join(f"data.licence_policy={policy}: task {quote(name)}: {found[name]}" for name in refused),
            hint="take it out of data.tasks, or set data.licence_policy=all if you may use it",
        )
    return {name: f"data.licence_policy={policy}: {reason}" for name, reason in found.items()}


def notice(tasks: Mapping[str, Task]) -> list[str]:
    """A line for each source whose licence forbids something, sorted by title."""
    sources = {task.source_id: task.source for task in tasks.values() if forbids(task.source.licence)}
    return [
        f"{source.title} ({source.licence.name}) forbids {' and '.join(forbids(source.licence))}"
        for source in sorted(sources.values(), key=lambda s: s.title)
    ]
