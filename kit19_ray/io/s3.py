"""The connection to S3: one boto3 session for a process and its AWS variables, one endpoint for reads and writes.

Credentials come from the usual AWS chain and renew themselves; AWS_ENDPOINT_URL, a profile's `endpoint_url` and
AWS_CA_BUNDLE are honoured; `override_credentials` puts other variables in their place. What is done over it is in
`kit19_ray.io.s3_objects`.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from kit19_ray.utils.json_types import Json

# Of each S3 request: the SDK asks again on 503 SlowDown, on 500 and on a broken connection, after 1, 2, 4, ... seconds
# at most, about 15 in all. Fewer fail under throttling; more keep a user with a wrong endpoint waiting.
_ATTEMPTS = 6
# AWS's own endpoint of a region; every other one was configured by someone.
_AWS = re.compile(r"https://s3([.-][a-z0-9-]+)?\.amazonaws\.com(\.cn)?")
# botocore's names of credentials that lapse and that the C++ SDK finds and renews by itself.
_RENEWED_BY_ARROW = frozenset({"assume-role-with-web-identity", "custom-process", "sso", "container-role", "iam-role"})

_variables: ContextVar[Mapping[str, str] | None] = ContextVar("kit19_storage", default=None)
_attempts: ContextVar[int] = ContextVar("kit19_storage_attempts", default=_ATTEMPTS)


@contextmanager
def override_credentials(variables: Mapping[str, str], attempts: int = _ATTEMPTS) -> Iterator[None]:
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


@dataclass(frozen=True)
class Connection:
    """One way to S3.

    Attributes:
        client: boto3's; any thread may use it.
        endpoint: the endpoint someone configured; None for AWS's own.
        credentials: botocore's, which renew themselves; None reads anonymously.
        ca_bundle: a file of certificates to trust; None for the system's.
    """

    client: Any
    endpoint: str | None
    region: str
    credentials: Any
    ca_bundle: str | None


_Key = tuple[Any, ...]
_open: dict[_Key, Connection] = {}
_lock = threading.Lock()
_MOST = 32  # connections kept: the operator has one for each set of credentials


def _aws(variables: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, v) for k, v in variables.items() if k.startswith("AWS_") or k == "HOME"))


def _key() -> _Key:
    given = _variables.get()
    return os.getpid(), _attempts.get(), None if given is None else _aws(given), _aws(os.environ)


def connection() -> Connection:
    """The connection of the variables in force, made once.

    Raises:
        OSError: the variables or the profile make none.
    """
    key = _key()
    with _lock:
        if key not in _open:
            while len(_open) >= _MOST:
                del _open[next(iter(_open))]
            _open[key] = _connect(_variables.get(), _attempts.get())
        return _open[key]


def renew() -> None:
    """Forgets the connection in force: credentials that were changed in a file or a profile are read again."""
    with _lock:
        _open.pop(_key(), None)


def _connect(given: Mapping[str, str] | None, attempts: int) -> Connection:
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    source = os.environ if given is None else given
    try:
        session = botocore.session.Session()
        region = source.get("AWS_REGION") or source.get("AWS_DEFAULT_REGION")
        region = region or session.get_config_variable("region") or "us-east-1"
        if given is not None and given.get("AWS_ACCESS_KEY_ID"):
            session.set_credentials(
                given["AWS_ACCESS_KEY_ID"], given.get("AWS_SECRET_ACCESS_KEY"), given.get("AWS_SESSION_TOKEN")
            )
        credentials = session.get_credentials()
        options: Json = {
            # Not `standard`: that stops asking again for all requests together after some 100 that failed twice.
            "retries": {"mode": "legacy", "total_max_attempts": attempts},
            "connect_timeout": 10,
            "read_timeout": 60,
            "max_pool_connections": 32,
            "request_checksum_calculation": "when_required",  # not every S3 server knows the others
            "response_checksum_validation": "when_required",
        }
        if given is not None:
            options["ignore_configured_endpoint_urls"] = True  # those are the process's
        if credentials is None:
            options["signature_version"] = UNSIGNED
        url = source.get("AWS_ENDPOINT_URL_S3") or source.get("AWS_ENDPOINT_URL") or None
        if url and "://" not in url:
            url = f"https://{url}"
        made = boto3.Session(botocore_session=session)

        def client(**more: Any) -> Any:
            return made.client("s3", region_name=region, endpoint_url=url, config=Config(**options, **more))

        found = client()
        endpoint = None if _AWS.fullmatch(found.meta.endpoint_url) else str(found.meta.endpoint_url)
        if endpoint:
            found = client(s3={"addressing_style": "path"})  # bucket.host resolves only where someone set that up
        return Connection(found, endpoint, region, credentials, session.get_config_variable("ca_bundle"))
    except (BotoCoreError, ValueError) as error:
        raise OSError(str(error)) from error


def has_credentials() -> bool:
    """Whether the usual AWS chain finds credentials; without them S3 is read anonymously."""
    return connection().credentials is not None


def endpoint() -> str | None:
    """The S3 endpoint the environment or the profile names, or None for AWS itself."""
    try:
        return connection().endpoint
    except OSError:
        return None


def attempts() -> int:
    """How often each request is tried."""
    return _attempts.get()


def filesystem() -> fs.S3FileSystem:
    """The connection for who takes a pyarrow file system, Ray Train and Ray Data; its paths begin with the bucket.

    It is pickled to workers and outlives an hour's token, so credentials that renew themselves are left for the C++
    SDK to find on each machine; keys that do not lapse, and a role's that it cannot find, are written into it.
    """
    found = connection()
    options: Json = {
        "region": found.region,
        "connect_timeout": 10,
        "request_timeout": 60,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=attempts()),
        "allow_bucket_creation": False,
    }
    if found.credentials is None:
        options["anonymous"] = True
    elif _variables.get() is not None or found.credentials.method not in _RENEWED_BY_ARROW:
        keys = found.credentials.get_frozen_credentials()
        options |= {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.token}
    if found.endpoint:
        parts = urlsplit(found.endpoint)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    if found.ca_bundle:
        options["tls_ca_file_path"] = found.ca_bundle
    return fs.S3FileSystem(**options)
