"""Stable Diffusion 3 and 3.5: an MMDiT, rectified flow, two CLIP text encoders and, where it is there, T5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from torch import Tensor, nn

from .family import Family
from .interface import Conditioning
from .noise import Flow, NoiseProcess, flow_sigmas
from .sdxl import pooled_call

_IMAGE_STREAM: Final = r"transformer_blocks\.\d+\.attn2?\.to_(q|k|v|out\.0)"
_TEXT_STREAM: Final = r"transformer_blocks\.\d+\.attn\.(add_(q|k|v)_proj|to_add_out)"
TOKENS: Final = 256
"""Of a prompt, for T5 (the pipeline's own default)."""


def _noise(pipe: Any, resolution: int) -> NoiseProcess:
    return flow_noise(pipe.scheduler, resolution // pipe.vae_scale_factor // pipe.transformer.config.patch_size)


def flow_noise(scheduler: Any, side: int) -> NoiseProcess:
    """The rectified flow of a scheduler, for images of side × side tokens."""
    config = scheduler.config
    if config.get("use_dynamic_shifting"):
        return Flow(shifted_sigmas(scheduler, side * side))
    return Flow(flow_sigmas(config.num_train_timesteps, shift=config.shift))


def shifted_sigmas(scheduler: Any, tokens: int) -> Tensor:
    """σ by timestep, ascending, of a scheduler whose shift grows with the image tokens (FLUX.1 dev, SD3.5)."""
    config = scheduler.config
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
    mu = config.get("base_shift", 0.5) + slope * (tokens - low)
    shifted: Tensor = scheduler.time_shift(mu, 1.0, flow_sigmas(config.num_train_timesteps))
    return shifted


def _encode(pipe: Any, prompts: Sequence[str]) -> Conditioning:
    """CLIP's and T5's tokens one after the other, and both CLIPs' pooled outputs; without T5, zeros in its place."""
    texts = list(prompts)
    text, _, pooled, _ = pipe.encode_prompt(
        texts, texts, texts, device=pipe.device, do_classifier_free_guidance=False, max_sequence_length=TOKENS
    )
    return Conditioning(text, pooled)


def _predict(_pipe: Any, network: nn.Module, noisy: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
    output: Tensor = network(
        hidden_states=noisy,
        timestep=time,
        encoder_hidden_states=conditioning.text,
        pooled_projections=conditioning.pooled,
        return_dict=False,
    )[0]
    return output


SD3: Final = Family(
    name="sd3",
    title="Stable Diffusion 3 and 3.5",
    pipeline="StableDiffusion3Pipeline",
    image_to_image="StableDiffusion3Img2ImgPipeline",
    denoiser="transformer",
    text=("text_encoder", "text_encoder_2", "text_encoder_3"),
    optional=("text_encoder_3",),
    targets={"self-attention": _IMAGE_STREAM, "all-attention": f"{_IMAGE_STREAM}|{_TEXT_STREAM}"},
    noise=_noise,
    encode=_encode,
    predict=_predict,
    call=pooled_call,
    needs="1024 px; T5 (text_encoder_3) may be left out, which saves 9 GB",
)
