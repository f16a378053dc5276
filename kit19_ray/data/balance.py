"""How the classes of a task share its training examples: as the source has them, evenly, or none above a share.

The examples of each class stand in a row of their own, every record once before any a second time (`rendering`). The
rows are laid together by weight, and a quota takes the first of what comes out:

    even    weights 1 1 1     A B C A B C A B A B A ...       C has no more: the others fill the quota
    cap     as in the source  A A A B A A C A | B B C B ...   A has had its share of the quota: it ends

Where an example stands follows from counts alone, so runs of records are rendered side by side and none knows another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kit19_ray.artifacts.data_manifests import ClassCounts, ClassShare
from kit19_ray.config.schema import DataConfig
from kit19_ray.data import mixture
from kit19_ray.errors import DataError, nearest, quote
from kit19_ray.tasks.task import Task

Mode = Literal["source", "even", "cap"]


@dataclass(frozen=True)
class Balance:
    """How one task is balanced.

    Attributes:
        classes: the labels that are drawn apart; empty for `source`, where nothing is.
        caps: the most of the quota that each class may give, by its place in `classes`; empty for `even`.
    """

    mode: Mode = "source"
    classes: tuple[str, ...] = ()
    caps: tuple[float, ...] = ()

    def weights(self, records: Mapping[str, int]) -> tuple[int, ...]:
        """Of each class, from the source's records by label."""
        if self.mode == "even":
            return (1,) * len(self.classes)
        return tuple(records.get(label, 0) for label in self.classes)

    def most(self, cls: int, quota: int) -> int:
        """Examples that a class may give to a quota."""
        return int(self.caps[cls] * quota) if self.caps else quota

    def identity(self) -> list[object]:
        """What a task's examples depend on."""
        return [self.mode, list(self.caps)]


SOURCE = Balance()


def of_tasks(data: DataConfig, tasks: Mapping[str, Task]) -> dict[str, Balance]:
    """How each task is balanced; a task without classes is drawn as its source is.

    Raises:
        DataError: a key names no task or no class, or balances a task that has no classes.
    """
    categories = {name: task.spec.category for name, task in tasks.items()}
    chosen = mixture.resolve("data.balances", data.balances, categories)
    for name in data.balances:
        if name in tasks and not tasks[name].labels and data.balances[name] != "source":
            raise DataError(f"data.balances: {name} has no classes, its answers are texts")
    found: dict[str, Balance] = {}
    for name, task in tasks.items():
        labels = tuple(task.labels)
        mode: Mode = "cap" if name in data.caps else chosen.get(name, data.balance)
        if mode == "source" or not labels:
            found[name] = SOURCE
        elif mode == "even":
            found[name] = Balance("even", labels)
        else:
            caps = data.caps.get(name, dict.fromkeys(labels, data.cap))
            found[name] = Balance("cap", labels, tuple(caps.get(label, 1.0) for label in labels))
    for name, caps in data.caps.items():
        if name not in tasks:
            raise DataError(f"data.caps: {quote(name)} is no task of this build{nearest(name, tasks)}")
        for label in caps:
            known = tasks[name].labels
            if label not in known:
                what = f"has no class {quote(label)}{nearest(label, known)}; it has {', '.join(known) or 'none'}"
                raise DataError(f"data.caps: {name} {what}")
    return found


@dataclass(frozen=True)
class Shares:
    """The classes of a split laid together: `weights`, and the examples that each has to give, `sizes`."""

    weights: tuple[int, ...]
    sizes: tuple[int, ...]

    def rank(self, cls: int, position: int) -> int:
        """Where the example number `position` of a class stands among those of all classes."""
        weight = self.weights[cls]
        rank = position
        for other, (its, size) in enumerate(zip(self.weights, self.sizes, strict=True)):
            if other != cls:
                # Its example p stands before when (p + 1) / its < (position + 1) / weight; a tie goes to the first.
                reached = (position + 1) * its
                rank += min(size, (reached if other < cls else max(0, reached - 1)) // weight)
        return rank

    def taken(self, quota: int) -> tuple[int, ...]:
        """Examples of each class that a quota takes."""
        return tuple(self._below(cls, quota) for cls in range(len(self.sizes)))

    def _below(self, cls: int, quota: int) -> int:
        low, high = 0, min(self.sizes[cls], quota)
        while low < high:  # ranks rise with the position
            middle = (low + high) // 2
            if self.rank(cls, middle) < quota:
                low = middle + 1
            else:
                high = middle
        return low


def shares(balance: Balance, counts: Sequence[ClassCounts], quota: int) -> Shares:
    """The classes of a split, none with more examples than a quota of this size lets it give."""
    sizes = tuple(min(c["examples"], balance.most(n, quota)) for n, c in enumerate(counts))
    return Shares(tuple(c["weight"] for c in counts), sizes)


def given(balance: Balance, counts: Sequence[ClassCounts], quota: int) -> dict[str, ClassShare]:
    """What each class gives to a quota, by label; empty where classes are not drawn apart."""
    if not balance.classes:
        return {}
    even, rest = divmod(quota, len(counts))
    wanted = [balance.most(n, quota) if balance.caps else even + (n < rest) for n in range(len(counts))]
    taken = shares(balance, counts, quota).taken(quota)
    return {
        c["label"]: {"records": c["records"], "examples": examples, "wanted": most}
        for c, examples, most in zip(counts, taken, wanted, strict=True)
    }


def short(balance: Balance, classes: Mapping[str, ClassShare]) -> str:
    """Says which classes give less than an even share; empty when none does."""
    if balance.mode != "even":
        return ""
    lacking = [
        f"{label} gives {c['examples']:,} of {c['wanted']:,} examples, all that its {c['records']:,} records have"
        for label, c in classes.items()
        if c["examples"] < c["wanted"]
    ]
    return "; ".join(lacking) + ("; the other classes fill the quota" if lacking else "")
