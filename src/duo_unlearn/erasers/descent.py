"""Gradient descent for erasers beside DUO: some tensors, the loss of a step, and a state on disk from which it resumes.

The loss is a function of the step's number and of what the tensors are, so a killed run goes on bit for bit. What else
a loss keeps from step to step lies in `memory`, which is saved too.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DuoError, Interrupted
from ..progress import progress
from ..records import Decay
from ..runs.folder import Run
from ..runs.metrics import append_line, keep_lines
from ..storage.files import read_tensors, write_tensors
from ..storage.optimizer_state import optimizer_tensors, restore_optimizer
from .optimizer import adamw, rate_factor
from .stopping import diverged, stop_flag

CHECKPOINT_EVERY = 25


@dataclasses.dataclass
class Descent:
    """A training. tensors: what is trained, by name. loss(step): a scalar, step from 0. rate: AdamW's learning rate.

    clip: the gradient's largest norm; None: no limit. masks: name → where a tensor may change, ones and zeros. memory:
    what the loss keeps between steps, by name. notes: further figures of the last step, as the loss left them.
    """

    tensors: Mapping[str, Tensor]
    loss: Callable[[int], Tensor]
    steps: int
    rate: float
    decay: Decay = "constant"
    weight_decay: float = 0.0
    clip: float | None = None
    masks: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    memory: MutableMapping[str, Tensor] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, float] = dataclasses.field(default_factory=dict)


def descend(descent: Descent, denoiser: nn.Module, run: Run, name: str, key: str, *, quiet: bool = False) -> int:
    """Run a training, from its checkpoint or anew; gives how many rows went through the denoiser in all.

    key: what decides the course; a checkpoint of another one is a DuoError. SIGTERM and Ctrl-C save first
    (Interrupted). A loss that is not finite stops the run and leaves the last good state.
    """
    path, metrics = run.checkpoint(name), run.metrics(name)
    tensors = list(descent.tensors.values())
    optimizer = adamw(tensors, descent.rate, descent.weight_decay)
    start, passed = _restored(path, descent, optimizer, key)
    keep_lines(metrics, start)
    with (
        counted(denoiser) as rows,
        stop_flag() as stop,
        progress(f"train: {name}", descent.steps, done=start, quiet=quiet) as report,
    ):
        for step in range(start, descent.steps):
            line = _step(descent, optimizer, tensors, step)
            if not (math.isfinite(line["loss"]) and math.isfinite(line["gradient_norm"])):
                raise diverged(step + 1, path, "a lower learning_rate")
            append_line(metrics, line)
            last = step + 1 == descent.steps
            if stop.is_set() or last or (step + 1) % CHECKPOINT_EVERY == 0:
                _save(path, descent, optimizer, {"step": step + 1, "key": key, "passes": passed + rows[0]})
            report(step + 1, f"loss {line['loss']:.4f}")
            if stop.is_set() and not last:
                raise Interrupted(f"stopped after step {step + 1}; its state is saved", hint="the same command goes on")
        return passed + rows[0]


def _step(descent: Descent, optimizer: torch.optim.Optimizer, tensors: Sequence[Tensor], step: int) -> dict[str, float]:
    """One step, and its figures."""
    rate = descent.rate * rate_factor(step, descent.steps, descent.decay)
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = descent.loss(step)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for name, mask in descent.masks.items():
        if (gradient := descent.tensors[name].grad) is not None:
            gradient.mul_(mask)
    norm = nn.utils.clip_grad_norm_(tensors, descent.clip if descent.clip is not None else math.inf)
    optimizer.step()
    figures = {"loss": float(loss.detach()), **descent.notes, "gradient_norm": float(norm), "lr": rate}
    return {"step": step + 1, **figures}


def generator_of(seed: int, *what: int | str) -> torch.Generator:
    """A generator that is a function of the seed and of what it is for, e.g. a step's number."""
    return torch.Generator().manual_seed(random.Random(f"{seed}/{'/'.join(map(str, what))}").getrandbits(62))


@contextmanager
def counted(denoiser: nn.Module) -> Iterator[list[int]]:
    """Counts the rows that go through a denoiser inside the block: the first entry of the list."""
    rows = [0]

    def count(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        # UNets name their input so, transformers otherwise.
        rows[0] += len(inputs[0] if inputs else named["sample" if "sample" in named else "hidden_states"])

    hook = denoiser.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()


def _save(path: Any, descent: Descent, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]) -> None:
    tensors = {f"trained/{name}": tensor.detach() for name, tensor in descent.tensors.items()}
    tensors |= {f"memory/{name}": tensor.detach() for name, tensor in descent.memory.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer_tensors(optimizer).items()}
    write_tensors(path, tensors, {name: str(value) for name, value in facts.items()})


def _restored(path: Any, descent: Descent, optimizer: torch.optim.Optimizer, key: str) -> tuple[int, int]:
    """The step that a checkpoint was written after, and the rows that the denoiser had seen by then; 0 without one."""
    if not path.exists():
        return 0, 0
    tensors, facts = read_tensors(path)
    if facts.get("key") != key:
        hint = "choose another --output, or delete the folder's train/ to train anew"
        raise DuoError(f"{path} belongs to a training with other settings, pairs or base model", hint=hint)

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    for name, value in part("trained/").items():
        descent.tensors[name].data.copy_(value)
    descent.memory.update(part("memory/"))
    restore_optimizer(optimizer, part("optimizer/"))
    return int(facts["step"]), int(facts["passes"])
