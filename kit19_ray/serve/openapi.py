"""/openapi.json: every route with its request, its responses and its errors, so that clients can be generated from it.

The bodies are parsed by `protocol`, whose messages name the field and the nearest name, not by FastAPI: so FastAPI does
not know them, and this document is made from the same pydantic models.
"""

from __future__ import annotations

from functools import cache

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from kit19_ray import __version__
from kit19_ray.serve.admin import LoadRequest, SwapRequest
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.protocol import CompletionRequest
from kit19_ray.serve.response_models import (
    AdminEntry,
    AdminList,
    ChatCompletion,
    Completion,
    Detokenized,
    ErrorBody,
    Model,
    ModelList,
    Rendered,
    ServerStatus,
    Tokenized,
)
from kit19_ray.serve.tokenizing import DetokenizeRequest, TokenizeRequest
from kit19_ray.utils.json_types import Json

_ERRORS = {
    "400": "The request is not valid JSON, has an unknown or wrong field, or asks for too much; `param` has its path.",
    "401": "The API key is missing or not known.",
    "403": "/admin is closed: it has no keys.",
    "404": "There is no such model.",
    "408": "The body did not arrive in time.",
    "409": "The name is taken, in use or being changed.",
    "413": "The body is too large.",
    "422": "The model could not be loaded; what was served goes on.",
    "429": "Too many requests are waiting; Retry-After says when to come again.",
    "500": "A fault of the server.",
    "503": "The model is not there at the moment; Retry-After says when to come again.",
    "504": "There was no answer in time.",
}
_REQUESTS: dict[str, tuple[type[BaseModel], type[BaseModel], str, bool]] = {
    "/v1/completions": (CompletionRequest, Completion, "Complete prompts, as text or token ids", True),
    "/v1/chat/completions": (ChatRequest, ChatCompletion, "Answer a conversation", True),
    "/v1/chat/completions/render": (ChatRequest, Rendered, "The prompt that a conversation becomes", False),
    "/tokenize": (TokenizeRequest, Tokenized, "Tokens of a text or a conversation", False),
    "/detokenize": (DetokenizeRequest, Detokenized, "Text of tokens", False),
}
_READS: dict[str, tuple[type[BaseModel] | None, str, tuple[str, ...]]] = {
    "/v1/models": (ModelList, "Models that can be asked", ("401", "503")),
    "/v1/models/{name}": (Model, "One of them", ("401", "404", "503")),
    "/healthz": (ServerStatus, "Alive: the server answers", ()),
    "/readyz": (ServerStatus, "Ready: the models are loaded and decode", ("503",)),
    "/metrics": (None, "Figures of every replica, in Prometheus' text format", ()),
}
_ANSWERS = ("400", "401", "404", "408", "413", "429", "500", "503", "504")
_CHANGES = ("400", "401", "403", "404", "408", "409", "413", "422", "429", "500", "503")
_ADMIN: tuple[tuple[str, str, str, type[BaseModel] | None, type[BaseModel], tuple[str, ...]], ...] = (
    ("/admin/models", "get", "What is served, and what is being loaded", None, AdminList, ("401", "403")),
    ("/admin/models", "post", "Load a model, or an adapter of one", LoadRequest, AdminEntry, _CHANGES),
    ("/admin/models/{name}", "put", "Put another model under a name", SwapRequest, AdminEntry, _CHANGES),
    ("/admin/models/{name}", "delete", "Take a model away", None, AdminEntry, _CHANGES),
)
_OPEN = {"/healthz", "/readyz", "/metrics"}
# A stream is described by one of its events, as OpenAPI 3.2 has it and clients that check streams read it.
_EVENT: Json = {
    "type": "object",
    "description": "One server-sent event: a piece of the answer, or an error, as JSON; the last one is [DONE].",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


@cache
def document() -> Json:
    """The OpenAPI 3.1 document; every reference in it resolves."""
    kinds = [kind for request, response, _, _ in _REQUESTS.values() for kind in (request, response)]
    kinds += [kind for kind, _, _ in _READS.values() if kind is not None] + [ErrorBody]
    kinds += [kind for *_, request, response, _ in _ADMIN for kind in (request, response) if kind is not None]
    unique = list(dict.fromkeys(kinds))
    references, defined = models_json_schema(
        [(kind, "validation") for kind in unique], ref_template="#/components/schemas/{model}"
    )
    schema_of = {kind: references[kind, "validation"] for kind in unique}
    paths: Json = {}
    for path, (request, response, summary, streams) in _REQUESTS.items():
        content: Json = {"application/json": {"schema": schema_of[response]}}
        if streams:
            content["text/event-stream"] = {"schema": _EVENT}
        operation = _operation(path, summary, content, schema_of[ErrorBody], _ANSWERS)
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[request]}},
        }
        paths[path] = {"post": operation}
    for path, (kind, summary, errors) in _READS.items():
        content = {"text/plain": {"schema": {"type": "string"}}}
        if kind is not None:
            content = {"application/json": {"schema": schema_of[kind]}}
        operation = _operation(path, summary, content, schema_of[ErrorBody], errors)
        if "{name}" in path:
            operation["parameters"] = _NAME
        paths[path] = {"get": operation}
    for path, method, summary, asked, answer, errors in _ADMIN:
        content = {"application/json": {"schema": schema_of[answer]}}
        operation = _operation(path, summary, content, schema_of[ErrorBody], errors)
        operation |= {"operationId": f"{method}_{operation['operationId']}", "security": [{"key": []}]}
        if asked is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": schema_of[asked]}},
            }
        if method == "post":
            operation["responses"]["201"] = operation["responses"].pop("200")
        if "{name}" in path:
            operation["parameters"] = _NAME
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "kit19", "version": __version__, "description": "OpenAI-compatible completions."},
        "paths": paths,
        "components": {
            "schemas": defined["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, summary: str, content: Json, error: Json, errors: tuple[str, ...]) -> Json:
    responses: Json = {"200": {"description": "Success.", "content": content}}
    for status in errors:
        responses[status] = {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": error}},
            **({"headers": _RETRY_AFTER} if status in ("429", "503") else {}),
        }
    name = "_".join(part for part in path.replace("{", "").replace("}", "").split("/") if part)
    made: Json = {"operationId": name, "summary": summary, "responses": responses}
    return made if path in _OPEN else made | {"security": [{"key": []}, {}]}


_NAME = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
