"""The latents of a family: their shape, their scale beside the VAE's, and their layout while its pipeline samples.

In this package latents are (image, c, h, w), scaled as the denoiser reads them. torch is imported by no function here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


def _shape(pipe: Any, resolution: int) -> tuple[int, int, int]:
    side = resolution // pipe.vae_scale_factor
    return int(pipe.vae.config.latent_channels), side, side


def _encode(pipe: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    config, posterior = pipe.vae.config, pipe.vae.encode(pixels).latent_dist
    shift, scale = config.get("shift_factor") or 0.0, config.scaling_factor
    return (posterior.mean.float() - shift) * scale, posterior.std.float() * scale


def _decode(pipe: Any, latents: Tensor) -> Tensor:
    vae = pipe.vae
    raw = latents / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0.0)
    pixels: Tensor = vae.decode(raw.to(vae.dtype)).sample
    return pixels


def _unchanged(latents: Tensor) -> Tensor:
    return latents


class LatentSpace(NamedTuple):
    """How a family's latents are made and laid out. The defaults are those of `AutoencoderKL`, unpacked.

    shape(pipe, resolution): (c, h, w). encode(pipe, pixels): mean and standard deviation of the VAE's posterior,
    float32, for pixels (image, 3, side, side) from −1 to 1. decode(pipe, latents): pixels, differentiable.
    pack(latents): latents as the pipeline lays them out while it samples. unpack(packed): `pack` undone, for square
    images. pipeline_packs: whether the pipeline packs the latents that it is given to start from, too.
    """

    shape: Callable[[Any, int], tuple[int, int, int]] = _shape
    encode: Callable[[Any, Tensor], tuple[Tensor, Tensor]] = _encode
    decode: Callable[[Any, Tensor], Tensor] = _decode
    pack: Callable[[Tensor], Tensor] = _unchanged
    unpack: Callable[[Tensor], Tensor] = _unchanged
    pipeline_packs: bool = False


PLAIN: Final = LatentSpace()


@contextlib.contextmanager
def without_overflow(vae: Any) -> Iterator[None]:
    """The VAE in float32 inside the block, when it is in fp16 and says that it overflows there (SDXL's)."""
    import torch

    upcast = vae.dtype == torch.float16 and vae.config.get("force_upcast")
    if upcast:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if upcast:
            vae.to(torch.float16)  # back to what it was, bit for bit
