"""The stages in order. Each meets the next only through object storage; here their URIs are handed on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kit19_ray.artifacts import gate, manifest, output_pointer, score_files
from kit19_ray.config.schema import Config
from kit19_ray.errors import ServeError
from kit19_ray.io import storage
from kit19_ray.utils import console, ray_session

if TYPE_CHECKING:
    from kit19_ray.evaluate.checkpoints import CheckpointScoring


def data_uri(config: Config) -> str:
    """The data prefix to read: the named one, or the one the config's data section builds."""
    if config.train.data:
        return storage.normalise(config.train.data)
    from kit19_ray.data import stage

    return stage.uri(config)


def data(config: Config) -> str:
    """Builds the config's data prefix."""
    from kit19_ray.data import stage

    built = stage.run(config)
    output_pointer.write("data", built, finished=True)
    return built


def train(config: Config) -> str:
    """Trains on the config's data prefix, which must be finished."""
    from kit19_ray.train import stage

    read = data_uri(config)
    output_pointer.write("train", stage.uri(config, read), finished=False)  # its metrics can be followed
    trained = stage.run(config, read, _scoring(config, read))
    output_pointer.write("train", trained, finished=True)
    return trained


def _scoring(config: Config, read: str) -> CheckpointScoring | None:
    """What scores the checkpoints of a training on a data prefix; None where nothing is to be scored but the loss."""
    if config.train.best.task is None:
        return None
    from kit19_ray.evaluate import checkpoints

    narrow = checkpoints.narrowed(config, manifest.require(read, "data")["tasks"])
    return checkpoints.CheckpointScoring(narrow, read)


def train_uri(config: Config, model: str | None) -> str:
    """What to evaluate or serve: the named model, or the train prefix of this config."""
    if model:
        return model
    from kit19_ray.train import stage

    return stage.uri(config, data_uri(config))


def evaluate(config: Config) -> str:
    """Scores the config's model."""
    from kit19_ray.evaluate import stage

    # A model alone needs nothing of the data stage, whose URI costs a hash of every original file.
    held_out = data_uri(config) if config.evaluate.held_out else None
    model = config.evaluate.endpoint or train_uri(config, config.evaluate.model)
    scored = stage.run(config, model, held_out)
    output_pointer.write("evaluate", scored, finished=True)
    return scored


def serve(config: Config) -> str:
    """Serves the config's model until Ctrl-C."""
    from kit19_ray.serve import stage

    return stage.run(config, train_uri(config, config.serve.model))


def run(config: Config, ask: str | None, serving: bool = True) -> None:
    """data -> train -> evaluate -> serve, with a summary; prints the last URI on stdout.

    Args:
        ask: ask the server this, print the answer, stop. None serves until Ctrl-C.
        serving: False ends after the evaluation.

    Raises:
        ServeError: the scores do not pass evaluate.gate, so nothing is served.
    """
    with ray_session.connected(config.data.cpus):
        times: dict[str, float] = {}
        built = _timed(times, "data", lambda: data(config))
        config = config.model_copy(update={"train": config.train.model_copy(update={"data": built})})
        trained = _timed(times, "train", lambda: train(config))
        scored = _timed(times, "evaluate", lambda: evaluate(config))
        summary = _summary(built, trained, scored, times)
        if serving:
            _pass_gate(config, scored)
        if serving and ask:
            answer = _timed(times, "serve", lambda: _ask(config, trained, ask))
            summary += [("question", ask), ("answer", answer.strip() or "(empty)")]
        console.pairs(summary)
        console.write(scored)
        if serving and not ask:
            serve(config)


def _pass_gate(config: Config, scored: str) -> None:
    scores = gate.table(score_files.read(scored))
    failures = gate.failures(scores, config.evaluate.gate)
    if failures:
        raise ServeError(
            f"evaluate.gate: {'; '.join(failures)}; the model is not served",
            hint="`kit19 serve` with the same config serves it all the same",
        )


def _timed(times: dict[str, float], name: str, stage: Any) -> Any:
    start = time.monotonic()
    result = stage()
    times[name] = time.monotonic() - start
    return result


def _ask(config: Config, trained: str, question: str) -> str:
    from kit19_ray.serve import stage
    from kit19_ray.serve.client import post

    server = stage.start(config, trained)
    try:
        body = {
            "model": config.serve.served_name,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": min(64, config.serve.max_tokens),
            "temperature": 0,
        }
        return str(post(f"{server.url}/v1/chat/completions", body)["choices"][0]["message"]["content"])
    finally:
        server.close()


def _summary(built: str, trained: str, scored: str, times: dict[str, float]) -> list[tuple[str, str]]:
    data = manifest.require(built, "data")
    model = manifest.require(trained, "train")
    train_split = data["splits"]["train"]
    return [
        ("data", f"{train_split['examples']:,} examples of {len(data['tasks'])} tasks, {times['data']:.0f} s"),
        (
            "train",
            f"{model['parameters'] / 1e6:.1f} M parameters, {model['steps']} steps, validation loss "
            f"{model['validation_loss_first']:.3f} -> {model['validation_loss']:.3f}, {times['train']:.0f} s",
        ),
        ("evaluate", f"{storage.join(scored, 'report.md')}, {times['evaluate']:.0f} s"),
        ("model", storage.join(trained, model["export"])),
    ]
