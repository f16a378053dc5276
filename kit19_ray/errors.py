"""Errors that are the user's to mend, and the exit codes they lead to.

    UserError                exit 2: one message, no traceback
    ├── ConfigError          a config file or an override
    ├── SourceError          an original data file
    ├── TaskError            a task file or a template
    ├── StorageError         a root, a bucket, an endpoint, a prefix
    ├── FetchError           an original file that could not be fetched
    ├── DataError            what the data stage was asked for
    ├── TrainError           what the train stage was asked for
    ├── EvaluateError        what the evaluate stage was asked for
    ├── ServeError           what the serve stage was asked for
    └── OperateError         a KitRun, or what the operator was asked for

Anything else that escapes is ours: exit 1, with a traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from kit19_ray.redaction import redacted

EXIT_DONE, EXIT_OURS, EXIT_USER, EXIT_INTERRUPTED = 0, 1, 2, 130


class UserError(Exception):
    """A mistake the reader of `message` can mend.

    Args:
        message: what is wrong: the file or key, the value, what is allowed.
        hint: what to do next, on a line of its own.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = clipped(message), clipped(hint)
        super().__init__(self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigError(UserError):
    """A config file or an override that cannot be used."""


class SourceError(UserError):
    """An original data file that is missing, altered or not in its own format."""


class TaskError(UserError):
    """A task file or a template that cannot be used."""


class StorageError(UserError):
    """A root, bucket, endpoint or prefix that cannot be read or written."""


class FetchError(UserError):
    """An original data file that could not be fetched, or whose licence was not accepted."""


class DataError(UserError):
    """A data stage that cannot be built as asked."""


class TrainError(UserError):
    """A training run that cannot be made as asked."""


class EvaluateError(UserError):
    """An evaluation that cannot be made as asked."""


class ServeError(UserError):
    """A server that cannot be started as asked."""


class OperateError(UserError):
    """A KitRun that cannot be carried out, or an operator that cannot be started as asked."""


_QUOTED = 200  # characters of a value in a message
_LONG_LINE = 1000  # characters: a list of names may be as long
_LONG_WORD = re.compile(r"\S{301,}")


def quote(value: object, plain: bool = False) -> str:
    """A value for a message, cut to some 200 characters.

    Args:
        plain: text as it is, without quotes round it.
    """
    # A string is cut before it is escaped: it may be a file of gigabytes.
    head = value[: _QUOTED + 1] if isinstance(value, str) else value
    shown = head if plain and isinstance(head, str) else repr(head)
    return shown if len(shown) <= _QUOTED + 2 else f"{shown[:_QUOTED]}..."


def clipped(message: str) -> str:
    """A message that shows some 200 characters of a long word, such as a URI, and the ends of a long line.

    It is `redacted` too.
    """
    words = _LONG_WORD.sub(lambda word: f"{word[0][:_QUOTED]}...", redacted(message))
    if len(words) <= _LONG_LINE:
        return words
    lines = words.split("\n")
    return "\n".join(n if len(n) <= _LONG_LINE else f"{n[:_QUOTED]} ... {n[-_QUOTED:]}" for n in lines)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns " (did you mean 'x'?)" for the closest allowed name, or "" when none is close."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6) if len(name) <= _QUOTED else []
    return f" (did you mean {close[0]!r}?)" if close else ""
