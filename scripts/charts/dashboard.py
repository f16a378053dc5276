"""The Grafana dashboard of the operator and its runs. A test holds its metrics to those the operator has."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]
RUN = 'namespace=~"$namespace", name=~"$run"'
# title, PromQL, legend, unit, panel
PANELS = (
    ("KitRuns by phase", f"sum by (phase) (kit19_run_phase{{{RUN}}})", "{{phase}}", "short", "timeseries"),
    ("Leading operators", "sum(kit19_operator_leader)", "leaders", "short", "stat"),
    (
        "Progress of the stage at work",
        f"kit19_run_progress{{{RUN}}}",
        "{{name}} {{stage}}",
        "percentunit",
        "timeseries",
    ),
    ("Training tokens per second", f"kit19_run_tokens_per_second{{{RUN}}}", "{{name}}", "short", "timeseries"),
    ("Training loss", f"kit19_run_loss{{{RUN}}}", "{{name}}", "short", "timeseries"),
    ("Scores", f"kit19_run_score{{{RUN}}}", "{{name}} {{task}} {{metric}}", "percentunit", "bargauge"),
    (
        "Transitions per minute",
        "60 * sum by (phase) (rate(kit19_operator_transitions_total[5m]))",
        "{{phase}}",
        "short",
        "timeseries",
    ),
    (
        "Looks at a KitRun per second",
        "sum by (result) (rate(kit19_operator_reconciles_total[5m]))",
        "{{result}}",
        "ops",
        "timeseries",
    ),
    (
        "Time of a look, p99",
        "histogram_quantile(0.99, sum by (le) (rate(kit19_operator_reconcile_seconds_bucket[5m])))",
        "p99",
        "s",
        "timeseries",
    ),
    (
        "Roots that could not be read, per minute",
        "60 * rate(kit19_operator_storage_errors_total[5m])",
        "errors",
        "short",
        "timeseries",
    ),
)


def dashboard_json() -> str:
    """The dashboard as Grafana imports it."""
    made = {
        "uid": "kit19-runs",
        "title": "kit19: runs and operator",
        "tags": ["kit19", "ray"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                _variable("namespace", "label_values(kit19_run_phase, namespace)"),
                _variable("run", 'label_values(kit19_run_phase{namespace=~"$namespace"}, name)'),
            ]
        },
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }
    return json.dumps(made, indent=2) + "\n"


def _variable(name: str, query: str) -> Json:
    everything = {"text": "All", "value": "$__all"}
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": everything,
    }


def _panel(number: int, title: str, query: str, legend: str, unit: str, kind: str) -> Json:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number + 1,
        "title": title,
        "type": kind,
        "datasource": source,
        "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [{"refId": "A", "datasource": source, "expr": query, "legendFormat": legend}],
    }
