"""An S3 server that answers the first tries of every request with 503 SlowDown, 500 or a reset connection."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kit19_ray.errors import StorageError
from kit19_ray.io import lease, s3, s3_calls, s3_objects, storage
from tests.misbehaving_s3 import Misbehaving, misbehaving_s3

pytestmark = pytest.mark.s3


@pytest.fixture
def server(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Misbehaving]:
    del s3_root  # moto keeps its buckets in the process: the one it made is this server's too
    with misbehaving_s3() as (app, address):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield app


@pytest.mark.parametrize("how", ["SlowDown", "InternalError", "reset", "lost", "cut"])
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
    assert repeated >= ({"GET"} if how == "cut" else {"GET", "HEAD", "PUT", "DELETE"})


def test_a_lease_whose_answer_was_lost_is_ones_own(server: Misbehaving, capsys: pytest.CaptureFixture[str]) -> None:
    server.how, server.times = "lost", 1
    with lease.held("s3://kit19/runs/data-x", "data") as held:
        held.require()
    assert "waiting" not in capsys.readouterr().err


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
    server.tries.clear()
    assert storage.size("s3://kit19/x") == len(data)  # by a HEAD, whose answer has no body


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
    with storage.open_input("s3://kit19/x") as opened:
        storage.write_bytes("s3://kit19/x", data)
        with pytest.raises(
            StorageError, match=r"s3://kit19/x at .* was replaced while it was read.*\n.*start it again"
        ):
            opened.read(10)
