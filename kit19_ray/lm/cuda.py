"""Whether torch can use the GPU that a process was given: a driver may be older than the CUDA of torch's wheels."""

from __future__ import annotations

# From NVIDIA's release notes of each major version of CUDA: the oldest driver (Linux) that runs it.
OLDEST_DRIVER = {"11": 450, "12": 525, "13": 580}


def problem() -> str | None:
    """Why torch cannot use a GPU here, or None when it can."""
    import torch

    if torch.cuda.is_available():
        return None
    built = torch.version.cuda
    if built is None:
        return "this torch is built without CUDA: install the wheel of PyPI, not that of the index of CPU builds"
    driver = OLDEST_DRIVER.get(built.split(".")[0])
    needs = f"NVIDIA's driver {driver} or newer" if driver else "a newer driver of NVIDIA's"
    sees = f"torch {torch.__version__} (CUDA {built}) sees no GPU here"
    return f"{sees}: the node needs {needs}, `nvidia-smi` says which it has"
