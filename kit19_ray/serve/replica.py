"""One copy of the model behind HTTP: prompts to tokens, through @serve.batch to the model, answers to choices."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from ray import serve

from kit19_ray.config import ServeConfig
from kit19_ray.generation import Generator
from kit19_ray.serve import app, engine, pieces, protocol
from kit19_ray.serve.batches import Job
from kit19_ray.serve.engine import Answer
from kit19_ray.serve.metrics import Metrics
from kit19_ray.serve.protocol import ApiError, CompletionRequest, Json


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

    async def complete(self, request: CompletionRequest) -> Json:
        """The response body of a completion.

        Raises:
            ApiError: the prompt does not fit the model.
        """
        prompts = [self._tokens(prompt, request.max_tokens) for prompt in request.prompts]
        gone = threading.Event()
        jobs = [self._job(request, prompt, copy, gone) for prompt in prompts for copy in range(request.n)]
        try:
            answers = await asyncio.gather(*(self._answer(job) for job in jobs))
        finally:
            gone.set()  # a client that left, or a time that is over, cancels this: the model need not go on
        choices = [
            self._choice(index, request, request.prompts[index // request.n], job.prompt, answer)
            for index, (job, answer) in enumerate(zip(jobs, answers))
        ]
        prompt_tokens, new_tokens = sum(len(ids) for ids in prompts), sum(len(answer.ids) for answer in answers)
        name = f"cmpl-{uuid.uuid4().hex}"
        return protocol.completion(name, int(time.time()), request.model, choices, prompt_tokens, new_tokens)

    async def _answer(self, job: Job) -> Answer:
        answer = await self._decode(job)
        if isinstance(answer, Exception):  # a list with exceptions in it is how a batch fails in part
            raise answer
        return answer

    def _job(self, request: CompletionRequest, prompt: tuple[int, ...], copy: int, gone: threading.Event) -> Job:
        return Job(
            prompt=prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            # The n completions of a seeded prompt differ from one another, and are the same next time.
            seed=None if request.seed is None else (request.seed + copy) % 2**63,
            stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop),
            score_prompt=request.echo and request.logprobs is not None,
            top_logprobs=request.logprobs or 0,
            gone=gone,
        )

    def _tokens(self, prompt: str | list[int], max_tokens: int) -> tuple[int, ...]:
        ids = self.generator.encode(prompt) if isinstance(prompt, str) else prompt
        if not ids:
            raise ApiError(400, "prompt has no tokens", "prompt")
        wrong = next((token for token in ids if not 0 <= token < self.generator.vocab_size), None)
        if wrong is not None:
            raise ApiError(400, f"prompt: token id {wrong} is not in 0..{self.generator.vocab_size - 1}", "prompt")
        if len(ids) + max_tokens > self.context:
            message = f"prompt ({len(ids)} tokens) and max_tokens ({max_tokens}) exceed the context of {self.context}"
            raise ApiError(400, message, "prompt", "context_length_exceeded")
        return tuple(ids)

    def _choice(
        self, index: int, request: CompletionRequest, given: str | list[int], prompt: tuple[int, ...], answer: Answer
    ) -> Json:
        head = ""
        if request.echo:
            head = given if isinstance(given, str) else self.generator.decode(prompt)
        choice: dict[str, Any] = {
            "index": index,
            "text": head + answer.text,
            "logprobs": None,
            "finish_reason": answer.finish_reason,
        }
        if request.logprobs is not None:
            choice["logprobs"] = self._logprobs(request.echo, prompt, len(head), answer)
        return choice

    def _logprobs(self, echo: bool, prompt: tuple[int, ...], start: int, answer: Answer) -> Json:
        """OpenAI's four lists, over the prompt (with `echo`) and the completion up to where its text was cut."""
        tokenizer = self.generator.tokenizer
        ids = [*(prompt if echo else ()), *answer.ids]
        texts: list[str] = []
        values: list[float | None] = []
        tops: list[dict[int, float] | None] = []
        places: list[int] = []
        if echo:
            texts = pieces.token_texts(tokenizer, prompt)
            places = pieces.offsets(texts)
            values, tops = list(answer.prompt_logprobs), list(answer.prompt_top)
        new = pieces.token_texts(tokenizer, answer.ids)
        for text, place, value, top in zip(new, pieces.offsets(new), answer.logprobs, answer.top, strict=True):
            if place >= len(answer.text) and text:
                break  # the stop sequence begins here
            texts.append(text)
            places.append(start + place)
            values.append(value)
            tops.append(top)
        return {
            "tokens": texts,
            "token_logprobs": values,
            "top_logprobs": [
                # As OpenAI has it, the token itself is listed too when it is not among the likeliest.
                None if value is None else pieces.named(tokenizer, {**(top or {}), token: value})
                for token, value, top in zip(ids, values, tops)
            ],
            "text_offset": places,
        }
