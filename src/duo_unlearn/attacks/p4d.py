"""P4D (white box): free tokens under which the defended model predicts what the original one would.

Chin et al. 2024, with the hard-prompt projection of Wen et al. 2023: free vectors are optimised, and every forward pass
takes the nearest token of each. The loss is the distance of the defended model's prediction under them from the
original model's under the prompt. Two forms, as published: N free tokens in the prompt's place, or a free token after
every K of the prompt's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import torch
from PIL import Image
from torch import Tensor

from ..families.interface import Model
from ..families.tokens import encode_ids, sequence, vocabulary, why_no_tokens, word_ids
from ..records import Prompt
from .interface import AttackDefaults, Found, Preset, Report, Subject, gradient
from .ring_a_bell import plain_tokens
from .search import SideBySide

Form = Literal["n", "k"]
STEPS: Final[dict[Preset, dict[str, float]]] = {
    "quick": {"steps": 150, "check_every": 50, "lr": 0.1},
    "paper": {"steps": 3000, "check_every": 50, "lr": 0.1},
}
LENGTH: Final[dict[Form, dict[str, float]]] = {"n": {"tokens": 16}, "k": {"every": 3}}
WEIGHT_DECAY = 0.1


class P4D(AttackDefaults):
    """Prompts are attacked side by side; each stops at the first image in which the detector sees the concept."""

    shared = False

    def __init__(self, form: Form) -> None:
        self.form, self.name = form, "p4d" if form == "n" else "p4d-k"
        self.title = "P4D, free prompt" if form == "n" else "P4D, tokens within the prompt"

    def why_not(self, model: Model) -> str | None:
        """It writes CLIP tokens."""
        return why_no_tokens(model)

    def budget(self, preset: Preset) -> dict[str, float]:
        """Tokens, steps, steps between looks, learning rate."""
        return LENGTH[self.form] | STEPS[preset]

    def chunk(self, _preset: Preset) -> int:
        """Prompts side by side."""
        return 16

    def find(
        self, subject: Subject, prompts: Sequence[Prompt], seeds: Sequence[int], preset: Preset, report: Report
    ) -> Found:
        """The tokens that stand for each prompt."""
        budget = self.budget(preset)
        images = subject.originals([prompt.text for prompt in prompts], seeds)
        search = _Search(subject, prompts, seeds, images, templates(subject.model, prompts, budget), budget["lr"])
        for step in range(int(budget["steps"])):
            search.step()
            report(step / budget["steps"])
            if (step + 1) % int(budget["check_every"]) == 0 and search.look(search.whole()):
                break
        # Losses at different noise levels do not compare, so it is the last tokens and not those of a least loss.
        return Found(search.artifacts(search.whole(), [len(template) for template in search.templates]))


def templates(model: Model, prompts: Sequence[Prompt], budget: dict[str, float]) -> list[list[int]]:
    """Each prompt's token sequence with −1 where a token is free."""
    if "tokens" in budget:
        return [[-1] * int(budget["tokens"])] * len(prompts)
    every, room, found = int(budget["every"]), model.pipe.tokenizer.model_max_length - 2, []
    for prompt in prompts:
        ids = word_ids(model, prompt.text)
        parts = [[*ids[first : first + every], -1] for first in range(0, len(ids), every)]
        found.append([token for part in parts for token in part][:room] or [-1])
    return found


class _Search(SideBySide):
    """Free vectors of some prompts, (free token, width)."""

    def __init__(
        self,
        subject: Subject,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        images: list[Image.Image],
        templates: list[list[int]],
        rate: float,
    ) -> None:
        super().__init__(subject, seeds)
        model, self.templates = subject.model, templates
        self.latents = subject.model.encode_images(images).mean.to(model.device)
        self.asked_for = model.encode_prompts([prompt.text for prompt in prompts])
        self.plain = plain_tokens(model).to(model.device)
        self.words = vocabulary(model)
        embeddings = self.words[self.plain].float()
        self.directions = torch.nn.functional.normalize(embeddings, dim=-1)
        self.generator = torch.Generator().manual_seed(seeds[0] ^ subject.seed)
        rows = torch.tensor([sequence(model, template) for template in templates], device=model.device)
        self.free = rows == -1
        self.ids = rows.clamp(min=0)
        first = torch.randint(0, len(self.plain), (int(self.free.sum()),), generator=self.generator)
        self.vectors = embeddings[first.to(model.device)].clone().requires_grad_(True)
        self.optimizer = torch.optim.AdamW([self.vectors], lr=rate, weight_decay=WEIGHT_DECAY)

    @torch.no_grad()
    def whole(self) -> Tensor:
        """Every prompt's sequence with the token nearest to each free vector by cosine, (prompt, token)."""
        unit = torch.nn.functional.normalize(self.vectors, dim=-1)
        nearest = self.plain[(unit @ self.directions.T).argmax(dim=-1)]
        return self.ids.masked_scatter(self.free, nearest)

    def step(self) -> None:
        """One gradient step, at a noise level of chance, of the prompts that have not won.

        The gradient at the tokens moves the vectors.
        """
        model, open_ = self.subject.model, self.open()
        ids, latents = self.whole()[open_], self.latents[open_]
        rows = self.words[ids].float().requires_grad_(True)
        t = int(torch.randint(0, model.noise.last_timestep + 1, (1,), generator=self.generator))
        eps = torch.randn(latents.shape, generator=self.generator).to(latents)
        levels = torch.full((len(latents),), t, device=model.device)
        dtype = next(model.denoiser.parameters()).dtype
        noisy = model.noise.add_noise(latents, eps, levels).to(dtype)
        with torch.no_grad(), self.subject.original():
            wanted = model.predict(noisy, levels, self.asked_for.rows(open_).map(lambda x: x.to(dtype)))
        given = encode_ids(model, ids, rows, first=0).map(lambda x: x.to(dtype))
        error = (model.predict(noisy, levels, given).float() - wanted.float()).square().flatten(1).mean(dim=1)
        everywhere = torch.zeros((*self.free.shape, rows.shape[-1]), device=model.device)
        everywhere[open_] = gradient(error.sum(), rows, "a step of P4D")
        self.vectors.grad = everywhere[self.free]
        self.loss[open_] = error.detach().cpu()
        self.optimizer.step()
