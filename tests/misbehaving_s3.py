"""An S3 server that answers with 503 SlowDown, 500, a reset connection, half a body or an error of rights."""

from __future__ import annotations

import socket
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import make_server
from werkzeug.wsgi import get_input_stream

_ANSWERS = {
    "SlowDown": "503 Slow Down",
    "InternalError": "500 Internal Server Error",
    "ExpiredToken": "400 Bad Request",
    "AccessDenied": "403 Forbidden",
}


class Misbehaving:
    """WSGI in front of moto: the first `times` of each method and URL fail in one of the ways that `how` names.

    Attributes:
        how: keys of S3's errors; `reset` breaks the connection before anything is done, `lost` after it was done;
            `cut` sends half the body. Of several words each request meets one after the other.
        asked: told of each request; the way it returns, if any, is how that one fails.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app, self.times, self.how = app, 0, ""
        self.tries: Counter[str] = Counter()
        self.asked: Callable[[dict[str, Any]], str | None] = lambda environ: None

    def _failure(self, environ: dict[str, Any]) -> str | None:
        key = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        self.tries[key] += 1
        ways = self.how.split()
        if found := self.asked(environ):
            return found
        return ways[(zlib.crc32(key.encode()) + self.tries[key]) % len(ways)] if self.tries[key] <= self.times else None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        failure = self._failure(environ)
        if failure is None:
            return self.app(environ, start_response)
        if failure in ("cut", "lost"):
            body = b"".join(self.app(environ, start_response))
            if failure == "cut":
                return [body[: len(body) // 2]]
        if failure in ("reset", "lost"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        get_input_stream(environ).read()
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else f"<Error><Code>{failure}</Code></Error>".encode()
        start_response(_ANSWERS[failure], [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def misbehaving_s3() -> Iterator[tuple[Misbehaving, str]]:
    """The server and its address; it has the buckets of every other moto server of this process."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    app = Misbehaving(DomainDispatcherApplication(create_backend_app))
    served = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    try:
        yield app, f"http://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        thread.join()
        served.server_close()
