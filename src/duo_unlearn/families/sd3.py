"""Stable Diffusion 3 and 3.5: an MMDiT, rectified flow, two CLIP text encoders and, where it is there, T5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .family import Family, Size
from .sdxl import pooled_call

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .interface import Conditioning
    from .noise import NoiseProcess

_IMAGE_STREAM: Final = r"transformer_blocks\.\d+\.attn2?\.to_(q|k|v|out\.0)"
_TEXT_STREAM: Final = r"transformer_blocks\.\d+\.attn\.(add_(q|k|v)_proj|to_add_out)"
_FIRST_BLOCK: Final = "joint_blocks.0.x_block.attn.qkv.weight"
TOKENS: Final = 256
"""How many tokens of a prompt T5 reads: the pipeline's own default."""


def _noise(pipe: Any, resolution: int) -> NoiseProcess:
    return flow_noise(pipe.scheduler, resolution // pipe.vae_scale_factor // pipe.transformer.config.patch_size)


def flow_noise(scheduler: Any, side: int) -> NoiseProcess:
    """The rectified flow of a scheduler, for images of side × side tokens."""
    from .noise import Flow, flow_sigmas

    config = scheduler.config
    if config.get("use_dynamic_shifting"):
        return Flow(shifted_sigmas(scheduler, side * side))
    return Flow(flow_sigmas(config.num_train_timesteps, shift=config.shift))


def shifted_sigmas(scheduler: Any, tokens: int) -> Tensor:
    """σ by timestep, ascending, of a scheduler whose shift grows with the image tokens (FLUX.1 dev, SD3.5)."""
    from .noise import flow_sigmas

    config = scheduler.config
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
    mu = config.get("base_shift", 0.5) + slope * (tokens - low)
    shifted: Tensor = scheduler.time_shift(mu, 1.0, flow_sigmas(config.num_train_timesteps))
    return shifted


def _encode(pipe: Any, prompts: Sequence[str]) -> Conditioning:
    """CLIP's and T5's tokens one after the other, and both CLIPs' pooled outputs; without T5, zeros in its place."""
    from .interface import Conditioning

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
    needs="1024 px; T5 (text_encoder_3) may be left out, which saves 9 GB",
    pipeline="StableDiffusion3Pipeline",
    image_to_image="StableDiffusion3Img2ImgPipeline",
    denoiser="transformer",
    denoiser_class="SD3Transformer2DModel",
    text=("text_encoder", "text_encoder_2", "text_encoder_3"),
    tokenizers=("tokenizer", "tokenizer_2", "tokenizer_3"),
    optional=("text_encoder_3", "tokenizer_3"),
    targets={"self-attention": _IMAGE_STREAM, "all-attention": f"{_IMAGE_STREAM}|{_TEXT_STREAM}"},
    text_tokens=TOKENS,
    hub_words=("stable-diffusion-3",),
    checkpoint_names=(_FIRST_BLOCK, f"model.diffusion_model.{_FIRST_BLOCK}"),
    quantizable=True,
    guidance=7.0,
    size=Size(2028.3, 5664, (9.44, 18.78), 1024, (5.73, 0.339), (0.167, 1.611, 1.342), 8.90),
    noise=_noise,
    encode=_encode,
    predict=_predict,
    call=pooled_call,
    architecture=lambda _pipe: "stable-diffusion-3",
)
