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
from kit19_ray.io import s3, s3_calls, s3_objects, storage

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
            "ExpiredToken": ("400 Bad Request", "ExpiredToken"),
            "AccessDenied": ("403 Forbidden", "AccessDenied"),
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
    with s3.override_credentials(os.environ, attempts=2), told:
        storage.list_files("s3://kit19/x")
    assert max(server.tries.values()) == 2


def test_credentials_that_lapse_in_the_middle_of_a_read_are_read_again(server: Misbehaving) -> None:
    data = os.urandom(3 << 20)
    storage.write_bytes("s3://kit19/x", data)
    with storage.open_input("s3://kit19/x") as file:
        first = file.read(1 << 20)
        before = s3.connection()
        server.how, server.times = "ExpiredToken", 1
        server.tries.clear()
        file.seek(2 << 20)
        last = file.read()
        file.seek(1 << 20)
        assert first + file.read(1 << 20) + last == data
    assert s3.connection() is not before


def test_a_right_that_is_missing_is_named(server: Misbehaving) -> None:
    server.how, server.times = "AccessDenied", 1000
    with pytest.raises(StorageError, match="s3://kit19/none at .*403.*\n.*s3:ListBucket on the bucket"):
        storage.exists("s3://kit19/none")


def test_a_body_that_is_cut_is_read_on_and_an_object_that_was_replaced_is_not(server: Misbehaving) -> None:
    data = os.urandom(2 << 20)
    storage.write_bytes("s3://kit19/x", data)
    found = s3_objects.Input("kit19/x")
    first = found.read(1000)
    found._body._raw_stream.close()  # the connection goes
    assert first + found.read() == data
    found.seek(10)
    storage.write_bytes("s3://kit19/x", data[::-1])
    with pytest.raises(s3_calls.Replaced, match="was replaced"):
        found.read(10)
    found.close()
