"""AdamW as bitsandbytes' kernels step it on a GPU, with state of the same names and layout, in torch on a CPU."""

from __future__ import annotations

from typing import Any

import torch

from kit19_ray.train.eight_bit import BLOCK, dequantize

MIN_8BIT_SIZE = 1024  # so that a test's weights are bytes, and its biases and norms are not


def dynamic_map(signed: bool) -> torch.Tensor:
    """bitsandbytes' map of bytes to values, float32 `[256]`: a test holds it to theirs where that is installed."""
    found = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2 ** (exponent + (0 if signed else 1)) + 1)
        means = 10.0 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2)
        found += [*means.tolist(), *((-means).tolist() if signed else [])]
    return torch.tensor(sorted(found))


def kernel_quantize(given: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a GPU's kernel makes of float32 `[n]`: the map's nearest, scaled by each block's largest magnitude."""
    blocks = torch.nn.functional.pad(given, (0, -len(given) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    shares = blocks / torch.where(scales > 0, scales, 1)[:, None]
    return torch.bucketize(shares, (values[1:] + values[:-1]) / 2).to(torch.uint8).view(-1)[: len(given)], scales


def update(state: dict[str, Any], p: torch.Tensor, group: dict[str, Any]) -> None:
    """One step of one parameter."""
    assert p.grad is not None
    state["step"] += 1
    (beta1, beta2), step, packed = group["betas"], state["step"], state["state1"].dtype is torch.uint8
    m, v = (
        dequantize(state[f"state{n}"], state[f"absmax{n}"], state[f"qmap{n}"]) if packed else state[f"state{n}"]
        for n in "12"
    )
    m = beta1 * m + (1 - beta1) * p.grad
    v = beta2 * v + (1 - beta2) * p.grad**2
    p.data.mul_(1 - group["lr"] * group["weight_decay"])
    denominator = (v / (1 - beta2**step)).sqrt() + group["eps"]
    p.data.sub_(group["lr"] * (m / (1 - beta1**step)) / denominator)
    for n, values in (("1", m), ("2", v)):
        if packed:
            state[f"state{n}"], state[f"absmax{n}"] = kernel_quantize(values, state[f"qmap{n}"])
        else:
            state[f"state{n}"].copy_(values)


class StandIn(torch.optim.Optimizer):
    """For machines without bitsandbytes."""

    def __init__(self, groups: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    def init_state(self, group: dict[str, Any], p: torch.Tensor, gindex: int, pindex: int) -> None:
        """The state of `p` before the first step."""
        packed, state = p.numel() >= MIN_8BIT_SIZE, self.state[p]
        state["step"] = 0
        for n, signed in (("1", True), ("2", False)):
            state[f"state{n}"] = torch.zeros_like(p, dtype=torch.uint8 if packed else torch.float32)
            if packed:
                state[f"qmap{n}"] = dynamic_map(signed)
                state[f"absmax{n}"] = torch.zeros(-(-p.numel() // BLOCK))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.init_state(group, p, 0, 0)
                update(self.state[p], p, group)


def theirs(groups: Any, lr: float, betas: tuple[float, float], eps: float) -> Any:
    """bitsandbytes' own optimizer but for its kernel, which no CPU has."""
    from bitsandbytes.optim import AdamW8bit

    class OnACpu(AdamW8bit):  # type: ignore[misc]
        def update_step(self, group: Any, p: torch.Tensor, gindex: int, pindex: int) -> None:
            update(self.state[p], p, self.get_config(gindex, pindex, group))

    return OnACpu(groups, lr=lr, betas=betas, eps=eps, min_8bit_size=MIN_8BIT_SIZE, block_wise=True)
