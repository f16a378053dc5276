"""One copy of the model behind HTTP: prompts to tokens, through @serve.batch to the model, answers to responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve

from kit19_ray.config.schema import ServeConfig
from kit19_ray.lm.generator import Generator
from kit19_ray.serve import app, conversation, engine
from kit19_ray.serve.batches import Job
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.detokenizer import Increments
from kit19_ray.serve.engine import Answer
from kit19_ray.serve.metrics import Metrics
from kit19_ray.serve.protocol import CompletionRequest, Json
from kit19_ray.serve.responses import Token
from kit19_ray.serve.work import Reader, Work


class Replica:
    """What `kit19_ray.serve.stage` deploys.

    Args:
        model: a train prefix or any Hugging Face model; it is copied to this node when it is elsewhere.
        limits: the config's serve section.
        use_gpu: decode on the GPU Ray gave this replica.
        threads: compute threads on a CPU.
    """

    def __init__(self, model: str, limits: ServeConfig, use_gpu: bool, threads: int) -> None:
        self.limits = limits
        self.generator = Generator.load(model, use_gpu, threads)
        self.context = self.generator.max_length
        self.created = int(time.time())
        self.metrics = Metrics(serve.get_replica_context().replica_id.unique_id)
        wrapper = conversation.wrapper(model, limits.prompt)
        talk = conversation.Conversation(self.generator.tokenizer, self.generator.encode, wrapper)
        self._answered = False
        self._reader = Reader(self.generator, limits, talk)
        # One thread: torch has its own, and the event loop stays free for /healthz and for what waits.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        decode: Any = self._decode  # Ray's type for it does not show the setters
        decode.set_max_batch_size(limits.max_batch_size)
        decode.set_batch_wait_timeout_s(limits.batch_wait_seconds)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return app.build(self)

    @serve.batch
    async def _decode(self, jobs: list[Job]) -> list[Answer | Exception]:
        """Every prompt that waits, of whichever requests, at most `max_batch_size`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, engine.answer, self.generator, jobs, self.metrics)

    async def ready(self) -> bool:
        """Whether the model decodes: one token, the first time this is asked; it also warms the kernels up."""
        if not self._answered:
            job = Job(tuple((self.generator.encode("a") or [0])[:1]), 1)
            self._answered = not isinstance(await self._decode(job), Exception)
        return self._answered

    def prompt(self, request: ChatRequest) -> Json:
        """See `Reader.prompt`."""
        return self._reader.prompt(request)

    async def complete(self, request: CompletionRequest | ChatRequest) -> Json:
        """The response body of a completion.

        Raises:
            ApiError: the prompt does not fit the model.
        """
        work = self._reader.work(request)
        jobs = work.jobs()
        try:
            answers = await asyncio.gather(*(self._answer(job) for job in jobs))
        finally:
            work.gone.set()  # a client that left, or a time that is over, cancels this: the model need not go on
        choices = []
        for index, (job, answer) in enumerate(zip(jobs, answers)):
            head = work.heads[index // work.n]
            tokens = work.tokens(self.generator.tokenizer, job, head, answer)
            choices.append(work.shape.choice(index, head + answer.text, tokens, answer.finish_reason))
        return work.shape.whole(choices, work.usage(sum(len(answer.ids) for answer in answers)))

    def stream(self, request: CompletionRequest | ChatRequest) -> AsyncIterator[Json]:
        """The response's chunks, as the model decodes them; put together they are what `complete` gives.

        Raises:
            ApiError: at once, when the prompt does not fit the model.
        """
        return self._chunks(self._reader.work(request))

    async def _chunks(self, work: Work) -> AsyncIterator[Json]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

        def hear(index: int, token: int, logprob: float, top: dict[int, float]) -> None:
            loop.call_soon_threadsafe(events.put_nowait, (index, (token, logprob, top)))

        jobs = [replace(job, heard=partial(hear, index)) for index, job in enumerate(work.jobs())]
        counted = work.options is not None and work.options.include_usage
        parts = [_Part(work, self.generator.tokenizer, index, job) for index, job in enumerate(jobs)]

        def finish(index: int, task: asyncio.Task[Answer]) -> None:
            if not task.cancelled():
                task.exception()  # looked at: several may fail, and only the first is told
                events.put_nowait((index, task))

        tasks = [asyncio.ensure_future(self._answer(job)) for job in jobs]
        for index, task in enumerate(tasks):
            task.add_done_callback(partial(finish, index))
        try:
            for part in parts:
                for choice in part.opening():
                    yield work.shape.chunk([choice], with_usage=counted)
            new_tokens, waiting = 0, len(jobs)
            while waiting:
                index, event = await events.get()
                if isinstance(event, asyncio.Task):
                    answer = event.result()
                    waiting -= 1
                    new_tokens += len(answer.ids)
                    yield work.shape.chunk([parts[index].last(answer)], with_usage=counted)
                elif (delta := parts[index].add(*event)) is not None:
                    yield work.shape.chunk([delta], with_usage=counted)
            if counted:
                yield work.shape.chunk([], work.usage(new_tokens), with_usage=counted)
        finally:
            work.gone.set()
            for task in tasks:
                task.cancel()

    async def _answer(self, job: Job) -> Answer:
        answer = await self._decode(job)
        if isinstance(answer, Exception):  # a list with exceptions in it is how a batch fails in part
            raise answer
        return answer


class _Part:
    """One choice of a stream."""

    def __init__(self, work: Work, tokenizer: Any, index: int, job: Job) -> None:
        self._work, self._tokenizer, self._index, self._job = work, tokenizer, index, job
        self._head = work.heads[index // work.n]
        self._increments = Increments(tokenizer, job.stop)
        self._so_far = Answer()
        self._sent = 0

    def opening(self) -> list[Json]:
        shape = self._work.shape
        said = [shape.opening(self._index)]
        if self._head:
            said.append(shape.delta(self._index, self._head, None, None))
        return [one for one in said if one is not None]

    def add(self, token: int, logprob: float, top: dict[int, float]) -> Json | None:
        self._so_far.ids.append(token)
        self._so_far.logprobs.append(logprob)
        self._so_far.top.append(top)
        text = self._increments.add(token)
        if not text:
            return None
        self._so_far.text += text
        return self._work.shape.delta(self._index, text, self._fresh(self._so_far), None)

    def last(self, answer: Answer) -> Json:
        text = answer.text[len(self._so_far.text) :]
        return self._work.shape.delta(self._index, text, self._fresh(answer), answer.finish_reason)

    def _fresh(self, answer: Answer) -> list[Token] | None:
        """The tokens whose text was sent now for the first time."""
        tokens = self._work.tokens(self._tokenizer, self._job, self._head, answer)
        if tokens is None:
            return None
        fresh = tokens[self._sent :]
        self._sent = len(tokens)
        return fresh
