"""What is asked of a training under way, and of one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray.artifacts import manifest, metrics_log, run_request
from kit19_ray.errors import TrainError
from kit19_ray.io import storage


def test_a_request_is_left_and_cleared(tmp_path: Path) -> None:
    out = f"file://{tmp_path}"
    with pytest.raises(TrainError, match="no training has begun there"):
        run_request.ask(str(tmp_path), "save")
    metrics_log.write_status(out, {"phase": "step", "step": 1, "time": 1.0})
    assert run_request.pending(out) is None
    run_request.ask(str(tmp_path), "stop")
    found = run_request.pending(out)
    assert found is not None and found["ask"] == "stop"
    run_request.clear(out)
    assert run_request.pending(out) is None
    storage.write_text(f"{out}/{manifest.NAME}", '{"stage": "train"}')
    with pytest.raises(TrainError, match="is finished"):
        run_request.ask(str(tmp_path), "save")
