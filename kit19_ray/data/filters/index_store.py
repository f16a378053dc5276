"""The index of evaluation items on storage: built once, by whoever needs it first, and mapped once on each node.

Its name is made of the sets' hashes, so a build with the same sets finds it there. Arrays are .npy files that the
processes of a node map into the same memory; the texts, a few megabytes, are JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache

import numpy as np

from kit19_ray.artifacts import manifest
from kit19_ray.data.filters import decontamination
from kit19_ray.data.filters.decontamination import EvaluationIndex
from kit19_ray.io import node_cache, storage
from kit19_ray.sources import evaluation_sets
from kit19_ray.sources.evaluation_sets import Located
from kit19_ray.utils.json_types import Json

_REST = "rest.json"


def prefix(root: str, version: int, sets: Sequence[Located], contained: float) -> str:
    """Where the index of these sets is, or will be."""
    identity = {
        "version": version,
        "contained": contained,
        "sets": {found.name: [found.sha256, found.spec.model_dump(mode="json")] for found in sets},
    }
    return storage.join(root, "tasks", f"index-{manifest.digest(identity)[:12]}")


def build(uri: str, sets: Sequence[Located], contained: float) -> None:
    """Builds the index and writes it below `uri`."""
    exact = [found.name for found in sets if found.spec.exact]
    index = decontamination.build([(found.name, evaluation_sets.items(found)) for found in sets], contained, exact)
    rest: Json = {}
    for field in fields(EvaluationIndex):
        value = getattr(index, field.name)
        if isinstance(value, np.ndarray):
            buffer = io.BytesIO()
            np.save(buffer, value, allow_pickle=False)
            storage.write_bytes(storage.join(uri, f"{field.name}.npy"), buffer.getvalue())
        else:
            rest[field.name] = value
    storage.write_text(storage.join(uri, _REST), json.dumps(rest, ensure_ascii=False))
    manifest.commit(uri, {"stage": "index", "items": len(index.texts)})


@lru_cache(maxsize=1)
def load(uri: str) -> EvaluationIndex:
    """The index below `uri`, its arrays mapped from this node's copy."""
    folder = node_cache.local_dir(uri)
    rest = json.loads((folder / _REST).read_text(encoding="utf-8"))
    values: Json = {}
    for field in fields(EvaluationIndex):
        array = folder / f"{field.name}.npy"
        values[field.name] = np.load(array, mmap_mode="r") if array.exists() else rest[field.name]
    values["texts"] = [tuple(item) for item in values["texts"]]
    return EvaluationIndex(**values)
