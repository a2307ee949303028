"""The interface of a model family: everything the stages need of a text-to-image model, and no more.

Noise and timesteps are arguments, never drawn inside, so a pair shares them and a test fixes them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from ..records import Targets
from .noise import NoiseProcess


class Moments(NamedTuple):
    """The VAE's posterior of a batch of images, scaled as the denoiser expects: mean and std, (image, c, h, w)."""

    mean: Tensor
    std: Tensor


class Conditioning(NamedTuple):
    """What the denoiser reads of prompts.

    text: (prompt, token, width). pooled: (prompt, width), of families that read such a vector too (SDXL, SD3, FLUX).
    """

    text: Tensor
    pooled: Tensor | None = None

    def rows(self, index: Any) -> Conditioning:
        """Some prompts, as indexing a tensor's first axis would choose them."""
        return self.map(lambda tensor: tensor[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same function on each tensor."""
        return Conditioning(change(self.text), None if self.pooled is None else change(self.pooled))

    def repeat(self, count: int) -> Conditioning:
        """One prompt's conditioning for `count` rows."""
        return self.map(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def where(self, chosen: Tensor, other: Conditioning) -> Conditioning:
        """Rows of this one where `chosen`, (prompt,), is true, of `other` elsewhere."""
        text = torch.where(chosen.view(-1, 1, 1), self.text, other.text)
        if self.pooled is None or other.pooled is None:
            return Conditioning(text)
        return Conditioning(text, torch.where(chosen.view(-1, 1), self.pooled, other.pooled))


def joined(parts: Sequence[Conditioning]) -> Conditioning:
    """Several prompts' conditionings as one, in order."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Conditioning(torch.cat([part.text for part in parts]), torch.cat(pooled) if pooled else None)


class SampleRequest(NamedTuple):
    """One image to sample. seed decides its noise alone, so a result does not depend on the batch it ran in.

    embedding: of one prompt, (1, token, width), in place of the text (for attacks on embeddings).
    start, strength: an image to start from (SDEdit) and how much of the noise schedule to run, 0 to 1.
    """

    prompt: str
    seed: int
    negative_prompt: str = ""
    embedding: Conditioning | None = None
    start: Image.Image | None = None
    strength: float = 1.0


class Model(Protocol):
    """A loaded text-to-image model."""

    family: str
    source: str
    device: torch.device
    denoiser: nn.Module
    """The network that an adapter is attached to."""
    denoiser_name: str
    """Of that network in the pipeline, "unet" or "transformer": the prefix of an adapter's keys."""
    noise: NoiseProcess
    resolution: int
    """Height and width of an image, pixels."""
    variant: str
    """What beside the weights decides its output: resolution, precision, quantisation."""
    pipe: Any
    """The diffusers pipeline, for saving and loading adapters."""

    def adapted_layers(self, targets: Targets) -> list[str]:
        """Names of the denoiser's linear layers that an adapter is put on."""
        ...

    def denoiser_alone(self) -> AbstractContextManager[None]:
        """Inside the block only the denoiser is on the device: text encoders and VAE wait in the CPU's memory."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 over the denoiser's base weights, first 16 digits: which base an adapter was made for."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Moments:
        """Images (RGB, any size; resized to `resolution`) → scaled latent moments, float32."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts → what `predict` reads. The empty prompt is what guidance contrasts with."""
        ...

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning, network: nn.Module | None = None) -> Tensor:
        """The denoiser's raw output, (b, c, h, w), for latents (b, c, h, w), timesteps (b,), conditioning of b prompts.

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


def seed_of(*parts: object) -> int:
    """A seed below 2³¹ that is a function of its parts, the same on every machine."""
    return zlib.crc32("/".join(map(str, parts)).encode()) & 0x7FFFFFFF
