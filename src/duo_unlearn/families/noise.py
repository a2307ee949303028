"""The noise process of diffusion models (ε- and v-prediction): pure functions of tensors."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..records import Prediction


class NoiseProcess(NamedTuple):
    """x_t = √ᾱ_t x + √(1−ᾱ_t) ε, and what the network predicts.

    alphas_cumprod: ᾱ by timestep, (T,). prediction: "epsilon", or "v_prediction" (Salimans & Ho 2022).
    """

    alphas_cumprod: Tensor
    prediction: Prediction

    @property
    def last_timestep(self) -> int:
        """T: where the input is (almost) pure noise."""
        return len(self.alphas_cumprod) - 1

    def _rates(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas_cumprod.to(like.device)[t].view(-1, *(1,) * (like.ndim - 1))
        # Roots before the cast: in bf16, 1 − ᾱ_0 would round to 0.
        return alpha.sqrt().to(like.dtype), (1 - alpha).sqrt().to(like.dtype)

    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t for latents x and noise eps, both (b, c, h, w), at timesteps t, (b,)."""
        signal, noise = self._rates(t, x)
        return signal * x + noise * eps

    def target(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should predict: ε, or v = √ᾱ_t ε − √(1−ᾱ_t) x, which depends on the member of a pair."""
        if self.prediction == "epsilon":
            return eps
        signal, noise = self._rates(t, x)
        return signal * eps - noise * x
