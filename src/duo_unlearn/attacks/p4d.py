"""P4D (white box): free tokens under which the defended model predicts what the original one would.

Chin et al. 2024, with the hard-prompt projection of Wen et al. 2023: free vectors are optimised, and every forward pass
takes the nearest token of each. The loss is the distance of the defended model's prediction under them from the
original model's under the prompt. Two forms, as published: N free tokens in the prompt's place, or n // K + 1 of them,
one before every K of the prompt's n. As published, of the tokens that were looked at those are kept whose image is most
like the original's by CLIP; no detector is asked. The stronger form *detector* keeps the first that the run's detector
calls the concept.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from ..families.interface import Model, Tokens
from ..families.inversion import gradient
from ..families.tokens import nearest_tokens, plain_tokens, sequence, vocabulary, word_ids
from ..records import Prompt
from ..runs.search_state import SearchState
from .interface import Attack, Findings, Need, Preset, Report, Target
from .search import SideBySide, each_prompt

WEIGHT_DECAY = 0.1


@dataclasses.dataclass(frozen=True)
class Budget:
    """Steps of AdamW, steps between looks, learning rate; and where tokens are free: one of the two.

    tokens: how many stand in the prompt's place. every: a free one before every so many of the prompt's own.
    """

    steps: int
    check_every: int = 50
    lr: float = 0.1
    tokens: int | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        """Fail where tokens are free in both places, or in none."""
        if (self.tokens is None) == (self.every is None):
            raise ValueError("tokens or every is a number, and the other is null")


def _find(
    kind: type[_Search],
    target: Target,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    budget: Budget,
    report: Report,
    state: SearchState,
) -> Findings:
    """The tokens that stand for each prompt, searched side by side. kind: decides which of those looked at are kept."""
    images = target.originals([prompt.text for prompt in prompts], seeds)
    search = kind(target, prompts, seeds, images, templates(target.model, prompts, budget), budget.lr)
    for step in range(search.start(state), budget.steps):
        if step % budget.check_every == 0 and search.look(search.whole()):
            break
        search.step()
        report(step / budget.steps)
        state.offer(step + 1, search.state)
    # Losses at different noise levels do not compare, so what is not kept has its last tokens, not those of least loss.
    return Findings(search.findings(search.whole()))


def templates(model: Model, prompts: Sequence[Prompt], budget: Budget) -> list[list[int]]:
    """Each prompt's token sequence with −1 where a token is free."""
    if budget.tokens is not None:
        return [[-1] * budget.tokens] * len(prompts)
    assert budget.every is not None
    every, room, found = budget.every, model.pipe.tokenizer.model_max_length - 2, []
    for prompt in prompts:
        ids = word_ids(model, prompt.text)
        parts = [[-1, *ids[first : first + every]] for first in range(0, len(ids) + 1, every)]
        found.append([token for part in parts for token in part][:room])
    return found


class _Search(SideBySide):
    """Free vectors of some prompts, (free token, width). The first tokens that the detector takes are kept."""

    def __init__(
        self,
        target: Target,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        images: list[Image.Image],
        templates: list[list[int]],
        rate: float,
    ) -> None:
        super().__init__(target, seeds)
        model, self.images = target.model, images
        self.latents = target.model.encode_images(images).mean.to(model.device)
        with target.original():
            self.wanted = model.condition([prompt.text for prompt in prompts])
        self.plain = plain_tokens(model).to(model.device)
        self.words = vocabulary(model)
        embeddings = self.words[self.plain].float()
        self.directions = torch.nn.functional.normalize(embeddings, dim=-1)
        self.generator = torch.Generator().manual_seed(seeds[0] ^ target.seed)
        rows = torch.tensor([sequence(model, template) for template in templates], device=model.device)
        self.free = rows == -1
        self.ids = rows.clamp(min=0)
        first = torch.randint(0, len(self.plain), (int(self.free.sum()),), generator=self.generator)
        self.vectors = embeddings[first.to(model.device)].clone().requires_grad_(True)
        self.optimizer = torch.optim.AdamW([self.vectors], lr=rate, weight_decay=WEIGHT_DECAY)

    @torch.no_grad()
    def whole(self) -> Tensor:
        """Every prompt's sequence with the token nearest to each free vector by cosine, (prompt, token)."""
        return self.ids.masked_scatter(self.free, nearest_tokens(self.vectors, self.plain, self.directions))

    def step(self) -> None:
        """One gradient step, at a noise level of chance, of the prompts that have not won.

        The gradient at the tokens moves the vectors.
        """
        model, reader, open_ = self.target.model, self.target.reader, self.open()
        ids, latents = self.whole()[open_], self.latents[open_]
        rows = self.words[ids].float().requires_grad_(True)
        t = int(torch.randint(0, model.noise.last_timestep + 1, (1,), generator=self.generator))
        eps = torch.randn(latents.shape, generator=self.generator).to(latents)
        levels = torch.full((len(latents),), t, device=model.device)
        noisy = model.noise.add_noise(latents, eps, levels)
        with torch.no_grad(), self.target.original():
            wanted = reader.reference(noisy, levels, self.wanted.rows(open_))
        read = model.condition(Tokens(ids, rows, first=0))
        predicted = reader.predict(noisy, levels, read, each_prompt(ids))
        error = (predicted.float() - wanted.float()).square().flatten(1).mean(dim=1)
        everywhere = torch.zeros((*self.free.shape, rows.shape[-1]), device=model.device)
        everywhere[open_] = gradient(error.sum(), rows, "a step of P4D")
        self.vectors.grad = everywhere[self.free]
        self.loss[open_] = error.detach().cpu()
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """What the search goes on from."""
        return self.tensors(self.vectors, self.optimizer, self.generator)

    def start(self, state: SearchState) -> int:
        """Where the search begins: where a state left it, else at 0."""
        return self.restored(state, self.vectors, self.optimizer, self.generator)


class _MostSimilar(_Search):
    """Of all looks, the one whose image is most like the original model's is kept. No prompt wins."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.similarity = torch.full((len(self.images),), -2.0)

    def open(self) -> list[int]:
        """Every prompt."""
        return list(range(len(self.images)))

    def look(self, whole: Tensor) -> bool:
        """Compare the images under `whole`, (prompt, token), with the original's; False: the search goes on."""
        for i, similarity in enumerate(self.target.similarity(self.sample(whole), self.images)):
            if similarity > self.similarity[i]:
                self.kept[i], self.similarity[i] = whole[i].tolist(), similarity
        return False

    def facts(self, prompt: int) -> dict[str, float]:
        """What the search reports of a prompt. similarity: CLIP's cosine of the images, −1 to 1."""
        similarity = float(self.similarity[prompt])
        return {**self.last_loss(prompt), "checks": float(self.looks), "similarity": similarity}

    def state(self) -> dict[str, Tensor]:
        """What the search goes on from."""
        return {**super().state(), "similarity": self.similarity}

    def start(self, state: SearchState) -> int:
        """Where the search begins: where a state left it, else at 0."""
        if (found := state.restore()) is not None:
            self.similarity = found[1]["similarity"]
        return super().start(state)


def _p4d(name: str, title: str, *, detector: bool = False, **places: int) -> Attack:
    needs: tuple[Need, ...] = ("tokens",) if detector else ("tokens", "clip")
    budgets: dict[Preset, Budget] = {"quick": Budget(150, **places), "paper": Budget(3000, **places)}
    find = functools.partial(_find, _Search if detector else _MostSimilar)
    return Attack(
        name, title, budgets, find, found_on="model", prompts_at_once=16, version=2, asks_detector=detector,
        needs=frozenset(needs),
        cost=lambda budget, prompts, steps: prompts * (3 * budget.steps + budget.steps // budget.check_every * steps),
    )  # fmt: skip


P4D_N: Final = _p4d("p4d", "P4D, free prompt", tokens=16)
P4D_K: Final = _p4d("p4d-k", "P4D, tokens within the prompt", every=3)
P4D_N_DETECTOR: Final = _p4d("p4d-detector", "P4D, free prompt, by the run's detector", detector=True, tokens=16)
P4D_K_DETECTOR: Final = _p4d(
    "p4d-k-detector", "P4D, tokens within the prompt, by the run's detector", detector=True, every=3
)
