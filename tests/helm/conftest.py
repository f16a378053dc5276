"""Charts as `helm template` renders them, and a helm that talks to the API server of the tests."""

from __future__ import annotations

import pytest

from tests.helm.rendering import Helm
from tests.operate.control_plane import ControlPlane


@pytest.fixture(scope="session")
def helm(kube_tools: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster."""
    return Helm(kube_tools["helm"], tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def cluster_helm(
    control_plane: ControlPlane, kube_tools: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Helm:
    """helm as the administrator of the API server."""
    return Helm(kube_tools["helm"], tmp_path_factory.mktemp("helm"), str(control_plane.kubeconfig))
