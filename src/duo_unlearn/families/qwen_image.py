"""Qwen-Image: an MMDiT on packed latents, rectified flow, a VAE for video, Qwen2.5-VL's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .family import Family, Size
from .flux import pack, unpack
from .latents import LatentSpace
from .sd3 import flow_noise

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .interface import Conditioning
    from .noise import NoiseProcess

_IMAGE_STREAM: Final = r"transformer_blocks\.\d+\.attn\.to_(q|k|v|out\.0)"
_TEXT_STREAM: Final = r"transformer_blocks\.\d+\.attn\.(add_(q|k|v)_proj|to_add_out)"
TOKENS: Final = 512
"""How many tokens of a prompt are read, chat template not counted: the default of the pipeline's call."""


def _noise(pipe: Any, resolution: int) -> NoiseProcess:
    # A schedule of some steps is stretched to end at σ 0.02 (`shift_terminal`); training reads every level down to 0.
    return flow_noise(pipe.scheduler, resolution // pipe.vae_scale_factor // 2)


def _encode(pipe: Any, prompts: Sequence[str]) -> Conditioning:
    """Qwen2.5-VL's last hidden state of the prompt in the pipeline's template, whose first 34 tokens are dropped."""
    from .interface import Conditioning
    from .llm import padded

    text, _ = pipe.encode_prompt(list(prompts), device=pipe.device, max_sequence_length=TOKENS)
    return Conditioning(padded(list(text), TOKENS))


def _predict(_pipe: Any, network: nn.Module, noisy: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
    from .llm import trimmed

    height, width = noisy.shape[-2:]
    text, here = trimmed(conditioning.text)
    output: Tensor = network(
        hidden_states=pack(noisy),
        timestep=time.to(noisy.dtype) / 1000,
        encoder_hidden_states=text,
        encoder_hidden_states_mask=None if bool(here.all()) else here,
        img_shapes=[[(1, height // 2, width // 2)]] * len(noisy),
        return_dict=False,
    )[0]
    return unpack(output)


def _guide(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Linear guidance, and then each token at the length that it has without guidance."""
    asked, plain = pack(positive), pack(negative)
    mixed = plain + scale * (asked - plain)
    return unpack(mixed * (asked.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True)))


def _call(conditioning: Conditioning, negative: Conditioning, guidance: float) -> dict[str, Any]:
    from .llm import trimmed

    text, here = trimmed(conditioning.text)
    found = {"prompt_embeds": text, "prompt_embeds_mask": here.long(), "true_cfg_scale": guidance}
    if guidance > 1:
        text, here = trimmed(negative.text)
        found |= {"negative_prompt_embeds": text, "negative_prompt_embeds_mask": here.long()}
    return found


def _shape(pipe: Any, resolution: int) -> tuple[int, int, int]:
    side = resolution // pipe.vae_scale_factor
    return int(pipe.vae.config.z_dim), side, side


def _scale(pipe: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (1, c, 1, 1)."""
    import torch

    config = pipe.vae.config
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std))
    return mean.to(like), std.to(like)


def _encode_pixels(pipe: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    posterior = pipe.vae.encode(pixels.unsqueeze(2)).latent_dist  # a video of one frame
    raw = posterior.mean.float().squeeze(2)
    mean, std = _scale(pipe, raw)
    return (raw - mean) / std, posterior.std.float().squeeze(2) / std


def _decode(pipe: Any, latents: Tensor) -> Tensor:
    mean, std = _scale(pipe, latents)
    pixels: Tensor = pipe.vae.decode((latents * std + mean).unsqueeze(2).to(pipe.vae.dtype)).sample[:, :, 0]
    return pixels


QWEN_IMAGE: Final = Family(
    name="qwen-image",
    title="Qwen-Image",
    needs="1024 px; 20 B parameters: 41 GB in bf16 before anything else",
    pipeline="QwenImagePipeline",
    image_to_image="QwenImageImg2ImgPipeline",
    denoiser="transformer",
    denoiser_class="QwenImageTransformer2DModel",
    text=("text_encoder",),
    tokenizers=("tokenizer",),
    targets={"self-attention": _IMAGE_STREAM, "all-attention": f"{_IMAGE_STREAM}|{_TEXT_STREAM}"},
    text_tokens=TOKENS,
    hub_words=("qwen-image",),
    reader="Qwen2.5-VL",
    padded=True,
    guidance=4.0,
    size=Size(20430.4, 8419, (47.19, 94.37), 1024, (39.43, 1.724), (0.397, 3.627, 2.022), 78.3),
    noise=_noise,
    encode=_encode,
    predict=_predict,
    call=_call,
    architecture=lambda _pipe: "Qwen-Image",
    latents=LatentSpace(_shape, _encode_pixels, _decode, pack, unpack),
    positive_first=True,
    guide=_guide,
)
