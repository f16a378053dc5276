"""From a YAML file and `key.sub=value` words to a `Config`, with every mistake reported at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kit19_ray.config import strict_yaml
from kit19_ray.config.endpoint_url import SECRET
from kit19_ray.config.schema import Config
from kit19_ray.errors import ConfigError, UserError, nearest, quote
from kit19_ray.io import storage
from kit19_ray.utils.json_types import Json

_MESSAGE = 600  # characters of what a check says, the values that it quotes included
Model = TypeVar("Model", bound=BaseModel)


def load(
    path: str | None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    needs_root: bool = True,
) -> Config:
    """Reads `path` (a local file or a URI), applies the overrides in order and checks the whole.

    Args:
        needs_root: False leaves `root` empty when none is set, for what neither reads nor writes below it.

    Raises:
        ConfigError: the file is missing or not YAML, or any keys or values are wrong (all are listed).
    """
    tree = strict_yaml.parse(read(path), path, known=Config.model_fields) if path else {}
    for word in overrides:
        _override(tree, word)
    if not tree.get("root") and environ.get("KIT19_ROOT"):
        tree["root"] = environ["KIT19_ROOT"]
    config = validate(Config, tree, path or "config")
    if not config.root and not needs_root:
        return config
    if not config.root:
        raise ConfigError("root: where the output goes is not set", hint="add root=file:///somewhere or set KIT19_ROOT")
    return config.model_copy(update={"root": storage.normalise(config.root)})


def root(path: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The root that `path` or KIT19_ROOT names, for what needs nothing else; None when neither does.

    Raises:
        ConfigError: as `load`.
    """
    if path:
        return load(path, (), environ).root
    named = environ.get("KIT19_ROOT")
    return storage.normalise(named) if named else None


def read(path: str, option: str = "--config", error: type[UserError] = ConfigError) -> bytes:
    """A YAML file's bytes, one more than `strict_yaml` takes at most: of a local file, a pipe, a URI or standard input.

    Args:
        path: `-` is standard input.
        option: the option that named it, for messages.

    Raises:
        error: it cannot be read.
    """
    limit = strict_yaml.MAX_BYTES + 1
    if "://" in path:
        return storage.read_bytes(path)
    try:
        if path == "-":
            return sys.stdin.buffer.read(limit)
        with open(path, "rb") as file:  # <(...) and /dev/stdin are no regular files
            return file.read(limit)
    except FileNotFoundError:
        near = nearest(Path(path).name, [p.name for p in Path(path).parent.glob("*.y*ml")])
        raise error(f"{option} {quote(path, plain=True)}: no such file{near}") from None
    except IsADirectoryError:
        raise error(f"{option} {quote(path, plain=True)}: this is a folder, not a file") from None
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{option} {quote(path, plain=True)}: cannot be read: {reason}") from None


def _override(tree: Json, word: str) -> None:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"{quote(word)}: an override is key.sub=value")
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{quote(key, plain=True)}: {quote(parent)} holds a value, not a section")
        node = child
    node[leaf] = strict_yaml.value(value) if value else None
    if isinstance(node[leaf], (str, type(None))) and value:
        node[leaf] = value if value not in ("null", "~") else None


def validate(model: type[Model], tree: Any, name: str, error: type[UserError] = ConfigError) -> Model:
    """`model` from plain data.

    Raises:
        error: one message with a line for each wrong key: its path, the value, what is allowed, the nearest name.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as problems:
        lines = [_line(model, problem) for problem in problems.errors()]
        count = f"{len(lines)} mistakes" if len(lines) > 1 else "1 mistake"
        raise error(f"{name}: {count}\n" + "\n".join(f"  {line}" for line in lines)) from None


def _line(model: type[BaseModel], problem: Any) -> str:
    path = ".".join(quote(str(part), plain=True) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        allowed = _siblings(model, problem["loc"])
        return f"{path}: unknown key{nearest(str(problem['loc'][-1]), allowed)}; known: {', '.join(allowed)}"
    value = problem.get("input")
    shown = "" if isinstance(value, dict) or problem["type"] in ("missing", SECRET) else f", got {quote(value)}"
    message = problem["msg"].removeprefix("Value error, ")[:_MESSAGE]
    return f"{path}: {message}{shown}" if path else message


def _siblings(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    current: Any = model
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        field = next((f for name, f in current.model_fields.items() if part in (name, f.alias)), None)
        if field is None:
            continue
        current = next(
            (t for t in _types(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)), current
        )
    return sorted(field.alias or name for name, field in current.model_fields.items())


def _types(annotation: Any) -> list[Any]:
    args = getattr(annotation, "__args__", ())
    return [annotation, *(t for a in args for t in _types(a))]
