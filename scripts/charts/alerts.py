"""The alerts of the operator's PrometheusRule. What they ask for are the operator's own metrics; a test holds that."""

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
