"""Why a request gets no answer, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from kit19_ray.errors import clipped
from kit19_ray.utils.json_types import Json


class ApiError(Exception):
    """A request that gets no completion.

    Args:
        status: HTTP status.
        message: what the client reads; never a traceback.
        param: the request's field at fault, by its full path.
        code: OpenAI's machine-readable code, where it has one.
        retry_after: seconds after which the same request may succeed; None where it will not.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, clipped(message), code
        self.param = None if param is None else clipped(param)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels between processes."""
        return type(self), (self.status, self.message, self.param, self.code, self.retry_after)

    def headers(self) -> dict[str, str]:
        """Headers of the response beside its body."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return headers if self.retry_after is None else headers | {"Retry-After": str(self.retry_after)}

    def body(self) -> Json:
        """The error in OpenAI's shape."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
