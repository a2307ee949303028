"""Concept inversion (white box): textual inversion of one token on the defended model (Pham et al. 2023).

Everything is frozen but one token's vector, which learns to make the attacked model denoise images of the concept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..families.interface import Conditioning, Model, Moments
from ..families.tokens import PLACEHOLDER, encode_with_vector, initial_vector, why_no_tokens
from ..progress import progress
from ..records import Prompt
from .interface import Artifact, AttackDefaults, Found, Preset, Report, Subject, gradient

TEMPLATES = (f"a picture of {PLACEHOLDER}", f"a drawing of {PLACEHOLDER}", PLACEHOLDER, f"an image of {PLACEHOLDER}")

PRESETS: Final[dict[Preset, dict[str, float]]] = {
    "quick": {"steps": 300, "batch": 16, "lr": 5e-3},
    "paper": {"steps": 3000, "batch": 4, "lr": 5e-3},
}


class ConceptInversion(AttackDefaults):
    """One token for the whole concept, in front of every prompt."""

    name, title, shared = "concept-inversion", "Concept inversion", False

    def why_not(self, model: Model) -> str | None:
        """It writes a CLIP token's vector."""
        return why_no_tokens(model)

    def budget(self, preset: Preset) -> dict[str, float]:
        """Steps, images a step, learning rate."""
        return PRESETS[preset]

    def chunk(self, _preset: Preset) -> int:
        """All prompts: the token is one."""
        return 1 << 30

    def find(
        self, subject: Subject, prompts: Sequence[Prompt], _seeds: Sequence[int], preset: Preset, _report: Report
    ) -> Found:
        """The token, and each prompt behind it."""
        budget = self.budget(preset)
        vector = invert(
            subject.model, subject.moments, steps=int(budget["steps"]), batch=int(budget["batch"]),
            seed=subject.seed, lr=budget["lr"],
        )  # fmt: skip
        made = [Artifact(f"{PLACEHOLDER} {prompt.text}", vector="token") for prompt in prompts]
        return Found(made, {"token": vector})


def invert(
    model: Model, moments: Moments, *, steps: int, batch: int, seed: int, lr: float = 5e-3, quiet: bool = False
) -> Tensor:
    """The vector, (width,), that minimises the mean of (target − prediction)² on images of the concept.

    moments: of those images, (image, c, h, w). The model is attacked as it stands: with its adapter on or off. AdamW
    at 5e-3 as published; the published budget is 3000 to 5000 steps, so a shorter one is a *quick* run.
    """
    generator = torch.Generator().manual_seed(seed)
    vector = initial_vector(model, "picture").requires_grad_(True)
    optimizer = torch.optim.AdamW([vector], lr=lr, weight_decay=0.0)
    count, shape = len(moments.mean), (batch, *moments.mean.shape[1:])
    mean, std = moments.mean.cpu(), moments.std.cpu()
    dtype = next(model.denoiser.parameters()).dtype
    with progress("invert a token", steps, quiet=quiet) as report:
        for step in range(steps):
            chosen = torch.randint(0, count, (batch,), generator=generator)
            latents = mean[chosen] + std[chosen] * torch.randn(shape, generator=generator)
            eps = torch.randn(shape, generator=generator)
            t = torch.randint(0, model.noise.last_timestep + 1, (batch,), generator=generator)
            noisy, target = model.noise.add_noise(latents, eps, t), model.noise.target(latents, eps, t)
            template = TEMPLATES[int(torch.randint(0, len(TEMPLATES), (1,), generator=generator))]
            conditioning = encode_with_vector(model, [template], vector.to(model.device)).repeat(batch)
            inputs = (noisy.to(model.device, dtype), t.to(model.device), conditioning.map(lambda x: x.to(dtype)))
            predicted = model.predict(*inputs)
            loss = (predicted.float() - target.to(model.device)).square().mean()
            optimizer.zero_grad()
            vector.grad = gradient(loss, vector, f"step {step + 1} of the inversion")
            optimizer.step()
            report(step + 1, f"loss {loss.item():.4f}")
    return vector.detach()


def embeddings_with(model: Model, prompts: Sequence[str], vector: Tensor, batch: int = 64) -> list[Conditioning]:
    """Each prompt with the inverted token in front, as conditioning of one prompt."""
    rows: list[Conditioning] = []
    with torch.no_grad():
        for first in range(0, len(prompts), batch):
            texts = [f"{PLACEHOLDER} {prompt}" for prompt in prompts[first : first + batch]]
            found = encode_with_vector(model, texts, vector.to(model.device))
            rows += [found.rows(slice(i, i + 1)) for i in range(len(texts))]
    return rows
