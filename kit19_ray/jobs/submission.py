"""What `kit19 submit` sends: the config as a small folder, the command, the id. Pure but for reading task files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import Config
from kit19_ray.errors import OperateError, nearest, quote

VERBS = ("data", "train", "evaluate", "serve", "run")
CONFIG_FILE, TASKS_FOLDER = "kit19.yaml", "tasks"
_NAME_LENGTH = 40
# What looks like a credential in a value: user:password@, a signed URL, an AWS key id, a Hugging Face token.
_SECRETS = {
    "a password in a URL": re.compile(r"[a-z0-9+]+://[^/\s:@]+:[^/\s@]+@"),
    "a signed URL": re.compile(r"[?&](X-Amz-Signature|Signature|sig|token|access_token)=", re.IGNORECASE),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Submission:
    """One job to be sent.

    Attributes:
        base: name, verb and a hash of everything that is sent; equal submissions have equal ones.
        files: text by path, relative to the job's working directory.
        warnings: what this machine has and the cluster must have too.
    """

    verb: str
    base: str
    files: Mapping[str, str]
    entrypoint: str
    warnings: tuple[str, ...] = ()

    def id(self, attempt: int) -> str:
        """The id of the attempt, from 1: a cluster takes an id once only."""
        return f"{self.base}-{attempt}"


def make(config: Config, verb: str, name: str) -> Submission:
    """The submission of `kit19 <verb>` with `config`; a local `data.tasks_dir` travels with it.

    Args:
        name: begins the id.

    Raises:
        OperateError: an unknown verb, or a config with something that looks like a credential.
    """
    check_verb(verb, VERBS)
    warnings = local_paths(config)
    files: dict[str, str] = {}
    folder = config.data.tasks_dir
    if folder and "://" not in folder and Path(folder).is_dir():
        packed = {
            f"{TASKS_FOLDER}/{file.name}": file.read_text(encoding="utf-8")
            for file in sorted(Path(folder).glob("*.yaml"))
        }
        files |= packed
        config = config.model_copy(update={"data": config.data.model_copy(update={"tasks_dir": TASKS_FOLDER})})
        warnings = [warning for warning in warnings if not warning.startswith("data.tasks_dir=")]
    # What was set, defaults left to the version on the cluster.
    tree = config.model_dump(mode="json", exclude_unset=True)
    files[CONFIG_FILE] = yaml.safe_dump(tree, sort_keys=True, allow_unicode=True)
    refuse_secrets(files)
    entrypoint = f"python -m kit19_ray {verb} --config {CONFIG_FILE}"
    if verb == "run":
        entrypoint += " --no-serve"  # a server ends when someone stops it; this job ends
    digest = manifest.digest([verb, files])[:10]
    return Submission(verb, f"{slug(name)}-{verb}-{digest}", files, entrypoint, tuple(warnings))


def check_verb(verb: str, allowed: Iterable[str]) -> None:
    """Refuses a verb that cannot be sent.

    Raises:
        OperateError: see above.
    """
    known = list(allowed)
    if verb not in known:
        raise OperateError(f"submit {quote(verb)}: not one of {', '.join(known)}{nearest(verb, known)}")


def slug(name: str) -> str:
    """Letters, digits and single dashes, at most 40; "kit19" when nothing is left."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_NAME_LENGTH].strip("-")
    return text or "kit19"


def attempt_of(base: str, job_id: str) -> int | None:
    """Which attempt at the submission `base` the job `job_id` is; None when it is none."""
    tail = job_id[len(base) + 1 :]
    return int(tail) if job_id.startswith(f"{base}-") and tail.isdecimal() else None


def refuse_secrets(files: Mapping[str, str]) -> None:
    """Refuses text that everyone who sees the cluster's dashboard could read.

    Raises:
        OperateError: one message with a line for each finding; the value itself is not shown.
    """
    found = [
        f"  {name}:{number}: {what}"
        for name, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in _SECRETS.items()
        if pattern.search(line)
    ]
    if found:
        raise OperateError(
            "a config that is sent to a cluster holds no credentials\n" + "\n".join(found),
            hint="give them to the cluster: AWS variables or a Secret there, or --env NAME",
        )


def local_paths(config: Config) -> list[str]:
    """A warning for each place of the config that is on this machine's disk."""
    places = {
        "root": config.root,
        "data.sources": config.data.sources if config.data.sources != "samples" else None,
        "data.tasks_dir": config.data.tasks_dir,
        "data.tokenizer.name": config.data.tokenizer.name,
        "train.data": config.train.data,
        "train.model.name": config.train.model.name,
        "evaluate.model": config.evaluate.model,
        "serve.model": config.serve.model,
    }
    return [
        f"{key}={value} is a local path: every node of the cluster must see it under the same name"
        for key, value in places.items()
        if value and _is_local(value)
    ]


def _is_local(value: str) -> bool:
    if "://" in value:
        return value.startswith("file://")
    return not _HUB_ID.fullmatch(value) or Path(value).expanduser().exists()
