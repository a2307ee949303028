"""The deterministic path between noise and picture, a step at a time, for every family: steps of DDIM or of Euler.

Either step is x' = k x + p f, f the network's prediction at x: DDIM without noise (arXiv 2010.02502) for diffusions,
x' = x + (σ' − σ) v for rectified flows. So its inverse is x = (x' − p f) / k, exact where f is the prediction at x.
Steps are counted as they are run: 0 is the noisiest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .ddim import Ddim, pure_noise
from .interface import Model
from .noise import Diffusion, Flow, NoiseProcess


class Ode(NamedTuple):
    """A path in some steps; every field has an entry a step, (step,).

    timesteps: the noise levels before it. kept, moved: k and p. signal, spread: the shares of clean latents and of
    noise after it; after the last one latents are clean.
    """

    timesteps: Tensor
    kept: Tensor
    moved: Tensor
    signal: Tensor
    spread: Tensor

    @classmethod
    def of(cls, noise: NoiseProcess, steps: int) -> Ode:
        """Evenly spaced levels of a noise process."""
        if isinstance(noise, Diffusion):
            return _of_diffusion(Ddim.of(noise, steps))
        assert isinstance(noise, Flow)
        return _of_flow(noise, steps)

    def after(self, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        """The latents after a step, from those before it and the prediction there."""
        return float(self.kept[step]) * latents + float(self.moved[step]) * prediction

    def before(self, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        """The latents before a step, from those after it and the prediction before it."""
        return (latents - float(self.moved[step]) * prediction) / float(self.kept[step])

    def noised(self, step: int, clean: Tensor, eps: Tensor) -> Tensor:
        """Clean latents at the noise level after a step."""
        return float(self.signal[step]) * clean + float(self.spread[step]) * eps


def _of_diffusion(schedule: Ddim) -> Ode:
    latents, prediction = torch.eye(2, dtype=torch.float64)
    steps = range(len(schedule.timesteps))
    # A step is linear in both, so what it makes of (1, 0) and (0, 1) is k and p.
    kept, moved = torch.stack([schedule.mean(step, latents, prediction) for step in steps]).unbind(dim=1)
    clean = torch.ones(1, dtype=torch.float64)
    after = torch.cat([schedule.following[:-1], clean])
    return Ode(schedule.timesteps, kept, moved, after.sqrt(), (1 - after).sqrt())


def _of_flow(noise: Flow, steps: int) -> Ode:
    timesteps = noise.last_timestep - torch.arange(steps) * (len(noise.sigmas) // steps)
    before = noise.sigmas.double().cpu()[timesteps]
    after = torch.cat([before[1:], torch.zeros(1, dtype=torch.float64)])
    return Ode(timesteps, torch.ones_like(after), after - before, 1 - after, after)


def noise_of(model: Model, seeds: Sequence[int]) -> Tensor:
    """The noise that the pipeline draws for images of these seeds, (image, c, h, w), on the CPU."""
    return torch.cat([pure_noise(model, 1, torch.Generator().manual_seed(seed)) for seed in seeds])
