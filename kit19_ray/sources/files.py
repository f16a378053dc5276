"""The original files where they lie: found below a prefix, compared with the published hashes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from kit19_ray.config.schema import Config
from kit19_ray.errors import SourceError, nearest, quote
from kit19_ray.io import storage
from kit19_ray.io.storage import FileInfo
from kit19_ray.redaction import without_secrets
from kit19_ray.sources.catalog import Source, SourceFile
from kit19_ray.sources.readers.base import LocatedFile, Opener, open_uri
from kit19_ray.utils.hashing import sha256_stream

SAMPLES = Path(__file__).parent / "samples"
"""The embedded samples, laid out as a sources folder. Their files are ours, so no published hash fits them."""
_STEPS = 3  # files named in a hint


def _located(base: str, file: SourceFile, path: str, there: dict[str, FileInfo], encoding: str | None) -> LocatedFile:
    encoding = encoding or file.encoding
    companions: tuple[LocatedFile, ...] = ()
    if file.companion:
        beside = there[file.companion]
        companions = (
            LocatedFile(
                storage.join(base, beside.path),
                file.companion,
                file.split,
                beside.size,
                file.companion_sha256,
                file.companion_bytes,
                encoding=encoding,
            ),
        )
    return LocatedFile(
        storage.join(base, there[path].path), path, file.split, there[path].size, file.sha256, file.bytes,
        file.options, encoding, companions,
    )  # fmt: skip


def _there(base: str) -> dict[str, FileInfo]:
    """The files below a source's folder by the names they are known by: composed, whatever the disk has.

    What a Mac or a tool leaves beside data (`._rows.csv`, `.DS_Store`, `__MACOSX/`, `.cache/`) is none of them.
    """
    found: dict[str, FileInfo] = {}
    for info in storage.list_files(base):
        if not any(part.startswith(".") or part == "__MACOSX" for part in info.path.split("/")):
            known = unicodedata.normalize("NFC", info.path)
            if known not in found or info.path == known:  # the composed name wins where both are there
                found[known] = info
    return found


def locate(
    source_id: str, source: Source, base_uri: str, splits: Iterable[str], encoding: str | None = None
) -> list[LocatedFile]:
    """The files of a source's splits that are there, in the order of the catalogue, patterns sorted by name.

    Args:
        base_uri: the sources folder; files are at `<base_uri>/<source_id>/<path>`.
        encoding: what they are in; None means what the catalogue says, else UTF-8.

    Raises:
        SourceError: a split does not exist, a file that is not optional is missing, or a split has no file at all.
    """
    wanted = list(dict.fromkeys(splits))
    for split in wanted:
        if split not in source.splits():
            raise SourceError(
                f"source {quote(source_id)} has no split {quote(split)}{nearest(split, source.splits())}; "
                f"it has {', '.join(source.splits())}"
            )
    base = storage.join(base_uri, source_id)
    there = _there(base)
    found: list[LocatedFile] = []
    for split in wanted:
        files = [f for f in source.files if f.split == split]
        present: list[LocatedFile] = []
        missing: list[SourceFile] = []
        for file in files:
            paths = source.match(file, there)
            if paths and file.companion and file.companion not in there:
                raise SourceError(
                    f"source {quote(source_id)}: {file.companion} is missing in {base}; {file.path} is read in "
                    "step with it",
                    hint=_get(base, file.companion, file.companion_url),
                )
            if not paths and not file.optional:
                missing.append(file)
            present += [_located(base, file, path, there, encoding) for path in paths]
        if missing or not present:
            raise _missing(source_id, source, base, split, missing or files, there)
        found += present
    return found


def sources_uri(config: Config) -> str:
    """Where the original files are: the embedded samples, the folder that `data.sources` names, or `<root>/sources`."""
    named = config.data.sources
    if named == "samples":
        return storage.normalise(SAMPLES)
    return storage.normalise(named) if named else storage.join(config.root, "sources")


def _get(base: str, path: str, url: str | None) -> str:
    return f"put it at {base}/{path}" + (f", from {without_secrets(url)}" if url else "")


def _origin(file: SourceFile) -> str | None:
    return f"{file.archive.member} in {without_secrets(file.archive.url)}" if file.archive else file.url


def _missing(
    source_id: str,
    source: Source,
    base: str,
    split: str,
    files: list[SourceFile],
    there: dict[str, FileInfo],
) -> SourceError:
    any_of = "any of " if all(f.optional for f in files) and len(files) > 1 else ""
    names = ", ".join(f.path for f in files)
    near = nearest(files[0].path, there)
    steps = [_get(base, f.path, _origin(f)) for f in files[:_STEPS]]
    if any(_origin(f) for f in files):
        steps.append(f"`kit19 fetch {source_id}` does so")
    return SourceError(
        f"source {quote(source_id)}: its {split} split is missing {any_of}{names} in {base}{near}",
        hint="\n".join([*steps, f"see {source.homepage} (licence: {source.licence.name})"]),
    )


def verify_sha256(file: LocatedFile, opener: Opener | None = None, check: bool = True) -> str:
    """Hashes a file, streaming, and compares it with the published one where that is known.

    Args:
        opener: opens a URI; `storage.open_input` by default.
        check: False only hashes, for files that are not the published ones (the embedded samples).

    Returns:
        The file's SHA-256 in hexadecimal.

    Raises:
        SourceError: it is another file than the published one, or a truncated one.
    """
    with closing(open_uri(file.uri, opener)) as stream:
        actual, size = sha256_stream(stream)
    if check:
        check_published(file, actual, size)
    return actual


def check_published(file: LocatedFile, actual: str, size: int) -> None:
    """Compares a file's SHA-256 and bytes with the published file's, where these are known.

    Raises:
        SourceError: it is another file than the published one, or a truncated one.
    """
    if file.sha256_expected not in (None, actual):
        what = f"SHA-256 is {actual}, the published file's is {file.sha256_expected}"
        if file.bytes_expected is not None and size != file.bytes_expected:
            what = f"{size} bytes, the published file has {file.bytes_expected}; {what}"
        raise SourceError(
            f"{file.uri}: {what}",
            hint="fetch the file again, or set data.verify=false to use it as it is",
        )
