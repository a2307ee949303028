"""The interface of a model family: everything the stages need of a text-to-image model, and no more.

Noise and timesteps are arguments, never drawn inside, so a pair shares them and a test fixes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from .noise import NoiseProcess


class Moments(NamedTuple):
    """The VAE's posterior of a batch of images, scaled as the denoiser expects: mean and std, (image, c, h, w)."""

    mean: Tensor
    std: Tensor


class SampleRequest(NamedTuple):
    """One image to sample. seed decides its noise alone, so a result does not depend on the batch it ran in.

    embedding: a prompt embedding (token, width) in place of the text (for attacks on embeddings).
    start, strength: an image to start from (SDEdit) and how much of the noise schedule to run, 0 to 1.
    """

    prompt: str
    seed: int
    negative_prompt: str = ""
    embedding: Tensor | None = None
    start: Image.Image | None = None
    strength: float = 1.0


class Model(Protocol):
    """A loaded text-to-image model."""

    family: str
    source: str
    device: torch.device
    denoiser: nn.Module
    """The network that an adapter is attached to."""
    noise: NoiseProcess
    adapter_targets: tuple[str, ...]
    """Names of the linear layers that an adapter is put on by default (self-attention)."""
    resolution: int
    """Height and width of an image, pixels."""
    pipe: Any
    """The diffusers pipeline, for saving and loading adapters."""

    def fingerprint(self) -> str:
        """SHA-256 over the denoiser's base weights, first 16 digits: which base an adapter was made for."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Moments:
        """Images (RGB, any size; resized to `resolution`) → scaled latent moments, float32."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Prompts → what `predict` takes as conditioning, (prompt, token, width)."""
        ...

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Tensor, network: nn.Module | None = None) -> Tensor:
        """The denoiser's raw output, (b, c, h, w), for latents (b, c, h, w), timesteps (b,), conditioning (b, l, d).

        network: the denoiser as wrapped for several processes; None: the denoiser itself.
        """
        ...

    def sample(
        self,
        requests: Sequence[SampleRequest],
        *,
        steps: int,
        guidance: float,
        batch: int,
        report: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One image a request, in order. report(done) is called after each batch."""
        ...
