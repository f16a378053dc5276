"""What typed Kubernetes objects are made of: names, quantities, and models of which only what is read is declared."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from kit19_ray.utils.json_types import Json

SECRET = re.compile(r"(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|ACCESS_KEY|API_KEY)", re.IGNORECASE)

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
OPEN: Json = {"x-kubernetes-preserve-unknown-fields": True}


class SpecModel(BaseModel):
    """What every part shares: frozen, camelCase keys, no unknown ones, docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, alias_generator=to_camel, populate_by_name=True
    )


class Embedded(BaseModel):
    """A Kubernetes object of which only what is read here is declared; the API server checks the rest."""

    model_config = ConfigDict(
        frozen=True, extra="allow", use_attribute_docstrings=True, json_schema_extra=OPEN, alias_generator=to_camel
    )

    def manifest(self) -> Json:
        """The object as it was given."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Named(Embedded):
    """A Kubernetes object with a name, such as a Volume."""

    name: str = Field(min_length=1)
    """Its name."""


class VolumeMount(Embedded):
    """A VolumeMount."""

    name: str = Field(min_length=1)
    """The volume's name."""
    mount_path: str = Field(min_length=1)
    """Where it is mounted."""


class EnvVar(Embedded):
    """An EnvVar: `value`, or `valueFrom` for what is secret."""

    name: str = Field(min_length=1)
    """The variable's name."""
    value: str | None = None
    """Its value, in plain text."""

    @model_validator(mode="after")
    def _no_secret(self) -> EnvVar:
        if self.value and SECRET.search(self.name):
            raise ValueError(f"{self.name} looks like a secret: give it by valueFrom.secretKeyRef, not by value")
        return self
