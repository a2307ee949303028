"""HiRM: high-level representation misdirection (Lee et al., ICLR 2026, arXiv 2602.19631), in the text encoder.

The first layer of each CLIP text encoder is trained so that the last states h of prompts with the concept go elsewhere:

    L = mean ‖h_θ(prompt) − target‖²
    target = h_φ(prompt) − c v   (concept: v, the mean over prompts of h_φ(unsafe) − h_φ(safe))
    target = c r̂                 (random: a unit vector for each row)

h is what the denoiser reads, (token, width), and where it reads a pooled vector, that one too. The norm is over the
width, the mean over prompts and rows. No prompt without the concept is asked to stay.

Ours, where the paper's summary leaves it open: learning rate, batch, and v from the pairs' own counterparts, a vector
for each row, counted from the concept's last token. The target of the rows before that one is what they were: other
prompts share them, and all share the start token's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..edits.files import write_changes
from ..edits.weights import own_weights
from ..families.conditioning import Conditioning, joined
from ..families.interface import Model, Tokens
from ..families.tokens import sequence, word_ids
from ..storage.forms import Strict
from .course import Course, course_eraser
from .descent import Descent, generator_of
from .interface import EraserContext
from .text_rows import concept_rows
from .trained import trained_weights
from .words import Contrast, Wordings, contrasts

if TYPE_CHECKING:
    from ..families.family import Family

STRENGTH: Final = {"concept": 1.0, "random": 500.0}
"""c where the settings give none: the paper's."""
Place = tuple[int, int]
"""The row where the concept ends in a prompt, and its counterpart's in the safe one."""


class HirmSettings(Strict):
    """The options of HiRM."""

    target: Literal["concept", "random"] = Field(
        "concept", description="Where states go: to themselves minus the concept's vector, or to a random vector."
    )
    strength: float | None = Field(
        None, gt=0, description="c. None: 1 for the concept's vector, 500 for a random one (published)."
    )
    steps: int = Field(200, ge=1, description="Optimizer steps (published: 25 to 50 epochs of a few prompts).")
    batch: int = Field(8, ge=1, description="Prompts a step.")
    lr: float = Field(1e-4, gt=0, description="Of AdamW.")
    wordings: Wordings = Field("direct", description="direct: the pairs' prompts; all: every wording of the concept.")


def first_layers(model: Model) -> list[str]:
    """The weights of the first transformer layer of each CLIP text encoder, "PART.PARAMETER"."""
    parts = [text for _, text in model.kind.token_encoders]
    return [f"{part}.{name}" for part in parts for name in own_weights(model, part) if _is_first(name)]


def _is_first(name: str) -> bool:
    return ".encoder.layers.0." in f".{name}"


def concept_target(unsafe: Conditioning, safe: Conditioning, places: Sequence[Place], strength: float) -> Conditioning:
    """h − c v from the concept on, h before it. The pooled vectors lose the mean of their own differences."""
    length = unsafe.text.shape[1]
    total, count = torch.zeros_like(unsafe.text[0]), torch.zeros_like(unsafe.text[0, :, :1])
    for h, other, (at, there) in zip(unsafe.text, safe.text, places, strict=True):
        rows = length - max(at, there)
        total[:rows] += h[at : at + rows] - other[there : there + rows]
        count[:rows] += 1
    text, vectors = unsafe.text.clone(), strength * total / count.clamp(min=1)
    for h, (at, _) in zip(text, places, strict=True):
        h[at:] -= vectors[: length - at]
    if unsafe.pooled is None or safe.pooled is None:
        return Conditioning(text)
    return Conditioning(text, unsafe.pooled - strength * (unsafe.pooled - safe.pooled).mean(dim=0))


def random_target(unsafe: Conditioning, places: Sequence[Place], strength: float, seed: int) -> Conditioning:
    """c r̂ from the concept on, r̂ drawn for each row and the same for every prompt; h before it."""
    generator = generator_of(seed, "hirm", "directions")

    def drawn(side: Tensor) -> Tensor:
        rows = torch.randn(side.shape[1:], generator=generator).to(side.device)
        return strength * torch.nn.functional.normalize(rows, dim=-1).repeat(len(side), *[1] * rows.ndim)

    target = unsafe.map(drawn)
    for rows, h, (at, _) in zip(target.text, unsafe.text, places, strict=True):
        rows[:at] = h[:at]
    return target


def distance(found: Conditioning, target: Conditioning) -> Tensor:
    """The mean of ‖h − target‖² over prompts and rows; of the text plus of the pooled vector, where there is one."""
    error: Tensor = (found.text.float() - target.text).square().sum(dim=-1).mean()
    if found.pooled is None or target.pooled is None:
        return error
    pooled: Tensor = (found.pooled.float() - target.pooled).square().sum(dim=-1).mean()
    return error + pooled


class HirmLoss:
    """The loss of a step. Made from the model as it is before it is trained."""

    def __init__(self, context: EraserContext) -> None:
        self.model, self.seed = context.model, context.seed
        self.settings: HirmSettings = context.options
        texts = contrasts(context, self.settings.wordings)
        self.ids = self._ids([text.unsafe for text in texts])
        self.target = self._target(texts)

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        generator = generator_of(self.seed, "hirm", step)
        chosen = torch.randperm(len(self.ids), generator=generator)[: self.settings.batch]
        found = self.model.condition(Tokens(self.ids[chosen]))
        return distance(found, self.target.rows(chosen.to(found.text.device)))

    def _target(self, texts: Sequence[Contrast]) -> Conditioning:
        settings, tokenizer = self.settings, self.model.pipe.tokenizer
        strength = STRENGTH[settings.target] if settings.strength is None else settings.strength
        places = [concept_rows(*(tokenizer(side, truncation=True).input_ids for side in text)) for text in texts]
        unsafe = self._states(self.ids)
        if settings.target == "random":
            return random_target(unsafe, places, strength, self.seed)
        return concept_target(unsafe, self._states(self._ids([text.safe for text in texts])), places, strength)

    def _ids(self, texts: Sequence[str]) -> Tensor:
        """(prompt, token)."""
        return torch.tensor([sequence(self.model, word_ids(self.model, text)) for text in texts])

    @torch.no_grad()
    def _states(self, ids: Tensor) -> Conditioning:
        parts = [self.model.condition(Tokens(part)) for part in torch.split(ids, 64)]
        return joined(parts).map(lambda side: side.float())


@contextlib.contextmanager
def _course(context: EraserContext) -> Iterator[Course]:
    settings: HirmSettings = context.options
    loss = HirmLoss(context)
    with trained_weights(context.model, first_layers(context.model)) as weights:
        descent = Descent(weights.tensors, loss, settings.steps, settings.lr)
        yield Course(descent, lambda folder, described: write_changes(folder, weights.changes(), described))


def _why_not(family: Family) -> str | None:
    if family.reads_clip_alone:
        return None
    return (
        f"it changes CLIP's states alone: in {family.title}, {family.reader} would still tell the denoiser the concept"
    )


HIRM: Final = course_eraser(
    "hirm", "HiRM: states of the text encoder led away", HirmSettings, "prompts", _why_not, _course, level="encoder"
)
