"""Makes what is generated of helm/ and k8s/ from the package's models.

`python -m scripts.charts` writes it; with `--check` it exits 1 and names the files that are not up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from kit19_ray.operate.api import crd, rbac
from scripts import kube_tools
from scripts.charts import alerts, dashboard, files, manifests
from scripts.charts.operator_chart import OperatorValues
from scripts.charts.run_chart import RunValues

REPOSITORY = Path(__file__).parents[2]
CHARTS = {"kit19-operator": OperatorValues, "kit19-run": RunValues}


def chart_files() -> Iterator[tuple[str, str]]:
    """Path and content of each generated file of the charts."""
    for name, model in CHARTS.items():
        readme = f"helm/{name}/README.md"
        yield f"helm/{name}/values.yaml", files.values_yaml(model)
        yield f"helm/{name}/values.schema.json", files.schema_json(model)
        yield readme, files.with_table((REPOSITORY / readme).read_text(encoding="utf-8"), model)
    yield "helm/kit19-operator/files/crd.yaml", crd.render()
    yield "helm/kit19-operator/files/rules.yaml", _rules()
    yield "helm/kit19-operator/files/dashboard.json", dashboard.dashboard_json()
    for name in CHARTS:
        yield f"helm/{name}/files/serving.json", dashboard.serving_json()
    yield "helm/kit19-operator/files/alerts.yaml", alerts.rules_yaml()


def _rules() -> str:
    out = ["# Made by `make generated` from kit19_ray/operate/api/rbac.py.\n"]
    named = {
        "rules": rbac.RULES,
        "leaseRules": rbac.LEASE_RULES,
        "editRules": rbac.EDIT_RULES,
        "viewRules": rbac.VIEW_RULES,
    }
    for key, rules in named.items():
        out.append(f"{key}:\n")
        for rule in rules:
            text = yaml.safe_dump(rule.manifest(), sort_keys=False, default_flow_style=True, width=1000).strip()
            out.append(f"  # {rule.reason}\n  - {text}\n")
    return "".join(out)


def main() -> int:
    """Writes or checks the files; returns the exit code. The manifests need the charts' files, so those come first."""
    check = "--check" in sys.argv
    stale = _put(chart_files(), check)
    helm = kube_tools.tools(Path(sys.prefix) / "bin")["helm"]
    stale += _put(manifests.rendered(helm, REPOSITORY), check)
    for path in stale:
        print(f"{path} {'is not up to date: run `make generated`' if check else 'written'}", file=sys.stderr)
    return int(check and bool(stale))


def _put(made: Iterator[tuple[str, str]], check: bool) -> list[str]:
    changed = []
    for name, text in made:
        path = REPOSITORY / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        changed.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return changed


if __name__ == "__main__":
    sys.exit(main())
