"""ESD: Erased Stable Diffusion (Gandikota et al. 2023, arXiv 2303.07345), guidance turned around and learnt.

The trained prediction under a prompt c with the concept moves to what the frozen model φ predicts away from it:

    L = mean (ε_θ(x_t, t, c) − (ε_a − η (ε_φ(x_t, t, c) − ε_φ(x_t, t, ∅))))²,   ε_a = ε_φ(x_t, t, ∅)

ESD-x trains cross-attention, ESD-u all layers outside it. The weights of the predictions sum to 1, so the same formula
holds where a model predicts velocities.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..edits.files import write_changes
from ..families.ddim import on_path
from ..families.denoising import predict_noised
from ..families.interface import Conditioning, joined
from ..families.noise import Diffusion
from ..storage.forms import Strict
from .course import Course, course_eraser
from .descent import Descent, generator_of
from .interface import EraserContext
from .latents import pair_latents
from .layers import Part, trained_names
from .trained import TrainedWeights, trained_weights
from .words import Wordings, contrasts

if TYPE_CHECKING:
    from ..families.family import Family


class EsdSettings(Strict):
    """The options of ESD."""

    steps: int = Field(1000, ge=1, description="Optimizer steps (paper: 1000; today's script: 200).")
    batch: int = Field(1, ge=1, description="Latents a step (published: 1).")
    lr: float = Field(1e-5, gt=0, description="Of Adam (paper: 1e-5; today's script: 5e-5).")
    eta: float = Field(1.0, description="η, how far the target goes away from the concept (paper: 1).")
    anchor: Literal["empty", "safe"] = Field(
        "empty",
        description="ε_a: the empty prompt's prediction (paper), or that of the pair's safe prompt (the authors' "
        "attribute form, with the pair's words).",
    )
    latents: Literal["sampled", "pairs"] | None = Field(
        None,
        description="x_t: sampled, from the frozen model's path under c (today's script); or the pairs' unsafe latents "
        "with noise, which need no sampling. None: sampled where DDIM can, on diffusions.",
    )
    guidance: float = Field(3.0, ge=1, description="Of the sampled path (published: 3).")
    sampling_steps: int = Field(50, ge=2, description="Of the sampled path (published: 50).")
    wordings: Wordings = Field("direct", description="direct: the pairs' prompts; all: every wording of the concept.")


def target(concept: Tensor, empty: Tensor, anchor: Tensor, eta: float) -> Tensor:
    """What the trained prediction should be, ε_a − η (ε_c − ε_∅); all of one shape."""
    return anchor - eta * (concept - empty)


@contextlib.contextmanager
def _course(context: EraserContext, part: Part) -> Iterator[Course]:
    settings: EsdSettings = context.options
    with trained_weights(context.model, trained_names(context.model, part)) as weights:
        descent = Descent(weights.tensors, EsdLoss(context, weights), settings.steps, settings.lr)
        yield Course(descent, lambda folder, described: write_changes(folder, weights.changes(), described))


class EsdLoss:
    """The loss of a step. Prompts, latents and noise are a function of the step's number."""

    def __init__(self, context: EraserContext, weights: TrainedWeights) -> None:
        self.model, self.seed, self.weights = context.model, context.seed, weights
        self.settings: EsdSettings = context.options
        self.texts = contrasts(context, self.settings.wordings)
        self.cache = pair_latents(context)
        self.empty = self.model.condition([""])

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        settings, model, count = self.settings, self.model, self.settings.batch
        generator = generator_of(self.seed, "esd", step)
        chosen = torch.randint(0, len(self.texts), (count,), generator=generator).tolist()
        concept, empty = model.condition([self.texts[i].unsafe for i in chosen]), self.empty.repeat(count)
        with self.weights.original():
            noisy, t = self._latents(generator, concept, empty)
            given = [concept, empty]
            if settings.anchor == "safe":
                given.append(model.condition([self.texts[i].safe for i in chosen]))
            n = len(given)
            found = predict_noised(model, torch.cat([noisy] * n), t.repeat(n), joined(given)).float().chunk(n)
            wanted = target(found[0], found[1], found[2] if n == 3 else found[1], settings.eta)
        return (predict_noised(model, noisy, t, concept).float() - wanted).square().mean()

    def _latents(self, generator: torch.Generator, concept: Conditioning, empty: Conditioning) -> tuple[Tensor, Tensor]:
        """x_t, (image, c, h, w), and t, (image,), of a step."""
        settings, model, cache, count = self.settings, self.model, self.cache, self.settings.batch
        noise = torch.randn((2, count, *cache.unsafe.mean.shape[1:]), generator=generator)
        if settings.latents == "pairs" or (settings.latents is None and not isinstance(model.noise, Diffusion)):
            chosen = torch.randint(0, len(cache.unsafe.mean), (count,), generator=generator)
            t = torch.randint(0, model.noise.last_timestep + 1, (count,), generator=generator)
            latents = cache.unsafe.mean[chosen] + cache.unsafe.std[chosen] * noise[0]
            return model.noise.add_noise(latents, noise[1], t).to(model.device), t.to(model.device)
        return on_path(
            model, noise[0], concept, empty, guidance=settings.guidance, steps=settings.sampling_steps,
            generator=generator,
        )  # fmt: skip


def _why_not_x(family: Family) -> str | None:
    return None if family.denoiser == "unet" else f"{family.title} has no cross-attention to train: --eraser esd-u"


def _why_not_u(_family: Family) -> str | None:
    return None


ESD_X: Final = course_eraser(
    "esd-x", "ESD-x: guidance turned around, cross-attention", EsdSettings, "prompts", _why_not_x,
    functools.partial(_course, part="x"),
)  # fmt: skip
ESD_U: Final = course_eraser(
    "esd-u", "ESD-u: guidance turned around, all but cross-attention", EsdSettings, "prompts", _why_not_u,
    functools.partial(_course, part="u"),
)  # fmt: skip
