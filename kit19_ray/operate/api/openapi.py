"""From pydantic's JSON schema to the structural OpenAPI v3 schema of a CustomResourceDefinition.

Kubernetes refuses `$ref`, `anyOf` with a null, numeric exclusive bounds and `additionalProperties: false`; it drops
keys that the schema does not know.
"""

from __future__ import annotations

from pydantic import BaseModel

from kit19_ray.utils.json_types import Json

_KEPT = (
    "type", "enum", "pattern", "format", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum",
    "default", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string",
)  # fmt: skip


def structural(model: type[BaseModel], required: bool = True) -> Json:
    """The schema of `model` by its aliases.

    Args:
        required: keep the lists of required keys.
    """
    made = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(made, made.get("$defs", {}), required)


def _convert(node: Json, defs: Json, required: bool) -> Json:
    node, nullable = _resolved(node, defs)
    out: Json = {key: node[key] for key in _KEPT if key in node}
    if description := node.get("description"):
        out["description"] = " ".join(description.split())
    for bound, name in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in node:
            out[name], out[bound] = node[bound], True
    if "const" in node:
        out["enum"] = [node["const"]]
    if "enum" in out and "type" not in out:
        out["type"] = "integer" if all(isinstance(value, int) for value in out["enum"]) else "string"
    if nullable:
        out["nullable"] = True
        if "enum" in out:  # would need a null in it, which kubectl's own check cannot read
            out["pattern"] = f"^({'|'.join(out.pop('enum'))})$"
    if out.get("default", ...) is None:
        del out["default"]
    if node.get("properties"):  # an empty one is dropped by the server, which two appliers would then argue about
        out["properties"] = {key: _convert(value, defs, required) for key, value in node["properties"].items()}
        if required and node.get("required"):
            out["required"] = node["required"]
    elif isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _convert(node["additionalProperties"], defs, required)
    elif node.get("type") == "object":
        out["x-kubernetes-preserve-unknown-fields"] = True
    if node.get("or_one"):
        # One item, or a list of them: no structural schema can say it, so that whoever reads it checks it.
        for key in ("type", "minItems"):
            out.pop(key, None)
        out["x-kubernetes-preserve-unknown-fields"] = True
    elif "items" in node:
        out["items"] = _convert(node["items"], defs, required)
    return _with_default(out)


def _resolved(node: Json, defs: Json) -> tuple[Json, bool]:
    """The node with its reference and its null branch taken out, and whether it may be null."""
    nullable = False
    while True:
        if "$ref" in node:
            target = defs[node["$ref"].rsplit("/", 1)[1]]
            node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        elif "anyOf" in node:
            branches = [branch for branch in node["anyOf"] if branch.get("type") != "null"]
            if len(branches) != 1:
                raise ValueError(f"a CRD cannot say: {node['anyOf']}")
            nullable = nullable or len(branches) < len(node["anyOf"])
            node = {**branches[0], **{key: value for key, value in node.items() if key != "anyOf"}}
        else:
            return node, nullable


def _with_default(out: Json) -> Json:
    """An object all of whose keys are optional defaults to {}, and its keys to their own defaults."""
    if "properties" in out and "default" in out:
        out["default"] = {}
    if out.get("default") == "":
        del out["default"]  # the API server treats it as none, and 1.20 refuses it
    return out
