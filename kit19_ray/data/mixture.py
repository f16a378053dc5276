"""How many training examples each task gets: from quotas, or from weights and a total.

A key of `data.quotas` or `data.weights` names a task, a pattern of names or a category; the narrowest that fits a task
counts. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Literal, TypeVar

from kit19_ray.config.schema import DataConfig
from kit19_ray.errors import DataError, nearest, quote

Value = TypeVar("Value", int, float, Literal["source", "even", "cap"])
_WILD = frozenset("*?[")


def quotas(data: DataConfig, categories: Mapping[str, str], own: Mapping[str, float] | None = None) -> dict[str, int]:
    """Training examples wanted per task; 0 leaves a task out.

    Args:
        categories: task -> category, of every task of the build.
        own: weights that entries of `data.datasets` state themselves.

    Raises:
        DataError: a key fits no task, two patterns of different value fit one, or all weights are 0.
    """
    if not data.weights and not own:
        chosen = resolve("data.quotas", data.quotas, categories)
        return {name: chosen.get(name, data.quota) for name in categories}
    weights = resolve("data.weights", data.weights, categories)
    total = data.total if data.total is not None else data.quota * len(categories)
    return shares({name: weights.get(name, 1.0) for name in categories} | dict(own or {}), total)


def resolve(key: str, values: Mapping[str, Value], categories: Mapping[str, str]) -> dict[str, Value]:
    """The value of each task that one is given for: by its name, else by a pattern, else by its category.

    Raises:
        DataError: see `quotas`.
    """
    found: dict[str, Value] = {}
    for name, category in categories.items():
        patterns = {k: v for k, v in values.items() if not _WILD.isdisjoint(k) and fnmatchcase(name, k)}
        if name in values:
            found[name] = values[name]
        elif patterns:
            if len(set(patterns.values())) > 1:
                both = " and ".join(f"{k}: {v if isinstance(v, str) else f'{v:g}'}" for k, v in patterns.items())
                raise DataError(f"{key}: {both} both fit task {quote(name)}", hint=f"name {name} itself to decide")
            found[name] = next(iter(patterns.values()))
        elif category in values:
            found[name] = values[category]
    known = {*categories, *categories.values()}
    for given in values:
        fits = given in known or (not _WILD.isdisjoint(given) and any(fnmatchcase(n, given) for n in categories))
        if not fits:
            raise DataError(f"{key}: {quote(given)} is no task of this build, no pattern of one and no category"
                            f"{nearest(given, known)}")  # fmt: skip
    return found


def shares(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """`total` shared out in proportion to the weights by largest remainders; ties go to the name that sorts first.

    Raises:
        DataError: no weight is above 0.
    """
    exact = {name: Fraction(weight) for name, weight in weights.items()}
    summed = sum(exact.values())
    if not summed:
        raise DataError("data.weights: every task has weight 0")
    ideal = {name: total * weight / summed for name, weight in exact.items()}
    found = {name: int(share) for name, share in ideal.items()}
    by_remainder = sorted(ideal, key=lambda name: (found[name] - ideal[name], name))
    for name in by_remainder[: total - sum(found.values())]:
        found[name] += 1
    return found


def pool_size(quota: int) -> int:
    """Examples prepared for a quota: 1,250 times the next power of two.

    A changed quota of up to that many finds records, examples and tokens as they were.
    """
    size = 1250
    while size < quota:
        size *= 2
    return size
