"""Pictures with their captions: the pairs' two sides, and pictures of what must stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from ..edits.interface import edits_off
from ..families.interface import Moments, SampleRequest
from ..progress import progress
from ..storage.files import digest, read_tensors, seed_of, write_tensors
from .descent import counted
from .latents import pair_latents

if TYPE_CHECKING:
    from .interface import EraserContext

BATCH: Final = 8
"""How many pictures are sampled and encoded at once."""


class Captioned(NamedTuple):
    """Pictures as moments, (picture, c, h, w), and the caption of each; "" where it has none.

    passes: rows that went through the denoiser to sample them, in this run or an earlier one.
    """

    moments: Moments
    captions: list[str]
    passes: int = 0


def both_sides(context: EraserContext) -> tuple[Captioned, Captioned]:
    """The pairs' unsafe pictures and the safe ones, in order."""
    cache, pairs = pair_latents(context), context.pairs
    unsafe = Captioned(cache.unsafe, [pair.unsafe_prompt or "" for pair in pairs])
    return unsafe, Captioned(cache.safe, [pair.safe_prompt or "" for pair in pairs])


def kept_pictures(context: EraserContext, prompts: Sequence[str], steps: int, guidance: float) -> Captioned:
    """Pictures of prompts that must stay, sampled from the original model. They lie in the run and are sampled once."""
    model, seed, count = context.model, context.seed, len(prompts)
    key = digest([list(prompts), steps, guidance, model.fingerprint(), model.variant, seed])
    # A file of its own for each: an eraser and its wrap may keep different ones.
    path = context.run.moments.with_name(f"kept-{key[:8]}.safetensors")
    if path.exists():
        tensors, facts = read_tensors(path)
        # A file of an older version does not say what it took, and is made again.
        if facts.get("key") == key and "passes" in facts:
            return Captioned(Moments(tensors["mean"], tensors["std"]), list(prompts), int(facts["passes"]))
    requests = [SampleRequest(text, seed_of(seed, "kept", i)) for i, text in enumerate(prompts)]
    shown = progress("sample what is kept", count, quiet=context.quiet)
    with edits_off(model), counted(model.denoiser) as rows, shown as report:
        images = model.sample(requests, steps=steps, guidance=guidance, batch=BATCH, report=report)
    parts = [model.encode_images(images[i : i + BATCH]) for i in range(0, count, BATCH)]
    # In the order that a file keeps: convolutions round otherwise on tensors whose channels are last.
    mean, std = (torch.cat([part[i].cpu() for part in parts]).contiguous() for i in range(2))
    write_tensors(path, {"mean": mean, "std": std}, {"key": key, "passes": str(rows[0])})
    return Captioned(Moments(mean, std), list(prompts), rows[0])
