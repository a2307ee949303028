"""Small models of every family's own classes, with random weights from a seed, as diffusers folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from duo_unlearn.mini.model.bundle import weights_folder

RESOLUTION = 32
GUIDANCE = {"flux": 3.5, "flux2": 4.0}
"""The scale under which families predict whose denoiser reads it: their pipelines' own default."""


def _clip_tokenizer() -> Any:
    return CLIPTokenizer.from_pretrained(weights_folder() / "tokenizer")


def _clip_config(tokenizer: Any, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=width, max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def _t5(width: int) -> tuple[Any, Any]:
    """A tokenizer of letters, and an encoder."""
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    letters += [(chr(code), -2.0) for code in range(97, 123)]
    core = Tokenizer(models.Unigram(letters, unk_id=2))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = T5TokenizerFast(tokenizer_object=core, extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_ff=2 * width, d_kv=8, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return tokenizer, T5EncoderModel(config)


def vae(channels: int, shift: float | None = None) -> AutoencoderKL:
    """Factor 4."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 16), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=channels, norm_num_groups=4,
        mid_block_add_attention=True, sample_size=RESOLUTION, shift_factor=shift,
        scaling_factor=0.13025 if channels == 4 else 1.5305,
        use_quant_conv=channels == 4, use_post_quant_conv=channels == 4,
    )  # fmt: skip


SD_NOISE: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    "set_alpha_to_one": False,
}  # fmt: skip
"""As the schedulers of Stable Diffusion 1 and 2 are published."""


def sd1(folder: Path) -> Path:
    return _stable_diffusion(folder, 768, PNDMScheduler(**SD_NOISE, skip_prk_steps=True), attention_head_dim=4)


def sd2(folder: Path) -> Path:
    scheduler = DDIMScheduler(**SD_NOISE, clip_sample=False, prediction_type="v_prediction")
    return _stable_diffusion(folder, 1024, scheduler, attention_head_dim=(2, 4), use_linear_projection=True)


def _stable_diffusion(folder: Path, width: int, scheduler: Any, **options: Any) -> Path:
    """width: of the text, by which the two families are told apart. options: of the denoiser."""
    torch.manual_seed(0)
    tokenizer = _clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=RESOLUTION // 4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width, **options,
    )  # fmt: skip
    config = _clip_config(tokenizer, width)
    config.num_hidden_layers, config.intermediate_size = 1, 64  # so wide a text makes it slow otherwise
    StableDiffusionPipeline(
        vae=vae(4), text_encoder=CLIPTextModel(config), tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def sdxl(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = _clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=RESOLUTION // 4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=48, attention_head_dim=(2, 4), use_linear_projection=True,
        transformer_layers_per_block=(1, 2), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=vae(4), text_encoder=CLIPTextModel(_clip_config(tokenizer, 16)), tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer, 32)), tokenizer_2=_clip_tokenizer(),
        unet=unet, scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def sd3(folder: Path, *, with_t5: bool = True) -> Path:
    torch.manual_seed(0)
    tokenizer = _clip_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=RESOLUTION // 4, patch_size=2, in_channels=16, out_channels=16, num_layers=2,
        attention_head_dim=8, num_attention_heads=4, joint_attention_dim=64, caption_projection_dim=32,
        pooled_projection_dim=48, pos_embed_max_size=16,
    )  # fmt: skip
    t5 = _t5(64) if with_t5 else (None, None)
    StableDiffusion3Pipeline(
        vae=vae(16, 0.0609), transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=CLIPTextModelWithProjection(_clip_config(tokenizer, 16)), tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer, 32)), tokenizer_2=_clip_tokenizer(),
        text_encoder_3=t5[1], tokenizer_3=t5[0],
    ).save_pretrained(folder)  # fmt: skip
    return folder


def flux(folder: Path, *, dev: bool = True) -> Path:
    torch.manual_seed(0)
    tokenizer = _clip_tokenizer()
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=64, pooled_projection_dim=16, guidance_embeds=dev, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    t5_tokenizer, t5_encoder = _t5(64)
    FluxPipeline(
        vae=vae(16, 0.1159), transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True) if dev
        else FlowMatchEulerDiscreteScheduler(shift=1.0),
        text_encoder=CLIPTextModel(_clip_config(tokenizer, 16)), tokenizer=tokenizer,
        text_encoder_2=t5_encoder, tokenizer_2=t5_tokenizer,
    ).save_pretrained(folder)  # fmt: skip
    return folder
