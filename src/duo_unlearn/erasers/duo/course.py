"""The course of an adapter that is trained on DUO's objective, and the precision of its passes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ...edits.files import save_adapter
from ...errors import DuoError
from ...families.interface import Model
from ...families.load import DTYPES
from ..course import Course
from ..descent import Descent
from ..interface import EraserContext
from ..trained_adapter import trained_adapter
from .settings import ObjectiveSettings


def save_memory(model: Model, settings: ObjectiveSettings) -> None:
    """Turn gradient checkpointing on where the settings ask for it."""
    denoiser: Any = model.denoiser
    if settings.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()


@contextlib.contextmanager
def compiled(model: Model, settings: ObjectiveSettings) -> Iterator[None]:
    """Inside the block the denoiser is compiled where the settings ask for it: its blocks that repeat, each alone.

    Where its class in diffusers names none, it is compiled as a whole. A compiler that does not work is a DuoError.
    """
    if not settings.compile:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    denoiser: Any = model.denoiser
    if getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks()
    else:
        denoiser.compile()
    try:
        yield
    except TorchDynamoException as error:
        got = str(error).strip().splitlines()[0][:200]
        raise DuoError("cannot compile the denoiser", got=got, hint="train.compile=false, or a C++ compiler") from error
    finally:
        for module in denoiser.modules():
            module._compiled_call_impl = None  # noqa: SLF001  # nothing public takes `compile` back


def autocast(model: Model, settings: ObjectiveSettings) -> AbstractContextManager[Any]:
    """A context in which the passes have the settings' precision."""
    half = settings.mixed_precision != "no"
    return torch.autocast(model.device.type, DTYPES[settings.mixed_precision] if half else None, enabled=half)


@contextlib.contextmanager
def adapter_course(
    context: EraserContext,
    loss: Callable[[int], Tensor],
    memory: MutableMapping[str, Tensor] | None = None,
    notes: Mapping[str, float] | None = None,
) -> Iterator[Course]:
    """A fresh adapter on the denoiser, trained by a loss. memory, notes: what the loss keeps, as of `Descent`."""
    model, settings = context.model, context.options
    save_memory(model, settings)
    adapter = trained_adapter(model, rank=settings.rank, seed=context.seed, targets=settings.adapter_targets)
    with compiled(model, settings), adapter as tensors:
        descent = Descent(
            tensors,
            loss,
            settings.max_train_steps,
            settings.learning_rate,
            settings.lr_scheduler,
            settings.adam_weight_decay,
            settings.max_grad_norm,
            memory={} if memory is None else memory,
            notes={} if notes is None else notes,
        )
        yield Course(descent, lambda folder, described: save_adapter(model, folder, described))
