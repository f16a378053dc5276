"""One replica of one model: requests to sequences, through the engine, to responses. The gateway stands before it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import UserError
from kit19_ray.lm import pretrained
from kit19_ray.lm.decoding import DecodingSequence
from kit19_ray.lm.sampling import SamplingParams
from kit19_ray.serve import conversation
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.engine import Engine, TransformersEngine, batch_limits
from kit19_ray.serve.metrics import RayRecorder, ServeMetrics
from kit19_ray.serve.protocol import CompletionRequest
from kit19_ray.serve.request_parser import ParsedRequest, RequestParser
from kit19_ray.serve.served_models import ModelSpec
from kit19_ray.serve.streamed_choice import StreamedChoice
from kit19_ray.serve.tokenizing import DetokenizeRequest, TokenizeRequest
from kit19_ray.utils.json_types import Json

log = logging.getLogger("ray.serve")


class ModelServer:
    """What answers for one model. Refusals are returned as `ApiError` values: they cross processes as data.

    Args:
        model: a train prefix or any Hugging Face model; it is copied to this node when it is elsewhere.
        name: its name in requests and metrics.
        limits: the config's serve section.
        threads: compute threads on a CPU.
    """

    def __init__(self, model: str, name: str, limits: ServeConfig, threads: int) -> None:
        self.limits, self.model = limits, model
        self.created = int(time.time())
        self._metrics = ServeMetrics(RayRecorder())
        self._engine, codec = _engine(model, name, limits, threads, self._metrics)
        self._context = codec.max_length
        self._codec = codec
        talk = conversation.Conversation(codec.tokenizer, codec.encoder, conversation.wrapper(model, limits.prompt))
        self._parsers: dict[str | None, RequestParser] = {None: RequestParser(codec, limits, talk)}
        self._adapting = asyncio.Lock()
        self._tokenizer = codec.tokenizer
        self._probe = codec.encode("a")[:1] or [0]
        self._is_ready = False
        self._waiting = 0

    async def describe(self, adapter: ModelSpec | None = None) -> Json:
        """What /v1/models says of it."""
        what = {"created": self.created, "max_model_len": self._context, "root": self.model}
        return what if adapter is None else what | {"root": adapter.uri, "parent": adapter.base}

    async def adapt(self, adapter: ModelSpec) -> ApiError | None:
        """Loads an adapter, if it is not there, and decodes a token with it; or says why it cannot."""
        try:
            async with self._adapting:
                if adapter.key not in self._parsers:
                    parser = await asyncio.to_thread(self._load_adapter, adapter)
                    await self._decode(DecodingSequence(self._probe, SamplingParams(max_tokens=1), adapter=adapter.key))
                    self._parsers[adapter.key] = parser
        except UserError as error:
            return ApiError(422, f"the adapter could not be loaded: {error}", "root", "model_not_loaded")
        return None

    async def forget(self, adapter: ModelSpec) -> None:
        """Lets go of an adapter's weights."""
        async with self._adapting:
            self._parsers.pop(adapter.key, None)
            await asyncio.to_thread(self._engine.forget_adapter, adapter.key)

    def _load_adapter(self, adapter: ModelSpec) -> RequestParser:
        self._engine.load_adapter(adapter.key, pretrained.resolve_adapter(adapter.uri))
        codec = self._codec
        wrapper = conversation.wrapper(adapter.uri, self.limits.prompt)
        return RequestParser(codec, self.limits, conversation.Conversation(codec.tokenizer, codec.encoder, wrapper))

    async def _parser(self, adapter: ModelSpec | None) -> RequestParser | ApiError:
        """What reads requests for the model, or for an adapter: a replica that is new loads it now."""
        if adapter is not None and adapter.key not in self._parsers:
            problem = await self.adapt(adapter)
            if problem is not None:
                return problem
        return self._parsers[None if adapter is None else adapter.key]

    async def ready(self, adapter: ModelSpec | None = None) -> bool:
        """Whether the model decodes: one token, the first time this is asked; it also warms the kernels up."""
        if adapter is not None and await self.adapt(adapter) is not None:
            return False
        if not self._is_ready:
            await self._decode(DecodingSequence(self._probe, SamplingParams(max_tokens=1)))
            self._is_ready = True
        return self._engine.is_alive

    async def check_health(self) -> None:
        """Ray Serve replaces this replica when it raises."""
        if not self._engine.is_alive:
            raise RuntimeError("the engine has ended")

    async def prompt(self, request: ChatRequest, adapter: ModelSpec | None = None) -> Json | ApiError:
        """See `RequestParser.prompt`."""
        body: Json | ApiError = await self._read(RequestParser.prompt, request, adapter)
        return body

    async def tokenize(self, request: TokenizeRequest, adapter: ModelSpec | None = None) -> Json | ApiError:
        """See `RequestParser.tokenize`."""
        body: Json | ApiError = await self._read(RequestParser.tokenize, request, adapter)
        return body

    async def detokenize(self, request: DetokenizeRequest, adapter: ModelSpec | None = None) -> Json | ApiError:
        """See `RequestParser.detokenize`."""
        body: Json | ApiError = await self._read(RequestParser.detokenize, request, adapter)
        return body

    async def complete(
        self, request: CompletionRequest | ChatRequest, adapter: ModelSpec | None = None
    ) -> Json | ApiError:
        """The response body of a completion, or why there is none."""
        admitted = await self._admitted(request, adapter)
        if isinstance(admitted, ApiError):
            return admitted
        parser, parsed = admitted
        asked = parsed.sequences()
        key = None if adapter is None else adapter.key
        sequences = [DecodingSequence(prompt, params, adapter=key) for prompt, params in asked]
        self._waiting += 1
        try:
            await asyncio.gather(*(self._decode(sequence) for sequence in sequences))
        finally:
            self._waiting -= 1
            for sequence in sequences:  # a client that left cancels this: the model need not go on
                sequence.cancelled.set()
        choices = []
        for index, ((prompt, _), sequence) in enumerate(zip(asked, sequences)):
            head, done = parsed.heads[index // parsed.n], sequence.completion
            tokens = parser.tokens(parsed, prompt, head, done)
            choices.append(parsed.shape.choice(index, head + done.text, tokens, done.finish_reason))
        return parsed.shape.whole(choices, parsed.usage(sum(len(s.completion.token_ids) for s in sequences)))

    async def stream(
        self, request: CompletionRequest | ChatRequest, adapter: ModelSpec | None = None
    ) -> AsyncIterator[list[Json] | ApiError]:
        """The response's chunks as the model decodes them, those that came together in one list.

        Put together they are what `complete` gives. A refusal is the first and only item.
        """
        admitted = await self._admitted(request, adapter)
        if isinstance(admitted, ApiError):
            yield admitted
            return
        self._waiting += 1
        try:
            async for chunks in self._chunks(*admitted, None if adapter is None else adapter.key):
                yield chunks
        finally:
            self._waiting -= 1

    async def _read(self, parse: Any, request: Any, adapter: ModelSpec | None) -> Any:
        """What a method of the parser makes of the request, or its refusal."""
        parser = await self._parser(adapter)
        if isinstance(parser, ApiError):
            return parser
        # In a thread: tokenizing a long text must not keep the event loop from the others.
        try:
            return await asyncio.to_thread(parse, parser, request)
        except ApiError as error:
            return error

    async def _admitted(
        self, request: CompletionRequest | ChatRequest, adapter: ModelSpec | None
    ) -> tuple[RequestParser, ParsedRequest] | ApiError:
        if self._waiting >= self.limits.max_queue:
            return ApiError(
                429, f"{self.limits.max_queue} requests are waiting already; try again later", retry_after=1
            )
        parsed: ParsedRequest | ApiError = await self._read(RequestParser.parse, request, adapter)
        if isinstance(parsed, ApiError):
            return parsed
        return self._parsers[None if adapter is None else adapter.key], parsed

    async def _decode(self, sequence: DecodingSequence) -> None:
        """Returns when the sequence is finished; raises what went wrong with it."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        self._engine.submit(sequence, lambda _: loop.call_soon_threadsafe(ended.set))
        try:
            await ended.wait()
        except asyncio.CancelledError:
            sequence.cancelled.set()
            raise
        if sequence.error is not None:
            raise sequence.error

    async def _chunks(
        self, parser: RequestParser, parsed: ParsedRequest, adapter: str | None
    ) -> AsyncIterator[list[Json]]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        counted = parsed.options is not None and parsed.options.include_usage
        sequences: list[DecodingSequence] = []
        choices: list[StreamedChoice] = []
        for index, (prompt, params) in enumerate(parsed.sequences()):
            sequence = DecodingSequence(prompt, params, _teller(loop, events, index), adapter=adapter)
            sequences.append(sequence)
            choices.append(StreamedChoice(parsed, parser, self._tokenizer, index, prompt))
        first = [parsed.shape.chunk([one], with_usage=counted) for choice in choices for one in choice.opening()]
        try:
            for index, sequence in enumerate(sequences):
                end = partial(_put, loop, events, index)
                self._engine.submit(sequence, end)
            running, new_tokens = len(sequences), 0
            while running:
                chunks, first = first, []
                came = [await events.get()]
                while not events.empty():
                    came.append(events.get_nowait())
                for index, event in came:
                    if isinstance(event, DecodingSequence):
                        if event.error is not None:
                            raise event.error
                        running -= 1
                        new_tokens += len(event.completion.token_ids)
                        chunks.append(parsed.shape.chunk([choices[index].last(event.completion)], with_usage=counted))
                    elif (delta := choices[index].add(*event)) is not None:
                        chunks.append(parsed.shape.chunk([delta], with_usage=counted))
                if counted and not running:
                    chunks.append(parsed.shape.chunk([], parsed.usage(new_tokens), with_usage=counted))
                if chunks:
                    yield chunks
        finally:
            for sequence in sequences:
                sequence.cancelled.set()


def _put(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[tuple[int, Any]], index: int, event: Any) -> None:
    loop.call_soon_threadsafe(events.put_nowait, (index, event))


def _teller(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[tuple[int, Any]], index: int) -> Any:
    """Called in the engine's thread for each token: puts a copy of what is new into the event loop."""

    def tell(sequence: DecodingSequence) -> None:
        done = sequence.completion
        top = done.top_logprobs[-1] if done.top_logprobs else {}
        _put(loop, events, index, (done.token_ids[-1], done.logprobs[-1], top))

    return tell


def _engine(model: str, name: str, limits: ServeConfig, threads: int, metrics: ServeMetrics) -> tuple[Engine, Any]:
    """The engine, and what knows the model's tokens, vocabulary and context."""
    from kit19_ray.lm.generator import Generator
    from kit19_ray.serve import vllm_engine

    if vllm_engine.is_chosen(limits):
        codec = vllm_engine.VllmCodec(model)
        return vllm_engine.VllmEngine(model, codec, limits, metrics, name), codec
    spread = bool(limits.use_gpu) and limits.gpus_per_replica > 1

    def load() -> Generator:
        made = Generator.load(model, bool(limits.use_gpu), threads, spread=spread)
        # Found out by running the model, so here.
        log.info("%s: sequences are decoded %s", name, "together" if made.takes_slots else "one at a time")
        return made

    # Each thread that runs the model keeps OpenMP threads of its own, and with more of them than cores they sleep after
    # every operator instead of waiting for the next. So this thread ends, with its own.
    with ThreadPoolExecutor(1, "load") as pool:
        loaded = pool.submit(load).result()
    return TransformersEngine(loaded, batch_limits(limits, loaded), metrics, name), loaded
