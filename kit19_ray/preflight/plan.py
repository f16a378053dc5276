"""The whole plan of a config: the root, then each stage in order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kit19_ray.config.schema import Config
from kit19_ray.errors import StorageError, UserError
from kit19_ray.io import s3, storage
from kit19_ray.preflight.findings import Findings
from kit19_ray.preflight.serving import evaluate, serve
from kit19_ray.preflight.sources import data
from kit19_ray.preflight.training import train
from kit19_ray.utils.json_types import Json


@dataclass(frozen=True)
class Preflight:
    """What a config would do.

    Attributes:
        root: the root, looked at; its URI is always set.
        stages: data, train, evaluate, serve; and the cluster, if it was looked at.
    """

    root: Findings
    stages: list[Findings]

    @property
    def missing(self) -> list[UserError]:
        """What keeps the config from running, each once."""
        every = [error for found in (self.root, *self.stages) for error in found.missing]
        return list({str(error): error for error in every}.values())

    def record(self) -> Json:
        """As JSON."""
        return {
            "root": self.root.uri,
            "ready": not self.missing,
            "missing": [{"message": e.message, "hint": e.hint} for e in self.missing],
            "notes": [note for found in (self.root, *self.stages) for note in found.notes],
            "stages": {f.name: {"uri": f.uri, "state": f.state, **f.facts} for f in self.stages},
        }

    def require(self) -> None:
        """Raises one UserError that lists everything missing, if anything is."""
        found = self.missing
        if found:
            lines = ["\n    ".join(str(error).splitlines()) for error in found]
            count = f"{len(found)} things are" if len(found) > 1 else "1 thing is"
            raise UserError(f"{count} missing\n" + "\n".join(f"  {line}" for line in lines))


def make(config: Config, hashing: bool = False, on_cluster: bool = False) -> Preflight:
    """Looks at the root and at every stage; reads only.

    Args:
        hashing: hash source files of any size to name the data stage's output.
        on_cluster: look at the Ray cluster too, whose nodes write a small file below the root and delete it.
    """
    root = _root(config)
    if root.missing:
        return Preflight(root, [])
    built_from, built = data(config, hashing)
    trained = train(config, built_from, built)
    stages = [built_from, trained, evaluate(config, trained, built), serve(config, trained)]
    if on_cluster:
        from kit19_ray.preflight.cluster import cluster

        stages.append(cluster(config, trained))
    return Preflight(root, stages)


def _root(config: Config) -> Findings:
    found = Findings("root", uri=config.root)
    if config.root.startswith("file://"):
        found.check(lambda: _writable(config.root))
        return found
    if not s3.has_credentials():
        found.missing.append(
            StorageError(
                f"{config.root}: no AWS credentials were found",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run under a role",
            )
        )
        return found
    found.check(lambda: _bucket(config.root))
    found.notes.append("whether the bucket may be written to is seen at the first write: a plan writes nothing")
    return found


def _writable(root: str) -> None:
    folder = Path(storage.filesystem(root)[1])
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{root}: {folder} is not a folder that you may write to")


def _bucket(root: str) -> None:
    bucket = "s3://" + root.removeprefix("s3://").partition("/")[0]
    if not storage.exists(bucket):
        at = f" at {s3.endpoint()}" if s3.endpoint() else ""
        raise StorageError(
            f"{root}: there is no bucket {bucket}{at}", hint="create it, or check AWS_ENDPOINT_URL and the credentials"
        )
    storage.list_dirs(root)
