"""The parts of the published models, by their configurations: no weights, any device (meta costs nothing).

What a pass through one needs is counted in published_memory.py. The sizes in `duo_unlearn.families` come from these
two, and `tests/settings/test_needs.py` compares them.
"""

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
    # Those below could not be read from the hub here. Sources: the defaults of diffusers' classes, which are the
    # published configurations of Z-Image (and Turbo), Qwen-Image and FLUX.2-dev; klein's numbers are `Klein4BParams` in
    # copies of black-forest-labs/flux2 (src/flux2/model.py), e.g. kohya-ss/musubi-tuner.
    "flux2": ("Flux2Transformer2DModel", {}),
    "flux2-klein": (  # black-forest-labs/FLUX.2-klein-4B and FLUX.2-klein-base-4B
        "Flux2Transformer2DModel",
        {
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
    ),
    "qwen-image": ("QwenImageTransformer2DModel", {}),
    "z-image": ("ZImageTransformer2DModel", {}),
}


def published_denoiser(family: str, device: str | torch.device = "meta") -> nn.Module:
    """The denoiser of a family's published model, with fresh weights (none on the meta device)."""
    import diffusers

    name, config = PUBLISHED[family]
    with torch.device(device):
        denoiser: nn.Module = getattr(diffusers, name)(**config)
    return denoiser


_CLIP_L: Final = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_G: Final = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280}
_T5: Final = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"}
_QWEN3: Final = {  # Qwen/Qwen3-4B
    "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
_QWEN_VL: Final = {  # Qwen/Qwen2.5-VL-7B-Instruct
    "model_type": "qwen2_5_vl",
    "text_config": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
    },
    "vision_config": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
    },
    "tie_word_embeddings": False,
}  # fmt: skip
_MISTRAL: Final = {  # mistralai/Mistral-Small-3.1-24B-Instruct-2503
    "model_type": "mistral3",
    "text_config": {
        "model_type": "mistral", "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
    },
    "vision_config": {
        "model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "patch_size": 14, "image_size": 1540,
    },
    "tie_word_embeddings": False,
}  # fmt: skip
_LLMS: Final = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
}
ENCODERS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "sd1": (_CLIP_L,),
    "sd2": ({"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16},),
    "sdxl": (_CLIP_L, _CLIP_G),
    "sd3": ({**_CLIP_L, "projection_dim": 768}, _CLIP_G, _T5),
    "flux": (_CLIP_L, _T5),
    "flux2": (_MISTRAL,),
    "flux2-klein": (_QWEN3,),
    "qwen-image": (_QWEN_VL,),
    "z-image": (_QWEN3,),
}
"""The text encoders' configurations, in the pipeline's order."""
CHANNELS: Final = {
    "sd1": 4, "sd2": 4, "sdxl": 4, "sd3": 16, "flux": 16, "flux2": 32, "flux2-klein": 32, "qwen-image": 16,
    "z-image": 16,
}  # fmt: skip
"""Of latents."""
VAES: Final = {
    "flux2": "AutoencoderKLFlux2",
    "flux2-klein": "AutoencoderKLFlux2",
    "qwen-image": "AutoencoderKLQwenImage",
}
"""Classes of VAEs whose defaults are the published configuration; the others have one architecture."""


def published_vae(family: str, device: str | torch.device = "meta") -> Any:
    """The VAE of a family's published model."""
    import diffusers

    with torch.device(device):
        if family in VAES:
            return getattr(diffusers, VAES[family])()
        return diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=CHANNELS[family],
        )


def published_encoder(config: dict[str, Any], device: str | torch.device = "meta") -> Any:
    """A text encoder of `ENCODERS`: CLIP's text tower, with a projection where it has one, T5's encoder, or an LLM."""
    import transformers

    with torch.device(device):
        if "model_type" in config:
            return getattr(transformers, _LLMS[config["model_type"]])(transformers.AutoConfig.for_model(**config))
        if "d_model" in config:
            return transformers.T5EncoderModel(transformers.T5Config(**config))
        maker = getattr(transformers, "CLIPTextModelWithProjection" if "projection_dim" in config else "CLIPTextModel")
        full = {"intermediate_size": 4 * config["hidden_size"], "vocab_size": 49408, **config}
        return maker(transformers.CLIPTextConfig(**full))
