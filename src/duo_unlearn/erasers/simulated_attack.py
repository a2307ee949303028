"""An attacker's fine-tuning that an eraser simulates while it trains: the model as it is left, inside a block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from ..attacks.fine_tuning import Lesson, attention_weights, changed, gradients, learn
from ..attacks.fresh_adapter import fresh_adapter
from ..errors import DuoError
from ..families.interface import Model

CLIP: Final = 1.0
"""The largest norm of the gradient where what is trained is attacked (published)."""


@contextlib.contextmanager
def fine_tuned(
    tensors: Sequence[Tensor], optimizer: torch.optim.Optimizer, loss: Callable[[int], Tensor], steps: int
) -> Iterator[None]:
    """The tensors inside the block after some steps on loss(step); they are put back after it, bit for bit."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        for step in range(steps):
            for tensor, gradient in zip(tensors, gradients(loss(step), tensors), strict=True):
                tensor.grad = gradient
            torch.nn.utils.clip_grad_norm_(tensors, CLIP)
            optimizer.step()
        yield
    finally:
        for tensor, old in zip(tensors, before, strict=True):
            tensor.data.copy_(old)
            tensor.grad = None


@contextlib.contextmanager
def relearned(
    model: Model, parts: Sequence[str], lesson: Lesson, steps: int, generator: torch.Generator
) -> Iterator[None]:
    """The weights inside the block as the attack *relearning* leaves them. parts: those that the system changes."""
    with changed(model, parts) as weights:
        learn(model, list(weights.values()), lesson, steps, generator)
        yield


@contextlib.contextmanager
def newly_adapted(model: Model, rank: int, lesson: Lesson, steps: int, generator: torch.Generator) -> Iterator[None]:
    """A new adapter acts inside the block, after some steps; nothing is left of it after the block."""
    with fresh_adapter(model, rank, generator) as tensors:
        learn(model, tensors, lesson, steps, generator)
        yield


def check_weights(model: Model, parts: Sequence[str]) -> None:
    """Fail where the weights that relearning changes are in half precision or quantised: they would hardly move."""
    weights = attention_weights(model, parts).values()
    kinds = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights} - {"float32"})
    if kinds or not weights:
        hint = "mixed_precision no and quantize no, or attack_on trained or adapter"
        raise DuoError("an attack on the weights needs them in float32", got=", ".join(kinds) or "none", hint=hint)
