"""The loop that every stage of `duo mini fit` shares: seeded by step, resumable bit for bit, with the time left.

Randomness is a function of (seed, stage, step), so a resumed run needs no generator state and gives the weights of
an uninterrupted one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...progress import progress
from ...storage.files import optimizer_tensors, read_tensors, restore_optimizer, write_tensors


class Draw(NamedTuple):
    """The randomness of one step."""

    rng: random.Random
    generator: torch.Generator


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where the device computes in it; a CPU without AVX-512 would emulate it, ten times slower than float32."""
    native = device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


def draw_for(seed: int, stage: str, step: int) -> Draw:
    """Python's and torch's generators for one step of one stage."""
    rng = random.Random(f"{seed}/{stage}/{step}")
    return Draw(rng, torch.Generator().manual_seed(rng.getrandbits(62)))


def cosine_after(step: int, steps: int, *, warmup: int, hold: float) -> float:
    """Learning-rate factor: linear warm-up, constant until the share `hold` of the steps, then cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    start = max(warmup, round(hold * steps))
    if step < start:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(steps - start, 1)))


class Schedule(NamedTuple):
    """How long and how fast a stage trains."""

    steps: int
    lr: float
    weight_decay: float = 0.01
    warmup: int = 100
    hold: float = 0.3
    ema: float = 0.0
    """Decay of the running average of the weights that is kept at the end; 0: the last weights."""


def train_stage(
    stage: str,
    module: nn.Module,
    loss_of: Callable[[Draw], Tensor],
    schedule: Schedule,
    *,
    folder: Path,
    seed: int,
    device: torch.device,
    save_every: int = 200,
    quiet: bool = False,
) -> float:
    """Train `module` in place; gives the mean loss of the last steps.

    A checkpoint in `folder` is taken up if there is one, and replaced every `save_every` steps.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.lr, weight_decay=schedule.weight_decay, betas=(0.9, 0.99))
    average = {k: v.detach().clone() for k, v in module.state_dict().items()} if schedule.ema else {}
    path = folder / f"{stage}.checkpoint.safetensors"
    done, recent = 0, 0.0
    if path.exists():
        done, recent = _resume(path, module, optimizer, average)

    def save(step: int) -> None:
        tensors = {f"model/{k}": v.clone() for k, v in module.state_dict().items()}
        tensors |= {f"optimizer/{k}": v for k, v in optimizer_tensors(optimizer).items()}
        tensors |= {f"average/{k}": v for k, v in average.items()}
        write_tensors(path, tensors, {"step": str(step), "loss": repr(recent)})

    module.train()
    with progress(f"mini: {stage}", schedule.steps, done=done, quiet=quiet) as report:
        for step in range(done, schedule.steps):
            for group in optimizer.param_groups:
                factor = cosine_after(step, schedule.steps, warmup=schedule.warmup, hold=schedule.hold)
                group["lr"] = schedule.lr * factor
            with autocast(device):
                loss = loss_of(draw_for(seed, stage, step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            value = loss.item()
            recent = value if step == 0 else 0.98 * recent + 0.02 * value
            if schedule.ema:
                _update(average, module, min(schedule.ema, (1 + step) / (10 + step)))
            report(step + 1, f"loss {recent:.4f}")
            if (step + 1) % save_every == 0 and step + 1 < schedule.steps:
                save(step + 1)
    if schedule.ema:
        module.load_state_dict(average)
    module.eval()
    return recent


def _update(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                average[key].lerp_(value, 1 - decay)
            else:
                average[key].copy_(value)


def _resume(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> tuple[int, float]:
    tensors, metadata = read_tensors(path)
    part = {name: {k.split("/", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{name}/")}
            for name in ("model", "optimizer", "average")}  # fmt: skip
    module.load_state_dict(part["model"])
    restore_optimizer(optimizer, part["optimizer"])
    for key, value in part["average"].items():
        average[key].copy_(value)
    return int(metadata["step"]), float(metadata["loss"])
