"""The two noise processes, diffusion and rectified flow, as pure functions of tensors.

A *timestep* t is an index into a process's noise levels, in ascending order of noise: 0 is the least, the last one
(almost) pure noise. It is never an index into a scheduler's list, which for flow matching is descending. So
`max_timestep` cuts off the noisiest levels for every family, and the prior sits at the noisiest one.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..records import Prediction


class NoiseProcess(Protocol):
    """How latents are noised, and what the network is asked for. x, eps: (b, c, h, w); t: (b,), integers."""

    @property
    def last_timestep(self) -> int:
        """T: where the input is (almost) pure noise."""
        ...

    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t for latents x and noise eps."""
        ...

    def target(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should give on x_t."""
        ...

    def clean_line(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a and b of the clean latents that a prediction stands for, x̂ = a x_t + b · prediction.

        Each is shaped to multiply `like`, (b, …).
        """
        ...

    def network_time(self, t: Tensor) -> Tensor:
        """What the network reads as its time, (b,)."""
        ...


def _column(values: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """values[t], shaped to multiply `like`."""
    return values.to(like.device)[t.to(like.device)].view(-1, *(1,) * (like.ndim - 1))


class Diffusion(NamedTuple):
    """x_t = √ᾱ_t x + √(1−ᾱ_t) ε.

    alphas_cumprod: ᾱ by timestep, (T,). prediction: "epsilon", or "v_prediction" (Salimans & Ho 2022).
    """

    alphas_cumprod: Tensor
    prediction: Prediction

    @property
    def last_timestep(self) -> int:
        """The noisiest of the schedule (999); ᾱ there is not quite 0."""
        return len(self.alphas_cumprod) - 1

    def _rates(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha = _column(self.alphas_cumprod, t, like)
        # Roots before the cast: in bf16, 1 − ᾱ_0 would round to 0.
        return alpha.sqrt().to(like.dtype), (1 - alpha).sqrt().to(like.dtype)

    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """√ᾱ_t x + √(1−ᾱ_t) ε."""
        signal, noise = self._rates(t, x)
        return signal * x + noise * eps

    def target(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """ε, or v = √ᾱ_t ε − √(1−ᾱ_t) x, which depends on the member of a pair."""
        if self.prediction == "epsilon":
            return eps
        signal, noise = self._rates(t, x)
        return signal * eps - noise * x

    def clean_line(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """x̂ = (x_t − √(1−ᾱ_t) ε) / √ᾱ_t, or √ᾱ_t x_t − √(1−ᾱ_t) v."""
        signal, noise = self._rates(t, like)
        return (1 / signal, -noise / signal) if self.prediction == "epsilon" else (signal, -noise)

    def network_time(self, t: Tensor) -> Tensor:
        """t itself."""
        return t


class Flow(NamedTuple):
    """Rectified flow: x_σ = (1−σ) x + σ ε, and the network gives the velocity ε − x (Liu et al. 2022; SD3, FLUX).

    sigmas: σ by timestep, ascending, (T,), the last one 1: the model's own schedule, with its shift.
    """

    sigmas: Tensor

    @property
    def last_timestep(self) -> int:
        """Where σ = 1: the input is pure noise."""
        return len(self.sigmas) - 1

    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """(1−σ) x + σ ε."""
        sigma = _column(self.sigmas, t, x)
        return (1 - sigma).to(x.dtype) * x + sigma.to(x.dtype) * eps

    def target(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002 the same at every σ
        """ε − x: the raw velocity, weighted by no power of σ."""
        return eps - x

    def clean_line(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """x̂ = x_σ − σ v."""
        sigma = _column(self.sigmas, t, like).to(like.dtype)
        return torch.ones_like(sigma), -sigma

    def network_time(self, t: Tensor) -> Tensor:
        """1000 σ."""
        return 1000 * self.sigmas.to(t.device)[t]


def flow_sigmas(count: int, *, shift: float = 1.0) -> Tensor:
    """σ of `count` timesteps, ascending to 1: u = i/count shifted to s·u/(1 + (s−1)·u).

    Source: SD3 (Esser et al. 2024, eq. 23). shift 1 leaves u as it is (FLUX.1 schnell); SD3 has 3.
    """
    u = torch.arange(1, count + 1, dtype=torch.float64) / count
    return (shift * u / (1 + (shift - 1) * u)).float()
