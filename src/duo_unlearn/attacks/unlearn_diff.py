"""UnlearnDiffAtk (white box): adversarial tokens in front of a prompt, found by gradients through the defended model.

Zhang et al. 2024. Each token is a distribution over the vocabulary, kept on the simplex; the forward pass takes its
likeliest token (straight-through). The loss is the defended model's denoising error on the original model's image of
the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..families.interface import Conditioning, Model
from ..families.tokens import encode_ids, sequence, vocabulary, why_no_tokens, word_ids
from ..records import Prompt
from .interface import AttackDefaults, Found, Preset, Report, Subject, gradient
from .ring_a_bell import plain_tokens
from .search import SideBySide

PRESETS: Final[dict[Preset, dict[str, float]]] = {
    "quick": {"tokens": 5, "timesteps": 10, "steps": 10, "lr": 0.01},
    "paper": {"tokens": 5, "timesteps": 50, "steps": 40, "lr": 0.01},
}
WEIGHT_DECAY = 0.1


class UnlearnDiffAtk(AttackDefaults):
    """Prompts are attacked side by side; each stops at the first image in which the detector sees the concept."""

    name, title, shared = "unlearndiffatk", "UnlearnDiffAtk", False

    def why_not(self, model: Model) -> str | None:
        """It writes CLIP tokens."""
        return why_no_tokens(model)

    def budget(self, preset: Preset) -> dict[str, float]:
        """Tokens, timesteps, steps at each, learning rate."""
        return PRESETS[preset]

    def chunk(self, _preset: Preset) -> int:
        """Prompts side by side."""
        return 16

    def find(
        self, subject: Subject, prompts: Sequence[Prompt], seeds: Sequence[int], preset: Preset, report: Report
    ) -> Found:
        """The best prefix of each prompt."""
        budget = self.budget(preset)
        texts = [prompt.text for prompt in prompts]
        latents = subject.model.encode_images(subject.originals(texts, seeds)).mean
        search = _Search(subject, texts, seeds, latents, int(budget["tokens"]), budget["lr"])
        levels = torch.linspace(10, subject.model.noise.last_timestep - 9, int(budget["timesteps"])).long().tolist()
        for done, t in enumerate(levels):
            report(done / len(levels))
            for _ in range(int(budget["steps"])):
                search.step(t)
            if search.look(search.whole()):
                break
        return Found(search.artifacts(search.whole(), search.lengths))


class _Search(SideBySide):
    """The prefixes of some prompts: distributions (prompt, token, vocabulary)."""

    def __init__(
        self, subject: Subject, texts: list[str], seeds: Sequence[int], latents: Tensor, tokens: int, rate: float
    ) -> None:
        super().__init__(subject, seeds)
        model, self.tokens = subject.model, tokens
        self.latents = latents.to(model.device)
        self.plain = plain_tokens(model).to(model.device)
        self.embeddings = vocabulary(model)[self.plain].float()
        shape = (len(texts), tokens, len(self.plain))
        self.generator = torch.Generator().manual_seed(seeds[0] ^ subject.seed)
        self.weights = (torch.ones(shape) / shape[-1]).to(model.device).requires_grad_(True)
        # Uniform rows have no likeliest token; a little noise makes the first choice one of chance.
        self.weights.data += 1e-4 * torch.rand(shape, generator=self.generator).to(model.device)
        self.optimizer = torch.optim.Adam([self.weights], lr=rate, weight_decay=WEIGHT_DECAY)
        prefix = [int(self.plain[0])] * tokens
        words = [[*prefix, *word_ids(model, text)] for text in texts]
        self.lengths = [len(ids) for ids in words]
        self.ids = torch.tensor([sequence(model, ids) for ids in words], device=model.device)

    def whole(self) -> Tensor:
        """Every prompt's sequence behind the likeliest tokens of its prefix, (prompt, token)."""
        chosen = self.plain[self.weights.argmax(dim=-1)]
        return torch.cat([self.ids[:, :1], chosen, self.ids[:, 1 + self.tokens :]], dim=1)

    def step(self, t: int) -> None:
        """One gradient step, at a noise level, of the prompts that have not won."""
        model, open_ = self.subject.model, self.open()
        weights = self.weights[open_]
        hard = torch.nn.functional.one_hot(weights.argmax(dim=-1), len(self.plain)).float()
        straight = hard + weights - weights.detach()
        conditioning = encode_ids(model, self.ids[open_], straight @ self.embeddings)
        error = denoising_error(model, self.latents[open_], t, conditioning, self.generator)
        self.loss[open_] = error.detach().cpu()
        self.weights.grad = gradient(error.sum(), self.weights, "a step of UnlearnDiffAtk")
        self.optimizer.step()
        self.weights.data = on_simplex(self.weights.data)


def denoising_error(
    model: Model, latents: Tensor, t: int, conditioning: Conditioning, generator: torch.Generator
) -> Tensor:
    """Mean of (target − prediction)² of each latent under its conditioning at a noise level, (image,)."""
    eps = torch.randn(latents.shape, generator=generator).to(latents)
    levels = torch.full((len(latents),), t, device=latents.device)
    dtype = next(model.denoiser.parameters()).dtype
    noisy = model.noise.add_noise(latents, eps, levels)
    predicted = model.predict(noisy.to(dtype), levels, conditioning.map(lambda x: x.to(dtype)))
    return (predicted.float() - model.noise.target(latents, eps, levels)).square().flatten(1).mean(dim=1)


def on_simplex(rows: Tensor) -> Tensor:
    """Each row's nearest point with entries ≥ 0 that sum to 1 (Duchi et al. 2008); the last axis is projected."""
    ordered = rows.sort(dim=-1, descending=True).values
    excess = (ordered.cumsum(dim=-1) - 1) / torch.arange(1, rows.shape[-1] + 1, device=rows.device)
    kept = (ordered > excess).sum(dim=-1, keepdim=True)
    return (rows - excess.gather(-1, kept - 1)).clamp(min=0)
