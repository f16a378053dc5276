"""The stand-in for KubeRay that really runs the entrypoints: RayJobs as processes with a Ray cluster of their own on
this machine, RayServices by `serve run` of their own serveConfigV2."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from kit19_ray.operate.kube_client import Cluster
from kit19_ray.operate.manifests import serving_keys
from kit19_ray.operate.manifests.ray_cluster import CONFIG_ANNOTATION, CONFIG_FILE, CONFIG_FOLDER
from tests.operate.kuberay import INITIALIZING, RUNNING, Scripted, job_status, service_status

Json = dict[str, Any]
_LOG_CHARACTERS = 20_000  # of a failed job's log that Ray puts into its message


class Running(Scripted):
    """The stand-in for one namespace.

    Args:
        folder: for config files and logs.
        environment: of every process, beside what the pods' containers say.
    """

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(cluster, namespace)
        self._folder, self._environment = folder, environment
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            for process in self._processes.values():
                _end(process)

    def step(self) -> None:
        super().step()
        there = {item["metadata"]["uid"] for kind in ("rayjobs", "rayservices") for item in self.items(kind)}
        for uid in [uid for uid in self._processes if uid not in there]:
            _end(self._processes.pop(uid))

    def _job(self, job: Json) -> None:
        uid, name = job["metadata"]["uid"], job["metadata"]["name"]
        stage = job["metadata"]["labels"]["kit19.dev/stage"]
        if uid not in self.seen:
            self.seen[uid] = (stage, name)
            self.write("rayjobs", job, job_status(INITIALIZING))
            self._processes[uid] = self._start(job)
            self.write("rayjobs", job, job_status(RUNNING))
            return
        code = self._processes[uid].poll() if uid in self._processes else None
        if code is None or job["status"]["jobDeploymentStatus"] != "Running":
            return
        if code == 0:
            self.write("rayjobs", job, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
            return
        log = self.log(name).read_text(errors="replace")[-_LOG_CHARACTERS:]
        head = f"Job entrypoint command failed with exit code {code}, last available logs (truncated to 20,000 chars):"
        message = f"{head}\n{log}"
        status = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message}
        self.write("rayjobs", job, status)

    def _service(self, service: Json) -> None:
        uid, name = service["metadata"]["uid"], service["metadata"]["name"]
        if "deletionTimestamp" in service["metadata"]:
            return
        if uid not in self._processes:
            file = self._folder / f"{name}.yaml"
            pod = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
            file.write_text(service["spec"]["serveConfigV2"].replace(serving_keys.PATH, str(self.mount_keys(pod))))
            serve = str(Path(sys.executable).with_name("serve"))
            self._processes[uid] = self._spawn([serve, "run", str(file)], name, pod["containers"][0])
        ready = answers(yaml.safe_load(service["spec"]["serveConfigV2"])["http_options"]["port"])
        now = (service.get("status") or {}).get("conditions", [{}])[0].get("status")
        if now != ("True" if ready else "False"):
            self.write("rayservices", service, service_status(service, ready))

    def mount_keys(self, pod: Json) -> Path:
        """The file of the server's API keys, as a kubelet mounts the items of the Secret's volume."""
        (volume,) = [one["secret"] for one in pod["volumes"] if one["name"] == serving_keys.VOLUME]
        held = self._cluster.secret(self._namespace, volume["secretName"]) or {}
        for item in volume["items"]:
            (self._folder / item["path"]).write_text(held[item["key"]])
        return self._folder / serving_keys.FILE

    def log(self, name: str) -> Path:
        """What a child's process printed."""
        return self._folder / f"{name}.log"

    def _start(self, job: Json) -> subprocess.Popen[bytes]:
        """The entrypoint with the head's variables; `python` and the mounted config are those of this machine."""
        name = job["metadata"]["name"]
        template = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
        pod = template["spec"]
        file = self._folder / f"{name}.yaml"
        file.write_text(template["metadata"]["annotations"][CONFIG_ANNOTATION])
        words = shlex.split(job["spec"]["entrypoint"])
        assert words[0] == "python"
        words = [sys.executable if word == "python" else word for word in words]
        words = [str(file) if word == f"{CONFIG_FOLDER}/{CONFIG_FILE}" else word for word in words]
        return self._spawn(words, name, pod["containers"][0])

    def _spawn(self, words: list[str], name: str, container: Json) -> subprocess.Popen[bytes]:
        variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        secrets = [source["secretRef"]["name"] for source in container.get("envFrom", []) if "secretRef" in source]
        for secret in secrets:
            variables |= self._cluster.secret(self._namespace, secret) or {}
        for place in ("KIT19_CACHE", "HF_HOME"):
            variables[place] = str(self._folder / "cache" / place)
        if "KIT19_DRIVER_LOG" in variables:
            variables["KIT19_DRIVER_LOG"] = str(self._folder / f"{name}.driver.log")
        environment = os.environ | variables | self._environment
        with self.log(name).open("wb") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)


def answers(port: int) -> bool:
    """Whether the server on this port is healthy."""
    import httpx

    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those it started."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
