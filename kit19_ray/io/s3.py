"""The connection to S3: endpoint, credentials, retries.

Credentials come from the usual AWS chain (boto3 resolves it, refreshing ones included) and AWS_ENDPOINT_URL is
honoured; `using` puts others in their place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from io import RawIOBase
from typing import IO, Any
from urllib.parse import urlsplit

from pyarrow import fs

# Of each S3 request: the SDKs ask again on 503 SlowDown, on 500 and on a broken connection, after 1, 2, 4, ... seconds
# at most, about 15 in all. Fewer fail under throttling; more keep a user with a wrong endpoint waiting.
_ATTEMPTS = 6

_variables: ContextVar[Mapping[str, str] | None] = ContextVar("kit19_storage", default=None)
_attempts: ContextVar[int] = ContextVar("kit19_storage_attempts", default=_ATTEMPTS)


@contextmanager
def using(variables: Mapping[str, str], attempts: int = _ATTEMPTS) -> Iterator[None]:
    """Reaches S3 with these AWS variables for the block and what it calls; without a key in them with the process's.

    Args:
        attempts: of each request; fewer for who asks again of itself and has others waiting.
    """
    tokens = _variables.set(variables), _attempts.set(attempts)
    try:
        yield
    finally:
        _variables.reset(tokens[0])
        _attempts.reset(tokens[1])


@lru_cache(maxsize=32)
def _filesystem(
    attempts: int, endpoint: str | None, key: str | None, secret: str | None, token: str | None, region: str
) -> fs.S3FileSystem:
    options: dict[str, Any] = {
        "region": region,
        "connect_timeout": 10,
        "request_timeout": 60,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        "allow_bucket_creation": False,
    }
    if key:
        options |= {"access_key": key, "secret_key": secret, "session_token": token}
    else:
        options["anonymous"] = True
    if endpoint:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    return fs.S3FileSystem(**options)


def _credentials() -> tuple[str | None, str | None, str | None, str]:
    given = _variables.get()
    asked = given and (given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION"))
    if given and given.get("AWS_ACCESS_KEY_ID"):
        key, secret = given["AWS_ACCESS_KEY_ID"], given.get("AWS_SECRET_ACCESS_KEY")
        return key, secret, given.get("AWS_SESSION_TOKEN"), asked or "us-east-1"
    import boto3

    session = boto3.Session()
    region = asked or session.region_name or "us-east-1"
    found = session.get_credentials()
    if found is None:
        return None, None, None, region
    frozen = found.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token, region


def has_credentials() -> bool:
    """Whether the usual AWS chain finds credentials; without them S3 is read anonymously."""
    return _credentials()[0] is not None


@lru_cache(maxsize=8)
def _uploader(attempts: int, endpoint: str | None, key: str | None, given: tuple[str | None, ...]) -> Any:
    """A boto3 client: of the credentials `given` (key, secret, token), else of the chain's, which renew themselves."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    options: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": attempts},
        "connect_timeout": 10,
        "read_timeout": 60,
        "request_checksum_calculation": "when_required",  # not every S3 server knows the others
    }
    if endpoint:
        options["s3"] = {"addressing_style": "path"}  # bucket.host resolves only where someone set that up
    if key is None:
        options["signature_version"] = UNSIGNED
    url = endpoint if endpoint is None or "://" in endpoint else f"https://{endpoint}"
    return boto3.Session(*given).client("s3", endpoint_url=url, config=Config(**options))


def upload(buffer: IO[bytes] | RawIOBase, path: str) -> None:
    """Uploads to `path`, bucket/key, with boto3, which sends a part again when it must and leaves no half behind.

    Raises:
        OSError: it could not.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.partition("/")
    try:
        *secrets, _ = _credentials()
        given = tuple(secrets) if _variables.get() is not None else ()
        _uploader(_attempts.get(), endpoint(), secrets[0], given).upload_fileobj(buffer, bucket, key)
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise OSError(str(error)) from error


def endpoint() -> str | None:
    """The S3 endpoint the environment names, or None for AWS itself."""
    given = _variables.get()
    found = os.environ if given is None else given
    return found.get("AWS_ENDPOINT_URL_S3") or found.get("AWS_ENDPOINT_URL") or None


def filesystem() -> fs.S3FileSystem:
    """The file system of the credentials in force; its paths begin with the bucket."""
    return _filesystem(_attempts.get(), endpoint(), *_credentials())


def attempts() -> int:
    """How often each request is tried."""
    return _attempts.get()
