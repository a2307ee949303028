"""P4D (white box): free tokens under which the defended model predicts what the original one would.

Chin et al. 2024, with the hard-prompt projection of Wen et al. 2023: free vectors are optimised, and every forward pass
takes the nearest token of each. The loss is the distance of the defended model's prediction under them from the
original model's under the prompt. Two forms, as published: N free tokens in the prompt's place, or a free token after
every K of the prompt's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from ..families.interface import Model, Tokens
from ..families.inversion import gradient
from ..families.tokens import plain_tokens, sequence, vocabulary, word_ids
from ..records import Prompt
from ..runs.search_state import SearchState
from .interface import Attack, Findings, Need, Report, Target
from .search import SideBySide

WEIGHT_DECAY = 0.1


@dataclasses.dataclass(frozen=True)
class Budget:
    """Steps of AdamW, steps between looks, learning rate; and where tokens are free: one of the two.

    tokens: how many stand in the prompt's place. every: a free one after every so many of the prompt's own.
    """

    steps: int
    check_every: int = 50
    lr: float = 0.1
    tokens: int | None = None
    every: int | None = None


def _find(
    target: Target, prompts: Sequence[Prompt], seeds: Sequence[int], budget: Budget, report: Report, state: SearchState
) -> Findings:
    """The tokens that stand for each prompt, searched side by side."""
    images = target.originals([prompt.text for prompt in prompts], seeds)
    search = _Search(target, prompts, seeds, images, templates(target.model, prompts, budget), budget.lr)
    for step in range(search.start(state), budget.steps):
        search.step()
        report(step / budget.steps)
        if (step + 1) % budget.check_every == 0 and search.look(search.whole()):
            break
        state.offer(step + 1, search.state)
    # Losses at different noise levels do not compare, so it is the last tokens and not those of a least loss.
    return Findings(search.findings(search.whole(), [len(template) for template in search.templates]))


def templates(model: Model, prompts: Sequence[Prompt], budget: Budget) -> list[list[int]]:
    """Each prompt's token sequence with −1 where a token is free."""
    if budget.tokens is not None:
        return [[-1] * budget.tokens] * len(prompts)
    assert budget.every is not None
    every, room, found = budget.every, model.pipe.tokenizer.model_max_length - 2, []
    for prompt in prompts:
        ids = word_ids(model, prompt.text)
        parts = [[*ids[first : first + every], -1] for first in range(0, len(ids), every)]
        found.append([token for part in parts for token in part][:room] or [-1])
    return found


class _Search(SideBySide):
    """Free vectors of some prompts, (free token, width)."""

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
        model, self.templates = target.model, templates
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
        unit = torch.nn.functional.normalize(self.vectors, dim=-1)
        nearest = self.plain[(unit @ self.directions.T).argmax(dim=-1)]
        return self.ids.masked_scatter(self.free, nearest)

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
        predicted = reader.predict(noisy, levels, model.condition(Tokens(ids, rows, first=0)))
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


_NEEDS: Final[frozenset[Need]] = frozenset({"tokens"})
_COMMON: Final[dict[str, Any]] = {
    "find": _find, "found_on": "model", "prompts_at_once": 16, "asks_detector": True, "needs": _NEEDS,
}  # fmt: skip
P4D_N: Final = Attack(
    "p4d", "P4D, free prompt", {"quick": Budget(150, tokens=16), "paper": Budget(3000, tokens=16)}, **_COMMON
)
P4D_K: Final = Attack(
    "p4d-k", "P4D, tokens within the prompt", {"quick": Budget(150, every=3), "paper": Budget(3000, every=3)}, **_COMMON
)
