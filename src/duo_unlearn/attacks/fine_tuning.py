"""An attacker's fine-tuning: which weights learn, by which steps, and all of them put back afterwards.

The attack `relearning` does this, and an eraser that is trained against it does the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..families.denoising import noised_rows, predict_noised
from ..families.interface import Conditioning, Model, Moments, Tokens
from ..families.tokens import sequence, word_ids


class Lesson(NamedTuple):
    """What is learnt from. read(rows): what the denoiser reads of some pictures. batch: pictures a step."""

    pictures: Moments
    read: Callable[[list[int]], Conditioning]
    batch: int
    rate: float


def attention_weights(model: Model, parts: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """The weights of the denoiser's attention projections, adapters not among them, by "PART.PARAMETER".

    parts: what the system's edits change; the attention of a text encoder among them is added.
    """
    named: dict[str, tuple[nn.Module, tuple[str, ...]]]
    named = {model.denoiser_name: (model.denoiser, (".attn", ".attention."))}
    named |= {part: (getattr(model.pipe, part), ("attn",)) for part in parts if part in model.kind.text}
    return {
        # The plain name, which a weight has also where an adapter lies around its layer.
        f"{part}.{name.replace('.base_layer.', '.')}": parameter
        for part, (module, places) in named.items()
        for name, parameter in module.named_parameters()
        if any(place in name for place in places) and name.endswith("weight") and "lora_" not in name
        if parameter.ndim == 2
    }


@contextlib.contextmanager
def changed(model: Model, parts: Sequence[str]) -> Iterator[dict[str, nn.Parameter]]:
    """Gives the `attention_weights`, which may change inside the block; they are put back after it, bit for bit."""
    weights = attention_weights(model, parts)
    before = [(weight, weight.detach().clone(), weight.requires_grad) for weight in weights.values()]
    try:
        yield weights
    finally:
        for weight, old, flag in before:
            weight.data.copy_(old)
            weight.requires_grad_(flag)


def learn(
    model: Model,
    weights: Sequence[Tensor],
    lesson: Lesson,
    steps: int,
    generator: torch.Generator,
    report: Callable[[int, Tensor], None] | None = None,
) -> None:
    """Some steps of the weights on the plain denoising loss, by AdamW with its own decay and without clipping.

    report(done, loss) is called after each step. Other weights get no gradients.
    """
    for weight in weights:
        weight.requires_grad_(True)
    optimizer, many = torch.optim.AdamW(weights, lr=lesson.rate), len(lesson.pictures.mean)
    for step in range(steps):
        chosen = torch.randint(0, many, (lesson.batch,), generator=generator)
        noisy, t, wanted = noised_rows(model.noise, lesson.pictures, chosen, generator)
        predicted = predict_noised(model, noisy, t, lesson.read(chosen.tolist()))
        loss = (predicted.float() - wanted.to(model.device)).square().mean()
        for weight, gradient in zip(weights, gradients(loss, weights), strict=True):
            weight.grad = gradient
        optimizer.step()
        optimizer.zero_grad()
        if report is not None:
            report(step + 1, loss.detach())


def gradients(loss: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """None for a tensor that the loss does not depend on, e.g. a weight of a text encoder that nothing is read of."""
    return torch.autograd.grad(loss, list(tensors), allow_unused=True)


def read_anew(model: Model, texts: Sequence[str]) -> Conditioning:
    """Texts through the encoders as they stand, with gradients: `Model.condition` reads texts without."""
    ids = torch.tensor([sequence(model, word_ids(model, text)) for text in texts])
    with torch.enable_grad():
        return model.condition(Tokens(ids))
