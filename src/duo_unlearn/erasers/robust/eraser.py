"""Robust DUO, which is ours: DUO's preference under captions that are searched for while it trains.

No adversarially trained preference eraser was published by 2025. Its parts are: the loss (`loss`), the search inside a
step (`search`) in the way of AdvUnlearn and STEREO, but on pairs, and a term that holds what must stay (`holding`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import torch

from ...errors import DuoError
from ...families.denoising import dtype_of
from ..course import Course, course_eraser
from ..interface import EraserContext
from .bank import bank_facts, check_bank
from .holding import other_prompts
from .passes import passes_of
from .rounds import rounds_of, why_no_rounds
from .settings import RobustSettings
from .wordless import for_wordless

if TYPE_CHECKING:
    from ...families.family import Family

NO_FP16: Final = "loss scaling does not reach the search"


@contextlib.contextmanager
def _course(context: EraserContext) -> Iterator[Course]:
    from ..duo.course import adapter_course
    from .loss import RobustLoss

    if dtype_of(context.model.denoiser) == torch.float16:
        raise DuoError("robust-duo is not trained in fp16", got=NO_FP16, hint="--mixed_precision bf16 or no")
    loss = RobustLoss(context)
    with adapter_course(context, loss, loss.memory, loss.notes) as course:
        yield course._replace(passes=course.passes + (loss.holding.passes if loss.holding is not None else 0))


def _facts(context: EraserContext) -> dict[str, Any]:
    """Which bank a training reads, and which prompts it holds beside the pairs' own."""
    held = other_prompts(context)
    return {**bank_facts(context), **({"held": held} if held else {})}


def _why_not(_family: Family) -> str | None:
    return None


def _why_not_options(family: Family, options: RobustSettings) -> str | None:
    if (fault := options.fault()) is not None:
        return fault
    if options.mixed_precision == "fp16":
        return f"it is not trained in fp16: {NO_FP16}"
    if options.captions.search and not family.reads_clip_alone:
        shares = "give the share of captions.search to captions.free, which reads none, or to others"
        return f"its search writes tokens of CLIP's text encoders, and {family.title} reads {family.reader}'s: {shares}"
    return why_no_rounds(family, options)


ROBUST_DUO: Final = course_eraser(
    "robust-duo",
    "Robust DUO (ours): DUO under captions that are searched for while it trains",
    RobustSettings,
    "images and prompts",
    _why_not,
    _course,
    makes="lora",
    facts=_facts,
)._replace(
    on_floor=True,
    why_not_options=_why_not_options,
    rounds=rounds_of,
    for_wordless=for_wordless,
    check_files=check_bank,
    passes=passes_of,
)
