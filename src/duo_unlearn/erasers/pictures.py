"""Noised latents of the pairs' pictures, of those that a prompt was made with where it has some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from ..families.ddim import on_path, pure_noise
from ..families.interface import Conditioning, Model, Moments
from ..families.noise import Diffusion
from ..records import Pair
from .latents import Cache

Origin = Literal["sampled", "pairs"]
Members = Literal["unsafe", "safe", "both"]
SIDES: Final[dict[Members, tuple[int, ...]]] = {"unsafe": (0,), "safe": (1,), "both": (0, 1)}
"""Which of a pair's two pictures may be chosen: 0 the unsafe one, 1 the safe one."""


def origin_of(model: Model) -> Origin:
    """Where the latents come from of an eraser that leaves it to the family: sampled where DDIM can, on diffusions."""
    return "sampled" if isinstance(model.noise, Diffusion) else "pairs"


class Noised(NamedTuple):
    """A picture a row. noisy: x_t, (row, c, h, w); t: (row,); target: what the network should give, as x_t."""

    noisy: Tensor
    t: Tensor
    target: Tensor


def noised(model: Model, moments: Moments, rows: Sequence[int], generator: torch.Generator) -> Noised:
    """Some pictures, by their rows in the moments, noised to random levels, on the model's device."""
    noise = torch.randn((2, len(rows), *moments.mean.shape[1:]), generator=generator)
    t = torch.randint(0, model.noise.last_timestep + 1, (len(rows),), generator=generator)
    latents = moments.mean[list(rows)] + moments.std[list(rows)] * noise[0]
    found = (model.noise.add_noise(latents, noise[1], t), t, model.noise.target(latents, noise[1], t))
    return Noised(*(tensor.to(model.device) for tensor in found))


class Pictures:
    """The moments of a cache's pictures, and which pairs a prompt belongs to. pairs: those of the cache, in order."""

    def __init__(self, model: Model, cache: Cache, pairs: Sequence[Pair]) -> None:
        self.model = model
        self.mean = torch.cat([cache.unsafe.mean, cache.safe.mean])
        self.std = torch.cat([cache.unsafe.std, cache.safe.std])
        self.every = range(len(pairs))
        self.pairs_of: dict[str, list[int]] = {}
        for i, pair in enumerate(pairs):
            for prompt in {pair.unsafe_prompt or "", pair.safe_prompt or ""}:
                self.pairs_of.setdefault(prompt, []).append(i)

    def noised(self, prompts: Sequence[str], members: Members, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """x_t, (prompt, c, h, w), and t, (prompt,), on the model's device: a picture of each prompt.

        A prompt that no pair was made with has any of the pairs' pictures.
        """
        return self.with_target(prompts, members, generator)[:2]

    def with_target(self, prompts: Sequence[str], members: Members, generator: torch.Generator) -> Noised:
        """What `noised` gives, and what the network should give there."""
        chosen = [self._choose(prompt, members, generator) for prompt in prompts]
        return noised(self.model, Moments(self.mean, self.std), chosen, generator)

    def _choose(self, prompt: str, members: Members, generator: torch.Generator) -> int:
        pairs = self.pairs_of.get(prompt, self.every)
        places = [side * len(self.every) + i for side in SIDES[members] for i in pairs]
        return places[int(torch.randint(0, len(places), (1,), generator=generator))]


def latents_of_step(
    model: Model,
    pictures: Pictures | None,
    prompts: Sequence[str],
    asked: Conditioning,
    empty: Conditioning,
    generator: torch.Generator,
    *,
    guidance: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """x_t, (prompt, c, h, w), and t, (prompt,), of an eraser's step.

    pictures: whose unsafe members are noised, each for its prompt; None: x_t lies on a path that the model samples as
    it stands, in so many steps, under `asked`. empty: the empty prompt's conditioning, of one row.
    """
    if pictures is not None:
        return pictures.noised(prompts, "unsafe", generator)
    start, count = pure_noise(model, len(prompts), generator), len(prompts)
    return on_path(model, start, asked, empty.repeat(count), guidance=guidance, steps=steps, generator=generator)
