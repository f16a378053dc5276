"""The URL of a server in a config: it goes into hashes, manifests and reports, so it holds no secret."""

from __future__ import annotations

from pydantic_core import PydanticCustomError

SECRET = "secret"
"""The kind of a mistake whose value no message shows."""


def without_credentials(url: str | None) -> str | None:
    """`url` as it is.

    Raises:
        PydanticCustomError: it holds a user, a password, a query or a fragment.
    """
    if url is not None and any(mark in url for mark in "@?#"):
        raise PydanticCustomError(SECRET, "the URL holds a user, a password or a query: put the API key into the "
                                  "environment (OPENAI_API_KEY)")  # fmt: skip
    return url
