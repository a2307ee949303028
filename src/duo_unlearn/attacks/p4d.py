"""P4D (white box): a whole prompt of free tokens under which the defended model predicts what the original one would.

Chin et al. 2024, with the hard-prompt projection of Wen et al. 2023: free vectors are optimised, and every forward pass
takes the nearest token of each. The loss is the distance of the defended model's prediction under them from the
original model's under the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from PIL import Image
from torch import Tensor

from ..families.base import Model, SampleRequest
from ..families.token import encode_ids, one_encoder, sequence, text_of, vocabulary
from ..records import Prompt
from .base import Artifact, Found, ModelUntouched, Preset, Report, Subject
from .ring_a_bell import plain_tokens

PRESETS: Final[dict[Preset, dict[str, float]]] = {
    "quick": {"tokens": 16, "steps": 150, "check_every": 50, "lr": 0.1},
    "paper": {"tokens": 16, "steps": 3000, "check_every": 50, "lr": 0.1},
}
WEIGHT_DECAY = 0.1


class P4D(ModelUntouched):
    """Prompts are attacked side by side; each stops at the first image in which the detector sees the concept."""

    name, title, shared = "p4d", "P4D", False

    def why_not(self, model: Model) -> str | None:
        """It reaches one CLIP text encoder."""
        return (
            None if one_encoder(model) else f"it writes tokens of one CLIP text encoder, and {model.family} has several"
        )

    def budget(self, preset: Preset) -> dict[str, float]:
        """Tokens, steps, steps between looks, learning rate."""
        return PRESETS[preset]

    def chunk(self, _preset: Preset) -> int:
        """Prompts side by side."""
        return 16

    def find(
        self, subject: Subject, prompts: Sequence[Prompt], seeds: Sequence[int], preset: Preset, report: Report
    ) -> Found:
        """The tokens that stand for each prompt."""
        budget = PRESETS[preset]
        with subject.original():
            images = subject.sample([SampleRequest(p.text, s) for p, s in zip(prompts, seeds, strict=True)])
        search = _Search(subject, prompts, seeds, images, int(budget["tokens"]), budget["lr"])
        for step in range(int(budget["steps"])):
            search.step()
            report(step / budget["steps"])
            if (step + 1) % int(budget["check_every"]) == 0 and search.check():
                break
        return Found(search.artifacts())


class _Search:
    """Free vectors of some prompts, (prompt, token, width), and which have won."""

    def __init__(
        self,
        subject: Subject,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        images: list[Image.Image],
        tokens: int,
        rate: float,
    ) -> None:
        model = subject.model
        self.subject, self.seeds = subject, seeds
        self.latents = subject.model.encode_images(images).mean.to(model.device)
        self.asked_for = model.encode_prompts([prompt.text for prompt in prompts])
        self.plain = plain_tokens(model).to(model.device)
        self.embeddings = vocabulary(model)[self.plain].float()
        self.generator = torch.Generator().manual_seed(seeds[0] ^ subject.seed)
        first = torch.randint(0, len(self.plain), (len(prompts), tokens), generator=self.generator)
        self.vectors = self.embeddings[first.to(model.device)].clone().requires_grad_(True)
        self.optimizer = torch.optim.AdamW([self.vectors], lr=rate, weight_decay=WEIGHT_DECAY)
        self.best = torch.full((len(prompts),), float("inf"))
        self.best_tokens = self.nearest()
        self.ids = torch.tensor([sequence(model, row) for row in self.best_tokens.tolist()], device=model.device)
        self.won: dict[int, list[int]] = {}
        self.checks = 0

    @torch.no_grad()
    def nearest(self) -> Tensor:
        """The token nearest to each vector by cosine, (prompt, token)."""
        unit = torch.nn.functional.normalize(self.vectors, dim=-1)
        return self.plain[(unit @ torch.nn.functional.normalize(self.embeddings, dim=-1).T).argmax(dim=-1)]

    def step(self) -> None:
        """One gradient step of all prompts at a noise level of chance; the gradient at the tokens moves the vectors."""
        model = self.subject.model
        tokens = self.nearest()
        rows = vocabulary(model)[tokens].float().requires_grad_(True)
        t = int(torch.randint(0, model.noise.last_timestep + 1, (1,), generator=self.generator))
        eps = torch.randn(self.latents.shape, generator=self.generator).to(self.latents)
        levels = torch.full((len(self.latents),), t, device=model.device)
        dtype = next(model.denoiser.parameters()).dtype
        noisy = model.noise.add_noise(self.latents, eps, levels).to(dtype)
        with torch.no_grad(), self.subject.original():
            wanted = model.predict(noisy, levels, self.asked_for.map(lambda x: x.to(dtype)))
        given = encode_ids(model, self.ids, rows).map(lambda x: x.to(dtype))
        error = (model.predict(noisy, levels, given).float() - wanted.float()).square().flatten(1).mean(dim=1)
        (self.vectors.grad,) = torch.autograd.grad(error.sum(), [rows])
        better = error.detach().cpu() < self.best
        self.best = torch.where(better, error.detach().cpu(), self.best)
        self.best_tokens = torch.where(better.view(-1, 1).to(tokens.device), tokens, self.best_tokens)
        self.optimizer.step()

    def check(self) -> bool:
        """Sample what has not won yet under its tokens of now; True when all have won."""
        model, tokens = self.subject.model, self.nearest().tolist()
        open_ = [i for i in range(len(tokens)) if i not in self.won]
        ids = torch.tensor([sequence(model, tokens[i]) for i in open_])
        with torch.no_grad():
            text = encode_ids(model, ids)
        requests = [SampleRequest("", self.seeds[i], embedding=text.rows(slice(k, k + 1))) for k, i in enumerate(open_)]
        self.checks += 1
        for i, seen in zip(open_, self.subject.detect(self.subject.sample(requests)), strict=True):
            if seen:
                self.won[i] = tokens[i]
        return len(self.won) == len(tokens)

    def artifacts(self) -> list[Artifact]:
        """The tokens that won, or else those of the least loss."""
        made = []
        for i, best in enumerate(self.best_tokens.tolist()):
            ids = self.won.get(i, best)
            facts = {"loss": float(self.best[i]), "checks": float(self.checks), "won": float(i in self.won)}
            made.append(Artifact(text_of(self.subject.model, ids), sequence(self.subject.model, ids), facts=facts))
        return made
