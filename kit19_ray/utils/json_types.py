"""JSON whose shape is not ours to say."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
"""A JSON object of unlimited or foreign shape: a Kubernetes object, an HTTP body before it is validated, a user's YAML
tree, rows that are only printed. What one of our stages writes and another reads has a TypedDict instead."""
