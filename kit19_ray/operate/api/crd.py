"""The CustomResourceDefinition `kitruns.kit19.dev`, generated from the models.

`python -m kit19_ray.operate.api.crd` prints it; `k8s/crd.yaml` is that output.
"""

from __future__ import annotations

import sys

import yaml

from kit19_ray.operate.api.openapi import structural
from kit19_ray.operate.api.spec import KitRunSpec
from kit19_ray.operate.api.status import Status
from kit19_ray.utils.json_types import Json

GROUP, VERSION, PLURAL, KIND = "kit19.dev", "v1alpha1", "kitruns", "KitRun"
API_VERSION = f"{GROUP}/{VERSION}"

_COLUMNS = (
    ("Phase", "string", ".status.phase", "Where the run is.", 0),
    ("Stage", "string", ".status.stage", "The stage at work.", 0),
    ("Progress", "string", ".status.progress", "Of that stage.", 0),
    ("Score", "string", ".status.score", "Mean of the gate's scores, or of all tasks.", 0),
    ("ETA", "string", ".status.eta", "Until that stage ends.", 1),
    ("Endpoint", "string", ".status.endpoint", "Where the model answers.", 1),
    ("Message", "string", ".status.message", "What is being waited for, or what went wrong.", 1),
    ("Age", "date", ".metadata.creationTimestamp", "Time since it was created.", 0),
)


def _unset(path: str) -> str:
    """CEL for a key that is left out, or null, which has() takes for a value."""
    return f"(!has({path}) || dyn({path}) == null)"


# What the models refuse too, told by the API server before anything is stored (Kubernetes 1.25): CEL over `spec`.
_SKIPPED = "skip: without the {stage} stage {key} is needed"
_ONE_OF = "a Secret of keys and config.serve.auth=none, or an api_keys_file of one's own, exclude each other"
SPEC_RULES = (
    (
        f"{_unset('self.serve.autoscaling')} || "
        "self.serve.autoscaling.minReplicas <= self.serve.autoscaling.maxReplicas",
        "serve.autoscaling: minReplicas is more than maxReplicas",
    ),
    (
        f"{_unset('self.queue.scheduler')} || self.queue.scheduler != 'scheduler-plugins'",
        "queue.scheduler=scheduler-plugins: KubeRay refuses every RayJob under it (it gangs RayClusters only)",
    ),
    (
        f"!('data' in self.skip) || !{_unset('self.config.train.data')} || ('train' in self.skip && "
        "('evaluate' in self.skip || !self.config.evaluate.held_out))",
        _SKIPPED.format(stage="data", key="config.train.data"),
    ),
    (
        f"!('train' in self.skip) || 'evaluate' in self.skip || !{_unset('self.config.evaluate.model')}",
        _SKIPPED.format(stage="train", key="config.evaluate.model"),
    ),
    (
        f"!('train' in self.skip) || !self.serve.enabled || !{_unset('self.config.serve.model')}",
        _SKIPPED.format(stage="train", key="config.serve.model"),
    ),
    (
        f"!('evaluate' in self.skip) || {_unset('self.config.evaluate.gate')} || size(self.config.evaluate.gate) == 0",
        _SKIPPED.format(stage="evaluate", key="an empty config.evaluate.gate"),
    ),
    *(
        (
            f"{_unset(f'self.config.{stage}.use_gpu')} || self.config.{stage}.use_gpu != true || "
            f"self.stages.{stage}.gpus > 0",
            f"config.{stage}.use_gpu=true, but stages.{stage}.gpus=0",
        )
        for stage in ("train", "evaluate", "serve")
    ),
    (
        f"{_unset('self.serve.keysSecret')} || ({_unset('self.config.serve.api_keys_file')} && "
        f"({_unset('self.config.serve.auth')} || self.config.serve.auth != 'none'))",
        f"serve.keysSecret: {_ONE_OF}",
    ),
    (
        "!self.networkPolicy.egressOpen || size(self.networkPolicy.egress) == 0",
        "networkPolicy: egressOpen=true and a list of egress rules exclude each other",
    ),
)
_WROTE = " || ".join(
    f"(has(oldSelf.status.stages.{stage}) && has(oldSelf.status.stages.{stage}.uri))"
    for stage in ("data", "train", "evaluate")
)
RUN_RULES = (
    (
        "self.spec.config.root == oldSelf.spec.config.root || !has(oldSelf.status) || !has(oldSelf.status.stages) || "
        f"!({_WROTE})",
        "spec.config.root may not change once a stage has written there: make another KitRun for another root",
    ),
)


def _rules(rules: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"rule": rule, "message": message} for rule, message in rules]


def spec_schema() -> Json:
    """The structural schema of `spec`."""
    schema = structural(KitRunSpec)
    config = schema["properties"]["config"]
    config["required"] = ["root"]
    config["properties"]["root"] |= {"minLength": 1, "maxLength": 1024, "pattern": "^(file:///|s3://)."}
    return schema


def definition(rules: bool = True) -> Json:
    """The CustomResourceDefinition.

    Args:
        rules: with CEL rules, which an API server before 1.25 does not know.
    """
    columns = [
        {"name": name, "type": kind, "jsonPath": path, "description": text}
        | ({"priority": priority} if priority else {})
        for name, kind, path, text, priority in _COLUMNS
    ]
    schema: Json = {
        "type": "object",
        "description": "One run of KIT-19: data, train, evaluate, the gate, serve.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec_schema(),
            "status": structural(Status, required=False),
        },
    }
    if rules:
        schema["x-kubernetes-validations"] = _rules(RUN_RULES)
        schema["properties"]["spec"]["x-kubernetes-validations"] = _rules(SPEC_RULES)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": "kitrun",
                "shortNames": ["kr"],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def render() -> str:
    """The definition as YAML."""
    head = "# Generated by `python -m kit19_ray.operate.api.crd > k8s/crd.yaml`; a test holds that they are equal.\n"
    return head + yaml.safe_dump(definition(), sort_keys=False, allow_unicode=True, width=110)


if __name__ == "__main__":
    sys.stdout.write(render())
