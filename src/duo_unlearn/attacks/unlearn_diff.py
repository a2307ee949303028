"""UnlearnDiffAtk (white box): adversarial tokens in front of a prompt, found by gradients through the defended model.

Zhang et al. 2024. Each token is a distribution over the vocabulary, kept on the simplex, uniform at first. The forward
pass draws a token from it, and the gradient at that token, clamped to [−1, 1], moves the distribution
(straight-through). The loss is the defended model's denoising error on the original model's image of the prompt. What
is looked at is the prompt alone, before all, and then the likeliest tokens after each timestep. As the authors' code;
but the tokens that start, end or pad a prompt are not in the vocabulary here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..families.interface import Tokens
from ..families.inversion import gradient
from ..families.tokens import plain_tokens, sequence, vocabulary, word_ids
from ..records import Prompt
from ..runs.search_state import SearchState
from .interface import Attack, Findings, Report, Target
from .search import SideBySide, each_prompt

WEIGHT_DECAY = 0.1


@dataclasses.dataclass(frozen=True)
class Budget:
    """Adversarial tokens, timesteps, steps at each of these, and Adam's learning rate."""

    timesteps: int
    steps: int
    tokens: int = 5
    lr: float = 0.01


def _find(
    target: Target, prompts: Sequence[Prompt], seeds: Sequence[int], budget: Budget, report: Report, state: SearchState
) -> Findings:
    """The prefix of each prompt, searched side by side; none for a prompt that needs none."""
    texts = [prompt.text for prompt in prompts]
    latents = target.model.encode_images(target.originals(texts, seeds)).mean
    search = _Search(target, texts, seeds, latents, budget.tokens, budget.lr)
    levels = torch.linspace(10, target.model.noise.last_timestep - 9, budget.timesteps).long().tolist()
    start = search.start(state)
    if start == 0 and search.look(search.plain_prompts):
        return Findings(search.findings(search.plain_prompts))
    for done in range(start, len(levels)):
        report(done / len(levels))
        for _ in range(budget.steps):
            search.step(levels[done])
        if search.look(search.whole()):
            break
        state.offer(done + 1, search.state)
    return Findings(search.findings(search.whole()))


class _Search(SideBySide):
    """The prefixes of some prompts: distributions (prompt, token, vocabulary)."""

    def __init__(
        self, target: Target, texts: list[str], seeds: Sequence[int], latents: Tensor, tokens: int, rate: float
    ) -> None:
        super().__init__(target, seeds)
        model = target.model
        # More have no room before the end token, as everywhere else where a text is cut.
        self.tokens = tokens = min(tokens, model.pipe.tokenizer.model_max_length - 2)
        self.latents = latents.to(model.device)
        self.plain = plain_tokens(model).to(model.device)
        self.embeddings = vocabulary(model)[self.plain].float()
        shape = (len(texts), tokens, len(self.plain))
        self.generator = torch.Generator().manual_seed(seeds[0] ^ target.seed)
        self.weights = torch.full(shape, 1 / shape[-1], device=model.device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.weights], lr=rate, weight_decay=WEIGHT_DECAY)
        prefix = [int(self.plain[0])] * tokens
        words = [word_ids(model, text) for text in texts]
        self.plain_prompts = torch.tensor([sequence(model, ids) for ids in words], device=model.device)
        self.ids = torch.tensor([sequence(model, [*prefix, *ids]) for ids in words], device=model.device)

    def whole(self) -> Tensor:
        """Every prompt's sequence behind the likeliest tokens of its prefix, (prompt, token)."""
        return self._behind(self.plain[self.weights.argmax(dim=-1)], self.ids)

    def _behind(self, prefix: Tensor, ids: Tensor) -> Tensor:
        """Sequences of `ids`, (prompt, token), with other tokens in front."""
        return torch.cat([ids[:, :1], prefix, ids[:, 1 + self.tokens :]], dim=1)

    def step(self, t: int) -> None:
        """One gradient step, at a noise level, of the prompts that have not won."""
        open_ = self.open()
        hard = self.draw(open_).requires_grad_(True)
        ids = self.ids[open_]
        drawn = self._behind(self.plain[hard.argmax(dim=-1)], ids)
        error = self._error(self.latents[open_], t, Tokens(ids, hard @ self.embeddings), drawn)
        self.loss[open_] = error.detach().cpu()
        self.weights.grad = torch.zeros_like(self.weights)
        self.weights.grad[open_] = gradient(error.sum(), hard, "a step of UnlearnDiffAtk").clamp(-1, 1)
        self.optimizer.step()
        self.weights.data = on_simplex(self.weights.data)

    def draw(self, open_: list[int]) -> Tensor:
        """A token of each distribution of the open prompts, one-hot: (prompt, token, vocabulary)."""
        rows = self.weights.detach()[open_]
        chosen = torch.multinomial(rows.flatten(0, 1).cpu(), 1, generator=self.generator).view(rows.shape[:-1])
        return torch.nn.functional.one_hot(chosen, rows.shape[-1]).to(rows)

    def _error(self, latents: Tensor, t: int, tokens: Tokens, drawn: Tensor) -> Tensor:
        """Mean of (target − prediction)² of each latent under its tokens at a noise level, (image,).

        drawn: the sequences that they stand for, (image, token).
        """
        model, reader = self.target.model, self.target.reader
        eps = torch.randn(latents.shape, generator=self.generator).to(latents)
        levels = torch.full((len(latents),), t, device=latents.device)
        noisy = model.noise.add_noise(latents, eps, levels)
        wanted = reader.wanted(noisy, levels, model.noise.target(latents, eps, levels))
        residual = reader.residual(noisy, levels, model.condition(tokens), wanted, each_prompt(drawn))
        return residual.square().flatten(1).mean(dim=1)

    def state(self) -> dict[str, Tensor]:
        """What the search goes on from."""
        return self.tensors(self.weights, self.optimizer, self.generator)

    def start(self, state: SearchState) -> int:
        """Where the search begins: where a state left it, else at 0."""
        return self.restored(state, self.weights, self.optimizer, self.generator)


def on_simplex(rows: Tensor) -> Tensor:
    """Each row's nearest point with entries ≥ 0 that sum to 1 (Duchi et al. 2008); the last axis is projected."""
    ordered = rows.sort(dim=-1, descending=True).values
    excess = (ordered.cumsum(dim=-1) - 1) / torch.arange(1, rows.shape[-1] + 1, device=rows.device)
    kept = (ordered > excess).sum(dim=-1, keepdim=True)
    return (rows - excess.gather(-1, kept - 1)).clamp(min=0)


UNLEARN_DIFF_ATK: Final = Attack(
    "unlearndiffatk",
    "UnlearnDiffAtk",
    {"quick": Budget(10, 10), "paper": Budget(50, 40)},
    _find,
    found_on="model",
    prompts_at_once=16,
    version=2,
    aware_version=2,
    asks_detector=True,
    needs=frozenset({"tokens"}),
    cost=lambda budget, prompts, _steps: 3 * prompts * budget.timesteps * budget.steps,
)
