"""What `kit19 serve` serves, and how: a part of the config tree."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kit19_ray.config.section import Section
from kit19_ray.errors import nearest, quote


class AdapterConfig(Section):
    """A LoRA adapter under a name of its own, over the weights of a model that is served anyway."""

    path: str
    """A train prefix (its adapter), or the folder or s3:// prefix of an adapter as peft writes it."""
    base: str | None = None
    """Name of the model it was trained on. None is `served_name`."""


class ServeConfig(Section):
    """Export -> OpenAI-compatible HTTP."""

    model: str | None = None
    """Train prefix, hub id, local path or s3:// prefix to serve. None means the train stage's export."""
    served_name: str = "kit19"
    """Name that /v1/models gives and requests must use."""
    models: dict[str, str] = Field(default_factory=dict)
    """Further models by the names that requests use: train prefix, hub id, local path or s3:// prefix of each. Every
    one has replicas of its own."""
    adapters: dict[str, AdapterConfig] = Field(default_factory=dict)
    """LoRA adapters by the names that requests use; each shares the replicas and the weights of its base."""
    prompt: str | None = None
    """Prompt wrapper of /v1/chat/completions. None is the train prefix's own, else the tokenizer's chat template."""
    host: str = "127.0.0.1"
    """Address the proxy listens on; 0.0.0.0 inside a pod."""
    port: int = Field(8000, ge=1, le=65535)
    """Port the proxy listens on."""
    replicas: int = Field(1, ge=1)
    """Copies of the model."""
    use_gpu: bool | None = None
    """Give each replica a GPU. None: `kit19 serve` looks whether the cluster has any; in a Ray Serve config file it is
    the same as false, because the application is built before the GPU nodes of a new cluster are there."""
    engine: Literal["auto", "transformers", "vllm"] = "transformers"
    """What decodes. `transformers`: continuous batching of our own over any Hugging Face model, with exact
    log-probabilities. `vllm`: vLLM, an installation of its own; not yet run on a GPU. `auto` is vllm where `use_gpu` is
    set and vLLM is installed, else transformers."""
    gpus_per_replica: int = Field(1, ge=1)
    """GPUs of each replica when `use_gpu`. More than one is for a model that does not fit one: its layers are spread
    over them (transformers) or each layer is split (vllm)."""
    cpus_per_replica: float = Field(1, gt=0)
    """CPUs reserved by, and compute threads of, each replica."""
    max_batch_size: int = Field(16, ge=1)
    """Sequences decoded together; more wait, and join as soon as one ends."""
    cache_tokens: int | None = Field(None, ge=1)
    """Tokens, padding included, whose keys and values are held for the sequences decoded together. None is what fits
    into half of the memory that is free once the model is loaded. A sequence that does not fit beside the others
    waits."""
    prefix_cache_tokens: int = Field(8192, ge=0)
    """Tokens of finished sequences whose keys and values are kept, so that the next turn of a conversation, or the same
    instruction again, is read from memory. 0 keeps none."""
    prefill_tokens: int = Field(256, ge=16)
    """Tokens of new prompts read between two tokens of the others: smaller keeps streams even, larger starts answers
    sooner."""
    max_tokens: int = Field(256, ge=1)
    """Most tokens one request may ask for."""
    max_prompt_chars: int = Field(32_768, ge=1)
    """Longer prompts get a 400 before they are tokenized."""
    max_prompts: int = Field(64, ge=1)
    """Most prompts times completions per prompt in one request."""
    max_body_bytes: int = Field(4 << 20, ge=1024)
    """A larger body gets a 413 before it is parsed."""
    max_queue: int = Field(256, ge=1)
    """Requests a replica works on or keeps waiting; one more gets a 429."""
    request_timeout_seconds: float = Field(120, gt=0)
    """A request still running after this gets a 504."""
    body_timeout_seconds: float = Field(30, gt=0)
    """A request whose body has not arrived after this gets a 408."""
    auth: Literal["keys", "none"] | None = None
    """`none` lets everybody in, `keys` nobody without a key. None asks for keys as soon as there are any, and refuses
    to start without them where the server can be reached from other machines."""
    api_keys_file: str | None = None
    """File of API keys, one `NAME KEY` or `NAME sha256:HASH` a line, read again when it changes. The environment's
    KIT19_API_KEYS holds keys in the same form. A path, so that no key is in the config."""
    admin_keys_file: str | None = None
    """File of the keys of /admin, as api_keys_file; or KIT19_ADMIN_KEYS. Without any /admin is closed."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask this server, such as https://chat.example.org. Empty allows no other page."""
    start_timeout_seconds: float = Field(600, gt=0)
    """A server that does not answer after this was not started: the time to fetch and load the weights."""
    drain_seconds: float = Field(30, ge=0)
    """At SIGTERM, and when a replica is replaced, requests that run may go on for this long."""
    max_surge_percent: int = Field(100, ge=0, le=100)
    """Replicas, in percent, that a new model may have beside the old one's until it answers. 0 stops an old replica
    before its successor starts: a gap, but no GPU to spare is needed."""

    @model_validator(mode="after")
    def _one_name_each(self) -> ServeConfig:
        if self.served_name in self.models:
            raise ValueError(f"models.{self.served_name} has the name of `served_name`")
        for name, adapter in self.adapters.items():
            base = adapter.base or self.served_name
            if name == self.served_name or name in self.models:
                raise ValueError(f"adapters.{name} has the name of a model")
            if base != self.served_name and base not in self.models:
                near = nearest(base, [self.served_name, *self.models])
                raise ValueError(f"adapters.{name}.base={quote(base)} is no model that is served{near}")
        return self
