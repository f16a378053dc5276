"""One answer on its way to a client, in pieces."""

from __future__ import annotations

from typing import Any

from kit19_ray.lm.decoding import DecodedText
from kit19_ray.serve.detokenizer import Detokenizer
from kit19_ray.serve.request_parser import ParsedRequest, RequestParser
from kit19_ray.serve.responses import Token
from kit19_ray.utils.json_types import Json


class StreamedChoice:
    """One choice of a stream: the pieces of its text, each sent once."""

    def __init__(
        self, parsed: ParsedRequest, parser: RequestParser, tokenizer: Any, index: int, prompt: list[int]
    ) -> None:
        self._parsed, self._parser, self._index, self._prompt = parsed, parser, index, prompt
        self._head = parsed.heads[index // parsed.n]
        self._detokenizer = Detokenizer(tokenizer, parsed.params.stop)
        self._so_far = DecodedText()
        self._sent = 0

    def opening(self) -> list[Json]:
        """What is said before its first token."""
        shape = self._parsed.shape
        said = [shape.opening(self._index)]
        if self._head:
            said.append(shape.delta(self._index, self._head, None, None))
        return [one for one in said if one is not None]

    def add(self, token: int, logprob: float, top: dict[int, float]) -> Json | None:
        """What a token adds that can be sent already."""
        self._so_far.token_ids.append(token)
        self._so_far.logprobs.append(logprob)
        self._so_far.top_logprobs.append(top)
        text = self._detokenizer.add(token)
        if not text:
            return None
        self._so_far.text += text
        return self._parsed.shape.delta(self._index, text, self._fresh(self._so_far), None)

    def last(self, done: DecodedText) -> Json:
        """What is left, and why it ended."""
        text = done.text[len(self._so_far.text) :]
        return self._parsed.shape.delta(self._index, text, self._fresh(done), done.finish_reason)

    def _fresh(self, done: DecodedText) -> list[Token] | None:
        """The tokens whose text was sent now for the first time."""
        tokens = self._parser.tokens(self._parsed, self._prompt, self._head, done)
        if tokens is None:
            return None
        fresh = tokens[self._sent :]
        self._sent = len(tokens)
        return fresh
