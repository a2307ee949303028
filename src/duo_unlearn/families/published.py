"""The denoisers of the published models, by their configurations: no weights, any device (meta costs nothing)."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

_UNET: Final = "UNet2DConditionModel"
PUBLISHED: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "sd1": (  # CompVis/stable-diffusion-v1-4
        _UNET,
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    ),
    "sd2": (  # stabilityai/stable-diffusion-2-1
        _UNET,
        {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
    ),
    "sdxl": (  # stabilityai/stable-diffusion-xl-base-1.0
        _UNET,
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
    "sd3": (  # stabilityai/stable-diffusion-3-medium
        "SD3Transformer2DModel",
        {
            "sample_size": 128,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 192,
        },
    ),
    "flux": (  # black-forest-labs/FLUX.1-dev; schnell has no guidance embedding
        "FluxTransformer2DModel",
        {
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
        },
    ),
}


def published_denoiser(family: str, device: str | torch.device = "meta") -> nn.Module:
    """The denoiser of a family's published model, with fresh weights (none on the meta device)."""
    import diffusers

    name, config = PUBLISHED[family]
    with torch.device(device):
        made: nn.Module = getattr(diffusers, name)(**config)
    return made
