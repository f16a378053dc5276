"""An S3 server that answers the first tries of every request with 503 SlowDown, 500 or a reset connection."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from werkzeug.serving import make_server
from werkzeug.wsgi import get_input_stream

from kit19_ray.errors import StorageError
from kit19_ray.io import s3, storage

pytestmark = pytest.mark.s3


class Misbehaving:
    """WSGI in front of moto: the first `times` of each method and URL fail as `how` says."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app, self.times, self.how = app, 0, ""
        self.tries: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        key = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        self.tries[key] += 1
        if self.tries[key] > self.times:
            return self.app(environ, start_response)
        if self.how == "reset":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        get_input_stream(environ).read()
        status, code = {
            "SlowDown": ("503 Slow Down", "SlowDown"),
            "InternalError": ("500 Internal Server Error", "InternalError"),
        }[self.how]
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture
def server(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Misbehaving]:
    from moto.server import DomainDispatcherApplication, create_backend_app

    del s3_root  # moto keeps its buckets in the process: the one it made is this server's too
    app = Misbehaving(DomainDispatcherApplication(create_backend_app))
    served = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{served.server_port}")
    yield app
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.mark.parametrize("how", ["SlowDown", "InternalError", "reset"])
def test_writes_reads_listings_and_deletes_are_asked_again(server: Misbehaving, how: str) -> None:
    server.how, server.times = how, 2
    storage.write_text("s3://kit19/x/a", "글")
    assert storage.read_text("s3://kit19/x/a") == "글"
    assert storage.exists("s3://kit19/x/a")
    assert storage.list_files("s3://kit19/x") == [storage.FileInfo("a", 3)]
    storage.delete("s3://kit19/x")
    server.times = 0
    assert storage.list_files("s3://kit19/x") == []
    repeated = {request.split()[0] for request, tries in server.tries.items() if tries > 2}
    assert repeated >= {"GET", "HEAD", "PUT", "DELETE"}


def test_a_server_that_never_recovers_is_given_up_and_named(server: Misbehaving) -> None:
    server.how, server.times = "SlowDown", 1000
    told = pytest.raises(StorageError, match=r"s3://kit19/x at http://127.0.0.1:\d+: .*SlowDown")
    with s3.using(os.environ, attempts=2), told:
        storage.list_files("s3://kit19/x")
    assert max(server.tries.values()) == 2
