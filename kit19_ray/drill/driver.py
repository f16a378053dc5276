"""A driver in a process of its own, for the drill that kills one: `python -m kit19_ray.drill.driver FILE`."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kit19_ray.drill import faults
from kit19_ray.errors import TrainError
from kit19_ray.train.fit import fit
from kit19_ray.train.spec import TrainSpec
from kit19_ray.utils import ray_session

_START_SECONDS = 600.0


def main(path: str) -> None:
    """Trains what the file says, and says nothing of it."""
    spec, fault = pickle.loads(Path(path).read_bytes())  # written by `killed`, in a folder of its own
    with ray_session.connected():
        fit(spec, faults.loop, {"fault": fault})


def killed(spec: TrainSpec, fault: faults.Fault, is_time: Callable[[], bool]) -> None:
    """Starts a driver on the cluster that this process is connected to, and kills it when it is time.

    Raises:
        TrainError: it ended before.
    """
    import ray

    address = ray.get_runtime_context().gcs_address
    with tempfile.TemporaryDirectory(prefix="kit19-drill-") as folder:
        path = Path(folder, "spec.pickle")
        path.write_bytes(pickle.dumps((spec, fault)))
        with Path(folder, "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "kit19_ray.drill.driver", str(path)],
                env=os.environ | {"RAY_ADDRESS": address}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            until = time.monotonic() + _START_SECONDS
            while not is_time() and time.monotonic() < until:
                if process.poll() is not None:
                    text = Path(folder, "log.txt").read_text(errors="replace")[-2000:]
                    raise TrainError(f"the drill's driver ended before it was killed: {text}")
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main(sys.argv[1])
