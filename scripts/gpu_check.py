"""What only a GPU can show of the train stage, measured in some ten minutes on one H100: `make gpu-check`.

    python -m scripts.gpu_check [--tiny] [--only NAME]... [--out FILE]

    parity         attention by borders (varlen) against masked SDPA in bf16, hidden states and gradients
    throughput     tokens/s and MFU of Polyglot-Ko 1.3B's shape at 2,048 tokens a row, packed with examples of KIT-19's
                   lengths; target: MFU of 45 % or more
    lora           the same of adapters on Polyglot-Ko 5.8B's shape
    memory         most that the GPU had allocated in both, beside the plan's estimate; target: within 10 %
    deterministic  a run cut in half and taken up has the weights of one that was not, to the bit
    adamw_8bit     a run with train.optimizer=adamw_8bit lowers the loss, and cut in half and taken up it has the
                   weights of one that was not, to the bit; with the memory of its worker beside the plan's estimate
    offload        ZeRO-3 with parameters and optimizer in the node's memory takes its steps

--tiny runs the same code on tiny shapes, on a CPU where there is no GPU: no figure means anything, but it runs.
Exit code 1 where a target is missed. The table goes to stdout, JSON to --out.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit19_ray.artifacts import metrics_log
from kit19_ray.config.schema import TrainConfig
from kit19_ray.drill import faults, sample_data
from kit19_ray.preflight import memory
from kit19_ray.preflight.model_sizes import from_config
from kit19_ray.preflight.node_look import cards
from kit19_ray.train import spec as planning
from kit19_ray.train.fit import fit
from kit19_ray.train.spec import TrainSpec
from kit19_ray.utils import ray_session

LENGTHS = (40, 160)  # tokens of an example; KIT-19's mean is some 80
MFU, MEMORY = 0.45, 0.10


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and its rows."""

    hidden_size: int
    layers: int
    heads: int
    vocab_size: int
    seq_len: int


SHAPES = {"1.3b": Shape(2048, 24, 16, 30_080, 2048), "5.8b": Shape(4096, 28, 16, 30_080, 2048)}
TINY = Shape(64, 2, 2, 320, 128)


@dataclass(frozen=True)
class Check:
    """One row of the table; `passed` is None where there is no target, or no GPU to hold to it."""

    name: str
    figure: str
    target: str = ""
    passed: bool | None = None


class Lab:
    """A root, data of each shape, and runs on them."""

    def __init__(self, root: str, tiny: bool, gpu: bool) -> None:
        self._root, self.tiny, self.gpu = root, tiny, gpu
        self._data: dict[Shape, str] = {}

    def shape(self, name: str) -> Shape:
        """A shape by name; the tiny one where that is asked for."""
        return TINY if self.tiny else SHAPES[name]

    def spec(self, name: str, shape: Shape, steps: int, **train: Any) -> TrainSpec:
        """A training of `steps` steps; `train` goes over what is usual here."""
        if shape not in self._data:
            self._data[shape] = sample_data.write(
                f"{self._root}/{shape.hidden_size}", 256, 8, shape.seq_len, shape.vocab_size, LENGTHS
            )
        usual: dict[str, Any] = {
            "workers": 1, "use_gpu": self.gpu, "cpus_per_worker": 1, "batch_size": 16, "micro_batch_size": 4,
            "epochs": 1000, "max_steps": steps, "log_every": 1, "eval_every": 10_000, "samples": 0, "trackers": [],
            "max_failures": 0, "learning_rate": 1e-4, "zero_stage": 1, "save_minutes": 1000,
            "model": {"hidden_size": shape.hidden_size, "layers": shape.layers, "heads": shape.heads},
        }  # fmt: skip
        config = TrainConfig.model_validate(usual | train)
        return TrainSpec(
            out=f"{self._root}/train-{name}", data=self._data[shape], config=config,
            plan=planning.make(config, 256, shape.seq_len), use_gpu=self.gpu, seed=19, vocab_size=shape.vocab_size,
            eos_token_id=sample_data.EOS, pad_token_id=sample_data.EOS,
        )  # fmt: skip

    def published(self, shape: Shape) -> str:
        """A model of that shape on the disk, as a published one would be: adapters need one."""
        import torch

        from kit19_ray.lm import pretrained

        folder = Path(self._root.removeprefix("file://"), f"base-{shape.hidden_size}")
        if not folder.exists():
            before = torch.get_default_dtype()
            torch.set_default_dtype(torch.bfloat16)
            try:
                model = pretrained.build_gpt_neox(
                    hidden_size=shape.hidden_size, layers=shape.layers, heads=shape.heads, intermediate_size=None,
                    vocab_size=shape.vocab_size, seq_len=shape.seq_len, eos_token_id=0, pad_token_id=0, seed=19,
                )  # fmt: skip
            finally:
                torch.set_default_dtype(before)
            model.save_pretrained(folder)
        return str(folder)


def steady(out: str) -> dict[str, Any]:
    """The figures of a run's second half: the first steps warm the allocator up."""
    lines = [line for line in metrics_log.read(out) if "tokens_per_second" in line]
    late = lines[len(lines) // 2 :]
    found = {"tokens_per_second": sum(line["tokens_per_second"] for line in late) / len(late)}
    for name in ("mfu", "memory_bytes"):
        values = [line[name] for line in late if line.get(name) is not None]
        if values:
            found[name] = max(values) if name == "memory_bytes" else sum(values) / len(values)
    return found


def parity(lab: Lab) -> list[Check]:
    """In a process of its own, as all that touches the GPU here: the workers want all of it."""
    import ray

    options = {"num_gpus": 1} if lab.gpu else {}
    hidden, gradient = ray.get(ray.remote(**options)(_parity).remote() if options else ray.remote(_parity).remote())
    # bf16 has 8 bits: two orders of the same sums differ by some units of the last place, layer after layer.
    passed = hidden < 3e-2 and gradient < 3e-2
    return [Check("parity", f"hidden {hidden:.1e}, gradients {gradient:.1e} relative", "< 3e-2", passed)]


def _parity() -> tuple[float, float]:
    import numpy as np
    import torch

    from kit19_ray.lm import attention, pretrained
    from kit19_ray.train.inputs import to_device
    from kit19_ray.train.loss import PackedLM

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rng = np.random.default_rng(19)
    ids, labels, places = (np.stack(c) for c in zip(*(sample_data.packed_row(rng, 512, 320, LENGTHS) for _ in "1234")))
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for flat in (False, True):
        model = pretrained.build_gpt_neox(
            hidden_size=256, layers=4, heads=4, intermediate_size=None, vocab_size=320, seq_len=512, eos_token_id=0,
            pad_token_id=0, seed=19,
        ).to(device, dtype)  # fmt: skip
        if flat:
            attention.register()
            model.set_attn_implementation(attention.NAME)
        packed = PackedLM(model)
        batch = to_device({"input_ids": ids, "labels": labels, "position_ids": places}, device, flat)
        packed(**batch).backward()
        inputs = {name: value for name, value in batch.items() if name not in ("positions", "targets")}
        hidden = packed.logits(**inputs).reshape(-1).detach()
        gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
        found.append((hidden.float(), gradient.float()))
    (masked, slow), (varlen, fast) = found
    return float((masked - varlen).norm() / masked.norm()), float((slow - fast).norm() / slow.norm())


def throughput(lab: Lab) -> list[Check]:
    """All weights of the 1.3B shape."""
    spec = lab.spec("throughput", lab.shape("1.3b"), 20)
    fit(spec)
    return _speed(lab, "throughput, 1.3B", spec) + _memory(lab, "memory, 1.3B", spec, lab.shape("1.3b"))


def lora(lab: Lab) -> list[Check]:
    """Adapters on the 5.8B shape."""
    shape = lab.shape("5.8b")
    adapters: dict[str, Any] = {"model": {"name": lab.published(shape)}, "lora": {"rank": 16}}
    spec = lab.spec("lora", shape, 12, gradient_checkpointing=True, **adapters)
    fit(spec)
    return _speed(lab, "LoRA, 5.8B", spec, target=False) + _memory(lab, "memory, LoRA 5.8B", spec, shape)


def _speed(lab: Lab, name: str, spec: TrainSpec, target: bool = True) -> list[Check]:
    found = steady(spec.out)
    figure = f"{found['tokens_per_second']:,.0f} tokens/s"
    if "mfu" not in found:
        return [Check(name, figure)]
    held = target and not lab.tiny
    figure += f", MFU {found['mfu']:.1%}"
    return [Check(name, figure, f"MFU {MFU:.0%}" if held else "", found["mfu"] >= MFU if held else None)]


def _memory(lab: Lab, name: str, spec: TrainSpec, shape: Shape) -> list[Check]:
    found = steady(spec.out).get("memory_bytes")
    if found is None:
        return [Check(name, "not measured: no GPU")]
    config = spec.config
    sizes = from_config(neox_config(shape))
    assert sizes is not None
    asked = 0.25  # share of the positions that are learned
    planned = memory.estimate(
        memory.Setting(
            sizes=sizes, precision="bf16", zero_stage=config.zero_stage, workers=1,
            micro_batch_size=config.micro_batch_size, seq_len=shape.seq_len,
            gradient_checkpointing=config.gradient_checkpointing, asked=asked, gpu=True, lora=config.lora,
            optimizer=config.optimizer,
        )
    ).total  # fmt: skip
    held = not lab.tiny
    passed = abs(found / planned - 1) <= MEMORY if held else None
    return [Check(name, f"{found / 1e9:.1f} GB, planned {planned / 1e9:.1f} GB", "within 10 %" if held else "", passed)]


def neox_config(shape: Shape) -> dict[str, Any]:
    """config.json of the shape."""
    return {
        "model_type": "gpt_neox", "hidden_size": shape.hidden_size, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "intermediate_size": 4 * shape.hidden_size,
        "vocab_size": shape.vocab_size, "max_position_embeddings": shape.seq_len, "tie_word_embeddings": False,
    }  # fmt: skip


def deterministic(lab: Lab) -> list[Check]:
    """A worker is killed in mid-training, and the run goes on by itself."""
    shape = TINY if lab.tiny else replace(SHAPES["1.3b"], layers=4)
    return [_resume(*_whole_and_cut(lab, "", shape), name="deterministic resume")]


def adamw_8bit(lab: Lab) -> list[Check]:
    """The same with moments of 8 bits, which no CPU steps."""
    if not lab.gpu:
        return [Check("adamw_8bit", "not run: no GPU")]
    shape = TINY if lab.tiny else replace(SHAPES["1.3b"], layers=4)
    whole, cut = _whole_and_cut(lab, "-8bit", shape, optimizer="adamw_8bit")
    first, last = whole["validation_loss_first"], whole["validation_loss"]
    return [
        Check("adamw_8bit", f"validation loss {first:.3f} -> {last:.3f}", "the loss falls", last < first),
        _resume(whole, cut, name="adamw_8bit, resume"),
        *_memory(lab, "adamw_8bit, memory", lab.spec("whole-8bit", shape, 12, optimizer="adamw_8bit"), shape),
    ]


def _whole_and_cut(lab: Lab, suffix: str, shape: Shape, **train: Any) -> tuple[Any, Any]:
    """What became of twelve steps, and of twelve whose worker is killed after the eighth."""
    keys: dict[str, Any] = {"deterministic": True, "save_every": 3, "max_failures": 2, **train}
    whole, cut = lab.spec(f"whole{suffix}", shape, 12, **keys), lab.spec(f"cut{suffix}", shape, 12, **keys)
    return fit(whole), fit(cut, faults.loop, {"fault": faults.Fault("kill", rank=0)})


def _resume(whole: Any, cut: Any, name: str) -> Check:
    same = whole["files"]["export/model.safetensors"] == cut["files"]["export/model.safetensors"]
    return Check(name, "equal to the bit" if same else "the weights differ", "equal", same)


def offload(lab: Lab) -> list[Check]:
    """ZeRO-3 with everything in the node's memory."""
    shape = TINY if lab.tiny else replace(SHAPES["1.3b"], layers=8)
    spec = lab.spec("offload", shape, 4, zero_stage=3, offload="all")
    made = fit(spec)
    fell = made["validation_loss"] < made["validation_loss_first"]
    speed = steady(spec.out)["tokens_per_second"]
    return [Check("ZeRO-3, offload=all", f"{speed:,.0f} tokens/s", "the loss falls", fell)]


CHECKS: dict[str, Callable[[Lab], list[Check]]] = {
    "parity": parity, "throughput": throughput, "lora": lora, "deterministic": deterministic,
    "adamw_8bit": adamw_8bit, "offload": offload,
}  # fmt: skip


def machine(gpu: bool) -> str:
    """What it ran on."""
    if not gpu:
        return f"no GPU, {platform.processor() or platform.machine()}"
    return ", ".join(f"{card['name']}, driver {card['driver']}" for card in cards()) or "a GPU"


def main() -> int:
    """Runs the checks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", action="append", choices=list(CHECKS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="kit19-gpu-") as folder, ray_session.connected():
        import ray

        gpu = bool(ray.cluster_resources().get("GPU"))
        if not gpu and not options.tiny:
            print("gpu-check: no GPU here; --tiny runs the same code on a CPU", file=sys.stderr)
            return 2
        lab = Lab(f"file://{folder}", options.tiny, gpu)
        for name in options.only or CHECKS:
            print(f"gpu-check: {name}", file=sys.stderr)
            try:
                checks += CHECKS[name](lab)
            except Exception as error:  # noqa: BLE001 - a row of the table, and the next check comes
                checks.append(Check(name, f"failed: {' '.join(str(error).split())[:300]}", passed=False))
    print(f"{machine(gpu)}{', tiny shapes' if options.tiny else ''}\n")
    print("| check | figure | target | |\n|---|---|---|---|")
    for check in checks:
        verdict = {None: "", True: "met", False: "missed"}[check.passed]
        print(f"| {check.name} | {check.figure} | {check.target} | {verdict} |")
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(gpu), "checks": [vars(c) for c in checks]}, indent=1))
    return int(any(check.passed is False for check in checks))


if __name__ == "__main__":
    sys.exit(main())
