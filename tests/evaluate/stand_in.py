"""A server on loopback that speaks OpenAI's protocol, with answers that can be worked out by hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


class StandIn:
    """What the server does, and what it was asked.

    Attributes:
        write: the answer to the last message or the prompt.
        logprob: of a character at a place of a text.
        echoes: whether /v1/completions gives the prompt's log-probabilities.
        busy: requests that are answered 503 first.
        key: the API key it wants.
        models: what it lists.
        opening: a token that it puts before each text, as some tokenizers do.
    """

    def __init__(self) -> None:
        self.write: Callable[[str], str] = lambda text: "모르겠다"
        self.logprob: Callable[[str, int], float] = lambda text, place: -1.0
        self.echoes, self.busy, self.opening = True, 0, ""
        self.key: str | None = None
        self.models = ["stand-in"]
        self.asked: list[tuple[str, Json]] = []
        self.url = ""

    def answer(self, path: str, body: Json) -> tuple[int, Json]:
        """Status and body."""
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in self.models]}
        self.asked.append((path, body))
        if path == "/v1/chat/completions":
            text = self.write(body["messages"][-1]["content"])
            return 200, {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
        if not body.get("echo"):
            return 200, {"choices": [{"text": self.write(body["prompt"]), "finish_reason": "stop"}]}
        if not self.echoes:
            return 400, {"error": {"message": "echo is not supported"}}
        text = body["prompt"]
        tokens = [*([self.opening] if self.opening else []), *text, "!"]
        starts = len(self.opening)
        offsets = [*([0] if self.opening else []), *(starts + n for n in range(len(text) + 1))]
        values: list[float | None] = [self.logprob(text, n) for n in range(len(text))]
        logprobs = [*([None] if self.opening else []), *(values if self.opening else [None, *values[1:]]), -0.1]
        tops = [None if v is None else {"?": v if v > -2 else v + 1} for v in logprobs]
        found = {"tokens": tokens, "token_logprobs": logprobs, "text_offset": offsets, "top_logprobs": tops}
        return 200, {"choices": [{"text": text + "!", "logprobs": found, "finish_reason": "length"}]}


@contextmanager
def serving() -> Iterator[StandIn]:
    """A running stand-in."""
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body: Json) -> None:
            if stand_in.key and self.headers.get("Authorization") != f"Bearer {stand_in.key}":
                status, found = 401, {"error": {"message": "no such key"}}
            elif stand_in.busy > 0:
                stand_in.busy -= 1
                status, found = 503, {"error": {"message": "busy"}}
            else:
                status, found = stand_in.answer(self.path, body)
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
