"""An S3 server on loopback whose line takes so many megabytes a second, over all connections together: moto's.

python benchmarks/slow_s3.py RATE     prints its address, and serves until it is ended
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

BUCKET = "kit19"
_CHUNK = 1 << 18


class Throttled:
    """WSGI in front of moto: a request's body arrives no faster than the line lets it."""

    def __init__(self, app: Callable[..., Iterable[bytes]], rate: float) -> None:
        self._app, self._rate, self._free_at, self._lock = app, rate, 0.0, threading.Lock()

    def _take(self, size: int) -> None:
        """Waits until the line has carried `size` more bytes."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._rate
            until = self._free_at
        time.sleep(max(0.0, until - time.monotonic()))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = memoryview(bytearray(int(environ.get("CONTENT_LENGTH") or 0)))
        at = 0
        while at < len(body):
            got = environ["wsgi.input"].readinto(body[at : at + _CHUNK])
            if not got:
                break
            self._take(got)
            at += got
        environ["wsgi.input"] = io.BytesIO(body[:at])
        return self._app(environ, start_response)


@contextmanager
def serving(megabytes_per_second: float) -> Iterator[tuple[str, int]]:
    """The server, named by the AWS variables: a prefix in its bucket, and the number of its process."""
    import boto3

    command = [sys.executable, __file__, str(megabytes_per_second)]
    # Nothing goes to this machine's disk: a store is elsewhere.
    environment = os.environ | {"MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(1 << 40)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    os.environ |= {
        "AWS_ENDPOINT_URL": process.stdout.readline().strip(),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}/runs", process.pid
    finally:
        process.terminate()
        process.wait()


def main(rate: float) -> None:
    """Serves."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = Throttled(DomainDispatcherApplication(create_backend_app), rate * 1e6)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__" and len(sys.argv) > 1:  # `make bench` runs every file of this folder
    main(float(sys.argv[1]))
