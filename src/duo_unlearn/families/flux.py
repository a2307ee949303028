"""FLUX.1 dev and schnell: a transformer on packed latents, rectified flow, CLIP's pooled output and T5's tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .family import Family, Size
from .latents import LatentSpace
from .sd3 import flow_noise

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .interface import Conditioning
    from .noise import NoiseProcess

# Double-stream blocks keep image and text apart; a single-stream block's projections see both: not in the default.
_IMAGE_STREAM: Final = r"transformer_blocks\.\d+\.attn\.to_(q|k|v|out\.0)"
_SHARED: Final = r"single_transformer_blocks\.\d+\.attn\.to_(q|k|v)"
_TEXT_STREAM: Final = r"transformer_blocks\.\d+\.attn\.(add_(q|k|v)_proj|to_add_out)"
_FIRST_BLOCK: Final = "double_blocks.0.img_mod.lin.weight"
"""FLUX.2's blocks share their modulation, and have no such tensor."""
GUIDANCE: Final = 3.5
"""The guidance that dev reads in training: the pipeline's own default."""
TOKENS: Final = 256
"""How many tokens of a prompt T5 reads: what schnell allows at most; dev would take 512."""


def _noise(pipe: Any, resolution: int) -> NoiseProcess:
    return flow_noise(pipe.scheduler, resolution // pipe.vae_scale_factor // 2)


def _encode(pipe: Any, prompts: Sequence[str]) -> Conditioning:
    """T5's tokens, and CLIP's pooled output."""
    from .interface import Conditioning

    text, pooled, _ = pipe.encode_prompt(list(prompts), None, device=pipe.device, max_sequence_length=TOKENS)
    return Conditioning(text, pooled)


def pack(latents: Tensor) -> Tensor:
    """(b, c, h, w) → (b, h/2·w/2, 4c): each 2×2 patch becomes a token."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h // 2 * (w // 2), 4 * c)


def unpack(tokens: Tensor) -> Tensor:
    """`pack` undone, for square images."""
    b, count, channels = tokens.shape
    side = math.isqrt(count)
    patches = tokens.view(b, side, side, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(b, channels // 4, 2 * side, 2 * side)


def positions(height: int, width: int) -> Tensor:
    """Each token's place, (h/2·w/2, 3): 0, row, column."""
    import torch

    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).view(-1, 3)


def _predict(pipe: Any, network: nn.Module, noisy: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
    import torch

    height, width = noisy.shape[-2:]
    guided = pipe.transformer.config.guidance_embeds
    scale = GUIDANCE if conditioning.guidance is None else conditioning.guidance
    output: Tensor = network(
        hidden_states=pack(noisy),
        timestep=time.to(noisy.dtype) / 1000,
        guidance=torch.full((len(noisy),), scale, device=noisy.device) if guided else None,
        pooled_projections=conditioning.pooled,
        encoder_hidden_states=conditioning.text,
        txt_ids=torch.zeros(conditioning.text.shape[1], 3, device=noisy.device, dtype=noisy.dtype),
        img_ids=positions(height, width).to(noisy),
        return_dict=False,
    )[0]
    return unpack(output)


def _call(conditioning: Conditioning, _negative: Conditioning, guidance: float) -> dict[str, Any]:
    # Distilled: one pass with the guidance as an input; there is no branch for a negative prompt.
    return {
        "prompt_embeds": conditioning.text,
        "pooled_prompt_embeds": conditioning.pooled,
        "guidance_scale": guidance,
    }


FLUX: Final = Family(
    name="flux",
    title="FLUX.1 dev and schnell",
    needs=(
        "1024 px; negative prompts have no effect: guidance is an input of dev, and schnell has none; schnell is "
        "distilled: 4 steps, and train on dev"
    ),
    pipeline="FluxPipeline",
    image_to_image="FluxImg2ImgPipeline",
    denoiser="transformer",
    denoiser_class="FluxTransformer2DModel",
    text=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    targets={"self-attention": _IMAGE_STREAM, "all-attention": f"{_IMAGE_STREAM}|{_SHARED}|{_TEXT_STREAM}"},
    text_tokens=TOKENS,
    hub_words=("flux",),
    checkpoint_names=(_FIRST_BLOCK, f"model.diffusion_model.{_FIRST_BLOCK}"),
    guidance_is_input=True,
    quantizable=True,
    guidance=3.5,
    size=Size(11901.4, 4969, (14.94, 52.3), 1024, (24.24, 1.551), (0.459, 1.611, 1.342), 69.5),
    noise=_noise,
    encode=_encode,
    predict=_predict,
    call=_call,
    architecture=lambda pipe: "flux-1-dev" if pipe.transformer.config.guidance_embeds else "flux-1-schnell",
    latents=LatentSpace(pack=pack, unpack=unpack),
)
