"""YAML read without its traps: string keys only, no duplicate keys, errors that name file and line."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from kit19_ray.errors import ConfigError, UserError


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses what YAML would silently merge: `yes`, `1` and `on` are one key to it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not text: write it in quotes (line {line})"
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice (line {line})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str, name: str, error: type[UserError] = ConfigError) -> dict[str, Any]:
    """The mapping in `text`; an empty document is an empty mapping.

    Args:
        name: the file's name for messages.
        error: class of the error raised.
    """
    try:
        loaded = yaml.load(text, _Loader)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise error(f"{where}: not YAML: {getattr(problem, 'problem', None) or problem}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise error(f"{name}: expected `key: value` lines, found a {type(loaded).__name__}")
    return loaded
