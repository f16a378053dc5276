"""What Ray Train calls in each worker's process: sets it up, trains, and says how it ended."""

from __future__ import annotations

import contextlib
import ctypes

import torch

from kit19_ray.artifacts.stage_manifests import Stopped, TrainOutput
from kit19_ray.errors import StorageError, TrainError, UserError
from kit19_ray.lm import cuda
from kit19_ray.train.agreement import AgreedError, Agreement
from kit19_ray.train.spec import TrainSpec
from kit19_ray.train.trainer import Trainer
from kit19_ray.utils.json_types import Json

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def train_loop_per_worker(settings: Json) -> TrainOutput | Stopped | dict[str, UserError]:
    """The train function of every worker, as Ray Train calls it.

    Args:
        settings: {"spec": TrainSpec}.

    Returns:
        What the manifest says of the run, at rank 0; {"stopped": step} when it was asked to stop. A mistake of the user
        that all ranks know of comes back as {"error": the UserError}, because raising it would only make Ray start the
        workers again.
    """
    import ray.train.torch

    spec: TrainSpec = settings["spec"]
    prepare_process(spec)
    if spec.use_gpu and (problem := cuda.problem()):
        raise TrainError(problem)  # this node's alone, maybe: the others would wait for a rank that merely returns
    device = ray.train.torch.get_device() if spec.use_gpu else torch.device("cpu")
    if spec.use_gpu:
        torch.cuda.set_device(device)
    agreement = Agreement(_address(), 60 * spec.config.timeout_minutes)
    try:
        with Trainer(spec, device, agreement) as trainer:
            return trainer.run()
    except AgreedError as agreed:
        # A store that was out may be back when the workers start again; a local disk that lacks a file lacks it then.
        passing = isinstance(agreed.error, StorageError) and spec.out.startswith("s3://")
        if isinstance(agreed.error, UserError) and agreed.everywhere and not passing:
            return {"error": agreed.error}
        if isinstance(agreed.error, UserError):
            raise agreed.error from None
        raise


def _address() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def prepare_process(spec: TrainSpec) -> None:
    """The same numbers on every run: fixed threads and kernels; and memory that is kept instead of returned."""
    torch.set_num_threads(max(1, int(spec.config.cpus_per_worker)))
    # Half the promise, warnings where there is no such kernel, is slow and repeats nothing: all of it or none.
    torch.use_deterministic_algorithms(spec.config.deterministic or not spec.use_gpu)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # every element is written; filling costs a pass
    if not spec.use_gpu:
        # Activations come and go with each pass. By default glibc maps and unmaps each large one, and the kernel
        # zeroes its pages anew every time.
        with contextlib.suppress(OSError, AttributeError):  # not glibc: only slower
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
