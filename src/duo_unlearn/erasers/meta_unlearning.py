"""Meta-Unlearning: an eraser is trained so that fine-tuning on the concept fails (Gao et al. 2024, arXiv 2410.12777).

A wrap: to the gradient of the eraser's loss at its tensors θ each step adds

    γ₁₁ ∇L(θ; unrelated) + γ₁₂ ∇L(θ; related) − γ₂₁ ∇L(θ'; unsafe) − γ₂₂ ∇L(θ'; related) − γ₂₃ ∇L(θ'; unrelated)

L is the plain denoising loss of pictures under their captions. θ' is θ after an attacker's fine-tuning on the unsafe
pictures. The gradients at θ' are used at θ as they are (first order).

unsafe: the pairs' unsafe pictures. related: their safe counterparts, which look alike but for the concept. unrelated:
pictures of the concept's `keep` prompts, on scenes that no evaluation uses, sampled from the base model once. Pairs
without prompts are trained under the empty one.

What departs. The attacker fine-tunes the tensors that the eraser trains, which for an adapter are the adapter's; the
script's fine-tunes the whole network. Who has a merged model fine-tunes other things, which `attack_on` names:

weights: those below an adapter, as the attack *relearning* does, by the same code. They are the attention of the
denoiser, and of a text encoder that the eraser, or an edit below it, changes; captions are then read anew, in the
attack and after it.
adapter: a new low-rank adapter on the denoiser's attention, as the attack *relearning-adapter* does, by the same code.

Both have AdamW's own decay and no clipping; the first takes the family's rate of relearning, and the second ten times
that, as adapters are trained: at the same rate one learns next to nothing. What the eraser trains stays, and the
gradients are its own there.

Each L is one batch at random timesteps, where the script adds up whole sets at four fixed ones, so its γ weigh more.
The shipped command sets γ₂₁ three times and neither γ₂₂ nor γ₂₃: with their defaults of 1 it destroys unrelated
pictures too once the concept is relearnt. Its three values, read in order, are γ₂₁, γ₂₂ and γ₂₃. Here γ₂₂ is as read,
for what is related shall destroy itself, by the paper; γ₂₃ is 0. The terms with a minus have no lower bound: only
clipping and few steps hold them. The γ are for a loss that is a denoising error, as ESD's: beside DUO's preference,
whose gradient β/2 weighs, they do little (docs/robust.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..attacks.fine_tuning import Lesson, gradients, read_anew
from ..attacks.fresh_adapter import FASTER, adapter_rate
from ..attacks.relearning import Budget
from ..families.denoising import predict_noised
from ..families.family import MOST_STEPS
from ..families.interface import Conditioning, joined
from ..storage.forms import LATER, Strict
from .captioned import Captioned, both_sides, kept_pictures
from .course import Course, MakeCourse
from .descent import Descent, generator_of
from .interface import EraserContext
from .optimizer import adamw
from .pictures import noised
from .simulated_attack import check_weights, fine_tuned, newly_adapted, relearned
from .words import needed_texts
from .wraps import Wrap

NAME: Final = "meta-unlearning"
WEIGHT_DECAY: Final = 1e-4
"""Of the attacker's AdamW (published)."""
RATE: Final = 1e-5
"""Of the attacker's AdamW where it fine-tunes what the eraser trains (published)."""
RANK: Final = 8
"""Of an attacker's new adapter."""
RED_TEAM_BATCH: Final = Budget.batch
"""Pictures of a step of the attack *relearning*."""
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
        None,
        ge=1,
        description="Optimizer steps of an attack; None: as many as one pass over the unsafe pictures has (published).",
    )
    attack_on: Annotated[Literal["trained", "weights", "adapter"], LATER] = Field(
        "trained",
        description="What an attack fine-tunes: what the eraser trains, e.g. an adapter; or as who has a merged model "
        "does: the attention weights, exactly those that the attack relearning changes, or a new adapter.",
    )
    attack_lr: float | None = Field(
        None,
        gt=0,
        description="Of the attack's AdamW. None: 1e-5 where what is trained is attacked (published), the family's "
        "rate of relearning on weights, and ten times that for a new adapter.",
    )
    attack_batch: Annotated[int | None, LATER] = Field(
        None,
        ge=1,
        description="Pictures of a step of an attack. None: as `batch` where what is trained is attacked, else 8, as "
        "relearning has.",
    )
    attack_rank: Annotated[int, LATER] = Field(RANK, ge=1, description="The rank of a new adapter.")
    max_grad_norm: float = Field(
        1.0, gt=0, description="Clipping of the whole gradient, where the eraser has none of its own (published: 1)."
    )
    unrelated: int = Field(64, ge=1, description="How many unrelated pictures are sampled.")
    sampling_steps: int = Field(50, ge=2, le=MOST_STEPS, description="Steps of these.")
    guidance: float = Field(7.5, ge=0, description="Guidance scale of these.")

    @model_validator(mode="after")
    def _as_the_attack_has_them(self) -> Self:
        """Options of an attack that were left out are written down, so that an edit's key tells attacks apart."""
        if self.attack_on != "adapter" and self.attack_rank != RANK:
            raise ValueError(f"attack_rank is read with attack_on=adapter alone, not with {self.attack_on}")
        if self.attack_on == "trained":
            self.attack_lr = self.attack_lr or RATE
        else:
            self.attack_batch = self.attack_batch or RED_TEAM_BATCH
        return self


def weighted_gradients(tensors: Sequence[Tensor], terms: Sequence[Term]) -> list[Tensor]:
    """Σ weight · ∇loss of some terms, as the tensors are; a term of weight 0 is not called."""
    total = [torch.zeros_like(tensor) for tensor in tensors]
    for weight, loss in terms:
        if weight:
            for part, gradient in zip(total, gradients(loss(), tensors), strict=True):
                if gradient is not None:
                    part += weight * gradient
    return total


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
        self.count = len(sets["unsafe"].captions)
        self.attack_batch = settings.attack_batch or settings.batch
        self.attack_steps = settings.attack_steps or math.ceil(self.count / self.attack_batch)
        trained, text = {name.partition(".")[0] for name in descent.tensors}, self.model.kind.text
        # What the system changes: this eraser, and the edits below it.
        self.parts = sorted(trained.union(*(switch.parts for switch in self.model.switches)))
        on_weights = settings.attack_on == "weights"
        self.moves_text = on_weights and not set(self.parts).isdisjoint(text)
        if on_weights:
            check_weights(self.model, self.parts)
        # A text encoder that is trained reads the captions anew each time.
        fixed = trained.isdisjoint(text)
        self.texts = {name: self._texts(pictures.captions) for name, pictures in sets.items()} if fixed else {}

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        found = self.added(step)
        # Zeros whose gradients are those that were found.
        added = [(g * (tensor - tensor.detach())).sum() for g, tensor in zip(found, self.tensors, strict=True)]
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
        """The model as the attacker of a step leaves it, inside the block."""
        s = self.settings
        if s.attack_on == "trained":
            return self._trained_attacked(step)
        pictures, generator = self.sets["unsafe"].moments, generator_of(self.seed, NAME, "attack", step)
        usual = adapter_rate(self.model) if s.attack_on == "adapter" else self.model.kind.relearning_rate
        lesson = Lesson(pictures, self._read_unsafe, self.attack_batch, s.attack_lr or usual)
        if s.attack_on == "weights":
            return relearned(self.model, self.parts, lesson, self.attack_steps, generator)
        return newly_adapted(self.model, s.attack_rank, lesson, self.attack_steps, generator)

    def _trained_attacked(self, step: int) -> contextlib.AbstractContextManager[None]:
        """As published. A pass is in a new order each time."""
        size = self.attack_batch
        order = torch.randperm(self.count, generator=generator_of(self.seed, NAME, "order", step)).tolist()

        def loss(number: int) -> Tensor:
            rows = [order[i % self.count] for i in range(number * size, (number + 1) * size)]
            return self.loss("unsafe", rows, generator_of(self.seed, NAME, "attack", step, number))

        optimizer = adamw(self.tensors, self.settings.attack_lr or RATE, WEIGHT_DECAY)
        return fine_tuned(self.tensors, optimizer, loss, self.attack_steps)

    def drawn(self, name: str, when: Literal["before", "after"], step: int) -> Tensor:
        """L of pictures of a set that are drawn at random, before or after an attack, a scalar."""
        generator = generator_of(self.seed, NAME, when, name, step)
        many = len(self.sets[name].captions)
        rows = torch.randint(0, many, (self.settings.batch,), generator=generator).tolist()
        return self.loss(name, rows, generator, anew=when == "after" and self.moves_text)

    def loss(self, name: str, rows: Sequence[int], generator: torch.Generator, *, anew: bool = False) -> Tensor:
        """L of some pictures of a set, by their rows, a scalar. anew: the captions go through the encoders again."""
        given = self.read(name, rows, anew=anew)
        noisy, t, target = noised(self.model, self.sets[name].moments, rows, generator)
        return (predict_noised(self.model, noisy, t, given).float() - target).square().mean()

    def read(self, name: str, rows: Sequence[int], *, anew: bool) -> Conditioning:
        """What the denoiser reads of the captions of some pictures of a set."""
        if self.texts and not anew:
            return self.texts[name].rows(list(rows))
        return read_anew(self.model, [self.sets[name].captions[row] for row in rows])

    def _read_unsafe(self, rows: Sequence[int]) -> Conditioning:
        return self.read("unsafe", rows, anew=self.moves_text)

    def _texts(self, captions: Sequence[str]) -> Conditioning:
        parts = [self.model.condition(captions[i : i + BATCH]) for i in range(0, len(captions), BATCH)]
        return joined(parts).map(Tensor.cpu)


@contextlib.contextmanager
def _course(make: MakeCourse, context: EraserContext, settings: MetaUnlearningSettings) -> Iterator[Course]:
    if _needs_float32(settings):
        check_weights(context.model, [])  # before pictures are sampled and encoded
    unsafe, related = both_sides(context)
    sets = {"unsafe": unsafe, "related": related}
    if settings.keep_unrelated or settings.spoil_unrelated:
        prompts = needed_texts(context, settings.unrelated)
        sets["unrelated"] = kept_pictures(context, prompts, settings.sampling_steps, settings.guidance)
    with make(context) as course:
        inner = course.descent
        clip = settings.max_grad_norm if inner.clip is None else inner.clip
        loss = MetaLoss(context, settings, sets, inner)
        passes = course.passes + sum(pictures.passes for pictures in sets.values())
        yield course._replace(descent=dataclasses.replace(inner, loss=loss, clip=clip), passes=passes)


def _needs_float32(settings: MetaUnlearningSettings) -> bool:
    return settings.attack_on == "weights"


def _facts(settings: MetaUnlearningSettings) -> dict[str, Any]:
    """The rate of a new adapter, where nothing is said of it: it was the family's own at first."""
    return {"rate": f"{FASTER} × relearning's"} if (settings.attack_on, settings.attack_lr) == ("adapter", None) else {}


META_UNLEARNING: Final = Wrap(
    NAME, "Meta-Unlearning: trained against relearning", MetaUnlearningSettings, _course, _needs_float32, _facts
)
