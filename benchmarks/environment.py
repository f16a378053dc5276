"""What a benchmark ran on, so that its figures can be read."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def describe() -> dict[str, str | int]:
    """CPU, cores, Python and the versions that matter."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass  # not Linux: the platform's own word stands
    packages = ("ray", "torch", "transformers", "deepspeed", "datasets", "tokenizers", "lm-eval")
    return {
        "cpu": model,
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
