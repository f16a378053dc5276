"""`kit19 generate`: rows in, rows with answers out. Killed at any moment, the same command goes on.

Each part of the rows is written whole, under a name that says its place and its content; the manifest comes last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.stage_manifests import GenerateManifest
from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import UserError, quote
from kit19_ray.io import storage
from kit19_ray.io.uris import shown
from kit19_ray.lm import pretrained
from kit19_ray.lm.prompts import prompt_format
from kit19_ray.serve import stage as server
from kit19_ray.serve import vllm_engine
from kit19_ray.serve.batch import rows
from kit19_ray.serve.batch.job import GenerateJob, Worker, limits_of
from kit19_ray.serve.batch.rows import RowRange
from kit19_ray.utils import ray_session
from kit19_ray.utils.console import progress, say
from kit19_ray.utils.json_types import Json

STAGE = "generate"
_REQUEST = "request.json"  # what the parts of an output were asked with
_SHOWN = 5  # kinds of errors


def check(section: ServeConfig, model: str, source: str, out: str, job: GenerateJob) -> list[str]:
    """The files that would be read, after a look at everything that can be wrong before anything starts.

    Raises:
        UserError: there are no rows, no such column, no such model, a wrong option, or the output is another command's.
    """
    files = rows.files(source)
    source, out = storage.normalise(source), storage.normalise(out)
    if out == source or out.startswith(f"{source}/") or source.startswith(f"{out}/"):
        raise UserError(f"--out: {shown(out)} and --in: {shown(source)} lie within one another")
    sample = rows.first(files[0])
    rows.check_column(sample, "--messages-column" if job.is_chat else "--prompt-column", job.column)
    taken = [name for name in job.answer("") if name in sample]
    if taken:
        raise UserError(f"--answer-column: the rows have a column {quote(taken[0])} already; name another one")
    job.check(limits_of(section, int(job.options["max_tokens"])))
    if section.prompt is not None:
        prompt_format(section.prompt, "serve.prompt")
    vllm_engine.is_chosen(section)
    pretrained.load_config(model)
    return files


def run(section: ServeConfig, model: str, source: str, out: str, job: GenerateJob, rows_per_part: int) -> str:
    """Answers every row, and returns the output's URI.

    Raises:
        UserError: as `check`.
    """
    files, out = check(section, model, source, out, job), storage.normalise(out)
    identity = {"job": job.identity(), "model": _model_identity(model), "prompt": section.prompt}
    _claim(out, identity)
    with ray_session.connected():
        section = server.with_gpu(section)
        parts = _outline(files, rows_per_part)
        names = [rows.name_of(number, part) for number, part in enumerate(parts)]
        made = manifest.finished(out, STAGE)
        if made is not None and made.get("parts") == names:
            say(f"{STAGE}: {shown(out)} is finished")
            return out
        there = {info.path for info in storage.list_files(out)} if storage.is_dir(out) else set()
        todo = [(name, part) for name, part in zip(names, parts, strict=True) if name not in there]
        total = sum(part.count for part in parts)
        left = sum(part.count for _, part in todo)
        say(f"{STAGE}: {total:,} rows of {len(files):,} files in {len(parts):,} parts; {total - left:,} rows are there")
        tokens = 0
        with progress(f"{STAGE}: rows", left) as advance:
            for done in _work(todo, section, model, job, out):
                tokens += done["tokens"]
                advance(done["rows"])
    for name in there - set(names) - {_REQUEST, manifest.NAME}:
        if name.startswith("part-"):  # of rows that are no more
            storage.delete(storage.join(out, name))
    errors = _errors(out, names, job)
    found: GenerateManifest = {
        "stage": "generate",
        "job": identity["job"],
        "model": identity["model"],
        "prompt": identity["prompt"],
        "rows": total,
        "errors": errors,
        "parts": names,
    }
    manifest.commit(out, found)
    _tell(total, errors, tokens)
    return out


def dry_run(section: ServeConfig, model: str, source: str, out: str, job: GenerateJob, rows_per_part: int) -> Json:
    """What `run` would do.

    Raises:
        UserError: as `check`.
    """
    files, out = check(section, model, source, out, job), storage.normalise(out)
    parts = [part for file in files for part in rows.outline(file, rows_per_part)]
    names = [rows.name_of(number, part) for number, part in enumerate(parts)]
    there = {info.path for info in storage.list_files(out)} if storage.is_dir(out) else set()
    done = sum(part.count for name, part in zip(names, parts, strict=True) if name in there)
    total = sum(part.count for part in parts)
    found = {"model": model, "files": len(files), "parts": len(parts), "rows": total, "done": done}
    return {**found, "out": out, "column": job.column, "options": job.options}


def _claim(out: str, identity: Json) -> None:
    """Writes down what the output is asked with, or compares it.

    Raises:
        UserError: it holds the answers of other options, or something else.
    """
    place = storage.join(out, _REQUEST)
    if storage.exists(place):
        before = json.loads(storage.read_bytes(place))
        different = [key for key in identity if before.get(key) != identity[key]]
        if different:
            raise UserError(
                f"--out: {shown(out)} holds answers of another {' and '.join(different)}",
                hint="give another --out, or delete what is there",
            )
        return
    if storage.is_dir(out) and storage.list_files(out):
        raise UserError(f"--out: {shown(out)} holds other files", hint="give an empty or a new folder")
    storage.write_bytes(place, (json.dumps(identity, sort_keys=True, ensure_ascii=False, indent=1) + "\n").encode())


def _model_identity(model: str) -> Any:
    """The place and, of a folder, its files with their sizes: another model in the same place is told apart."""
    if "://" not in model and not storage.is_dir(storage.normalise(model)):
        return model  # a hub id
    uri = storage.normalise(model)
    made = manifest.read(uri)
    if made is not None:
        return [uri, manifest.digest(made.get(manifest.LISTING))]
    return [uri, sorted([info.path, info.size] for info in storage.list_files(uri))]


def _outline(files: list[str], rows_per_part: int) -> list[RowRange]:
    """The parts of all files, in order: each file is read by a Ray task."""
    import ray

    remote = ray.remote(rows.outline)
    found = ray.get([remote.remote(file, rows_per_part) for file in files])
    return [part for parts in found for part in parts]


def _work(
    todo: list[tuple[str, RowRange]], section: ServeConfig, model: str, job: GenerateJob, out: str
) -> Iterator[Json]:
    """What came of each part, as it is written."""
    import ray

    if not todo:
        return
    items = [{"name": name, "part": json.dumps(asdict(part))} for name, part in todo]
    answered = ray.data.from_items(items, override_num_blocks=len(items)).map(
        Worker,  # type: ignore[arg-type]  # Ray Data makes one of it in each actor
        fn_constructor_args=(model, limits_of(section, int(job.options["max_tokens"])), job, out),
        compute=ray.data.ActorPoolStrategy(size=min(section.replicas, len(items))),
        num_cpus=section.cpus_per_replica,
        num_gpus=section.gpus_per_replica if section.use_gpu else 0,
    )
    yield from answered.iter_rows()


def _errors(out: str, names: Iterable[str], job: GenerateJob) -> dict[str, int]:
    """Rows without an answer by what is wrong with them, of the parts of this run and of earlier ones."""
    counted: dict[str, int] = {}
    column = f"{job.added}_error"
    for name in names:
        for row in rows.written(storage.join(out, name), column):
            if row is not None:
                counted[row[:200]] = counted.get(row[:200], 0) + 1
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))


def _tell(total: int, errors: dict[str, int], tokens: int) -> None:
    wrong = sum(errors.values())
    say(f"{STAGE}: {total - wrong:,} of {total:,} rows answered, {tokens:,} tokens in this run")
    for said, count in list(errors.items())[:_SHOWN]:
        say(f"  {count:,} rows: {said}")
