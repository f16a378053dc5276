"""The alerts of the operator's PrometheusRule. They ask for the operator's own metrics and the servers'; a test holds
that."""

from __future__ import annotations

from dataclasses import dataclass

import yaml


@dataclass(frozen=True)
class Alert:
    """One alert.

    Attributes:
        minutes: how long the expression has to hold.
        what: what is wrong and where to look.
    """

    name: str
    expression: str
    minutes: int
    severity: str
    what: str


ALERTS = (
    Alert(
        "Kit19OperatorMissing",
        'absent(kit19_operator_leader{job="{{job}}"} == 1)',
        5,
        "critical",
        "no operator of this release works, and none that stands by has taken over: see its log and its Lease",
    ),
    Alert(
        "Kit19TrainingStalled",
        'changes(kit19_run_step[30m]) == 0 and on(namespace, name) kit19_run_phase{phase="Training"} == 1 '
        "and on(namespace, name) kit19_run_queued == 0",
        10,
        "warning",
        "no optimizer step in half an hour: a node that was lost, a collective that hangs, a checkpoint that cannot be "
        "written; see the driver's log",
    ),
    Alert(
        "Kit19CheckpointFailing",
        "kit19_run_checkpoint_failing_seconds > 600",
        1,
        "critical",
        "the store has taken no checkpoint for ten minutes; after train.save_grace_minutes the run ends",
    ),
    Alert(
        "Kit19QueueGrowing",
        "sum(kit19_run_queued) > 2 and deriv(sum(kit19_run_queued)[2h:5m]) > 0",
        60,
        "info",
        "ever more runs wait in their queue: quota does not keep up with what is asked",
    ),
    Alert(
        "Kit19ServeQueueGrowing",
        "sum by (model) (ray_kit19_sequences_waiting) > 0 and "
        "deriv(sum by (model) (ray_kit19_sequences_waiting)[10m:30s]) > 0",
        10,
        "warning",
        "a server's queue grows: more replicas (serve.autoscaling), or fewer requests",
    ),
    Alert(
        "Kit19StandbyWithoutLeader",
        'sum(kit19_operator_standby{job="{{job}}"}) > 0 unless sum(kit19_operator_leader{job="{{job}}"}) > 0',
        2,
        "critical",
        "operators stand by and none works: its Lease is held by something that is gone, or by another release",
    ),
    Alert(
        "Kit19TwoOperators",
        "kit19_operator_contested == 1",
        5,
        "warning",
        "two releases watch one namespace; the second one leaves its KitRuns alone",
    ),
    Alert(
        "Kit19CheckpointOld",
        'changes(kit19_run_checkpoint_step[6h]) == 0 and on(namespace, name) kit19_run_phase{phase="Training"} == 1 '
        "and on(namespace, name) kit19_run_queued == 0",
        360,
        "warning",
        "no new checkpoint in six hours of training: that much is lost with a node",
    ),
    Alert(
        "Kit19RunQueued",
        "kit19_run_queued == 1",
        360,
        "info",
        "a stage has waited six hours for its queue: quota, or a gang that never fits",
    ),
    Alert(
        "Kit19ChildRejected",
        "kit19_run_rejected == 1",
        10,
        "warning",
        "the API server does not take a child: quota, admission, KubeRay's version; the KitRun says why",
    ),
    Alert(
        "Kit19StorageUnreadable",
        "kit19_run_storage_readable == 0",
        10,
        "warning",
        "the operator cannot read the root: no progress, no gate, no server",
    ),
    Alert(
        "Kit19RunFailed",
        'kit19_run_phase{phase=~"Failed|GateFailed"} == 1',
        1,
        "warning",
        "a run has failed; its message says what to do",
    ),
    Alert(
        "Kit19OperatorErrors",
        'rate(kit19_operator_reconciles_total{result="error"}[15m]) > 0.05',
        15,
        "warning",
        "the API server keeps failing the operator",
    ),
)


def rules_yaml() -> str:
    """The alerts as the rules of a PrometheusRule; `{{job}}` is the release's own."""
    rules = [
        {
            "alert": one.name,
            "expr": one.expression,
            "for": f"{one.minutes}m",
            "labels": {"severity": one.severity},
            "annotations": {"summary": one.what},
        }
        for one in ALERTS
    ]
    return "# Made by `make generated` from scripts/charts/alerts.py.\n" + yaml.safe_dump(
        {"rules": rules}, sort_keys=False, width=1000
    )
