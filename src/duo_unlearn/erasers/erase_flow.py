"""EraseFlow (Kusumba et al. 2025, arXiv 2511.00804): a safe prompt's sampling path becomes likely under the unsafe one.

A path x_T … x_0 is sampled under the anchor, the safe prompt, by DDIM with η = 1. With N the steps of it that are used,

    L = (log Z − log β + Σ_N [log p_θ(x' | x, target) − log q(x | x')])²,   x' the latents after the step from x
    p_θ = N(DDIM's mean of the guided prediction, σ²),   q = N(√(ᾱ/ᾱ') x', σ_q² = 1 − ᾱ/ᾱ')

Densities are means over channels and pixels. Where the target predicts what the anchor did, the sum is not 0: it is
about Σ* = Σ_N ½ log(σ_q²/σ²). So log β is the constant that makes a match the minimum, and belongs to the schedule and
to N. It is computed here as Σ* + log Z₀; the published 2.5 is an option.

An error of the mean weighs 1/σ², so the last steps have most of the sum's change where the target differs from the
anchor: on one path of the mini model the step before last had 2.0 of 2.7. `left_out` takes the very last ones away.

Departures: the prompts are the pairs', many in place of one. Gradients are taken a few steps at a time (`at_once`), so
that the memory is theirs, where the authors hold all steps at once. The paths of coming optimizer steps may be sampled
together (`paths_at_once`): the loss is a match on any path, so it does not ask that the path is of the model as it is
now, and `refresh` keeps older ones. One limit clips the gradients of adapter and log Z together. The authors have
scripts for rectified flows too; these need a sampler that draws noise, which is not here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from ..edits.files import save_adapter
from ..families.ddim import Ddim, ddim_of, pure_noise, walk
from ..families.denoising import guided
from ..families.family import MOST_STEPS
from ..families.interface import Conditioning, joined
from ..storage.forms import Strict
from .course import Course, course_eraser
from .descent import Descent, generator_of
from .interface import EraserContext
from .trained_adapter import trained_adapter
from .words import Contrast, Wordings, contrasts

if TYPE_CHECKING:
    from ..families.family import Family

LOG_Z: Final = -0.1953
"""Where log Z starts (published)."""


class EraseFlowSettings(Strict):
    """The options of EraseFlow."""

    steps: int = Field(20, ge=1, description="Optimizer steps, one path each (published: 20).")
    lr: float = Field(3e-4, gt=0, description="AdamW's, of adapter and log Z (published: 3e-4; styles 5e-4).")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay (published: 1e-2).")
    clip: float = Field(1.0, gt=0, description="Gradient clipping (published: 1).")
    rank: int = Field(4, ge=1, description="LoRA rank; alpha is the same (published: 4).")
    guidance: float = Field(5.0, ge=1, description="Of the path, and of the target on it (published: 5).")
    sampling_steps: int = Field(50, ge=2, le=MOST_STEPS, description="DDIM steps of a path (published: 50).")
    early: int = Field(
        10, ge=0, description="How many steps before the last are used, drawn anew (published: 10 of 40)."
    )
    last: int = Field(10, ge=1, description="How many last steps of a path are used, or all there are (published: 10).")
    left_out: int = Field(
        0, ge=0, description="How many of these, from the end, are not: they weigh most (published: 0)."
    )
    log_beta: float | None = Field(
        None, description="log β; None: what makes a match of target and anchor the minimum (published: 2.5)."
    )
    refresh: int | None = Field(
        None,
        ge=0,
        description="The last step, from 0, that samples a path; later ones use that path again. None: every step does "
        "(published: None for nudity, 10 for fine classes, 0 for styles).",
    )
    at_once: int = Field(
        1, ge=1, description="Steps of a path that are predicted together: the memory grows, the gradient is the same."
    )
    paths_at_once: int = Field(
        1, ge=1, description="Optimizer steps whose paths are sampled together, by the model as it is at the first."
    )
    wordings: Wordings = Field("direct", description="direct: the pairs' prompts; all: every wording of the concept.")

    @field_validator("left_out")
    @classmethod
    def _leave_some(cls, value: int, known: ValidationInfo) -> int:
        if value >= min(known.data.get("last", value + 1), known.data.get("sampling_steps", value + 1)):
            raise ValueError("input should be less than last and than sampling_steps")
        return value


def log_density(sample: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """log N(sample; mean, σ²) of one number, a scalar: the mean over all."""
    return -0.5 * ((sample - mean) / sigma).square().mean() - math.log(sigma) - 0.5 * math.log(2 * math.pi)


def log_ratio(schedule: Ddim, step: int, before: Tensor, after: Tensor, prediction: Tensor) -> Tensor:
    """log p − log q of one step of a path, a scalar. before, after: the latents around it, (1, c, h, w)."""
    kept = float(schedule.signal[step] / schedule.following[step])
    forward = log_density(after, schedule.mean(step, before, prediction, 1.0), schedule.sigma(step))
    return forward - log_density(before, kept**0.5 * after, (1 - kept) ** 0.5)


def match(schedule: Ddim, steps: Sequence[int]) -> float:
    """Σ*, Σ ½ log(σ_q²/σ²) over these steps: the mean of log p − log q over p's own paths, where q's are the same."""
    noisier, cleaner = schedule.signal[list(steps)], schedule.following[list(steps)]
    return float(0.5 * ((1 - noisier) / (1 - cleaner)).log().sum())


def used_steps(settings: EraseFlowSettings, generator: torch.Generator) -> list[int]:
    """The steps of a path that a loss looks at: some of the earlier ones, drawn at random, and the last ones."""
    first = max(settings.sampling_steps - settings.last, 0)
    early = torch.randperm(first, generator=generator)[: settings.early]
    return [*sorted(early.tolist()), *range(first, settings.sampling_steps - settings.left_out)]


class EraseFlowLoss:
    """The loss of a step. Prompts, noise and the steps that are used are a function of the step's number.

    tensors: the adapter's, by name. memory: "path", those that were sampled last, (step + 1, path, c, h, w).
    """

    def __init__(self, context: EraserContext, tensors: Mapping[str, Tensor]) -> None:
        self.model, self.seed, self.tensors = context.model, context.seed, list(tensors.values())
        self.settings: EraseFlowSettings = context.options
        self.texts = contrasts(context, self.settings.wordings)
        self.schedule = ddim_of(self.model, self.settings.sampling_steps)
        self.empty = self.model.condition([""])
        self.log_z = torch.tensor(LOG_Z, device=self.model.device, requires_grad=True)
        self.memory: dict[str, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        settings = self.settings
        sampled = step if settings.refresh is None else min(step, settings.refresh)
        place = sampled % settings.paths_at_once
        if sampled == step and place == 0:
            self.memory["path"] = self._paths(range(step, min(step + settings.paths_at_once, settings.steps)))
        path = self.memory["path"][:, place : place + 1].to(self.model.device)
        words, _ = self._words(sampled)
        used = used_steps(settings, generator_of(self.seed, "eraseflow-steps", step))
        log_beta = match(self.schedule, used) + LOG_Z if settings.log_beta is None else settings.log_beta
        ratio = self.ratio(path, used, self.model.condition([words.unsafe]))
        return (self.log_z - log_beta + ratio).square()

    def _words(self, step: int) -> tuple[Contrast, torch.Generator]:
        """The prompts of a step, and the generator of its noise."""
        generator = generator_of(self.seed, "eraseflow", step)
        return self.texts[int(torch.randint(0, len(self.texts), (1,), generator=generator))], generator

    def _paths(self, steps: Sequence[int]) -> Tensor:
        """The paths of optimizer steps, of the model as it is now, (step + 1, path, c, h, w)."""
        count, drawn = self.settings.sampling_steps, [self._words(step) for step in steps]
        noise = [
            torch.stack([pure_noise(self.model, 1, generator)[0] for _ in range(count + 1)]) for _, generator in drawn
        ]
        start, *noises = torch.stack(noise, 1).to(self.model.device)
        anchors = joined([self.model.condition([words.safe]) for words, _ in drawn])
        given = self.model, self.schedule, start, anchors, joined([self.empty] * len(steps))
        return torch.stack(walk(*given, guidance=self.settings.guidance, steps=count, noises=noises))

    def ratio(self, path: Tensor, used: Sequence[int], target: Conditioning) -> Tensor:
        """The sum of log p − log q over steps of a path, a scalar with its gradient.

        Gradients add up as the terms do, so each graph is let go before the next one is made.
        """
        total = torch.zeros((), device=path.device)
        gradients = [torch.zeros_like(tensor) for tensor in self.tensors]
        for place in range(0, len(used), self.settings.at_once):
            group = list(used[place : place + self.settings.at_once])
            given = self.model, path[group].flatten(0, 1), self.schedule.timesteps[group]
            texts = joined([target] * len(group)), joined([self.empty] * len(group))
            predictions = guided(*given, *texts, self.settings.guidance)
            term = torch.zeros((), device=path.device)
            for step, prediction in zip(group, predictions, strict=True):
                term = term + log_ratio(self.schedule, step, path[step], path[step + 1], prediction[None])
            for gradient, found in zip(gradients, torch.autograd.grad(term, self.tensors), strict=True):
                gradient += found
            total = total + term.detach()
        # Zeros whose gradients are those that were found.
        return total + sum(
            (gradient * (tensor - tensor.detach())).sum()
            for gradient, tensor in zip(gradients, self.tensors, strict=True)
        )


@contextlib.contextmanager
def _course(context: EraserContext) -> Iterator[Course]:
    settings: EraseFlowSettings = context.options
    model = context.model
    with trained_adapter(model, rank=settings.rank, seed=context.seed, targets="all-attention") as tensors:
        loss = EraseFlowLoss(context, tensors)
        descent = Descent(
            {**tensors, "log_z": loss.log_z}, loss, settings.steps, settings.lr,
            weight_decay=settings.weight_decay, clip=settings.clip, memory=loss.memory,
        )  # fmt: skip
        yield Course(descent, lambda folder, described: save_adapter(model, folder, described))


def _why_not(family: Family) -> str | None:
    flow = f"{family.title} is a rectified flow, whose sampler here draws no noise: a step of its path has no density"
    return None if family.denoiser == "unet" else flow


ERASE_FLOW: Final = course_eraser(
    "eraseflow",
    "EraseFlow: a safe path made likely",
    EraseFlowSettings,
    "prompts",
    _why_not,
    _course,
    makes="lora",
)
