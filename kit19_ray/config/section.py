"""What every section of the config shares."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from kit19_ray.utils.json_types import Json

RUNTIME: Json = {"identity": False}
"""Marks a field that changes how fast or where a stage runs, never what it writes."""


class Section(BaseModel):
    """What every section shares: frozen, no unknown keys, docstrings as descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def identity(self) -> Json:
        """The values the stage's output depends on, JSON-ready."""
        out: Json = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("identity") is False:
                continue
            value = getattr(self, name)
            if isinstance(value, list):
                out[name] = [v.identity() if isinstance(v, Section) else v for v in value]
            else:
                out[name] = value.identity() if isinstance(value, Section) else value
        return out
