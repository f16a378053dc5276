"""The operator as its own process with a ServiceAccount's rights, and small helpers round the API server."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import kubernetes
import yaml

from kit19_ray.operate.api import crd, rbac
from kit19_ray.operate.kube_client import Cluster
from tests.operate.control_plane import REPO, ControlPlane, wait_for_crds

T = TypeVar("T")
Json = dict[str, Any]
_ACCOUNT = "kit19-operator"


def admin(plane: ControlPlane) -> Cluster:
    """The API server with an administrator's rights."""
    return Cluster(kubernetes.config.new_client_from_config(str(plane.kubeconfig)))


def install(plane: ControlPlane) -> None:
    """The KitRun CRD; nothing where it is there in this version already."""
    install_crd(plane)
    wait_for_crds(plane, ["kitruns.kit19.dev"])
    _await_collector(plane)


def install_crd(plane: ControlPlane, definition: Json | None = None) -> None:
    """Applies the KitRun CRD, or `definition`; without CEL rules where the server is too old for them."""
    made = definition or crd.definition(rules=takes_rules(plane))
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(made))


def takes_rules(plane: ControlPlane) -> bool:
    """Whether the server knows CEL rules: 1.25 and newer."""
    found = json.loads(plane.kubectl("get", "--raw", "/version").stdout)
    major, minor = found["gitVersion"].lstrip("v").split(".")[:2]
    return (int(major), int(minor)) >= (1, 25)


def _await_collector(plane: ControlPlane) -> None:
    """Waits for the garbage collector to know the new kinds, which it looks for twice a minute."""
    name = f"warm-up-{uuid.uuid4().hex[:8]}"
    meta = {"name": name, "namespace": "default"}
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": meta, "spec": {"entrypoint": "true"}}
    run = kitrun(name, "default")
    create(plane, job, run)
    for kind in ("rayjob", "kitrun"):
        plane.kubectl("delete", kind, name, "-n", "default", "--cascade=foreground", "--timeout=90s")


@contextmanager
def namespace(plane: ControlPlane) -> Iterator[str]:
    """A namespace of its own, gone in the end as far as the API server can without a kubelet."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    plane.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        plane.kubectl("delete", "namespace", name, "--wait=false", check=False)  # a test may have deleted it


def grant(plane: ControlPlane, namespace: str, account: str = _ACCOUNT, rules: list[Json] | None = None) -> None:
    """A ServiceAccount with these rules in one namespace; with exactly the operator's, those of rbac.py, when None."""
    rules = [rule.manifest() for rule in (*rbac.RULES, *rbac.LEASE_RULES)] if rules is None else rules
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": rules}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    made = {"apiVersion": "v1", "kind": "ServiceAccount"}
    metadata = {"metadata": {"name": account, "namespace": namespace}}
    text = yaml.safe_dump_all([one | metadata for one in (made, role, binding)])
    plane.kubectl("apply", "-f", "-", stdin=text)


def token(plane: ControlPlane, namespace: str, account: str = _ACCOUNT) -> str:
    """A token of a ServiceAccount."""
    made = plane.kubectl("create", "token", account, "-n", namespace, check=False)
    if made.returncode == 0:
        return made.stdout.strip()

    def secret() -> str | None:
        found = json.loads(plane.kubectl("get", "sa", account, "-n", namespace, "-o", "json").stdout)
        return found["secrets"][0]["name"] if found.get("secrets") else None

    name = until(secret, 20, "the ServiceAccount has no token")
    found = json.loads(plane.kubectl("get", "secret", name, "-n", namespace, "-o", "json").stdout)
    return base64.b64decode(found["data"]["token"]).decode()


def kubeconfig(plane: ControlPlane, file: Path, namespace: str, account: str = _ACCOUNT, server: str = "") -> Path:
    """Writes a kubeconfig with a ServiceAccount's token to `file`."""
    config = yaml.safe_load(plane.kubeconfig.read_text())
    user = {"token": token(plane, namespace, account)}
    config["users"] = [{"name": found["name"], "user": user} for found in config["users"]]
    if server:
        config["clusters"][0]["cluster"]["server"] = server
    file.write_text(yaml.safe_dump(config))
    return file


class OperatorProcess:
    """`kit19 operate` in one namespace.

    Attributes:
        source: the checkout it runs from.
        lease: name of its release's Lease; "" is the default's.
    """

    def __init__(
        self, plane: ControlPlane, namespace: str, folder: Path, identity: str = "test", server: str | None = None
    ) -> None:
        self.namespace, self.identity, self.source = namespace, identity, REPO
        self.health, self.metrics = free_port(), free_port()
        self.log = folder / f"operator-{namespace}-{identity}.log"
        file = folder / f"kubeconfig-{namespace}-{identity}"
        self._kubeconfig = kubeconfig(plane, file, namespace, server=server or "")
        self.process: subprocess.Popen[bytes] | None = None
        self.lease = ""

    def start(self, environment: dict[str, str] | None = None) -> OperatorProcess:
        """Starts it and returns at once."""
        command = [sys.executable, "-m", "kit19_ray", "operate", "--namespace", self.namespace]
        command += ["--lease-namespace", self.namespace, "--identity", self.identity]
        command += ["--health-port", str(self.health), "--metrics-port", str(self.metrics)]
        command += ["--lease-name", self.lease] if self.lease else []
        variables = os.environ | {"KUBECONFIG": str(self._kubeconfig), "PYTHONPATH": str(self.source)}
        variables |= environment or {}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=variables, cwd=self.source)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the operator does not end; its log:\n{self.log.read_text()[-3000:]}") from None

    def leads(self) -> bool:
        """Whether it holds the lease and works."""
        return "kit19_operator_leader 1.0" in self.scrape()

    def scrape(self) -> str:
        """Its metrics; "" while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def readiness(self) -> tuple[int, str]:
        """What /readyz answers; 0 while nothing does."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=5) as answer:
                return int(answer.status), str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def healthy(self) -> bool:
        """Whether /healthz answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def memory_mib(self) -> float:
        """Resident memory."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def kitrun(name: str, namespace: str, **spec: Any) -> Json:
    """A KitRun with short times."""
    tree: Json = {
        "config": {"root": "file:///nowhere"},
        "images": {"train": "kit19:1"},
        "retries": {"rebuilds": 1, "backoffSeconds": 0.5},
    }
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": crd.API_VERSION, "kind": crd.KIND, "metadata": metadata, "spec": tree | spec}


def create(plane: ControlPlane, *runs: Json) -> None:
    """`kubectl apply` of KitRuns, or of anything else."""
    plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(runs))


def write_scores(root: Path, score: float) -> Any:
    """What a stage leaves in the storage when its job completes: its pointer, and the scores."""

    def done(job: Json) -> None:
        head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        pointer = next(v["value"] for v in head["env"] if v["name"] == "KIT19_POINTER")
        stage = job["metadata"]["labels"]["kit19.dev/stage"]
        uri = f"file://{root}/{stage}-1"
        target = Path(pointer.removeprefix("file://"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({"stage": stage, "uri": uri, "finished": True}))
        if stage == "evaluate":
            (root / "evaluate-1").mkdir(exist_ok=True)
            text = json.dumps({"tasks": {"kobest_copa": {"acc": score}}, "held_out": {}})
            file = root / "evaluate-1" / "scores.json"
            if not file.is_file():
                file.write_text(text)

    return done


def gated(root: Path) -> Json:
    """Of a KitRun's spec: this root, and a gate at 0.5."""
    return {"config": {"root": f"file://{root}", "evaluate": {"gate": [{"task": "kobest_copa", "min": 0.5}]}}}


def phase(cluster: Cluster, namespace: str, name: str) -> str:
    """A KitRun's phase; "" where it has none yet."""
    return str(((cluster.run(namespace, name) or {}).get("status") or {}).get("phase", ""))


def until(seen: Callable[[], T | None], seconds: float, otherwise: str | Callable[[], str]) -> T:
    """The first result of `seen` that is true.

    Raises:
        AssertionError: there is none within `seconds`.
    """
    limit = time.monotonic() + seconds
    while True:
        found = seen()
        if found:
            return found
        if time.monotonic() > limit:
            raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(0.1)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
