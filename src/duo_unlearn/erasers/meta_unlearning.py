"""Meta-Unlearning: an eraser is trained so that fine-tuning on the concept fails (Gao et al. 2024, arXiv 2410.12777).

A wrap: to the gradient of the eraser's loss at its tensors θ each step adds

    γ₁₁ ∇L(θ; unrelated) + γ₁₂ ∇L(θ; related) − γ₂₁ ∇L(θ'; unsafe) − γ₂₂ ∇L(θ'; related) − γ₂₃ ∇L(θ'; unrelated)

L is the plain denoising loss of pictures under their captions. θ' is θ after an attacker's fine-tuning on the unsafe
pictures. The gradients at θ' are used at θ as they are (first order).

unsafe: the pairs' unsafe pictures. related: their safe counterparts, which look alike but for the concept. unrelated:
pictures of the concept's `keep` prompts, on scenes that no evaluation uses, sampled from the base model once. Pairs
without prompts are trained under the empty one.

What departs. The attacker fine-tunes the tensors that the eraser trains, which for an adapter are the adapter's. With
`attack_on: weights` it fine-tunes the denoiser's attention weights, as who has a merged model does: an adapter then
stays, the weights below it move, and the gradients are the adapter's there. The script's fine-tunes the whole network.
Each L is one batch at random timesteps, where the script adds up whole sets at
four fixed ones, so its γ weigh more. The shipped command sets γ₂₁ three times and neither γ₂₂ nor γ₂₃: with their
defaults of 1 it destroys unrelated pictures too once the concept is relearnt. Its three values, read in order, are
γ₂₁, γ₂₂ and γ₂₃. Here γ₂₂ is as read, for what is related shall destroy itself, by the paper; γ₂₃ is 0.
The terms with a minus have no lower bound: only clipping and few steps hold them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..attacks.fine_tuning import attention_weights
from ..errors import DuoError
from ..families.denoising import predict_noised
from ..families.interface import Conditioning, Model, Tokens, joined
from ..families.tokens import sequence, word_ids
from ..storage.forms import LATER, Strict
from .captioned import Captioned, both_sides, kept_pictures
from .course import Course, MakeCourse
from .descent import Descent, generator_of
from .interface import EraserContext
from .optimizer import adamw
from .pictures import noised
from .words import needed_texts
from .wraps import Wrap

NAME: Final = "meta-unlearning"
WEIGHT_DECAY: Final = 1e-4
"""Of the attacker's AdamW (published)."""
CLIP: Final = 1.0
"""The largest norm of the attacker's gradient (published)."""
BATCH: Final = 64
"""How many captions are read at once."""
Term = tuple[float, Callable[[], Tensor]]
"""A weight, and a loss, a scalar, at the tensors as they are when it is called."""


class MetaUnlearningSettings(Strict):
    """The options of Meta-Unlearning."""

    keep_unrelated: float = Field(0.1, ge=0, description="γ₁₁, of unrelated pictures (published: 0.1).")
    keep_related: float = Field(0.01, ge=0, description="γ₁₂, of related pictures (published: 0.01).")
    spoil_unsafe: float = Field(
        0.1, ge=0, description="γ₂₁, of unsafe pictures after the attack (read: 0.1; computed by the script: 0.01)."
    )
    spoil_related: float = Field(
        0.1, ge=0, description="γ₂₂, of related pictures after the attack (read: 0.1; computed by the script: 1)."
    )
    spoil_unrelated: float = Field(
        0.0, ge=0, description="γ₂₃, of unrelated pictures after the attack (read: 0.01; computed by the script: 1)."
    )
    batch: int = Field(10, ge=1, description="Pictures of each loss (published: 10).")
    attack_steps: int | None = Field(
        None, ge=1, description="Optimizer steps of an attack; None: one pass over the unsafe pictures (published)."
    )
    attack_on: Annotated[Literal["trained", "weights"], LATER] = Field(
        "trained",
        description="What an attack fine-tunes: what the eraser trains, e.g. an adapter; or the denoiser's attention "
        "weights, as relearning of a merged model does.",
    )
    attack_lr: float = Field(1e-5, gt=0, description="Of the attack's AdamW (published: 1e-5).")
    max_grad_norm: float = Field(
        1.0, gt=0, description="Clipping of the whole gradient, where the eraser has none of its own (published: 1)."
    )
    unrelated: int = Field(64, ge=1, description="How many unrelated pictures are sampled.")
    sampling_steps: int = Field(50, ge=2, description="Steps of these.")
    guidance: float = Field(7.5, ge=0, description="Guidance scale of these.")


@contextlib.contextmanager
def fine_tuned(
    tensors: Sequence[Tensor], optimizer: torch.optim.Optimizer, loss: Callable[[int], Tensor], steps: int
) -> Iterator[None]:
    """The tensors inside the block after some steps on loss(step); they are put back after it, bit for bit.

    Tensors without gradients have some inside the block.
    """
    before, frozen = [tensor.detach().clone() for tensor in tensors], [t for t in tensors if not t.requires_grad]
    try:
        for tensor in frozen:
            tensor.requires_grad_(True)
        for step in range(steps):
            for tensor, gradient in zip(tensors, _gradients(loss(step), tensors), strict=True):
                tensor.grad = gradient
            torch.nn.utils.clip_grad_norm_(tensors, CLIP)
            optimizer.step()
        yield
    finally:
        for tensor, old in zip(tensors, before, strict=True):
            tensor.data.copy_(old)
            tensor.grad = None
        for tensor in frozen:
            tensor.requires_grad_(False)


def weighted_gradients(tensors: Sequence[Tensor], terms: Sequence[Term]) -> list[Tensor]:
    """Σ weight · ∇loss of some terms, as the tensors are; a term of weight 0 is not called."""
    total = [torch.zeros_like(tensor) for tensor in tensors]
    for weight, loss in terms:
        if weight:
            for part, gradient in zip(total, _gradients(loss(), tensors), strict=True):
                if gradient is not None:
                    part += weight * gradient
    return total


def _gradients(loss: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """None for a tensor that the loss does not depend on, e.g. a scalar of the eraser's own."""
    return torch.autograd.grad(loss, list(tensors), allow_unused=True)


class MetaLoss:
    """The eraser's loss of a step, with the gradients of the wrap's terms; its value is the eraser's.

    sets: unsafe, related and unrelated pictures, by these names; a set of weight 0 may be absent. Pictures and noise
    are a function of the step's number. Made when the descent's tensors are still what they were in the base model.
    """

    def __init__(
        self,
        context: EraserContext,
        settings: MetaUnlearningSettings,
        sets: Mapping[str, Captioned],
        descent: Descent,
    ) -> None:
        self.model, self.seed, self.settings, self.sets = context.model, context.seed, settings, sets
        self.inner, self.tensors = descent.loss, list(descent.tensors.values())
        self.attackable: list[Tensor] = self.tensors
        if settings.attack_on == "weights":
            self.attackable = _whole_weights(self.model)
        self.count = len(sets["unsafe"].captions)
        self.attack_steps = settings.attack_steps or math.ceil(self.count / settings.batch)
        trained = {name.partition(".")[0] for name in descent.tensors}
        # A text encoder that is trained reads the captions anew each time.
        fixed = trained.isdisjoint(self.model.kind.text)
        self.texts = {name: self._texts(pictures.captions) for name, pictures in sets.items()} if fixed else {}

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        gradients = self.added(step)
        # Zeros whose gradients are those that were found.
        added = [(g * (tensor - tensor.detach())).sum() for g, tensor in zip(gradients, self.tensors, strict=True)]
        return self.inner(step) + torch.stack(added).sum()

    def added(self, step: int) -> list[Tensor]:
        """What a step adds to the gradient of each tensor."""
        s = self.settings
        kept: list[Term] = [
            (s.keep_unrelated, lambda: self.drawn("unrelated", "before", step)),
            (s.keep_related, lambda: self.drawn("related", "before", step)),
        ]
        spoilt: list[Term] = [
            (-s.spoil_unsafe, lambda: self.drawn("unsafe", "after", step)),
            (-s.spoil_related, lambda: self.drawn("related", "after", step)),
            (-s.spoil_unrelated, lambda: self.drawn("unrelated", "after", step)),
        ]
        total = weighted_gradients(self.tensors, kept)
        if not any(weight for weight, _ in spoilt):
            return total
        with self.attacked(step):
            return [a + b for a, b in zip(total, weighted_gradients(self.tensors, spoilt), strict=True)]

    def attacked(self, step: int) -> contextlib.AbstractContextManager[None]:
        """The model as the attacker of a step leaves it, inside the block. A pass is in a new order each time."""
        size = self.settings.batch
        order = torch.randperm(self.count, generator=generator_of(self.seed, NAME, "order", step)).tolist()

        def loss(number: int) -> Tensor:
            rows = [order[i % self.count] for i in range(number * size, (number + 1) * size)]
            return self.loss("unsafe", rows, generator_of(self.seed, NAME, "attack", step, number))

        optimizer = adamw(self.attackable, self.settings.attack_lr, WEIGHT_DECAY)
        return fine_tuned(self.attackable, optimizer, loss, self.attack_steps)

    def drawn(self, name: str, when: str, step: int) -> Tensor:
        """L of pictures of a set that are drawn at random, a scalar."""
        generator = generator_of(self.seed, NAME, when, name, step)
        many = len(self.sets[name].captions)
        return self.loss(name, torch.randint(0, many, (self.settings.batch,), generator=generator).tolist(), generator)

    def loss(self, name: str, rows: Sequence[int], generator: torch.Generator) -> Tensor:
        """L of some pictures of a set, by their rows, a scalar."""
        pictures = self.sets[name]
        if self.texts:
            given = self.texts[name].rows(list(rows))
        else:
            given = self.model.condition(Tokens(self._ids([pictures.captions[row] for row in rows])))
        noisy, t, target = noised(self.model, pictures.moments, rows, generator)
        return (predict_noised(self.model, noisy, t, given).float() - target).square().mean()

    def _texts(self, captions: Sequence[str]) -> Conditioning:
        parts = [self.model.condition(captions[i : i + BATCH]) for i in range(0, len(captions), BATCH)]
        return joined(parts).map(Tensor.cpu)

    def _ids(self, captions: Sequence[str]) -> Tensor:
        return torch.tensor([sequence(self.model, word_ids(self.model, caption)) for caption in captions])


def _whole_weights(model: Model) -> list[Tensor]:
    """The denoiser's attention weights. Those in half precision or quantised, which hardly move, are a DuoError."""
    weights: list[Tensor] = list(attention_weights(model).values())
    kinds = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights} - {"float32"})
    if kinds or not weights:
        hint = "mixed_precision no and quantize no, or attack_on trained"
        raise DuoError("an attack on the weights needs them in float32", got=", ".join(kinds) or "none", hint=hint)
    return weights


@contextlib.contextmanager
def _course(make: MakeCourse, context: EraserContext, settings: MetaUnlearningSettings) -> Iterator[Course]:
    unsafe, related = both_sides(context)
    sets = {"unsafe": unsafe, "related": related}
    if settings.keep_unrelated or settings.spoil_unrelated:
        prompts = needed_texts(context, settings.unrelated)
        sets["unrelated"] = kept_pictures(context, prompts, settings.sampling_steps, settings.guidance)
    with make(context) as course:
        inner = course.descent
        clip = settings.max_grad_norm if inner.clip is None else inner.clip
        loss = MetaLoss(context, settings, sets, inner)
        yield course._replace(descent=dataclasses.replace(inner, loss=loss, clip=clip))


META_UNLEARNING: Final = Wrap(
    NAME, "Meta-Unlearning: trained against relearning", MetaUnlearningSettings, _course
)  # fmt: skip
