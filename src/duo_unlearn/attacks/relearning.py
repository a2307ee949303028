"""Relearning: the defended model is fine-tuned for some steps, on the concept or on benign images, and asked again."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import torch
from torch import Tensor, nn

from ..families.interface import Conditioning, Model, Moments, Tokens, joined
from ..families.tokens import sequence, word_ids
from ..progress import progress
from ..storage.files import seed_of
from .interface import Attack, Target, plain_findings


@dataclasses.dataclass(frozen=True)
class Budget:
    """Steps, which images (of the concept, or of benign prompts), and images a step.

    benign: how many images of benign prompts are sampled from the original model; none where the concept's are used.
    """

    steps: int
    images: Literal["concept", "benign"]
    batch: int = 8
    benign: int = 0


@dataclasses.dataclass(frozen=True)
class FewBudget(Budget):
    """pictures: how many images of the concept there are, of those that the pairs have."""

    pictures: int = 20


def fine_tune(target: Target, budget: Budget) -> dict[str, Tensor]:
    """The weights that the system has after its fine-tuning, by name; the model itself stays as it was.

    All attention projections of the denoiser learn; where the system's edits change a text encoder, that one's too.
    """
    moments, text = _data(target, budget)
    with _changed(target) as weights:
        _fine_tune(target, list(weights.values()), moments, text, budget)
        return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


@contextlib.contextmanager
def fine_tuned(target: Target, _budget: Budget, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The system has the weights that `fine_tune` gave inside the block; its own are put back after it."""
    with _changed(target) as own:
        for name, weight in own.items():
            weight.data.copy_(weights[name])
        yield


@contextlib.contextmanager
def _changed(target: Target) -> Iterator[dict[str, nn.Parameter]]:
    """Gives the weights that may change inside the block; they and all flags are put back after it, bit for bit."""
    weights = attention_weights(target.model, target.parts)
    before = [weight.detach().clone() for weight in weights.values()]
    parts = [target.model.denoiser, *(getattr(target.model.pipe, part) for part in target.model.kind.text)]
    flags = {p: p.requires_grad for part in parts if part is not None for p in part.parameters()}
    try:
        for parameter in flags:
            parameter.requires_grad_(False)
        yield weights
    finally:
        for weight, old in zip(weights.values(), before, strict=True):
            weight.data.copy_(old)
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def _data(target: Target, budget: Budget) -> tuple[Moments, list[str]]:
    """Moments of the images, and the prompt of each."""
    if budget.images == "concept":
        moments, texts = target.moments(), [unsafe for unsafe, _ in target.contrast()]
        if not isinstance(budget, FewBudget):
            return moments, texts
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(target.seed))
        few = order[: budget.pictures].tolist()
        return Moments(moments.mean[few], moments.std[few]), [texts[i] for i in few]
    texts = [target.benign[i % len(target.benign)] for i in range(budget.benign)]
    images = target.originals(texts, [seed_of(target.seed, "benign", i) for i in range(budget.benign)])
    size = budget.batch
    parts = [target.model.encode_images(images[i : i + size]) for i in range(0, len(images), size)]
    return Moments(torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts])), texts


def attention_weights(model: Model, parts: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
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


def _fine_tune(target: Target, weights: list[nn.Parameter], moments: Moments, texts: list[str], budget: Budget) -> None:
    """The plain denoising loss on images under their prompts; AdamW at the family's rate."""
    model, generator = target.model, torch.Generator().manual_seed(target.seed)
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=model.kind.relearning_rate)
    shape = (budget.batch, *moments.mean.shape[1:])
    read = joined([model.condition([text]) for text in texts])
    learns_text = any(part in model.kind.text for part in target.parts)

    def noise() -> Tensor:
        return torch.randn(shape, generator=generator)

    def conditioning(rows: Tensor) -> Conditioning:
        if not learns_text:
            return read.rows(rows.to(read.text.device))
        with torch.enable_grad():
            return model.condition(Tokens(_ids(model, [texts[i] for i in rows.tolist()])))

    with progress(f"relearning, {budget.images} images, {budget.steps} steps", budget.steps) as report:
        for step in range(budget.steps):
            chosen = torch.randint(0, len(moments.mean), (budget.batch,), generator=generator)
            latents = moments.mean.cpu()[chosen] + moments.std.cpu()[chosen] * noise()
            eps, t = noise(), torch.randint(0, model.noise.last_timestep + 1, (budget.batch,), generator=generator)
            noisy, wanted = model.noise.add_noise(latents, eps, t), model.noise.target(latents, eps, t)
            inputs = (noisy.to(model.device), t.to(model.device), conditioning(chosen))
            loss = (model.predict(*inputs) - wanted.to(model.device)).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            report(step + 1, f"loss {loss.item():.4f}")


def _ids(model: Model, texts: list[str]) -> Tensor:
    """Texts as token ids, for an encoder that learns: texts themselves are read without gradients."""
    return torch.tensor([sequence(model, word_ids(model, text)) for text in texts])


def _relearning(images: Literal["concept", "benign"], steps: int, pictures: int | None = None) -> Attack:
    budget = Budget(steps, images, benign=64 if images == "benign" else 0)
    if pictures is not None:
        budget = FewBudget(steps, images, pictures=pictures)
    many = "" if pictures is None else f"{pictures} "
    return Attack(
        f"relearning-{images}-{steps}" + ("" if pictures is None else f"-of-{pictures}"),
        f"Relearning, {steps} steps on {many}{images} images",
        {"quick": budget, "paper": budget},
        plain_findings,
        prompts_at_once=None,
        needs=frozenset({"float32", "pairs"} if images == "concept" else {"float32"}),
        fine_tune=fine_tune,
        during=fine_tuned,
        level="generator",
    )


CONCEPT_20: Final = _relearning("concept", 20)
CONCEPT_100: Final = _relearning("concept", 100)
CONCEPT_300: Final = _relearning("concept", 300)
BENIGN_300: Final = _relearning("benign", 300)
CONCEPT_100_OF_20: Final = _relearning("concept", 100, 20)
CONCEPT_100_OF_50: Final = _relearning("concept", 100, 50)
