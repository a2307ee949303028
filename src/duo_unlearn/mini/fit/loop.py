"""The loop that every stage of `duo mini fit` shares: seeded by step, resumable bit for bit, with the time left.

Randomness is a function of (seed, stage, step), so a resumed run needs no generator state and gives the weights of
an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...progress import progress
from ...storage.files import read_tensors, write_tensors
from ...storage.optimizer_state import optimizer_tensors, restore_optimizer
from .feed import Make, batches
from .graphs import Step, optimizer_of

Loss = Callable[[Any], Tensor]
"""A step's loss, from its batch on the device."""


_LOOK = 20
"""Steps between two looks at the loss on a GPU: to look is to wait for it."""


class Trained(NamedTuple):
    """What a stage came to: the mean loss of its last steps, and the seconds it took, over all its processes."""

    loss: float
    seconds: float


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where the device computes in it; a CPU without AVX-512 would emulate it, ten times slower than float32."""
    native = device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


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
    make: Make,
    loss_of: Loss,
    schedule: Schedule,
    *,
    folder: Path,
    seed: int,
    device: torch.device,
    save_every: int = 200,
    quiet: bool = False,
) -> Trained:
    """Train `module` in place.

    make: the batch of a step, on the CPU. A checkpoint in `folder` is taken up if there is one, and replaced every
    `save_every` steps, on a GPU every 20 times as many.
    """
    look = _LOOK if device.type == "cuda" else 1
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = optimizer_of(parameters, schedule.weight_decay, device)
    average = {k: v.detach().clone() for k, v in module.state_dict().items()} if schedule.ema else {}
    path = folder / f"{stage}.checkpoint.safetensors"
    done, recent, spent = 0, 0.0, 0.0
    if path.exists():
        done, recent, spent = _resume(path, module, optimizer, average)
    started = time.monotonic() - spent

    def save(step: int) -> None:
        tensors = {f"model/{k}": v.clone() for k, v in module.state_dict().items()}
        tensors |= {f"optimizer/{k}": v for k, v in optimizer_tensors(optimizer).items()}
        tensors |= {f"average/{k}": v for k, v in average.items()}
        seconds = repr(time.monotonic() - started)
        write_tensors(path, tensors, {"step": str(step), "loss": repr(recent), "seconds": seconds})

    def take(batch: Any) -> Tensor:
        with autocast(device):
            loss = loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.detach()

    once = Step(take, optimizer, device)
    module.train()
    with progress(f"mini: {stage}", schedule.steps, done=done, quiet=quiet) as report:
        steps = range(done, schedule.steps)
        for step, batch in zip(steps, batches(make, seed=seed, stage=stage, steps=steps), strict=True):
            factor = cosine_after(step, schedule.steps, warmup=schedule.warmup, hold=schedule.hold)
            loss = once(batch, schedule.lr * factor)
            if step % look == 0:
                value = loss.item()
                recent = value if step == 0 else recent + (1 - 0.98**look) * (value - recent)
            if average:
                _update(average, module, min(schedule.ema, (1 + step) / (10 + step)))
            report(step + 1, f"loss {recent:.4f}")
            if (step + 1) % (save_every * look) == 0 and step + 1 < schedule.steps:
                save(step + 1)
    if schedule.ema:
        module.load_state_dict(average)
    module.eval()
    return Trained(recent, time.monotonic() - started)


def _update(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    state = module.state_dict()
    floats = [key for key, value in state.items() if value.is_floating_point()]
    with torch.no_grad():
        torch._foreach_lerp_([average[key] for key in floats], [state[key] for key in floats], 1 - decay)
        for key in state.keys() - set(floats):
            average[key].copy_(state[key])


def _resume(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> tuple[int, float, float]:
    tensors, metadata = read_tensors(path)
    part = {name: {k.split("/", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{name}/")}
            for name in ("model", "optimizer", "average")}  # fmt: skip
    module.load_state_dict(part["model"])
    restore_optimizer(optimizer, part["optimizer"])
    for key, value in part["average"].items():
        average[key].copy_(value)
    return int(metadata["step"]), float(metadata["loss"]), float(metadata.get("seconds", 0))
