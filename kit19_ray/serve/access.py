"""What stands around every request, as ASGI middleware: its id, its key, and paths as clients write them."""

from __future__ import annotations

import logging
import re
import time
import uuid

from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.keys import ApiKeys
from kit19_ray.serve.limits import App, Message, Receive, Scope, Send, refuse

log = logging.getLogger("ray.serve")

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Open without a key: probes and scrapes, the page (it has a field for the key) and the description of the API.
OPEN = frozenset({"/", "/healthz", "/readyz", "/metrics", "/openapi.json"})


class Access:
    """Gives each request an id, refuses it without a key, and writes one line about it to the log: never its text.

    A HEAD is answered as a GET without its body, and a path with a slash at its end as one without.

    Args:
        keys: of the API; None lets everybody in.
        admin_keys: of /admin; without any, /admin is closed.
    """

    def __init__(self, app: App, keys: ApiKeys | None, admin_keys: ApiKeys) -> None:
        self.app, self._keys, self._admin_keys = app, keys, admin_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        if len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope["path"] = scope["path"].rstrip("/") or "/"
        is_head = scope["method"] == "HEAD"
        if is_head:
            scope["method"] = "GET"
        scope.setdefault("state", {})["request_id"] = request_id
        start, status, owner = time.monotonic(), 0, ""

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            owner = self._owner(scope, headers)
            scope["state"]["owner"] = owner
            await self.app(scope, receive, answer)
        except ApiError as error:
            await refuse(answer, error)
        finally:
            log.info(
                "%s %s %s %s %d ms%s",
                request_id,
                scope["method"],
                scope["path"][:100],
                status or "left",
                (time.monotonic() - start) * 1000,
                f" {owner}" if owner else "",
            )

    def _owner(self, scope: Scope, headers: dict[str, str]) -> str:
        """The name of the request's key; empty where none is needed.

        Raises:
            ApiError: 401 without a key of ours, 403 where /admin is closed.
        """
        path = scope["path"]
        is_admin = path == "/admin" or path.startswith("/admin/")
        if path in OPEN or scope["method"] == "OPTIONS" or (self._keys is None and not is_admin):
            return ""
        keys = self._admin_keys if is_admin else self._keys
        if is_admin and not keys:
            raise ApiError(403, "/admin is closed: set serve.admin_keys_file or KIT19_ADMIN_KEYS to open it")
        kind, _, given = headers.get("authorization", "").partition(" ")
        owner = keys.owner(given.strip()) if keys and kind.lower() == "bearer" and given else None
        if owner is None:
            said = "this API key is not known" if given else "an API key is needed: Authorization: Bearer KEY"
            raise ApiError(401, said, code="invalid_api_key")
        return owner
