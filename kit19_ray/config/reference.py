"""Every config key with type, default and meaning, read off the models: for `--help` and for docs/reference/config.md.

`python -m kit19_ray.config.reference` prints the page.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kit19_ray.config.schema import Config


@dataclass(frozen=True)
class Key:
    """One config key.

    Attributes:
        path: dotted, as an override spells it.
        type: as a reader would say it, such as "integer or null".
        default: as YAML spells it.
        runtime: whether it is left out of the output's identity.
    """

    path: str
    type: str
    default: str
    meaning: str
    runtime: bool


def config_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[Key]:
    """The keys of a section and of the sections in it, in the order they are declared."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from config_keys(section, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra
        runtime = isinstance(extra, dict) and extra.get("identity") is False
        meaning = " ".join((field.description or "").split())
        yield Key(f"{prefix}{name}", _type(section) + _bounds(field), _default(field), meaning, runtime)


def _type(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_type, args)))
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is list:
        return f"list of {_type(args[0])}"
    if origin is dict:
        return f"map of {_type(args[1])}"
    names = {str: "text", int: "integer", float: "number", bool: "true | false", type(None): "null", Any: "any"}
    if annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(annotation.model_fields)}}}"
    return str(annotation)


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [f"{sign} {getattr(m, name):g}" for m in field.metadata for name, sign in signs.items() if hasattr(m, name)]
    return f" {', '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    return json.dumps(value, ensure_ascii=False, default=lambda model: model.model_dump(mode="json"))


def epilog(section: str) -> str:
    """The keys of a section as `--help` shows them, each on lines of its own."""
    shown = [key for key in config_keys() if key.path.startswith(f"{section}.")]
    lines = [f"{key.path} = {key.default}\n    {key.meaning}" for key in shown]
    return "\b\nKeys (KEY=VALUE, or in the config file):\n" + "\n".join(lines)


def markdown() -> str:
    """docs/reference/config.md."""
    rows: dict[str, list[Key]] = {}
    for key in config_keys():
        rows.setdefault(key.path.partition(".")[0] if "." in key.path else "", []).append(key)
    out = [
        "# The config",
        "",
        "Written by `python -m kit19_ray.config.reference > docs/reference/config.md`. A key goes into the YAML file, "
        "or on the command line as `train.epochs=1`. A key marked † changes how fast or where a stage runs, never what "
        "it writes: a run goes on under the same URI when it changes.",
    ]
    for section, found in rows.items():
        out += ["", f"## {section or 'Top level'}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        for key in found:
            cells = (f"`{key.path}`{' †' if key.runtime else ''}", key.type, f"`{key.default}`", key.meaning)
            out.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201 - its purpose
