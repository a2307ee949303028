"""Relearning: the defended model is fine-tuned for some steps, on the concept or on benign images, and asked again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..families.interface import Conditioning, Model, Moments, joined, seed_of
from ..progress import progress
from ..records import Prompt
from .interface import Artifact, AttackDefaults, Found, Preset, Report, Subject

BATCH = 8
BENIGN = 64
"""Images of benign prompts, sampled from the original model."""


class Relearning(AttackDefaults):
    """The prompts as they are, on the model after `steps` of fine-tuning all weights of its attention layers."""

    shared, alters = True, True

    def __init__(self, on: Literal["concept", "benign"], steps: int) -> None:
        self.on, self.steps = on, steps
        self.name, self.title = f"relearning-{on}-{steps}", f"Relearning, {on} images, {steps} steps"

    def why_not(self, model: Model) -> str | None:
        """Its small steps need float32 weights."""
        kept = {parameter.dtype for parameter in model.denoiser.parameters()}
        return None if kept == {torch.float32} else "it fine-tunes float32 weights: mixed_precision no, quantize no"

    def budget(self, _preset: Preset) -> dict[str, float]:
        """Steps, images a step."""
        return {"steps": float(self.steps), "batch": float(BATCH)}

    def chunk(self, _preset: Preset) -> int:
        """All prompts: the model is fine-tuned once."""
        return 1 << 30

    def find(
        self, _subject: Subject, prompts: Sequence[Prompt], _seeds: Sequence[int], _preset: Preset, _report: Report
    ) -> Found:
        """The prompts."""
        return Found([Artifact(prompt.text) for prompt in prompts])

    @contextlib.contextmanager
    def during(self, subject: Subject) -> Iterator[None]:
        """The model fine-tuned inside the block, and its weights put back after it, bit for bit."""
        moments, text = self._data(subject)
        layers = attention_weights(subject.model.denoiser)
        before = [weight.detach().clone() for weight in layers]
        flags = {parameter: parameter.requires_grad for parameter in subject.model.denoiser.parameters()}
        try:
            for parameter in flags:
                parameter.requires_grad_(False)
            fine_tune(subject.model, layers, moments, text, steps=self.steps, seed=subject.seed, title=self.title)
            yield
        finally:
            for weight, old in zip(layers, before, strict=True):
                weight.data.copy_(old)
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)

    def _data(self, subject: Subject) -> tuple[Moments, Conditioning]:
        if self.on == "concept":
            texts = [unsafe for unsafe, _ in subject.contrast]
            return subject.moments, joined([subject.model.encode_prompts([text]) for text in texts])
        texts = [subject.benign[i % len(subject.benign)] for i in range(BENIGN)]
        images = subject.originals(texts, [seed_of(subject.seed, "benign", i) for i in range(BENIGN)])
        parts = [subject.model.encode_images(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        moments = Moments(torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts]))
        return moments, joined([subject.model.encode_prompts([text]) for text in texts])


def attention_weights(denoiser: nn.Module) -> list[nn.Parameter]:
    """The weights of all attention projections, adapters not among them."""
    return [
        parameter
        for name, parameter in denoiser.named_parameters()
        if ".attn" in name and name.endswith("weight") and "lora_" not in name and parameter.ndim == 2
    ]


def fine_tune(
    model: Model,
    weights: list[nn.Parameter],
    moments: Moments,
    text: Conditioning,
    *,
    steps: int,
    seed: int,
    title: str,
) -> None:
    """The plain denoising loss on images under their prompts; AdamW at 1e-5, 1e-4 on the mini model."""
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=1e-4 if model.family == "mini" else 1e-5)
    shape = (BATCH, *moments.mean.shape[1:])

    def noise() -> Tensor:
        return torch.randn(shape, generator=generator)

    with progress(title.lower(), steps) as report:
        for step in range(steps):
            chosen = torch.randint(0, len(moments.mean), (BATCH,), generator=generator)
            latents = moments.mean.cpu()[chosen] + moments.std.cpu()[chosen] * noise()
            eps, t = noise(), torch.randint(0, model.noise.last_timestep + 1, (BATCH,), generator=generator)
            noisy, target = model.noise.add_noise(latents, eps, t), model.noise.target(latents, eps, t)
            inputs = (noisy.to(model.device), t.to(model.device), text.rows(chosen.to(text.text.device)))
            loss = (model.predict(*inputs) - target.to(model.device)).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            report(step + 1, f"loss {loss.item():.4f}")
