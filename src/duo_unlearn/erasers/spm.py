"""SPM: concept SemiPermeable Membrane (Lyu et al. 2024, arXiv 2312.16145), an adapter of rank 1 held by random anchors.

With θ the model under training, φ the frozen one, c a prompt with the concept, s its surrogate and a an anchor,

    L = mean (ε_θ(x_t, t, c) − (ε_s − η (ε_φ(x_t, t, c) − ε_s)))² + λ mean (ε_θ(x_t, t, a) − ε_φ(x_t, t, a))²

Anchors are Gaussian matrices of the concept's norm times U(0.8, 1.2), read at the concept's x_t. The paper keeps one
with probability 1 − cos(a, c). In so many dimensions that is always, so all are kept here.

The erased model is offered *ungated*. At inference the authors multiply the adapter by a γ of the prompt, the larger of
the cosine of whole embeddings and the share of the concept's tokens ('facilitated transport'). An edit has one strength
here, for all rows of a batch, and no hook that sets it by a row's prompt; a search over tokens or vectors has no prompt
to set it by. So all figures are of γ = 1, where no prompt passes a gate, synonyms included.

Departures: AdamW is not in 8 bits, and its rate goes down one cosine; the authors' restarts twice, after a warm-up.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..edits.files import save_adapter
from ..edits.lora import adapters_off
from ..families.denoising import predict_noised
from ..families.family import MOST_STEPS
from ..families.interface import Conditioning, Model, joined
from ..records import Decay
from ..storage.forms import Strict
from .course import Course, course_eraser
from .descent import Descent, generator_of
from .interface import EraserContext
from .latents import pair_latents
from .pictures import Origin, Pictures, latents_of_step, origin_of
from .trained_adapter import trained_adapter
from .words import Wordings, contrasts

if TYPE_CHECKING:
    from ..families.family import Family


class SpmSettings(Strict):
    """The options of SPM."""

    steps: int = Field(3000, ge=1, description="Optimizer steps (published: 3000).")
    batch: int = Field(1, ge=1, description="Latents a step (published: 1).")
    lr: float = Field(1e-4, gt=0, description="Of AdamW (published: 1e-4).")
    decay: Decay = Field("cosine", description="How the rate goes (published: cosine, with restarts and a warm-up).")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay (published: 1e-2).")
    rank: int = Field(1, ge=1, description="LoRA rank; alpha is the same (published: 1).")
    eta: float = Field(1.0, description="η, how far the target goes away from the concept (published: 1).")
    surrogate: Literal["empty", "safe"] = Field(
        "empty", description="s: the empty prompt (published default), or the pair's safe prompt."
    )
    anchor_weight: float = Field(1000.0, ge=0, description="λ of the anchors (published: 1000).")
    anchors: int = Field(4, ge=1, description="Anchors a latent (published: 4).")
    latents: Origin | None = Field(
        None,
        description="x_t: sampled, from the trained model's path under c (published); or the pairs' unsafe latents "
        "with noise, which need no sampling. None: sampled where DDIM can, on diffusions.",
    )
    guidance: float = Field(3.0, ge=1, description="Of the sampled path (published: 3).")
    sampling_steps: int = Field(30, ge=2, le=MOST_STEPS, description="Of the sampled path (published: 30).")
    wordings: Wordings = Field("direct", description="direct: the pairs' prompts; all: every wording of the concept.")


def erase_loss(erased: Tensor, concept: Tensor, surrogate: Tensor, eta: float) -> Tensor:
    """The first term of L, a scalar. erased: ε_θ(c); concept: ε_φ(c); surrogate: ε_s; all of one shape."""
    return (erased - (surrogate - eta * (concept - surrogate))).square().mean()


def anchors_of(concept: Conditioning, count: int, generator: torch.Generator) -> Conditioning:
    """Gaussian anchors, `count` for each prompt in turn; each has its prompt's norm times a number in [0.8, 1.2).

    Rows of zeros, the padding of some families, stay zeros.
    """

    def drawn(tensor: Tensor) -> Tensor:
        rows, column = len(tensor) * count, (-1, *(1,) * (tensor.ndim - 1))
        noise = torch.randn((rows, *tensor.shape[1:]), generator=generator)
        noise *= (tensor != 0).any(dim=-1, keepdim=True).cpu().repeat_interleave(count, 0)
        norms = torch.linalg.vector_norm(tensor.float().flatten(1), dim=1).cpu().repeat_interleave(count)
        wanted = norms * (0.8 + 0.4 * torch.rand(rows, generator=generator))
        scale = wanted / torch.linalg.vector_norm(noise.flatten(1), dim=1)
        anchors: Tensor = noise * scale.view(column)
        return anchors.to(tensor)

    return concept.map(drawn)


def adapted_layers(model: Model) -> list[str]:
    """Names of all linear layers and convolutions inside the denoiser's transformer blocks, with their projections."""
    blocks = "attentions|transformer_blocks|single_transformer_blocks|layers|noise_refiner|context_refiner"
    inside = re.compile(rf"(?:^|\.)(?:{blocks})\.\d+\.")
    kinds = (nn.Linear, nn.Conv2d)
    return [name for name, layer in model.denoiser.named_modules() if inside.search(name) and isinstance(layer, kinds)]


def initialise(tensors: Mapping[str, Tensor], seed: int) -> None:
    """Give the adapter's down matrices the authors' start, uniform in ±1/√inputs.

    PEFT's Gaussian of σ = 1/rank is far larger at rank 1, and a step would move the product as much more.
    """
    for name, tensor in tensors.items():
        if ".lora_A." in name:
            drawn = torch.empty(tensor.shape)
            nn.init.kaiming_uniform_(drawn, a=5**0.5, generator=generator_of(seed, "spm", name))
            tensor.data.copy_(drawn)


class SpmLoss:
    """The loss of a step. Prompts, latents, noise and anchors are a function of the step's number."""

    def __init__(self, context: EraserContext) -> None:
        self.model, self.seed = context.model, context.seed
        self.settings: SpmSettings = context.options
        self.texts = contrasts(context, self.settings.wordings)
        self.empty = self.model.condition([""])
        given = self.settings.latents or origin_of(self.model)
        self.pictures = Pictures(self.model, pair_latents(context), context.pairs) if given == "pairs" else None

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        settings, model, count = self.settings, self.model, self.settings.batch
        generator = generator_of(self.seed, "spm", step)
        chosen = [self.texts[i] for i in torch.randint(0, len(self.texts), (count,), generator=generator).tolist()]
        concept, surrogate = model.condition([words.unsafe for words in chosen]), self.empty.repeat(count)
        if settings.surrogate == "safe":
            surrogate = model.condition([words.safe for words in chosen])
        noisy, t = self._latents(generator, [words.unsafe for words in chosen], concept)
        anchors = anchors_of(concept, settings.anchors, generator)
        spread, levels = noisy.repeat_interleave(settings.anchors, 0), t.repeat_interleave(settings.anchors)
        with torch.no_grad(), adapters_off(model.denoiser):
            given = joined([concept, anchors, surrogate])
            frozen = predict_noised(model, torch.cat([noisy, spread, noisy]), torch.cat([t, levels, t]), given).float()
        moved = predict_noised(model, torch.cat([noisy, spread]), torch.cat([t, levels]), joined([concept, anchors]))
        erased, anchored = moved[:count].float(), moved[count:].float()
        held = (anchored - frozen[count:-count]).square().mean()
        return erase_loss(erased, frozen[:count], frozen[-count:], settings.eta) + settings.anchor_weight * held

    def _latents(
        self, generator: torch.Generator, prompts: Sequence[str], concept: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """x_t, (image, c, h, w), and t, (image,), of a step."""
        return latents_of_step(
            self.model, self.pictures, prompts, concept, self.empty, generator, guidance=self.settings.guidance,
            steps=self.settings.sampling_steps,
        )  # fmt: skip


@contextlib.contextmanager
def _course(context: EraserContext) -> Iterator[Course]:
    settings: SpmSettings = context.options
    model = context.model
    layers = adapted_layers(model)
    with trained_adapter(model, rank=settings.rank, seed=context.seed, layers=layers) as tensors:
        initialise(tensors, context.seed)
        descent = Descent(tensors, SpmLoss(context), settings.steps, settings.lr, settings.decay, settings.weight_decay)
        yield Course(descent, lambda folder, described: save_adapter(model, folder, described))


def _why_not(_family: Family) -> str | None:
    return None


SPM: Final = course_eraser(
    "spm",
    "SPM: an adapter of low rank (published: 1), held by random anchors",
    SpmSettings,
    "prompts",
    _why_not,
    _course,
    makes="lora",
)
