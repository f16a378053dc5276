"""What goes together: the oldest versions that do all of what the manifests ask for. docs/reference/support.md has them
with the reasons; tests hold that page, the messages and the charts to these."""

from __future__ import annotations

KUBERNETES = "1.27"
"""Strict field validation (`fieldValidation=Strict`) is stable."""
KUBERNETES_RULES = "1.25"
"""CEL rules of a CustomResourceDefinition; an older API server gets it without."""
KUBERAY = "1.6"
"""`authOptions.secretName`, and HTTPMode with a token."""
KUBERAY_TOKEN = "1.5.1"  # a version
"""`authOptions`, which a KitRun with `auth: token` needs."""
RAY_TOKEN = "2.52"  # a version
"""Token authentication of the dashboard."""
HELM = "4"
"""Server-side apply, by which a field that a kind lacks is refused instead of dropped."""
