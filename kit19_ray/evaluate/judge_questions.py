"""Files of open questions: LogicKor's, KoMT-Bench's, or a question a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from kit19_ray.config.schema import JudgeConfig
from kit19_ray.errors import EvaluateError
from kit19_ray.io import storage

_TURNS = ("questions", "turns", "question", "instruction", "prompt")
_REFERENCES = ("references", "reference", "answer")
_IDS = ("question_id", "id")


@dataclass(frozen=True)
class Question:
    """A conversation's questions, asked one after the other."""

    id: str
    category: str
    turns: tuple[str, ...]
    references: tuple[str | None, ...]
    """Of each turn, where there is one."""


def hashes(config: JudgeConfig) -> dict[str, str]:
    """SHA-256 of each file, by its path.

    Raises:
        StorageError: one is not there.
    """
    return {path: hashlib.sha256(storage.read_bytes(storage.normalise(path))).hexdigest() for path in config.questions}


def read(config: JudgeConfig) -> dict[str, list[Question]]:
    """The questions of each file, by the file's name without its ending.

    Raises:
        EvaluateError: a file holds no questions, or two files share a name.
    """
    found: dict[str, list[Question]] = {}
    for path in config.questions:
        name = PurePosixPath(path).name.partition(".")[0]
        if name in found:
            raise EvaluateError(f"evaluate.judge.questions: two files are called {name}")
        found[name] = parse(storage.read_text(storage.normalise(path)), path)
    return found


def parse(text: str, path: str) -> list[Question]:
    """The questions of a file's text.

    Raises:
        EvaluateError: it is neither JSONL nor a JSON array, or a question has no text.
    """
    try:
        rows = (
            json.loads(text) if text.lstrip().startswith("[") else [json.loads(row) for row in text.splitlines() if row]
        )
    except ValueError as error:
        raise EvaluateError(f"evaluate.judge.questions: {path} is neither JSONL nor a JSON array: {error}") from None
    if not rows:
        raise EvaluateError(f"evaluate.judge.questions: {path} holds no question")
    return [_question(row, number, path) for number, row in enumerate(rows)]


def _question(row: Any, number: int, path: str) -> Question:
    where = f"evaluate.judge.questions: {path}, question {number}"
    if not isinstance(row, Mapping):
        raise EvaluateError(f"{where}: a question is an object, this is a {type(row).__name__}")
    turns = next((_texts(row[name]) for name in _TURNS if row.get(name)), [])
    if not turns or not all(turns):
        raise EvaluateError(f"{where} has no text under any of {', '.join(_TURNS)}")
    references = next((_texts(row[name]) for name in _REFERENCES if row.get(name)), [])
    padded = [references[n] if n < len(references) else None for n in range(len(turns))]
    name = next((str(row[key]) for key in _IDS if key in row), str(number))
    return Question(name, str(row.get("category") or "all"), tuple(str(t) for t in turns), tuple(padded))


def _texts(value: Any) -> list[str | None]:
    items = value if isinstance(value, list) else [value]
    return [str(item) if item not in (None, "") else None for item in items]
