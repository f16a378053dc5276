"""A request as the model sees it: the jobs of its prompts, and the tokens of an answer with their names."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kit19_ray.config.schema import ServeConfig
from kit19_ray.lm.generator import Generator
from kit19_ray.serve import responses, token_text
from kit19_ray.serve.batches import Job
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.conversation import Conversation
from kit19_ray.serve.engine import Answer
from kit19_ray.serve.protocol import ApiError, CompletionRequest, StreamOptions
from kit19_ray.serve.responses import Shape, Token


@dataclass
class Work:
    """What one request asks of the model.

    Attributes:
        prompts: token ids of each prompt, of which each is answered `n` times.
        heads: text put before each prompt's answers.
        logprobs: how many likeliest tokens to list beside each; None lists no token.
        gone: set when nobody waits for the answers any more.
    """

    shape: Shape
    prompts: list[tuple[int, ...]]
    heads: list[str]
    max_tokens: int
    temperature: float
    top_p: float
    n: int
    stop: tuple[str, ...]
    seed: int | None
    logprobs: int | None
    lists_itself: bool
    """Whether the token itself is listed when it is not among the likeliest, as OpenAI has it for completions."""
    echo: bool = False
    options: StreamOptions | None = None
    gone: threading.Event = field(default_factory=threading.Event)

    def jobs(self) -> list[Job]:
        """The prompts' jobs, `n` each, in order."""
        return [
            Job(
                prompt=prompt,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                # The n completions of a seeded prompt differ from one another, and are the same next time.
                seed=None if self.seed is None else (self.seed + copy) % 2**63,
                stop=self.stop,
                score_prompt=self.echo and self.logprobs is not None,
                top_logprobs=self.logprobs or 0,
                gone=self.gone,
            )
            for prompt in self.prompts
            for copy in range(self.n)
        ]

    def usage(self, new_tokens: int) -> dict[str, Any]:
        """OpenAI's count of tokens."""
        return responses.usage(sum(map(len, self.prompts)), new_tokens)

    def tokens(self, tokenizer: Any, job: Job, head: str, answer: Answer) -> list[Token] | None:
        """Those of the prompt (with `echo`) and of the completion up to where its text was cut; None if not asked."""
        if self.logprobs is None:
            return None
        found: list[Token] = []
        if self.echo:
            texts = token_text.token_texts(tokenizer, job.prompt)
            scores = zip(answer.prompt_logprobs, answer.prompt_top, strict=True)
            for token, text, place, (value, top) in zip(
                job.prompt, texts, token_text.offsets(texts), scores, strict=True
            ):
                found.append(Token(text, place, value, self._top(tokenizer, token, value, top)))
        texts = token_text.token_texts(tokenizer, answer.ids)
        values = zip(answer.logprobs, answer.top, strict=True)
        for token, text, place, (value, top) in zip(answer.ids, texts, token_text.offsets(texts), values, strict=True):
            if place >= len(answer.text) and text:
                break  # the stop sequence begins here
            found.append(Token(text, len(head) + place, value, self._top(tokenizer, token, value, top)))
        return found

    def _top(self, tokenizer: Any, token: int, value: float | None, top: dict[int, float] | None) -> dict[str, float]:
        if value is None:
            return {}
        return token_text.named(tokenizer, {**(top or {}), token: value} if self.lists_itself else top or {})


class Reader:
    """Turns requests into work for one model."""

    def __init__(self, generator: Generator, limits: ServeConfig, conversation: Conversation) -> None:
        self._generator = generator
        self._limits = limits
        self._conversation = conversation

    def work(self, request: CompletionRequest | ChatRequest) -> Work:
        """What `request` asks of the model.

        Raises:
            ApiError: the prompt does not fit the model.
        """
        return self._chat(request) if isinstance(request, ChatRequest) else self._completion(request)

    def prompt(self, request: ChatRequest) -> dict[str, Any]:
        """The prompt that messages become, as text and as a number of tokens, and the texts that end an answer.

        Raises:
            ApiError: as `work`.
        """
        work = self._chat(request)
        (ids,) = work.prompts
        return {"prompt": self._generator.decode(ids), "prompt_tokens": len(ids), "stop": list(work.stop)}

    def _completion(self, request: CompletionRequest) -> Work:
        prompts: list[tuple[int, ...]] = []
        for prompt in request.prompts:
            ids = self._generator.encode(prompt) if isinstance(prompt, str) else prompt
            prompts.append(self._checked(ids, request.max_tokens, "prompt"))
        heads = [""] * len(prompts)
        if request.echo:
            heads = [p if isinstance(p, str) else self._generator.decode(p) for p in request.prompts]
        return Work(
            responses.Text(request.model),
            prompts,
            heads,
            request.max_tokens,
            request.temperature,
            request.top_p,
            request.n,
            _stops(request.stop),
            request.seed,
            request.logprobs,
            lists_itself=True,
            echo=request.echo,
            options=request.stream_options,
        )

    def _chat(self, request: ChatRequest) -> Work:
        ids = self._conversation.tokens(request.messages)
        room = self._generator.max_length - len(ids)
        limit = request.limit or max(1, min(self._limits.max_tokens, room))
        return Work(
            responses.Chat(request.model),
            [self._checked(ids, limit, "messages")],
            [""],
            limit,
            request.temperature,
            request.top_p,
            request.n,
            tuple(dict.fromkeys((*_stops(request.stop), *self._conversation.stop))),
            request.seed,
            (request.top_logprobs or 0) if request.logprobs else None,
            lists_itself=False,
            options=request.stream_options,
        )

    def _checked(self, ids: Sequence[int], max_tokens: int, name: str) -> tuple[int, ...]:
        if not ids:
            raise ApiError(400, f"{name} has no tokens", name)
        size, context = self._generator.vocab_size, self._generator.max_length
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            raise ApiError(400, f"{name}: token id {wrong} is not in 0..{size - 1}", name)
        if len(ids) + max_tokens > context:
            message = f"{name} ({len(ids)} tokens) and max_tokens ({max_tokens}) exceed the context of {context}"
            raise ApiError(400, message, name, "context_length_exceeded")
        return tuple(ids)


def _stops(stop: str | list[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop)
