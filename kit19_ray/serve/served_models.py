"""What the registry keeps of a model: where it is, who serves it, where the list is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from kit19_ray.utils.json_types import Json


@dataclass(frozen=True)
class ModelSpec:
    """What a name stands for.

    Attributes:
        uri: a train prefix or any Hugging Face model; of an adapter, a train prefix or a folder as peft writes it.
        base: name of the model whose adapter this is; None for a model.
        generation: counts the swaps, so that the same place with other files in it is another model.
    """

    name: str
    uri: str
    base: str | None = None
    generation: int = 0

    @property
    def key(self) -> str:
        """The adapter as a replica of its base knows it."""
        return f"{self.name}@{self.generation}"


@dataclass
class Served:
    """A model that answers.

    Attributes:
        handle: what requests are sent through.
        application: name of what runs it.
        in_flight: requests that it has.
    """

    spec: ModelSpec
    handle: Any
    application: str
    in_flight: int = 0

    @property
    def adapter(self) -> ModelSpec | None:
        """What a request's adapter is, for the base's replicas."""
        return self.spec if self.spec.base is not None else None


class ModelApps(Protocol):
    """What runs models."""

    def name(self, spec: ModelSpec) -> str:
        """The name of what runs `spec`; another one for anything else."""

    async def start(self, spec: ModelSpec) -> Any:
        """Runs a model, or finds it running, and gives its handle once it has decoded a token.

        Raises:
            ApiError: it could not be loaded, or not in time.
        """

    async def end(self, application: str) -> None:
        """Ends what runs; requests that it has may go on for as long as a request may take."""

    async def running(self) -> list[str]:
        """Names of all that run."""

    async def adapt(self, handle: Any, adapter: ModelSpec) -> None:
        """Loads an adapter into every replica of its base, and decodes a token with it.

        Raises:
            ApiError: it could not be loaded.
        """

    async def forget(self, handle: Any, adapter: ModelSpec) -> None:
        """Lets every replica of its base forget an adapter."""


class Store(Protocol):
    """Where the names are kept while the gateway may die."""

    def get(self) -> list[Json] | None:
        """What was put there under this config, None where nothing was."""

    def put(self, specs: list[Json]) -> None:
        """Keeps them."""
