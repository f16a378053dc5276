"""Secrets stay out of what is shown and kept: those of URLs in a text, and those that the environment holds."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from urllib.parse import unquote

# Variables whose values are secrets, and those whose values are addresses that may carry one.
_KEYS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN", "OPENAI_API_KEY", "RAY_AUTH_TOKEN", "WANDB_API_KEY",
)  # fmt: skip
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_ADDRESSES = (
    *_PROXIES, *map(str.lower, _PROXIES), "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "HF_ENDPOINT",
    "MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "WANDB_BASE_URL",
)  # fmt: skip
_LEAST = 6  # characters: a shorter word stands in other places too
_URL_WORD = re.compile(r"[^\s'\"]+")


def redacted(text: str) -> str:
    """A text without what its URLs may hold of secrets, and without the environment's.

    Of a URL that is userinfo, and of a web address the query and the fragment. Of the environment, keys, and the
    passwords of its proxies, trackers and endpoints, which libraries quote without the URL round them.
    """
    if "://" in text:
        text = _URL_WORD.sub(lambda word: _redacted(word[0]), text)
    for secret in _of_environment(os.environ):
        text = text.replace(secret, "***")
    return text


def first_line(error: BaseException, most: int = 200) -> str:
    """What an error says first, redacted before it is cut: half a URL has no @ that tells its secret.

    Args:
        most: characters.
    """
    said = redacted(str(error).strip())
    return said.splitlines()[0].rstrip()[:most] if said else type(error).__name__


def without_secrets(url: str) -> str:
    """`url` without userinfo, query and fragment."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest = rest.partition("#")[0].partition("?")[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


class RedactingFilter(logging.Filter):
    """Lets every record through, redacted; for a handler, or for the logger that is written to."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True, after the record's message and traceback lost their secrets."""
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
        return True


def _redacted(word: str) -> str:
    first, *rest = word.split("://")
    out = [first]
    for piece in rest:
        host, slash, path = piece.partition("/")
        if "@" in host:
            piece = host.rpartition("@")[2] + slash + path
        elif "@" in path and ":" in host and not host.rpartition(":")[2].isdigit():
            piece = path.rpartition("@")[2]  # a secret with a slash in it
        if not out[-1].lower().endswith(("http", "https")):
            out.append(piece)
            continue
        out.append(re.split("[?#]", piece, maxsplit=1)[0])
        if out[-1] != piece:
            break  # what follows belongs to the query
    return "://".join(out)


def _of_environment(environ: Mapping[str, str]) -> list[str]:
    """The environment's secrets, longest first: one may be part of another."""
    found = [environ[name] for name in _KEYS if name in environ]
    for name in _ADDRESSES:
        userinfo, at, _ = environ.get(name, "").rpartition("@")
        if at:
            user, _, password = userinfo.rpartition("://")[2].partition(":")
            secret = password or user  # a token stands alone
            found += [secret, unquote(secret), *re.split("[/?#]", secret)]  # a library takes a slash for the host's end
    return sorted({secret for secret in found if len(secret) >= _LEAST}, key=len, reverse=True)
