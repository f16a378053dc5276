"""Runs drills on the cluster at hand, one after the other, and says how each ended."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kit19_ray.artifacts import metrics_log
from kit19_ray.artifacts.stage_manifests import Stopped, TrainOutput
from kit19_ray.config.schema import Config, TrainConfig
from kit19_ray.drill import driver, faults, sample_data
from kit19_ray.drill.drills import DRILLS, SAVE_EVERY, SHORT, STEPS, Drill
from kit19_ray.drill.local_nodes import LocalNodes, local_nodes
from kit19_ray.drill.measure import DrillOutcome, failed, measure
from kit19_ray.errors import TrainError, nearest, quote
from kit19_ray.io import storage
from kit19_ray.redaction import redacted
from kit19_ray.train import spec as planning
from kit19_ray.train.fit import fit, use_gpu
from kit19_ray.train.spec import TrainSpec
from kit19_ray.utils import ray_session
from kit19_ray.utils.console import say
from kit19_ray.utils.json_types import Json

_DRAIN_SECONDS = 20.0
_STRUCK_AT = 8  # the step from which something is done from outside


def named(names: Sequence[str], local: bool) -> list[Drill]:
    """The drills by name; without any, the usual ones.

    Raises:
        TrainError: there is none of that name, or it needs a cluster that is there for it.
    """
    known = {drill.name: drill for drill in DRILLS}
    if not names:
        return [known[name] for name in SHORT] + [d for d in DRILLS if d.local and local]
    if list(names) == ["all"]:
        return [d for d in DRILLS if local or not d.local]
    for name in names:
        if name not in known:
            raise TrainError(f"no drill {quote(name)}{nearest(name, known)}; there are {', '.join(known)}")
        if known[name].local and not local:
            raise TrainError(f"the drill {quote(name)} takes nodes away: it has a cluster of its own, with --local")
    return [known[name] for name in names]


def run(config: Config, names: Sequence[str] = (), local: bool = False, keep: bool = False) -> list[DrillOutcome]:
    """Trains a model of some 40,000 parameters once undisturbed, and once for each drill.

    Args:
        names: of drills; `all`; none for the usual ones.
        local: on a cluster of its own on this machine, whose nodes may be taken away.
        keep: leave what the runs wrote below `<root>/drill-<name>`.

    Raises:
        TrainError: no drill of that name, or the cluster cannot hold two workers.
    """
    wanted = named(names, local)
    root = storage.join(config.root, f"drill-{secrets.token_hex(3)}")
    outcomes: list[DrillOutcome] = []
    with _cluster(local) as nodes:
        try:
            base = _spec(config, root)
            say(f"drill: {base.config.workers} workers, {'GPU' if base.use_gpu else 'CPU'}, below {root}")
            expected: dict[int, TrainOutput] = {}
            for drill in wanted:
                if drill.steps not in expected:
                    expected[drill.steps] = _finished(fit(_of(base, f"undisturbed-{drill.steps}", drill.steps)))
                say(f"drill: {drill.name}: {drill.done}")
                outcomes.append(_run(drill, base, expected[drill.steps], nodes))
                say(f"drill: {drill.name}: {outcomes[-1]['wrong'] or 'as it must be'}")
        finally:
            if not keep:
                storage.delete(root)
    return outcomes


@contextmanager
def _cluster(local: bool) -> Iterator[LocalNodes | None]:
    if local:
        with local_nodes() as nodes:
            yield nodes
        return
    with ray_session.connected():
        yield None


def _spec(config: Config, root: str) -> TrainSpec:
    """The user's workers and devices, and a training that takes seconds."""
    given = config.train
    train = TrainConfig.model_validate(
        {
            "workers": max(2, min(given.workers, 8)), "cpus_per_worker": given.cpus_per_worker,
            "use_gpu": given.use_gpu, "zero_stage": given.zero_stage, "deterministic": True,
            "batch_size": 8, "micro_batch_size": 2, "epochs": 1000, "max_steps": STEPS, "learning_rate": 1e-2,
            "log_every": 1, "eval_every": STEPS, "save_every": SAVE_EVERY, "samples": 0, "trackers": [],
            "precision": "fp32", "max_failures": 3, "timeout_minutes": given.timeout_minutes,
            "model": {"hidden_size": 32, "layers": 2, "heads": 2},
        }
    )  # fmt: skip
    data = sample_data.write(root)
    return TrainSpec(
        out=storage.join(root, "train"),
        data=data,
        config=train,
        plan=planning.make(train, 66, sample_data.SEQ_LEN),
        use_gpu=use_gpu(train),
        seed=config.seed,
        vocab_size=sample_data.VOCAB,
        eos_token_id=sample_data.EOS,
        pad_token_id=sample_data.EOS,
        prompt="kullm",
    )


def _of(base: TrainSpec, name: str, steps: int, **train: Any) -> TrainSpec:
    config = base.config.model_copy(update={"max_steps": steps, "eval_every": steps, **train})
    plan = planning.make(config, base.plan.rows, base.plan.seq_len)
    return replace(base, out=f"{base.out}-{name.replace(' ', '-').replace(':', '')}", config=config, plan=plan)


def _run(drill: Drill, base: TrainSpec, expected: TrainOutput, nodes: LocalNodes | None) -> DrillOutcome:
    from kit19_ray.drill.detector import Detector

    train: Json = {"hang_minutes": 0.5} if drill.name == "hang" else {}
    if drill.outside == "growth":
        train["min_workers"] = 1
    spec = _of(base, drill.name, drill.steps, **train)
    settings = {"fault": drill.fault}
    trouble: list[Exception] = []
    try:
        if drill.outside == "driver":
            driver.killed(spec, drill.fault, lambda: _reached(spec.out) >= _STRUCK_AT)
            faults.leave(spec.out, faults.STRUCK, _reached(spec.out))
        elif nodes is not None and drill.outside is not None:
            threading.Thread(target=_take_a_node, args=(spec.out, drill, nodes, trouble), daemon=True).start()
        made = fit(spec, faults.loop, settings, [Detector(spec.out)], resize_seconds=5.0)
        if trouble:
            raise trouble[0]
        if "stopped" in made:
            made = fit(spec, faults.loop, settings)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and not trouble:
            raise
        # The outcome of a drill, and the next one comes.
        return failed(drill, " ".join(redacted(str(trouble[0] if trouble else error)).split())[:500])
    return measure(spec.out, drill, _finished(made), expected)


def _finished(made: TrainOutput | Stopped) -> TrainOutput:
    if "stopped" in made:  # whoever ran the drills asked for it, as `kit19 train` has it
        raise KeyboardInterrupt
    return made


def _reached(out: str) -> int:
    line = metrics_log.last(out)
    return int(line["step"]) if line else 0


def _take_a_node(out: str, drill: Drill, nodes: LocalNodes, trouble: list[Exception]) -> None:
    """In mid-training a node goes and another comes; what prevents that ends the training, which would wait for it."""
    try:
        _exchange(out, drill, nodes)
    except Exception as error:  # noqa: BLE001 - whatever it is, the main thread is told
        trouble.append(error)
        main = threading.main_thread().ident
        assert main is not None  # it has begun
        signal.pthread_kill(main, signal.SIGINT)


def _exchange(out: str, drill: Drill, nodes: LocalNodes) -> None:
    while _reached(out) < _STRUCK_AT:
        time.sleep(0.1)
    faults.leave(out, faults.STRUCK, _reached(out))
    if drill.outside == "drained node":
        nodes.drain(_DRAIN_SECONDS)
        time.sleep(_DRAIN_SECONDS)
    nodes.lose()
    if drill.outside == "growth":
        while not any("with 1 workers" in e["text"] for e in metrics_log.read(out, metrics_log.EVENTS)):
            time.sleep(0.2)
        time.sleep(_DRAIN_SECONDS / 2)
    nodes.add()
