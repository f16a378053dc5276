"""`file://` and `s3://` URIs: the scheme, then the path exactly as it was typed.

Nothing is percent-decoded and nothing is cut: `#`, `?`, `%`, spaces and decomposed Hangul are characters of names like
any other, as the AWS command line and fsspec have it. Pure.
"""

from __future__ import annotations

import os
import re

from kit19_ray.errors import StorageError, nearest, quote
from kit19_ray.redaction import redacted

SCHEMES = ("file", "s3")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
# What `str.splitlines` breaks at: a URI is told on one line of stdout, and a job's log is read line by line.
_LINE_BREAK = re.compile("[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
# XML 1.0, in which S3 lists its keys, has none of these.
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_QUOTED = 200  # characters of a URI that a message repeats


def shown(uri: str) -> str:
    """`uri` for a message: without userinfo, on one line, not too long."""
    uri = redacted(uri)
    uri = _LINE_BREAK.sub("\N{REPLACEMENT CHARACTER}", uri).encode("utf-8", "replace").decode()
    return uri if len(uri) <= _QUOTED else uri[:_QUOTED] + "..."


def normalise(uri: str | os.PathLike[str]) -> str:
    """`uri` without a trailing slash; a plain path becomes an absolute file:// URI.

    Raises:
        StorageError: the scheme is neither file nor s3, an s3 URI names no bucket or holds a key, or the path has a
            character that no store can keep or no message can show.
    """
    text = os.fspath(uri)
    if "://" not in text:
        # Home only where it is written as such: a folder may well be called `~x`.
        plain = os.path.expanduser(text) if text == "~" or text.startswith("~/") else text
        text = "file://" + os.path.abspath(plain)
    scheme, _, rest = text.partition("://")
    if scheme not in SCHEMES:
        raise StorageError(
            f"{shown(text)}: scheme {quote(scheme)} is not one of {', '.join(SCHEMES)}{nearest(scheme, SCHEMES)}"
        )
    _check_characters(text, scheme)
    if scheme == "file":
        if not rest.startswith("/"):
            raise StorageError(f"{shown(text)}: a file URI has three slashes, file:///{shown(rest)}")
        return "file://" + (os.path.normpath("/" + rest.lstrip("/")))
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise StorageError(f"{shown(text)}: an S3 URI is s3://bucket/prefix")
    if "@" in bucket or ":" in bucket:
        raise StorageError(
            "s3://...: an S3 URI holds no key, secret or host: what stands between s3:// and the first / is a bucket",
            hint="put credentials into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile; the host into "
            "AWS_ENDPOINT_URL",
        )
    if not _BUCKET.fullmatch(bucket):
        raise StorageError(f"{shown(text)}: {quote(bucket)} is no name of a bucket; an S3 URI is s3://bucket/prefix")
    key = key.strip("/")
    _check_parts(text, key)
    return f"s3://{bucket}/{key}" if key else f"s3://{bucket}"


def _check_characters(text: str, scheme: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StorageError(
            f"{shown(text)}: the name is not UTF-8", hint="rename it: convmv -f cp949 -t utf8 does so for a folder"
        ) from None
    bad = _LINE_BREAK.search(text) or (_NOT_IN_XML.search(text) if scheme == "s3" else None) or re.search("\0", text)
    if bad:
        raise StorageError(f"{shown(text)}: a path cannot hold U+{ord(bad[0]):04X}")


def _check_parts(text: str, path: str) -> None:
    for part in path.split("/") if path else ():
        if part in ("", ".", ".."):
            raise StorageError(f"{shown(text)}: {quote(part or '//')} cannot be part of an S3 key")


def join(uri: str, *parts: str) -> str:
    """`uri` and `parts` with one slash between each.

    Raises:
        StorageError: a part would lead out of `uri`, or cannot be a name.
    """
    joined = normalise(uri)
    for part in filter(None, parts):
        names = [name for name in part.split("/") if name]
        if ".." in names or "." in names:
            raise StorageError(f"{shown(part)}: names below {shown(joined)} are not `.` or `..`")
        joined = joined.removesuffix("/") + "/" + "/".join(names)
    _check_characters(joined, joined.partition("://")[0])
    return joined


def split(uri: str) -> tuple[str, str]:
    """Scheme and path of a URI: an absolute path, or bucket/key."""
    scheme, _, path = normalise(uri).partition("://")
    return scheme, path


def is_root(uri: str) -> bool:
    """Whether `uri` is a whole file system or a whole bucket."""
    scheme, path = split(uri)
    return path == "/" if scheme == "file" else "/" not in path
