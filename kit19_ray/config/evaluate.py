"""The config's `evaluate` section."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kit19_ray.config.endpoint_url import without_credentials
from kit19_ray.config.section import RUNTIME, Section


class GateRule(Section):
    """A score the model must reach before it is served."""

    task: str = Field(min_length=1)
    """A task of the harness by its name, or a held-out task."""
    metric: str = Field("acc", min_length=1)
    """A metric of that task in scores.json, such as acc or macro_f1."""
    min: float
    """The least value that passes, a share of 1."""


class JudgeConfig(Section):
    """Open questions whose answers another model judges, such as LogicKor's or KoMT-Bench's files."""

    questions: list[str] = Field(default_factory=list)
    """Files of questions, JSONL or a JSON array, by path or URI; one score for each. Empty judges nothing."""
    endpoint: str | None = None
    """URL of the API of the judge's OpenAI-compatible server. Its key is read from KIT19_JUDGE_API_KEY, else
    OPENAI_API_KEY."""
    model: str | None = None
    """Name that the endpoint knows the judge by. None takes the only one it lists."""
    against: str | None = None
    """Evaluate prefix whose answers to the same questions are the other side of each pair. None grades each answer
    alone, from 1 to 10."""
    max_tokens: int = Field(512, ge=1)
    """Most tokens of an answer."""
    concurrency: int = Field(8, ge=1, le=256, json_schema_extra=RUNTIME)
    """Requests to the judge at once."""

    @field_validator("endpoint")
    @classmethod
    def _holds_no_secret(cls, endpoint: str | None) -> str | None:
        return without_credentials(endpoint)

    @model_validator(mode="after")
    def _somebody_judges(self) -> JudgeConfig:
        if self.questions and not self.endpoint:
            raise ValueError("questions need an `endpoint` that judges the answers")
        return self


class EvaluateConfig(Section):
    """Export -> scores."""

    model: str | None = Field(None, json_schema_extra=RUNTIME)
    """Train prefix, hub id, local path or s3:// prefix to score. None means the train stage's export."""
    tasks: list[str] = Field(["kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_sentineg", "kobest_wic"])
    """Tasks of lm-evaluation-harness by its names: single ones, groups and tags; or a suite of ours: `paper` (the
    paper's table), `kobest`, `korean`."""
    include_path: list[str] = Field(default_factory=list, json_schema_extra=RUNTIME)
    """Folders of further task files in lm-evaluation-harness's format, searched before its own. Such files may name
    Python functions beside them, which are run. Their content counts in the identity, not the place."""
    source: Literal["files", "hub"] = "files"
    """Where the tasks' documents come from: original files under the sources folder, or the hub."""
    num_fewshot: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1, json_schema_extra={"or_one": True})
    """Solved examples before each question, every count in one run: [0, 5] or just 5. The paper's table is 0-shot. A
    task whose own definition says 0 stays at 0. The first count's scores have the task's bare name, another's
    `task@5`."""
    apply_chat_template: bool = False
    """Ask the harness's tasks through the tokenizer's chat template, as an instruction model expects it."""
    fewshot_as_multiturn: bool = False
    """With the chat template: each solved example is a turn of its own, not one long question."""
    system_instruction: str | None = None
    """Text before every prompt of the harness's tasks; with the chat template the system's turn."""
    limit: int | None = Field(None, ge=1)
    """Documents per harness task. None means all; scores with a limit are not comparable."""
    held_out: bool = True
    """Score the data stage's own validation split too, task by task."""
    generation_limit: int = Field(32, ge=0)
    """Held-out free answers per task; they are decoded, which is slow."""
    max_tokens: int = Field(256, ge=1)
    """Most tokens decoded per held-out example; a task whose answers are shorter gets room for its longest one."""
    gate: list[GateRule] = Field(default_factory=list, json_schema_extra=RUNTIME)
    """Scores below which the model is not served. Judges scores that are there: a change scores nothing anew."""
    batch_tokens: int | None = Field(None, ge=64, json_schema_extra=RUNTIME)
    """Tokens, padding included, per forward pass of one actor. None means 8192 with a GPU and 1024 on a CPU, where
    small batches have less padding and stay in the cache."""
    workers: int = Field(1, ge=1, json_schema_extra=RUNTIME)
    """Scoring actors, each with a copy of the model."""
    cpus_per_worker: int | None = Field(None, ge=1, json_schema_extra=RUNTIME)
    """CPUs reserved by, and compute threads of, each scoring actor. None shares the cluster's CPUs out evenly, or
    means 1 with a GPU."""
    use_gpu: bool | None = Field(None, json_schema_extra=RUNTIME)
    """None uses GPUs when the cluster has any."""
    gpus_per_worker: int = Field(1, ge=1, json_schema_extra=RUNTIME)
    """GPUs of each scoring actor. More than 1 spreads the model's layers over them, for one that does not fit one."""

    endpoint: str | None = None
    """URL of the API of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1, that is scored in the place of
    `model`. Its key is read from KIT19_ENDPOINT_API_KEY, else OPENAI_API_KEY. Log-likelihoods come through
    /v1/completions with echo and logprobs; where the server has none, choices are asked for in words."""
    endpoint_model: str | None = None
    """Name that the endpoint knows the model by. None takes the only one it lists."""
    endpoint_api: Literal["completions", "chat"] = "completions"
    """completions sends the prompt's text; chat sends it as messages, and gives no log-likelihoods."""
    endpoint_concurrency: int = Field(8, ge=1, le=256, json_schema_extra=RUNTIME)
    """Requests to the endpoint at once."""
    judge: JudgeConfig = JudgeConfig()

    @field_validator("num_fewshot", mode="before")
    @classmethod
    def _one_count_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("endpoint")
    @classmethod
    def _holds_no_secret(cls, endpoint: str | None) -> str | None:
        return without_credentials(endpoint)

    @model_validator(mode="after")
    def _chat_template(self) -> EvaluateConfig:
        if len(set(self.num_fewshot)) < len(self.num_fewshot):
            raise ValueError(f"num_fewshot={self.num_fewshot} names a count twice")
        if self.fewshot_as_multiturn and not self.apply_chat_template:
            raise ValueError("fewshot_as_multiturn needs apply_chat_template")
        if self.endpoint and self.model:
            raise ValueError("`endpoint` and `model` exclude each other: one of the two is scored")
        if self.endpoint and self.apply_chat_template and self.endpoint_api != "chat":
            raise ValueError("apply_chat_template needs endpoint_api=chat: the server has the template")
        return self
