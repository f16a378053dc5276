"""`status` of a KitRun: phase, conditions, and what is known of each stage. The only memory the operator has."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from kit19_ray.utils.json_types import Json

Phase = Literal[
    "Pending",
    "Data",
    "Training",
    "Evaluating",
    "Deploying",
    "Serving",
    "Succeeded",
    "GateFailed",
    "Failed",
    "Suspended",
]
Step = Literal["Waiting", "Queued", "Starting", "Running", "BackingOff", "Succeeded", "Failed"]

TERMINAL: tuple[Phase, ...] = ("Serving", "Succeeded", "GateFailed", "Failed", "Suspended")
FINISHED: tuple[Phase, ...] = ("Succeeded", "GateFailed", "Failed")
CONDITIONS = ("Ready", "DataBuilt", "Trained", "Evaluated", "Serving", "StorageReadable", "Failed")


class StatusPart(BaseModel):
    """A part of the status: camelCase; keys of another version are left out."""

    model_config = ConfigDict(
        extra="ignore", use_attribute_docstrings=True, alias_generator=to_camel, populate_by_name=True
    )

    def dump(self) -> Json:
        """JSON-ready, unset values left out."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class Condition(StatusPart):
    """A condition, as Kubernetes has them."""

    type: str
    """One of Ready, DataBuilt, Trained, Evaluated, Serving, StorageReadable, Failed."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str = "Unknown"
    """One word, for machines."""
    message: str | None = None
    """A sentence, for people: what to do about it."""
    observed_generation: int | None = None
    """The generation of the spec it was judged by."""
    last_transition_time: str | None = None
    """When `status` last changed, RFC 3339."""


class StageStatus(StatusPart):
    """One stage, or the server."""

    state: Step = "Waiting"
    """Where it is."""
    hash: str | None = None
    """Of everything its output depends on. Another hash runs the stage again."""
    inputs: str | None = None
    """This operator's hash, where the stage was begun by a version that hashed otherwise."""
    child: str | None = None
    """Name of its RayJob or RayService."""
    attempt: int = 0
    """Which RayJob of this hash it is, from 0."""
    failures: int = 0
    """RayJobs that failed since the spec last changed."""
    waiting_since: str | None = None
    """Since when the child cannot be created, RFC 3339."""
    started_at: str | None = None
    """When the child was created, or left its queue, RFC 3339."""
    running_at: str | None = None
    """Since when it has been running, or ran at its end."""
    ran_seconds: float | None = None
    """Seconds it ran before it was last sent back to its queue."""
    excused_at_step: int | None = None
    """Optimizer steps done at the last failure that was not the job's own and did not count."""
    finished_at: str | None = None
    """When it ended."""
    retry_at: str | None = None
    """When the next attempt begins."""
    uri: str | None = None
    """Prefix of its output."""
    reason: str | None = None
    """Why, in one word."""
    message: str | None = None
    """What it waits for, or why it failed."""
    progress: float | None = Field(None, ge=0, le=1)
    """Share that is done."""
    step: int | None = None
    """Optimizer steps done."""
    steps: int | None = None
    """Optimizer steps in all."""
    eta_seconds: float | None = None
    """Seconds left at this pace."""
    tokens_per_second: float | None = None
    """Over all workers, padding included."""
    checkpoint_step: int | None = None
    """Optimizer steps that the newest whole checkpoint holds."""
    checkpoint_failing_seconds: float | None = None
    """Since how long the store has not taken a checkpoint; 0 while it does."""
    loss: float | None = None
    """Mean over the labels since the line before."""
    validation_loss: float | None = None
    """Mean over the labels of the validation split."""


class StageStatuses(StatusPart):
    """By stage."""

    data: StageStatus = StageStatus()
    """Examples, tokens, packed shards."""
    train: StageStatus = StageStatus()
    """The export."""
    evaluate: StageStatus = StageStatus()
    """The scores."""
    serve: StageStatus = StageStatus()
    """The server."""


class Status(StatusPart):
    """What is known of a run."""

    observed_generation: int | None = None
    """Generation of the spec this status answers."""
    phase: Phase = "Pending"
    """Where the run is."""
    stage: str | None = None
    """The stage at work: data, train, evaluate or serve."""
    progress: str | None = None
    """Of that stage, such as 42%."""
    eta: str | None = None
    """Until that stage ends, such as 3h12m."""
    score: str | None = None
    """Mean of the gate's scores, or of every task's acc; such as 0.613."""
    endpoint: str | None = None
    """URL inside the cluster where the model answers."""
    keys_secret: str | None = None
    """Secret with the endpoint's API keys."""
    message: str | None = None
    """What is being waited for, or what went wrong."""
    warning: str | None = None
    """What of the KitRun is not followed, such as a key that the API server dropped."""
    finished_at: str | None = None
    """When the run ended, RFC 3339."""
    stages: StageStatuses = StageStatuses()
    """By stage."""
    scores: dict[str, dict[str, float]] = {}
    """Of scores.json: task, metric, value."""
    conditions: list[Condition] = []
    """Ready, DataBuilt, Trained, Evaluated, Serving, StorageReadable, Failed."""

    def condition(self, kind: str) -> Condition:
        """The condition `kind`; Unknown when it was never judged."""
        return next((c for c in self.conditions if c.type == kind), Condition(type=kind, status="Unknown"))
