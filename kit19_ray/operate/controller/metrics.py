"""What the operator counts, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kit19_ray.operate.api.status import Status

CONTENT_TYPE = CONTENT_TYPE_LATEST
_RUN = ["namespace", "name"]


class ControllerMetrics:
    """Counters of one operator; each has a registry of its own, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leader = Gauge("kit19_operator_leader", "1 while this operator works.", registry=self.registry)
        self.standby = Gauge("kit19_operator_standby", "1 while another holds the lease.", registry=self.registry)
        self.contested = Gauge(
            "kit19_operator_contested",
            "1 where another release works in a namespace that this one watches too.",
            ["namespace"],
            registry=self.registry,
        )
        self.reconciles = Counter(
            "kit19_operator_reconciles", "Looks at a KitRun by how they ended.", ["result"], registry=self.registry
        )
        self.seconds = Histogram(
            "kit19_operator_reconcile_seconds",
            "Time of a look at a KitRun.",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
            registry=self.registry,
        )
        self.transitions = Counter(
            "kit19_operator_transitions", "KitRuns that came to a phase.", ["phase"], registry=self.registry
        )
        self.storage_errors = Counter(
            "kit19_operator_storage_errors", "Roots that could not be read.", registry=self.registry
        )
        self._phase = Gauge(
            "kit19_run_phase", "1 for the phase a KitRun is in.", [*_RUN, "phase"], registry=self.registry
        )
        self._progress = Gauge(
            "kit19_run_progress", "Share of the stage at work.", [*_RUN, "stage"], registry=self.registry
        )
        self._step = Gauge("kit19_run_step", "Optimizer steps done.", _RUN, registry=self.registry)
        self._queued = Gauge(
            "kit19_run_queued", "1 while the stage at work waits in a queue.", _RUN, registry=self.registry
        )
        self._rejected = Gauge(
            "kit19_run_rejected", "1 while the API server does not take a child.", _RUN, registry=self.registry
        )
        self._storage = Gauge(
            "kit19_run_storage_readable", "1 when the root can be read.", _RUN, registry=self.registry
        )
        self._speed = Gauge("kit19_run_tokens_per_second", "Of training.", _RUN, registry=self.registry)
        self._checkpoint = Gauge(
            "kit19_run_checkpoint_step", "Optimizer steps in the newest whole checkpoint.", _RUN, registry=self.registry
        )
        self._failing = Gauge(
            "kit19_run_checkpoint_failing_seconds",
            "Since how long the store has taken no checkpoint.",
            _RUN,
            registry=self.registry,
        )
        self._loss = Gauge("kit19_run_loss", "Newest training loss.", _RUN, registry=self.registry)
        self._score = Gauge("kit19_run_score", "Of scores.json.", [*_RUN, "task", "metric"], registry=self.registry)

    def show(self, namespace: str, name: str, status: Status) -> None:
        """The gauges of a run, as its status has them."""
        self.forget(namespace, name)
        self._phase.labels(namespace, name, status.phase).set(1)
        stage = getattr(status.stages, status.stage) if status.stage else None
        if stage is not None and stage.progress is not None:
            self._progress.labels(namespace, name, status.stage).set(stage.progress)
        if stage is not None:
            self._queued.labels(namespace, name).set(int(stage.state == "Queued"))
            self._rejected.labels(namespace, name).set(int(stage.reason in ("Rejected", "Refused")))
        storage = status.condition("StorageReadable").status
        if storage != "Unknown":
            self._storage.labels(namespace, name).set(int(storage == "True"))
        train = status.stages.train
        if status.stage == "train" and train.step is not None:
            self._step.labels(namespace, name).set(train.step)
            self._checkpoint.labels(namespace, name).set(train.checkpoint_step or 0)
            self._failing.labels(namespace, name).set(train.checkpoint_failing_seconds or 0)
        if train.tokens_per_second is not None:
            self._speed.labels(namespace, name).set(train.tokens_per_second)
        if train.loss is not None:
            self._loss.labels(namespace, name).set(train.loss)
        for task, metrics in status.scores.items():
            for metric, value in metrics.items():
                self._score.labels(namespace, name, task, metric).set(value)

    def forget(self, namespace: str, name: str) -> None:
        """Takes the gauges of a run away."""
        gauges = (self._phase, self._progress, self._step, self._queued, self._rejected, self._storage)
        for gauge in (*gauges, self._checkpoint, self._failing, self._speed, self._loss, self._score):
            gauge.remove_by_labels({"namespace": namespace, "name": name})

    def text(self) -> bytes:
        """All of it, for a scrape."""
        return generate_latest(self.registry)
