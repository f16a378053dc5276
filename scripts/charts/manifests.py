"""The plain manifests of k8s/: what the charts render, for those who do without Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Manifest:
    """One file of k8s/ and the release it equals.

    Attributes:
        head: comment lines at its top: what to do with it.
        leave_out: templates that have no place in it, such as helm's own test.
    """

    path: str
    chart: str
    release: str
    namespace: str
    values: str
    head: str
    leave_out: tuple[str, ...] = ("templates/tests/",)


MANIFESTS = (
    Manifest(
        "k8s/operator.yaml",
        "kit19-operator",
        "kit19-operator",
        "kit19-system",
        "k8s/values/operator.yaml",
        "The operator for the whole cluster, without Helm:\n"
        "  kubectl create namespace kit19-system\n"
        "  kubectl apply --server-side -f k8s/crd.yaml -f k8s/operator.yaml",
        ("templates/tests/", "templates/crd.yaml"),
    ),
    Manifest(
        "k8s/raycluster.yaml",
        "kit19-run",
        "kit19",
        "kit19",
        "k8s/values/raycluster.yaml",
        "A Ray cluster that stays, for jobs from outside. Secrets first: docs/how-to/kubernetes.md.\n"
        "  kubectl apply -f k8s/raycluster.yaml\n"
        "  k8s/submit.sh",
    ),
    Manifest(
        "k8s/rayjob.yaml",
        "kit19-run",
        "kit19",
        "kit19",
        "k8s/values/rayjob.yaml",
        "data, train and evaluate in one RayJob on KubeRay, without the operator.",
    ),
    Manifest(
        "k8s/rayservice.yaml",
        "kit19-run",
        "kit19",
        "kit19",
        "k8s/values/rayservice.yaml",
        "A trained model behind OpenAI-compatible HTTP; put what `kit19 train` printed at serve.model.\n"
        "Its API keys first; the file's form: docs/how-to/serve.md.\n"
        "  kubectl --namespace kit19 create secret generic kit19-keys --from-file=api-keys=FILE",
    ),
)


def rendered(helm: str, repository: Path) -> Iterator[tuple[str, str]]:
    """Path and content of each manifest.

    Raises:
        CalledProcessError: a chart does not render.
    """
    for one in MANIFESTS:
        command = [helm, "template", one.release, f"helm/{one.chart}", "--namespace", one.namespace]
        command += ["--values", one.values, "--kube-version", "1.33.0", "--skip-tests"]
        done = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, text=True, check=True)
        parts = [part for part in done.stdout.split("---\n") if part.strip()]
        kept = [part for part in parts if not any(f"/{name}" in part.splitlines()[0] for name in one.leave_out)]
        head = f"{one.head}\nMade by `make generated` from helm/{one.chart} with {one.values}."
        text = "".join(f"# {line}\n" for line in head.splitlines())
        yield one.path, text + "".join(f"---\n{_plain(part)}" for part in kept)


def _plain(part: str) -> str:
    """Without what only Helm reads."""
    lines = [line.rstrip() for line in part.splitlines() if not line.startswith("# Source:")]
    kept = [line for line in lines if "helm.sh/chart:" not in line]
    return "\n".join(kept).replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl") + "\n"
