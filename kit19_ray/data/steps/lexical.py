"""What letters alone tell of each task's held-out rows: a Ray task a task."""

from __future__ import annotations

from collections.abc import Mapping

from kit19_ray.artifacts import lexical
from kit19_ray.data import lexical_baseline, ray_tasks
from kit19_ray.data.export import MixtureEntry
from kit19_ray.data.lexical_baseline import Figure
from kit19_ray.data.ray_tasks import MIB
from kit19_ray.tasks.task import Task


def make(out: str, entries: Mapping[str, MixtureEntry], tasks: Mapping[str, Task]) -> dict[str, Figure]:
    """Writes the baseline's answers below the data prefix; the figures of the tasks that have any."""
    chosen = [name for name in entries if tasks[name].labels]
    items = [(name, (entries[name], tasks[name])) for name in chosen]
    made = zip(chosen, ray_tasks.run("lexical baseline", _figure, items, out, 1024 * MIB), strict=True)
    found = {name: figure for name, figure in made if figure is not None}
    lexical.write(out, {name: figure.answers for name, figure in found.items()})
    return found


def _figure(out: str, item: tuple[MixtureEntry, Task]) -> Figure | None:
    return lexical_baseline.of_task(out, *item)
