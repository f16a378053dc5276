"""A values model as values.yaml, values.schema.json and the table of the chart's README."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kit19_ray.operate.api import kubernetes_types
from kit19_ray.operate.api.kubernetes_types import Embedded, SpecModel

Json = dict[str, Any]
BEGIN, END = "<!-- values: made by `make generated` -->\n", "<!-- end of values -->\n"


def values_yaml(model: type[BaseModel]) -> str:
    """The defaults, each under its description."""
    head = f"# {model.__doc__}\n# Made by `make generated` from scripts/charts; a test holds them equal.\n"
    return head + "".join(_entries(model(), 0))


def _entries(values: BaseModel, depth: int) -> list[str]:
    out = []
    for name, field in type(values).model_fields.items():
        if _extra(field).get("hidden"):
            continue
        indent, key, value = "  " * depth, field.alias or name, getattr(values, name)
        out.append("\n" if depth == 0 else "")
        comment = _text(field)
        out += [f"{indent}# {line}\n" for line in textwrap.wrap(comment, 116 - len(indent))]
        if _nested(field, value):
            out += [f"{indent}{key}:\n", *_entries(value, depth + 1)]
        else:
            text = yaml.safe_dump({key: _plain(field, value)}, sort_keys=False, allow_unicode=True, width=200)
            out.append(textwrap.indent(text, indent))
    return out


def schema(model: type[BaseModel]) -> Json:
    """The JSON schema. Unknown keys are refused everywhere but inside embedded Kubernetes objects."""
    made = model.model_json_schema(by_alias=True)
    if "EnvVar" in made["$defs"]:  # the rule a validator of the model holds
        secret = {"properties": {"name": {"pattern": f"(?i){kubernetes_types.SECRET.pattern}"}}}
        made["$defs"]["EnvVar"] |= {"if": secret, "then": {"not": {"required": ["value"]}}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _cleaned(made)


def schema_json(model: type[BaseModel]) -> str:
    """The JSON schema as the chart's file."""
    return json.dumps(schema(model), indent=2, ensure_ascii=False) + "\n"


def _cleaned(node: Any) -> Any:
    """Without titles, defaults (values.yaml has them) and our own marks."""
    if isinstance(node, list):
        return [_cleaned(one) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("or_one"):
        many = {key: node[key] for key in ("type", "items", "minItems")}
        return {
            "description": " ".join(node["description"].split()),
            "anyOf": [_cleaned(many["items"]), _cleaned(many)],
        }
    dropped = {"hidden", "empty", "identity", "default", "x-kubernetes-preserve-unknown-fields"}
    out = {}
    for key, value in node.items():
        if key in ("properties", "$defs"):
            out[key] = {name: _cleaned(one) for name, one in value.items()}
        elif key == "description":
            out[key] = " ".join(value.split())
        elif key not in dropped and not (key == "title" and isinstance(value, str)):
            out[key] = _cleaned(value)
    return out


def table(model: type[BaseModel]) -> str:
    """A Markdown table with a row for each value."""
    rows = ["| key | default | what |\n|---|---|---|\n"]
    rows += [f"| `{key}` | {_code(value)} | {text} |\n" for key, value, text in _rows(model(), "")]
    return "".join(rows)


def with_table(readme: str, model: type[BaseModel]) -> str:
    """The README with the table between its marks made anew."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table(model) + END + after


def _rows(values: BaseModel, prefix: str) -> list[tuple[str, Any, str]]:
    out: list[tuple[str, Any, str]] = []
    for name, field in type(values).model_fields.items():
        if _extra(field).get("hidden"):
            continue
        key, value = prefix + (field.alias or name), getattr(values, name)
        if _nested(field, value):
            out += _rows(value, f"{key}.")
        else:
            out.append((key, _plain(field, value), _text(field).replace("|", "\\|")))
    return out


def _text(field: FieldInfo) -> str:
    """The description on one line; what Python calls None is null in YAML."""
    return re.sub(r"\bNone\b", "null", " ".join((field.description or "").split()))


def _nested(field: FieldInfo, value: Any) -> bool:
    return isinstance(value, SpecModel) and not _extra(field).get("empty")


def _plain(field: FieldInfo, value: Any) -> Any:
    """The default as plain data. A section of the config, and what overrides another value, is empty."""
    if isinstance(value, BaseModel):
        return {}
    if isinstance(value, list):
        return [one.manifest() if isinstance(one, Embedded) else one for one in value]
    return value


def _extra(field: FieldInfo) -> Json:
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"
