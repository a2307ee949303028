"""ESD: Erased Stable Diffusion (Gandikota et al. 2023, arXiv 2303.07345), guidance turned around and learnt.

The trained prediction under a prompt p moves to what the frozen model φ predicts away from the concept c,

    L = mean (ε_θ(x_t, t, p) − (ε_a − η (ε_φ(x_t, t, c) − ε_b)))²

in one of three forms: the concept's word alone (paper; p = c, ε_a = ε_b = ε_∅); the authors' script for an attribute, a
whole prompt less the word's direction (p a scene with the concept, ε_a its own prediction, ε_b = ε_∅); and ours, which
has the scene without the concept in the place of nothing (p = c a scene with it, ε_a = ε_b that of the safe prompt).
With a whole scene for c and nothing for b, what else the scene says would be erased too: subjects and colours.

ESD-x trains cross-attention, ESD-u all layers outside it. The weights of the predictions sum to 1, so the same formula
holds where a model predicts velocities.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..edits.files import write_changes
from ..families.denoising import predict_noised
from ..families.family import MOST_STEPS
from ..families.interface import Conditioning, joined
from ..storage.forms import Strict
from .course import Course, course_eraser
from .descent import Descent, generator_of
from .interface import EraserContext
from .latents import pair_latents
from .layers import Part, trained_names
from .pictures import Origin, Pictures, latents_of_step, origin_of
from .trained import TrainedWeights, trained_weights
from .words import Contrast, Wordings, contrasts, word_of

if TYPE_CHECKING:
    from ..families.family import Family


class EsdSettings(Strict):
    """The options of ESD."""

    steps: int = Field(1000, ge=1, description="Optimizer steps (paper: 1000; today's script: 200).")
    batch: int = Field(1, ge=1, description="Latents a step (published: 1).")
    lr: float = Field(1e-5, gt=0, description="Of Adam (paper: 1e-5; today's script: 5e-5).")
    eta: float = Field(1.0, description="η, how far the target goes away from the concept (paper: 1).")
    form: Literal["word", "attribute", "pair"] = Field(
        "word",
        description="word: the word alone is erased (paper). attribute: its direction is taken from the pairs' unsafe "
        "prompts (the authors' script). pair: that from a pair's safe prompt to its unsafe one is (ours).",
    )
    word: str | None = Field(None, min_length=1, description="The concept's word; None: its name.")
    latents: Origin | None = Field(
        None,
        description="x_t: sampled, from the frozen model's path under c (today's script); or the pairs' unsafe latents "
        "with noise, which need no sampling. None: sampled where DDIM can, on diffusions.",
    )
    guidance: float = Field(3.0, ge=1, description="Of the sampled path (published: 3).")
    sampling_steps: int = Field(50, ge=2, le=MOST_STEPS, description="Of the sampled path (published: 50).")
    wordings: Wordings = Field(
        "direct", description="direct: the pairs' prompts; all: every wording of the concept; of attribute and pair."
    )


def target(concept: Tensor, base: Tensor, anchor: Tensor, eta: float) -> Tensor:
    """What the trained prediction should be, ε_a − η (ε_c − ε_b); all of one shape."""
    return anchor - eta * (concept - base)


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
        self.word = word_of(context)
        self.empty = self.model.condition([""])
        given = self.settings.latents or origin_of(self.model)
        self.pictures = Pictures(self.model, pair_latents(context), context.pairs) if given == "pairs" else None

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        settings, model, count = self.settings, self.model, self.settings.batch
        generator = generator_of(self.seed, "esd", step)
        scenes = [self.texts[i] for i in torch.randint(0, len(self.texts), (count,), generator=generator).tolist()]
        trained, given = self._conditionings(scenes)
        with self.weights.original():
            noisy, t = self._latents(generator, scenes, trained)
            n = len(given)
            found = predict_noised(model, torch.cat([noisy] * n), t.repeat(n), joined(given)).float().chunk(n)
            wanted = target(found[0], found[1], found[-1], settings.eta)
        return (predict_noised(model, noisy, t, trained).float() - wanted).square().mean()

    def _conditionings(self, scenes: Sequence[Contrast]) -> tuple[Conditioning, list[Conditioning]]:
        """What is trained, and what c, b and, unless it is b, a stand for."""
        model, form = self.model, self.settings.form
        unsafe = None if form == "word" else model.condition([scene.unsafe for scene in scenes])
        if unsafe is not None and form == "pair":
            return unsafe, [unsafe, model.condition([scene.safe for scene in scenes])]
        word, empty = model.condition([self.word] * len(scenes)), self.empty.repeat(len(scenes))
        return (word, [word, empty]) if unsafe is None else (unsafe, [word, empty, unsafe])

    def _latents(
        self, generator: torch.Generator, scenes: Sequence[Contrast], trained: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """x_t, (image, c, h, w), and t, (image,), of a step."""
        prompts, settings = [scene.unsafe for scene in scenes], self.settings
        return latents_of_step(
            self.model, self.pictures, prompts, trained, self.empty, generator, guidance=settings.guidance,
            steps=settings.sampling_steps,
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
