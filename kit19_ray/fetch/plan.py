"""Which original files a config needs, and where each comes from and goes to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kit19_ray.config.schema import Config
from kit19_ray.errors import FetchError, SourceError, nearest, quote
from kit19_ray.io import storage
from kit19_ray.redaction import without_secrets
from kit19_ray.sources import evaluation_sets, files
from kit19_ray.sources.catalog import Source, SourceFile, load_catalog
from kit19_ray.tasks.task import load_tasks

_ID = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Published:
    """Bytes that a URL serves."""

    url: str
    bytes: int | None
    """Their number; None: not known."""
    sha256: str | None
    """Their hash; None: not known."""

    @property
    def shown(self) -> str:
        """The URL for messages: a password or a signed query stays out of them."""
        return without_secrets(self.url)


@dataclass(frozen=True)
class Item:
    """One original file."""

    source_id: str
    source: Source
    path: str
    """Below the source's folder."""
    folder: str
    """URI of the source's folder."""
    bytes: int | None
    sha256: str | None
    origin: Published | None
    """The file itself or an archive that holds it; None: it must be fetched by hand."""
    member: str | None = None
    """The file's name in the archive."""

    @property
    def target(self) -> str:
        """URI it belongs at."""
        return storage.join(self.folder, self.path)

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return f"{self.source_id}/{self.path}"


def sources_uri(config: Config) -> str:
    """Where the original files belong.

    Raises:
        FetchError: the config reads the embedded samples.
    """
    if config.data.sources == "samples":
        raise FetchError("data.sources=samples: the embedded samples are part of the package; nothing is to be fetched")
    return files.sources_uri(config)


def needed(config: Config) -> dict[str, Source]:
    """The sources of the config's tasks and of its evaluation; without `data.tasks`, those of the whole catalogue too.

    The sets that a build is cleaned of are among them, unless it is not cleaned.

    Raises:
        TaskError: a task file is wrong or a task is unknown.
    """
    known = load_catalog()
    tasks = load_tasks(config.data.tasks, config.data.tasks_dir)
    found = {task.source_id: task.source for task in tasks.values()}
    wanted = list(known) if config.data.tasks is None else [t for t in config.evaluate.tasks if t in known]
    found = {name: known[name] for name in wanted} | found
    if config.data.gates.decontaminate and config.data.ablation == "none":
        found |= {name: source for name, (source, _) in evaluation_sets.own_sources().items()}
    for name in found:
        if not _ID.fullmatch(name):
            raise SourceError(f"source {quote(name)}: an id is letters, digits, `_`, `-` and `.`, not first")
    return dict(sorted(found.items()))


def items(config: Config, names: Iterable[str] = ()) -> list[Item]:
    """Every file wanted, by source and in the order of the catalogue.

    Args:
        names: sources, or files as `<source>/<path>`. None of them means what the config needs. A file that is an
            alternative to others is wanted only when it is named.

    Raises:
        SourceError: a name is no source or no file of its source.
        FetchError: see `sources_uri`.
    """
    base = sources_uri(config)
    sources = needed(config)
    own = {name: source for name, (source, _) in evaluation_sets.own_sources().items()}
    known = dict(sorted((load_catalog() | own | sources).items()))
    wanted = list(names)
    if not wanted:
        return [i for name, source in sources.items() for i in _of(name, source, base) if not _alternative(i)]
    picked: dict[str, Item] = {}
    for word in wanted:
        source_id, slash, path = word.partition("/")
        if source_id not in known:
            raise SourceError(f"{quote(word)} names no source{nearest(source_id, known)}; known: {', '.join(known)}")
        every = list(_of(source_id, known[source_id], base))
        chosen = [i for i in every if i.path == path] if slash else [i for i in every if not _alternative(i)]
        if slash and not chosen:
            paths = [i.path for i in every]
            raise SourceError(
                f"{quote(word)}: source {quote(source_id)} has no file {quote(path)}{nearest(path, paths)}; it has "
                f"{', '.join(paths)}"
            )
        picked |= {i.name: i for i in chosen}
    return list(picked.values())


def _alternative(item: Item) -> bool:
    return next((f.alternative for f in item.source.files if f.path == item.path), False)


def _of(source_id: str, source: Source, base: str) -> Iterator[Item]:
    _, below = evaluation_sets.own_sources().get(source_id, (source, source_id))
    folder = storage.join(base, below)
    for file in source.files:
        yield Item(source_id, source, file.path, folder, file.bytes, file.sha256, *_origin(file))
        if file.companion:
            size, sha256, url = file.companion_bytes, file.companion_sha256, file.companion_url
            origin = Published(url, size, sha256) if url else None
            yield Item(source_id, source, file.companion, folder, size, sha256, origin)


def _origin(file: SourceFile) -> tuple[Published | None, str | None]:
    if file.archive:
        return Published(file.archive.url, file.archive.bytes, file.archive.sha256), file.archive.member
    return (Published(file.url, file.bytes, file.sha256) if file.url else None), None
