"""The Grafana dashboards: of the operator and its runs, and of the servers. Tests hold their metrics to the code's."""

from __future__ import annotations

import json
from collections.abc import Iterable
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


MODEL = 'model=~"$model"'


def _quantiles(metric: str) -> str:
    return f"histogram_quantile(0.95, sum by (le, model) (rate(ray_{metric}_bucket{{{MODEL}}}[5m])))"


SERVING_PANELS = (
    (
        "Requests per second by status",
        f"sum by (model, status) (rate(ray_kit19_requests_total{{{MODEL}}}[5m]))",
        "{{model}} {{status}}",
        "reqps",
        "timeseries",
    ),
    ("Requests in progress", "sum(ray_kit19_requests_in_progress)", "in progress", "short", "timeseries"),
    ("Time of a request, p95", _quantiles("kit19_request_seconds"), "{{model}}", "s", "timeseries"),
    ("Time in the queue, p95", _quantiles("kit19_queue_seconds"), "{{model}}", "s", "timeseries"),
    (
        "Time to the first token, p95",
        _quantiles("kit19_time_to_first_token_seconds"),
        "{{model}}",
        "s",
        "timeseries",
    ),
    ("Time between tokens, p95", _quantiles("kit19_inter_token_seconds"), "{{model}}", "s", "timeseries"),
    (
        "Tokens generated per second",
        f"sum by (model) (rate(ray_kit19_completion_tokens_total{{{MODEL}}}[5m]))",
        "{{model}}",
        "short",
        "timeseries",
    ),
    (
        "Tokens of prompts per second",
        f"sum by (model) (rate(ray_kit19_prompt_tokens_total{{{MODEL}}}[5m]))",
        "{{model}}",
        "short",
        "timeseries",
    ),
    (
        "Share of prompt tokens found in the prefix cache",
        f"sum by (model) (rate(ray_kit19_reused_prompt_tokens_total{{{MODEL}}}[5m])) / "
        f"sum by (model) (rate(ray_kit19_prompt_tokens_total{{{MODEL}}}[5m]))",
        "{{model}}",
        "percentunit",
        "timeseries",
    ),
    (
        "Sequences decoded together",
        f"sum by (model) (ray_kit19_sequences_running{{{MODEL}}})",
        "{{model}}",
        "short",
        "timeseries",
    ),
    (
        "Sequences that wait",
        f"sum by (model) (ray_kit19_sequences_waiting{{{MODEL}}})",
        "{{model}}",
        "short",
        "timeseries",
    ),
    (
        "Key-value cache in use",
        f"avg by (model) (ray_kit19_cache_use{{{MODEL}}})",
        "{{model}}",
        "percentunit",
        "timeseries",
    ),
    (
        "Tokens in the key-value cache",
        f"sum by (model) (ray_kit19_cache_tokens{{{MODEL}}})",
        "{{model}}",
        "short",
        "timeseries",
    ),
    (
        "Clients that left, per minute",
        f"60 * sum by (model) (rate(ray_kit19_disconnects_total{{{MODEL}}}[5m]))",
        "{{model}}",
        "short",
        "timeseries",
    ),
    (
        "Requests taken over from a replica that died, per minute",
        f"60 * sum by (model) (rate(ray_kit19_failovers_total{{{MODEL}}}[5m]))",
        "{{model}}",
        "short",
        "timeseries",
    ),
)


def dashboard_json() -> str:
    """The dashboard of operator and runs, as Grafana imports it."""
    variables = [
        _variable("namespace", "label_values(kit19_run_phase, namespace)"),
        _variable("run", 'label_values(kit19_run_phase{namespace=~"$namespace"}, name)'),
    ]
    return _dashboard("kit19-runs", "kit19: runs and operator", variables, PANELS)


def serving_json() -> str:
    """The dashboard of the servers, as Grafana imports it."""
    variables = [_variable("model", "label_values(ray_kit19_requests_total, model)")]
    return _dashboard("kit19-serving", "kit19: servers", variables, SERVING_PANELS)


def _dashboard(uid: str, title: str, variables: list[Json], panels: Iterable[tuple[str, str, str, str, str]]) -> str:
    made = {
        "uid": uid,
        "title": title,
        "tags": ["kit19", "ray"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                *variables,
            ]
        },
        "panels": [_panel(number, *panel) for number, panel in enumerate(panels)],
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
