"""Robust DUO, which is ours: DUO's preference under captions that are searched for while it trains.

No adversarially trained preference eraser was published by 2025. Its parts are: the loss (`loss`), the search inside a
step (`search`) in the way of AdvUnlearn and STEREO, but on pairs, and a term that holds what must stay (`holding`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ...errors import DuoError
from ..course import Course, course_eraser, erase_by
from ..interface import EraserContext, State
from .settings import RobustSettings

if TYPE_CHECKING:
    from ...families.family import Family


@contextlib.contextmanager
def _course(context: EraserContext) -> Iterator[Course]:
    from ...edits.files import save_adapter
    from ..descent import Descent
    from ..trained_adapter import trained_adapter
    from .loss import RobustLoss

    model, settings = context.model, context.options
    if settings.mixed_precision == "fp16":
        got = "a search and a training in one, which loss scaling does not reach"
        raise DuoError("robust-duo is not trained in fp16", got=got, hint="mixed_precision bf16 or no")
    if settings.gradient_checkpointing:
        denoiser: Any = model.denoiser
        denoiser.enable_gradient_checkpointing()
    with trained_adapter(model, rank=settings.rank, seed=context.seed, targets=settings.adapter_targets) as tensors:
        loss = RobustLoss(context)
        descent = Descent(
            tensors,
            loss,
            settings.max_train_steps,
            settings.learning_rate,
            settings.lr_scheduler,
            settings.adam_weight_decay,
            settings.max_grad_norm,
            memory=loss.memory,
            notes=loss.notes,
        )
        yield Course(descent, lambda folder, described: save_adapter(model, folder, described))


def _why_not(_family: Family) -> str | None:
    return None


def _erase(context: EraserContext, name: str) -> State:
    """The erasing of the course; the edit's provenance, and so its key, has the bank's hash and where it came from."""
    from ...storage.files import sha256_of
    from .bank import read_bank

    path, provenance = context.options.bank, dict(context.provenance)
    if context.options.captions.bank:
        provenance["bank"] = {**read_bank(path)[1], "sha256": sha256_of(path)}
    return erase_by(_course, keeps=True)(context._replace(provenance=provenance), name)


ROBUST_DUO: Final = course_eraser(
    "robust-duo",
    "Robust DUO (ours): DUO under captions that are searched for while it trains",
    RobustSettings,
    "images and prompts",
    _why_not,
    _course,
    makes="lora",
    keeps=True,
)._replace(erase=_erase)
