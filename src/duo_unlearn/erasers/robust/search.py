r"""The search inside a training step: prompts under which the policy still draws the concept.

Some prompts with free tokens are kept, each beside a pair. When one is drawn, a few steps of Adam first lower

    J(δ) = mean (θ(x⁻_t, t, c ⊕ δ) − a)²,      a = ε, or φ(x⁻_t, t, c⁻)

on the step's own noised unsafe latents x⁻_t: the loss of UnlearnDiffAtk and of inversions, or that of P4D, but at the
levels that the preference trains, t < `max_timestep`, where the attacks search the whole schedule. Hard forms go
forward through the token nearest to each free vector by cosine, and the gradient at the tokens moves the vectors
(Wen et al. 2023). Gradients go through the text encoders and the denoiser, and none reaches the adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...families.denoising import predict_noised
from ...families.interface import Conditioning, Model, Tokens
from ...families.inversion import gradient
from ...families.tokens import nearest_tokens, plain_tokens, sequence, vocabulary, word_ids
from ..duo.objective import sample_error
from .settings import SearchSettings


class Aim(NamedTuple):
    """What a search of some prompts lowers its distance to. noisy, t: of the unsafe latents; wanted: a, as noisy."""

    noisy: Tensor
    t: Tensor
    wanted: Tensor

    def distance(self, model: Model, conditioning: Conditioning) -> Tensor:
        """J of each prompt's conditioning, (prompt,)."""
        predicted = predict_noised(model, self.noisy, self.t, conditioning)
        return sample_error(predicted, self.wanted.to(predicted.device))


class Prompts:
    """Prompts with free tokens that are kept from step to step. The i-th belongs to the pair `pairs[i]`.

    memory: holds their vectors, "prompts", (prompt, free token, width), so that a checkpoint has them.
    """

    def __init__(
        self,
        model: Model,
        captions: Sequence[str],
        pairs: Sequence[int],
        settings: SearchSettings,
        memory: dict[str, Tensor],
        generator: torch.Generator,
    ) -> None:
        self.model, self.settings, self.memory, self.pairs = model, settings, memory, list(pairs)
        forms = [settings.forms[i % len(settings.forms)] for i in range(len(self.pairs))]
        templates = [
            [-1] * settings.tokens
            if form.endswith("prompt")
            else [-1] * settings.prefix_tokens + word_ids(model, captions[pair])
            for form, pair in zip(forms, self.pairs, strict=True)
        ]
        rows = torch.tensor([sequence(model, template) for template in templates])
        self.free, self.ids = rows == -1, rows.clamp(min=0)
        self.soft = torch.tensor([form.startswith("soft") for form in forms])
        self.words, self.plain = vocabulary(model).float(), plain_tokens(model)
        embeddings = self.words[self.plain.to(self.words.device)]
        self.start = embeddings.cpu()
        self.directions = torch.nn.functional.normalize(embeddings, dim=-1)
        memory["prompts"] = self.fresh(len(self.pairs), generator)

    def fresh(self, count: int, generator: torch.Generator) -> Tensor:
        """Vectors of random tokens, (count, free token, width)."""
        free = max(self.settings.tokens, self.settings.prefix_tokens)
        return self.start[torch.randint(0, len(self.start), (count, free), generator=generator)].clone()

    def draw(self, count: int, generator: torch.Generator) -> list[int]:
        """Some prompts by number, no one twice while there are enough; a few of them start again at random."""
        chosen, renewed = drawn(len(self.pairs), count, self.settings.renew, generator)
        fresh = self.fresh(count, generator)
        put(self.memory["prompts"], [chosen[place] for place in renewed], fresh[renewed])
        return chosen

    def move(self, chosen: Sequence[int], aim: Aim) -> None:
        """Take the steps of the search from where the chosen prompts are."""
        vectors = self.memory["prompts"][list(chosen)].to(self.model.device).requires_grad_(True)
        optimizer = torch.optim.Adam([vectors], lr=self.settings.lr)
        free, used = self.free[list(chosen)].to(self.model.device), self._used(chosen)
        for step in range(self.settings.steps):
            tokens = self.tokens(chosen, vectors.detach())
            assert tokens.rows is not None
            tokens.rows.requires_grad_(True)
            found = gradient(self.distance(tokens, aim).sum(), tokens.rows, f"step {step + 1} of the training's search")
            vectors.grad = torch.zeros_like(vectors)
            vectors.grad[used] = found[free]
            optimizer.step()
        put(self.memory["prompts"], chosen, vectors.detach().cpu())

    def distance(self, tokens: Tokens, aim: Aim) -> Tensor:
        """J of each prompt, (prompt,)."""
        return aim.distance(self.model, self.model.condition(tokens))

    def read(self, chosen: Sequence[int]) -> Conditioning:
        """The conditioning of the chosen prompts as they are now, without gradient, float32, on the CPU."""
        vectors = self.memory["prompts"][list(chosen)].to(self.model.device)
        with torch.no_grad():
            return self.model.condition(self.tokens(chosen, vectors)).map(lambda x: x.float().cpu())

    def tokens(self, chosen: Sequence[int], vectors: Tensor) -> Tokens:
        """Token ids, (prompt, token), and the input row of each: nearest tokens', or the vectors of soft forms."""
        device = self.model.device
        free, soft, used = self.free[list(chosen)].to(device), self.soft[list(chosen)].to(device), self._used(chosen)
        nearest = nearest_tokens(vectors, self.plain.to(device), self.directions.to(device))
        ids = self.ids[list(chosen)].to(device).masked_scatter(free, nearest[used])
        rows = self.words.to(device)[ids]
        own = torch.zeros_like(rows).masked_scatter(free.unsqueeze(-1), vectors[used])
        return Tokens(ids, torch.where((free & soft.view(-1, 1)).unsqueeze(-1), own, rows), first=0)

    def _used(self, chosen: Sequence[int]) -> Tensor:
        """Which of the vectors stand in each prompt, (prompt, free token): as many as it has free tokens."""
        counts = self.free[list(chosen)].sum(dim=1)
        width = self.memory["prompts"].shape[1]
        return (torch.arange(width).view(1, -1) < counts.view(-1, 1)).to(self.model.device)


def drawn(many: int, count: int, renew: float, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """`count` of `many` by number, none twice while there are enough, and the places of those that start again."""
    order = torch.randperm(many, generator=generator).tolist()
    renewed = torch.rand(count, generator=generator) < renew
    return [order[i % many] for i in range(count)], renewed.nonzero().flatten().tolist()


def put(memory: Tensor, numbers: Sequence[int], rows: Tensor) -> None:
    """Keep some rows under their numbers. Of a number that comes twice the last row stays, on every machine."""
    for number, row in zip(numbers, rows, strict=True):
        memory[number] = row
