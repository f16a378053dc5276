"""One call to S3: its errors as OSErrors, credentials renewed, the options each request takes.

KIT19_S3_SSE (AES256 or aws:kms), KIT19_S3_SSE_KMS_KEY_ID, KIT19_S3_ACL and KIT19_S3_REQUEST_PAYER (requester) go with
each request that they concern, for buckets whose policy or owner asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kit19_ray.io import s3

T = TypeVar("T")
_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
# Credentials that lapsed or were changed since they were read: told apart from a right that is missing only by trying.
# The answer to a HEAD has no body to name the error: there a token that lapsed is a bare 400.
_DENIED = frozenset(
    {
        "400", "401", "403", "AccessDenied", "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired",
        "InvalidToken", "InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch", "RequestExpired",
    }
)  # fmt: skip
_WRITES = {
    "ServerSideEncryption": "KIT19_S3_SSE",
    "SSEKMSKeyId": "KIT19_S3_SSE_KMS_KEY_ID",
    "ACL": "KIT19_S3_ACL",
}


class Replaced(OSError):
    """The object is not the one it was."""


class Broken(OSError):
    """A body that ended early; the rest can be asked for."""


def payer() -> dict[str, str]:
    """Who pays for a request, where that is not the bucket's owner."""
    who = os.environ.get("KIT19_S3_REQUEST_PAYER")
    return {"RequestPayer": who} if who else {}


def write_options() -> dict[str, str]:
    """What goes with a write: encryption, rights, who pays."""
    return {name: os.environ[variable] for name, variable in _WRITES.items() if os.environ.get(variable)} | payer()


@contextmanager
def as_os_errors() -> Iterator[None]:
    """What the SDK raises, as FileNotFoundError, PermissionError, Replaced, Broken or OSError."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError

    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        code = str(said.get("Code") or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        if code in _ABSENT:
            raise FileNotFoundError(code) from None
        if code in ("412", "PreconditionFailed", "ConditionalRequestConflict", "409"):
            raise Replaced("it was replaced while it was read or written") from None
        text = f"{code} ({error.operation_name})" + (f": {said['Message']}" if said.get("Message") else "")
        raise (PermissionError if code in _DENIED else OSError)(text) from error
    except (IncompleteReadError, HTTPClientError) as error:
        raise Broken(str(error)) from error
    except (Boto3Error, BotoCoreError) as error:
        if isinstance(error.__cause__ or error.__context__, ClientError):
            with as_os_errors():
                raise (error.__cause__ or error.__context__) from None
        raise OSError(str(error)) from error


def renewing(call: Callable[[Any], T]) -> T:
    """`call` with the client; once more with credentials that are read anew when S3 does not take those at hand."""
    try:
        with as_os_errors():
            return call(s3.connection().client)
    except PermissionError:
        s3.renew()
        with as_os_errors():
            return call(s3.connection().client)


def address(path: str) -> dict[str, str]:
    """bucket/key as the SDK takes it."""
    bucket, _, key = path.partition("/")
    return {"Bucket": bucket, "Key": key}
