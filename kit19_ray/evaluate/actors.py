"""Copies of the model on Ray actors, and work spread over them: the longest first, results in the order asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Required, TypedDict

from kit19_ray.config.schema import EvaluateConfig
from kit19_ray.errors import EvaluateError
from kit19_ray.lm.prefix_tree import Request
from kit19_ray.utils import console, ray_session

if TYPE_CHECKING:
    from kit19_ray.lm.decoding import DecodedText

_IN_FLIGHT = 2  # chunks an actor holds, so that it never waits for the driver
_CHUNKS_PER_ACTOR = 16  # small enough for the last ones to end together, large enough to sort by length within
_BATCH_TOKENS = {"GPU": 8192, "CPU": 1024}
_SILENCE = 30.0  # seconds without an answer after which it is said what is waited for
_RETRIES = 3  # times an actor that died is started again, and a chunk it held is scored again

OnResults = Callable[[list[int], list[Any]], None]
"""Told the numbers of some requests and what came out, as it comes."""


class GenerateOptions(TypedDict, total=False):
    """Keywords of `Generator.generate`."""

    max_tokens: Required[int]
    temperature: float
    top_p: float
    stop: list[str]


class Backend(Protocol):
    """What answers: the actors of a pool, an endpoint, or either behind a log of what was said already."""

    can_score: bool
    """Whether it gives log-likelihoods; if not, choices are asked for in words."""

    def loglikelihoods(
        self, requests: Sequence[Request], what: str, on_results: OnResults | None = None
    ) -> list[tuple[float, bool]]:
        """Log-probability and greediness of every request, in order; `what` is counted, for the progress line."""

    def generate(
        self, prompts: Sequence[list[int]], options: GenerateOptions, what: str, on_results: OnResults | None = None
    ) -> list[DecodedText]:
        """A completion of every prompt, in order; `options` are keywords of `Generator.generate`, the same for all."""


class Scorer:
    """One actor: a copy of the model."""

    def __init__(self, model: str, gpus: int, threads: int, batch_tokens: int) -> None:
        from kit19_ray.lm.generator import Generator

        self.generator = Generator.load(model, gpus > 0, threads, batch_tokens, spread=gpus > 1)
        self._born = time.time_ns()

    def work(self, method: str, *arguments: Any) -> tuple[int, bool, list[Any]]:
        """What a method gives, after which life of the actor it is and whether there was one before."""
        import ray

        before: bool = ray.get_runtime_context().was_current_actor_reconstructed
        return self._born, before, getattr(self, method)(*arguments)

    def loglikelihoods(self, requests: list[Request]) -> list[tuple[float, bool]]:
        """See `Generator.loglikelihoods`."""
        return self.generator.loglikelihoods(requests)

    def generate(self, prompts: list[list[int]], options: GenerateOptions) -> list[DecodedText]:
        """See `Generator.generate`."""
        return self.generator.generate(prompts, **options)


def sizes(config: EvaluateConfig) -> tuple[bool, int, int]:
    """Whether the actors get GPUs, and CPUs and GPUs of each. A Ray connection must stand.

    Raises:
        EvaluateError: the cluster can never hold the actors.
    """
    import ray

    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    use_gpu = bool(have.get("GPU")) if config.use_gpu is None else config.use_gpu
    cpus = config.cpus_per_worker or (1 if use_gpu else max(1, int(have.get("CPU", 1)) // config.workers))
    gpus = config.gpus_per_worker if use_gpu else 0
    hint = "lower evaluate.workers, evaluate.cpus_per_worker or evaluate.gpus_per_worker"
    ray_session.require("evaluate.workers", config.workers, cpus, use_gpu, hint, EvaluateError, gpus=gpus)
    return use_gpu, cpus, gpus


class ScorerPool:
    """The actors. A Ray connection must stand.

    Args:
        model: what `models.resolve` takes; each actor's node fetches it once.
        config: how many, on what.

    Raises:
        EvaluateError: the cluster can never hold the actors.
    """

    can_score = True

    def __init__(self, model: str, config: EvaluateConfig) -> None:
        import ray

        use_gpu, cpus, gpus = sizes(config)
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=_RETRIES, max_task_retries=_RETRIES)(Scorer)
        tokens = config.batch_tokens or _BATCH_TOKENS["GPU" if use_gpu else "CPU"]
        self.actors: list[Any] = [remote.remote(model, gpus, cpus, tokens) for _ in range(config.workers)]
        self.device = "GPU" if use_gpu else "CPU"
        self._needs = f"{cpus} CPUs" + (f" and {gpus} GPUs" if gpus else "") + ", and time to load the model"
        self.repeated = 0
        """Requests that were asked again because an actor that held them died."""
        self._lives: dict[Any, int] = {}

    def _first(self, flying: list[Any]) -> Any:
        """The first of the calls to come back. A line whenever `_SILENCE` passes and no actor is there yet."""
        import ray

        while True:
            ready, _ = ray.wait(flying, num_returns=1, timeout=None if self._lives else _SILENCE)
            if ready:
                return ready[0]
            free = ray.available_resources()  # type: ignore[no-untyped-call]
            console.say(
                f"evaluate: waiting for the first of {len(self.actors)} actors: each needs {self._needs}; free in the "
                f"cluster now: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs"
            )

    def close(self) -> None:
        """Ends the actors."""
        import ray

        for actor in self.actors:
            ray.kill(actor)

    def loglikelihoods(
        self, requests: Sequence[Request], what: str, on_results: OnResults | None = None
    ) -> list[tuple[float, bool]]:
        """See `Backend.loglikelihoods`."""
        # Neighbours share contexts: whole contexts go to one actor.
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, (context, _) in enumerate(requests):
            groups.setdefault(tuple(context), []).append(number)
        sizes = {key: len(key) + sum(len(requests[n][1]) for n in numbers) for key, numbers in groups.items()}
        parts = [groups[key] for key in sorted(groups, key=lambda key: -sizes[key])]
        costs = [sizes[tuple(requests[part[0]][0])] for part in parts]
        return self._spread("loglikelihoods", lambda ns: ([requests[n] for n in ns],), parts, costs, what, on_results)

    def generate(
        self, prompts: Sequence[list[int]], options: GenerateOptions, what: str, on_results: OnResults | None = None
    ) -> list[DecodedText]:
        """See `Backend.generate`."""
        order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
        return self._spread(
            "generate",
            lambda ns: ([prompts[n] for n in ns], options),
            [[n] for n in order],
            [len(prompts[n]) for n in order],
            what,
            on_results,
        )

    def _spread(
        self,
        method: str,
        arguments: Callable[[list[int]], tuple[Any, ...]],
        parts: list[list[int]],
        costs: list[int],
        what: str,
        on_results: OnResults | None,
    ) -> list[Any]:
        """Calls the actors' method on runs of parts of about equal cost; results by the parts' numbers."""
        import ray

        chunks = _chunks(parts, costs, len(self.actors) * _CHUNKS_PER_ACTOR)
        total = sum(map(len, parts))
        out: list[Any] = [None] * total
        waiting = iter(chunks)
        flying: dict[Any, tuple[Any, list[int]]] = {}

        def send(actor: Any) -> None:
            chunk = next(waiting, None)
            if chunk is not None:
                flying[actor.work.remote(method, *arguments(chunk))] = actor, chunk

        with progress(what, total) as advance:
            for _ in range(_IN_FLIGHT):
                for actor in self.actors:
                    send(actor)
            while flying:
                ready = self._first(list(flying))
                actor, chunk = flying.pop(ready)
                life, before, results = ray.get(ready)
                if self._lives.get(actor, 0 if before else life) != life:
                    # Ray gives the new life what the old one held, and nothing else.
                    held = len(chunk) + sum(len(other) for one, other in flying.values() if one is actor)
                    self.repeated += held
                    console.say(f"evaluate: an actor died: the {held:,} of {total:,} {what} it held are asked again")
                self._lives[actor] = life
                send(actor)
                for number, result in zip(chunk, results, strict=True):
                    out[number] = result
                if on_results is not None:
                    on_results(chunk, results)
                advance(len(chunk))
        return out


def _chunks(parts: list[list[int]], costs: list[int], count: int) -> list[list[int]]:
    """About `count` runs of neighbouring parts, of about equal cost each, flattened."""
    share = max(1.0, sum(costs) / count)
    chunks: list[list[int]] = []
    filled = share
    for part, cost in zip(parts, costs, strict=True):
        if filled >= share:
            chunks.append([])
            filled = 0
        chunks[-1] += part
        filled += cost
    return chunks


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Counts to `total`, as the console shows it, and says how long it took."""
    begun = time.monotonic()
    with console.progress(f"evaluate: {what}", total) as advance:
        yield advance
    console.say(f"evaluate: {total:,} {what} in {time.monotonic() - begun:.1f} s")
