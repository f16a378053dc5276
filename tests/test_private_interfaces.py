"""What docs/reference/upgrading.md lists is there, and what the package uses of the kind is listed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "upgrading.md").read_text(encoding="utf-8")
NAMES = [
    ("ray.serve.context", "_get_global_client"),
    ("ray.serve._private.constants", "SERVE_CONTROLLER_NAME"),
    ("ray.serve._private.constants", "SERVE_NAMESPACE"),
    ("ray.experimental.internal_kv", "_internal_kv_get"),
    ("ray.experimental.internal_kv", "_internal_kv_put"),
    ("ray._private", "state"),
    ("ray.train.v2._internal.execution.context", "get_train_context"),
    ("ray.data", "DataContext.raise_original_map_exception"),
    ("ray.data", "DataContext.op_resource_reservation_enabled"),
    ("ray.cluster_utils", "Cluster"),
    ("transformers.core_model_loading", "revert_weight_conversion"),
    ("transformers", "PreTrainedModel._supports_attention_backend"),
    ("lm_eval.api.task", "tqdm"),
    ("lm_eval.api.task", "get_metric"),
    ("typer.core", "TyperGroup.parse_args"),
    ("rich.console", "Console.on_broken_pipe"),
    ("ijson.backends.python", "basic_parse"),
]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[name for _, name in NAMES])
def test_each_name_is_there_and_on_the_page(module: str, name: str) -> None:
    found = importlib.import_module(module)
    *owners, last = name.split(".")
    for owner in owners:
        found = getattr(found, owner)
    known = getattr(found, "__dataclass_fields__", {})
    assert hasattr(found, last) or last in known or importlib.util.find_spec(f"{module}.{last}")
    assert last in PAGE


def test_every_private_import_is_on_the_page() -> None:
    private = re.compile(r"^\s*from ((?:ray|lm_eval|deepspeed)[\w.]*) import ([\w, ]+)$", re.MULTILINE)
    for path in (ROOT / "kit19_ray").rglob("*.py"):
        for module, names in private.findall(path.read_text(encoding="utf-8")):
            for name in names.split(", "):
                if "._" in module or name.startswith("_"):
                    assert name in PAGE, f"{path}: {module}.{name} is not in docs/reference/upgrading.md"
