"""What one `kit19 generate` asks of the model for every row, and what it adds to each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import UserError, quote
from kit19_ray.serve import chat, protocol
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.batch.rows import NOT_JSON, Row, RowRange
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.protocol import CompletionRequest
from kit19_ray.utils.json_types import Json

MODEL = "model"  # what the requests call it


@dataclass(frozen=True)
class GenerateJob:
    """One command.

    Attributes:
        column: of the rows: a prompt, or messages.
        is_chat: whether the column holds messages.
        added: name of the column with the answers, and the beginning of those beside it.
        options: sampling parameters, as in a request.
        seed: of the first row where it is sampled; each row has its own, the same whenever it is made.
    """

    column: str
    is_chat: bool
    added: str = "completion"
    options: Json = field(default_factory=dict)
    seed: int = 0

    def identity(self) -> Json:
        """What the output depends on, beside rows and model."""
        return asdict(self)

    def request(self, row: Row, number: int, limits: ServeConfig) -> CompletionRequest | ChatRequest | str:
        """The request of a row, or why there is none.

        Args:
            number: of the row within its file.
        """
        if NOT_JSON in row:
            return "the line is not a JSON object"
        if row.get(self.column) is None:
            return f"the row has no {quote(self.column)}"
        body = {"model": MODEL, **self.options, "messages" if self.is_chat else "prompt": row[self.column]}
        if not self.is_chat and not isinstance(row[self.column], str):
            return f"{quote(self.column)} is not a text"
        if self.options.get("temperature", 1):
            body["seed"] = (self.seed + number) % 2**63
        try:
            text = json.dumps(body, default=str).encode()
            return chat.parse(text, limits) if self.is_chat else protocol.parse(text, limits)
        except ApiError as error:
            return str(error)

    def check(self, limits: ServeConfig) -> None:
        """Refuses options that no row could be asked with.

        Raises:
            UserError: one is wrong.
        """
        sample: Any = [{"role": "user", "content": "a"}] if self.is_chat else "a"
        found = self.request({self.column: sample}, 0, limits)
        if isinstance(found, str):
            raise UserError(f"generate: {found}")

    def answer(self, body: Json | str) -> Row:
        """The columns added to a row, from the response's body or from why there is none."""
        if isinstance(body, str):
            return self._columns(None, None, None, None, body)
        (choice,) = body["choices"]
        text = choice["message"]["content"] if self.is_chat else choice["text"]
        usage = body["usage"]
        return self._columns(text, choice["finish_reason"], usage["prompt_tokens"], usage["completion_tokens"], None)

    def _columns(self, text: Any, reason: Any, read: Any, made: Any, error: Any) -> Row:
        name = self.added
        return {
            name: text,
            f"{name}_finish_reason": reason,
            f"{name}_prompt_tokens": read,
            f"{name}_tokens": made,
            f"{name}_error": error,
        }


def limits_of(section: ServeConfig, asked: int) -> ServeConfig:
    """The server's limits for rows of one's own: nobody else waits, and the model's context is the bound."""
    whole = {"max_queue": 1 << 20, "max_tokens": max(asked, section.max_tokens), "max_prompt_chars": 1 << 24}
    return section.model_copy(update=whole)


class Worker:
    """A copy of the model that answers parts, for Ray Data.

    Args:
        out: prefix of the output.
    """

    def __init__(self, model: str, section: ServeConfig, job: GenerateJob, out: str) -> None:
        from kit19_ray.serve.model_server import ModelServer

        threads = max(1, int(section.cpus_per_replica))
        self._server = ModelServer(model, MODEL, section, threads)
        self._section, self._job, self._out = section, job, out

    def __call__(self, item: Json) -> Json:
        """Answers the rows of a part and writes them; how many there were, and their errors by kind."""
        import asyncio

        from kit19_ray.io import storage
        from kit19_ray.serve.batch import rows as files

        part = RowRange(**json.loads(item["part"]))
        rows = files.read(part)
        added = asyncio.run(self._answers(rows, part.start))
        files.write(storage.join(self._out, item["name"]), part, rows, added)
        errors: dict[str, int] = {}
        for one in added:
            if (said := one[f"{self._job.added}_error"]) is not None:
                errors[said[:200]] = errors.get(said[:200], 0) + 1
        tokens = sum(one[f"{self._job.added}_tokens"] or 0 for one in added)
        return {"rows": len(rows), "tokens": tokens, "errors": json.dumps(errors)}

    async def _answers(self, rows: list[Row], start: int) -> list[Row]:
        import asyncio

        async def one(row: Row, number: int) -> Row:
            request = self._job.request(row, number, self._section)
            if isinstance(request, str):
                return self._job.answer(request)
            answer = await self._server.complete(request)
            return self._job.answer(str(answer) if isinstance(answer, ApiError) else answer)

        return list(await asyncio.gather(*(one(row, start + n) for n, row in enumerate(rows))))
