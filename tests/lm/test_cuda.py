"""A GPU that torch cannot use is told with the driver it needs (finding A5)."""

from __future__ import annotations

import pytest
import torch

from kit19_ray.lm import cuda


@pytest.mark.parametrize(
    ("built", "said"),
    [
        ("13.0", "needs NVIDIA's driver 580 or newer, `nvidia-smi` says which it has"),
        ("12.6", "needs NVIDIA's driver 525 or newer"),
        ("99.0", "needs a newer driver"),
        (None, "built without CUDA"),
    ],
)
def test_a_driver_that_is_too_old_is_named(built: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    assert said in str(cuda.problem())


def test_a_gpu_that_works_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cuda.problem() is None


def test_a_model_asked_onto_a_gpu_that_is_not_there_is_the_user_s_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    from kit19_ray.errors import UserError
    from kit19_ray.lm.generator import Generator

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"without CUDA|sees no GPU"):
        Generator.load("no/such/model", True, 1, 1024)
