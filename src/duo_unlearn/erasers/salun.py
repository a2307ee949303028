"""SalUn: the salient half of the weights unlearns (Fan et al. 2024, arXiv 2310.12508).

Saliency: g is the sum over batches of the gradient of the guided forgetting loss, signs and all, at the original
weights. The mask m is 1 for the share of all weights where |g| is largest:

    −mean (y − ((1 + s) ε(x⁻_t, t, c) − s ε(x⁻_t, t, ∅)))²,   y what the network should give on x⁻_t

Then the pairs' unsafe pictures x⁻ are predicted under their prompts c as under the safe prompts c⁺, and the safe
pictures x⁺ are trained as ever, with gradients m ∘ ∇L:

    L = mean (ε_θ(x⁻_t, t, c) − stop ε_θ(x⁻_t, t, c⁺))² + α mean (y⁺ − ε_θ(x⁺_u, u, c⁺))²

The target comes from the model in training, not from the frozen one: it moves along, and a model that predicts the same
under every prompt has no forgetting loss either. So published, and so here; α alone holds against it.

What departs. The script has one prompt for each side, here they are the pairs' own. The mask is computed again when a
killed run goes on, from the same original weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from pydantic import Field
from torch import Tensor

from ..edits.files import write_changes
from ..edits.weights import own_weights
from ..families.denoising import predict_noised
from ..families.interface import joined
from ..progress import progress
from ..storage.forms import Strict
from .course import Course, course_eraser
from .descent import Descent, counted, generator_of
from .interface import EraserContext
from .latents import pair_latents
from .pictures import Pictures
from .trained import TrainedWeights, trained_weights
from .words import Contrast, Wordings, contrasts

if TYPE_CHECKING:
    from ..families.family import Family


class SalunSettings(Strict):
    """The options of SalUn."""

    steps: int = Field(500, ge=1, description="Optimizer steps (published: 5 epochs of 800 images, 8 a step).")
    batch: int = Field(8, ge=1, description="Pictures of each side a step (published: 8).")
    lr: float = Field(1e-5, gt=0, description="Of Adam (published: 1e-5).")
    alpha: float = Field(0.1, ge=0, description="α, of the loss on safe pictures (published: 0.1).")
    share: float = Field(
        0.5, gt=0, le=1, description="Share of the denoiser's weights that are trained (published: 0.5); 1: no mask."
    )
    guidance: float = Field(7.5, ge=0, description="s of the loss that the mask is made from (published: 7.5).")
    wordings: Wordings = Field("direct", description="direct: the pairs' prompts; all: every wording of the concept.")


def most_salient(gradients: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks, true for the ⌊share · n⌋ of all n numbers with the largest absolute values.

    Of equal values the earlier ones, in the order of the mapping.
    """
    sizes = {name: gradient.detach().abs().float().contiguous() for name, gradient in gradients.items()}
    count = math.floor(share * sum(map(Tensor.numel, sizes.values())))
    if count == 0:
        return {name: torch.zeros_like(size, dtype=torch.bool) for name, size in sizes.items()}
    # The bits of floats that are not negative are ordered as these are.
    bits = {name: size.view(torch.int32) for name, size in sizes.items()}
    least = _nth_largest(list(bits.values()), count)
    masks = {name: part > least for name, part in bits.items()}
    left = count - sum(int(mask.sum()) for mask in masks.values())
    for name, mask in masks.items():
        ties = (bits[name] == least).flatten().nonzero()[:left, 0]
        mask.view(-1)[ties] = True
        left -= len(ties)
    return masks


def _nth_largest(parts: Sequence[Tensor], count: int) -> int:
    """The count-th largest of all the integers ≥ 0 in some tensors.

    By halving what it may be: one tensor of all weights would be a copy, and SDXL has more than 2³¹ of them.
    """
    low, high = 0, max(int(part.max()) for part in parts if part.numel())
    while low < high:
        middle = (low + high + 1) // 2
        enough = sum(int((part >= middle).sum()) for part in parts) >= count
        low, high = (middle, high) if enough else (low, middle - 1)
    return low


class SalunLoss:
    """The loss of a step. Prompts, pictures and noise are a function of the step's number."""

    def __init__(self, context: EraserContext) -> None:
        self.model, self.seed, self.quiet = context.model, context.seed, context.quiet
        self.settings: SalunSettings = context.options
        self.texts = contrasts(context, self.settings.wordings)
        self.pictures = Pictures(context.model, pair_latents(context), context.pairs)

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        forget, retain = self.terms(step)
        return forget + self.settings.alpha * retain

    def terms(self, step: int) -> tuple[Tensor, Tensor]:
        """The term that forgets and the one that keeps, both scalars."""
        model, generator = self.model, generator_of(self.seed, "salun", step)
        asked, kept = self._draw(generator), [text.safe for text in self._draw(generator)]
        noisy, t = self.pictures.noised([text.unsafe for text in asked], "unsafe", generator)
        safe = self.pictures.with_target(kept, "safe", generator)
        with torch.no_grad():
            target = predict_noised(model, noisy, t, model.condition([text.safe for text in asked])).float()
        conditioning = model.condition([*(text.unsafe for text in asked), *kept])
        found = predict_noised(model, torch.cat([noisy, safe.noisy]), torch.cat([t, safe.t]), conditioning).float()
        erased, now = torch.split(found, [len(asked), len(kept)])
        return (erased - target).square().mean(), (now - safe.target).square().mean()

    def guided(self, batch: int) -> Tensor:
        """The loss of a batch that the mask is made from, a scalar: at most 0, and lower the worse the prediction."""
        model, scale, generator = self.model, self.settings.guidance, generator_of(self.seed, "salun-mask", batch)
        prompts = [text.unsafe for text in self._draw(generator)]
        noisy, t, target = self.pictures.with_target(prompts, "unsafe", generator)
        n = len(prompts)
        given = joined([model.condition(prompts), model.condition([""]).repeat(n)])
        concept, empty = predict_noised(model, torch.cat([noisy] * 2), t.repeat(2), given).float().chunk(2)
        return -(target - ((1 + scale) * concept - scale * empty)).square().mean()

    def masks(self, weights: TrainedWeights) -> dict[str, Tensor]:
        """Where each weight may change, from as many batches as the pairs fill; empty where all may."""
        if self.settings.share == 1:
            return {}
        batches = math.ceil(len(self.pictures.every) / self.settings.batch)
        with progress("salun: mask", batches, quiet=self.quiet) as report:
            for batch in range(batches):
                self.guided(batch).backward()  # type: ignore[no-untyped-call]
                report(batch + 1)
        found = {
            name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            for name, tensor in weights.tensors.items()
        }
        return most_salient(found, self.settings.share)

    def _draw(self, generator: torch.Generator) -> list[Contrast]:
        return [
            self.texts[i]
            for i in torch.randint(0, len(self.texts), (self.settings.batch,), generator=generator).tolist()
        ]


@contextlib.contextmanager
def _course(context: EraserContext) -> Iterator[Course]:
    settings, model = context.options, context.model
    names = [f"{model.denoiser_name}.{name}" for name in own_weights(model, model.denoiser_name)]
    loss = SalunLoss(context)
    with trained_weights(model, names) as weights:
        with counted(model.denoiser) as rows:
            masks = loss.masks(weights)
        descent = Descent(weights.tensors, loss, settings.steps, settings.lr, masks=masks)

        def write(folder: Path, described: Mapping[str, Any]) -> None:
            write_changes(folder, weights.changes(), {**described, "mask_passes": rows[0]})

        yield Course(descent, write, passes=rows[0])


def _why_not(_family: Family) -> str | None:
    return None


SALUN: Final = course_eraser(
    "salun", "SalUn: the most salient weights unlearn", SalunSettings, "images and prompts", _why_not, _course
)
