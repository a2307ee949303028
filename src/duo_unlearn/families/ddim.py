"""DDIM (Song et al. 2021, arXiv 2010.02502): a diffusion's path in a few steps, one step at a time.

For families that are diffusions; a rectified flow has no such steps. Steps are counted as they are run: 0 is the
noisiest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DuoError
from .denoising import guided
from .interface import Conditioning, Model
from .noise import Diffusion


class Ddim(NamedTuple):
    """A schedule. timesteps: of every step, descending, (step,). signal: ᾱ there; following: ᾱ after the step."""

    timesteps: Tensor
    signal: Tensor
    following: Tensor
    predicts_v: bool

    @classmethod
    def of(cls, noise: Diffusion, steps: int) -> Ddim:
        """Evenly spaced timesteps from 1 on, as Stable Diffusion's configuration spaces them; the last ends at ᾱ₀."""
        alphas = noise.alphas_cumprod.double().cpu()
        stride = len(alphas) // steps
        timesteps = (torch.arange(steps) * stride + 1).flip(0)
        return cls(
            timesteps, alphas[timesteps], alphas[(timesteps - stride).clamp(min=0)], noise.prediction == "v_prediction"
        )

    def sigma(self, step: int, eta: float = 1.0) -> float:
        """σ of a step's noise: η √((1−ᾱ')/(1−ᾱ)) √(1−ᾱ/ᾱ'), ᾱ' after the step (eq. 16)."""
        a, b = float(self.signal[step]), float(self.following[step])
        return float(eta * ((1 - b) / (1 - a)) ** 0.5 * (1 - a / b) ** 0.5)

    def split(self, step: int, latents: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """x̂0 and ε̂ that a prediction stands for."""
        signal, noise = float(self.signal[step]) ** 0.5, (1 - float(self.signal[step])) ** 0.5
        if self.predicts_v:
            return signal * latents - noise * prediction, signal * prediction + noise * latents
        return (latents - noise * prediction) / signal, prediction

    def mean(self, step: int, latents: Tensor, prediction: Tensor, eta: float = 0.0) -> Tensor:
        """The mean of the latents after a step: √ᾱ' x̂0 + √(1−ᾱ'−σ²) ε̂ (eq. 12); without noise (η 0), all of them."""
        clean, eps = self.split(step, latents, prediction)
        b = float(self.following[step])
        direction = max(1 - b - self.sigma(step, eta) ** 2, 0.0) ** 0.5
        moved: Tensor = b**0.5 * clean + direction * eps
        return moved


def ddim_of(model: Model, steps: int) -> Ddim:
    """The schedule of a model. A family of rectified flow is a DuoError."""
    if not isinstance(model.noise, Diffusion):
        hint = "a diffusion: SD1, SD2, SDXL"
        raise DuoError("DDIM is a diffusion's sampler", got=f"{model.kind.title}, a rectified flow", hint=hint)
    return Ddim.of(model.noise, steps)


def pure_noise(model: Model, count: int, generator: torch.Generator) -> Tensor:
    """Where `count` paths of a model start, (path, c, h, w), on the CPU."""
    return torch.randn((count, *model.kind.latents.shape(model.pipe, model.resolution)), generator=generator)


@torch.no_grad()
def walk(
    model: Model,
    schedule: Ddim,
    start: Tensor,
    positive: Conditioning,
    empty: Conditioning,
    *,
    guidance: float,
    steps: int,
    noises: Sequence[Tensor] = (),
) -> list[Tensor]:
    """The latents of a sampling path after each of its first `steps` steps, from `start` on, the start included.

    noises: of each step, for DDIM with η = 1; none: η = 0.
    """
    path = [start]
    for step in range(steps):
        prediction = guided(model, path[-1], int(schedule.timesteps[step]), positive, empty, guidance)
        moved = schedule.mean(step, path[-1], prediction, 1.0 if noises else 0.0)
        path.append(moved + schedule.sigma(step) * noises[step].to(moved) if noises else moved)
    return path


def on_path(
    model: Model,
    start: Tensor,
    positive: Conditioning,
    empty: Conditioning,
    *,
    guidance: float,
    steps: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """x_t, (b, c, h, w), and t, (b,), on a path of so many steps from `start`, before a step that is drawn for all."""
    schedule, done = ddim_of(model, steps), int(torch.randint(0, steps, (1,), generator=generator))
    path = walk(model, schedule, start.to(model.device), positive, empty, guidance=guidance, steps=done)
    return path[-1], schedule.timesteps[done].repeat(len(start)).to(model.device)
