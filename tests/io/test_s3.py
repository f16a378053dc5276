"""The connection: one session, one endpoint for reads and writes, settings that buckets ask for."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

from kit19_ray.errors import StorageError
from kit19_ray.io import s3, storage

pytestmark = pytest.mark.s3


@pytest.fixture
def profile(s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile with the endpoint and with keys that a process gives; nothing of it is in the environment."""
    calls = tmp_path / "calls"
    script = tmp_path / "keys.py"
    script.write_text(
        f"open({str(calls)!r}, 'a').write('x')\n"
        'print(\'{"Version": 1, "AccessKeyId": "AKIAPROFILE", "SecretAccessKey": "s3cret", '
        '"SessionToken": "t0ken", "Expiration": "2099-01-01T00:00:00Z"}\')\n'
    )
    config = tmp_path / "config"
    config.write_text(
        f"[profile lab]\nregion = eu-west-1\nendpoint_url = {os.environ['AWS_ENDPOINT_URL']}\n"
        f"credential_process = {sys.executable} {script}\nca_bundle = {tmp_path}/ca.pem\n"
    )
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    return calls


def test_a_profiles_endpoint_serves_reads_and_writes_and_its_keys_are_asked_for_once(
    profile: Path, s3_root: str
) -> None:
    for number in range(10):
        storage.write_text(f"{s3_root}/{number}", "x")
        assert storage.read_text(f"{s3_root}/{number}") == "x"
        assert storage.exists(f"{s3_root}/{number}")
    assert profile.read_text() == "x"
    assert s3.endpoint() is not None and s3.connection().region == "eu-west-1"


def test_keys_that_renew_themselves_are_not_in_what_ray_gets(profile: Path) -> None:
    given = pickle.dumps(s3.filesystem())
    assert b"s3cret" not in given and b"t0ken" not in given
    assert b"ca.pem" in given and b"127.0.0.1" in given


def test_static_keys_are_in_what_ray_gets(s3_root: str) -> None:
    assert b"testing" in pickle.dumps(s3.filesystem())
    storage.write_text(f"{s3_root}/x", "x")
    filesystem, path = storage.filesystem(f"{s3_root}/x")
    assert filesystem.open_input_file(path).readall() == b"x"


def test_encryption_and_payer_go_with_each_request_that_they_concern(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, object]] = []

    def note(params: dict[str, object], model: object, **_: object) -> None:
        headers = params["headers"]
        assert isinstance(headers, dict)
        asked.append((str(getattr(model, "name", "")), {k.lower(): v for k, v in headers.items()}))

    s3.connection().client.meta.events.register("before-call.s3", note)
    monkeypatch.setenv("KIT19_S3_SSE", "aws:kms")
    monkeypatch.setenv("KIT19_S3_SSE_KMS_KEY_ID", "key-1")
    monkeypatch.setenv("KIT19_S3_REQUEST_PAYER", "requester")
    storage.write_text(f"{s3_root}/x", "x")
    assert storage.read_text(f"{s3_root}/x") == "x"
    sent = dict(asked)
    written = sent["PutObject"]
    assert isinstance(written, dict) and isinstance(sent["GetObject"], dict)
    assert written["x-amz-server-side-encryption"] == "aws:kms"
    assert written["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
    assert written["x-amz-request-payer"] == sent["GetObject"]["x-amz-request-payer"] == "requester"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("AWS_PROFILE", "no-such", "no-such"), ("AWS_ENDPOINT_URL", "http://[", "[Ii]nvalid|IPv6")],
)
def test_a_wrong_setting_is_one_message(
    s3_root: str, name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=said):
        storage.exists(f"{s3_root}/x")
