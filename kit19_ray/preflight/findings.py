"""What a look at one stage found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from kit19_ray.errors import UserError
from kit19_ray.utils.json_types import Json

State = Literal["finished", "resumable", "to do", "not needed", "unknown", "there"]
Result = TypeVar("Result")


@dataclass
class Findings:
    """One stage, looked at.

    Attributes:
        uri: its output, None where it depends on what is not there yet.
        state: `unknown` where the output cannot be named, so nobody knows whether it is finished.
        facts: figures, JSON-ready.
        missing: what keeps it from running, each with how to get it.
        notes: what the user should know and may leave as it is.
    """

    name: str
    uri: str | None = None
    state: State = "to do"
    facts: Json = field(default_factory=dict)
    missing: list[UserError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self, look: Callable[[], Result]) -> Result | None:
        """What `look` returns; a UserError it raises is kept as missing, once, and gives None."""
        try:
            return look()
        except UserError as error:
            if all(str(error) != str(known) for known in self.missing):
                self.missing.append(error)
            return None
