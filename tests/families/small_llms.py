"""Small models of the families whose prompts a language model reads, with random weights, as diffusers folders.

Tokenizers are of the published classes, with the published chat templates cut to one message of a user, and merges
learnt from the texts below: so Qwen-Image's template has as many tokens as the published one has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from .small_models import RESOLUTION, vae

TEXTS = (
    "system",
    "user",
    "assistant",
    "Describe the image by detailing the color, shape, size, texture, quantity, text,",
    " spatial relationships of the objects and background:",
    "a red knight with a sword a blue boat by the sea",
)
QWEN3 = (  # Qwen3's, for one message of a user
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
MISTRAL = (  # Mistral Small's, for a message of the system and one of a user
    "{{- bos_token }}{%- for message in messages %}{%- if message.role == 'system' %}"
    "{{- '[SYSTEM_PROMPT]' + message.content[0].text + '[/SYSTEM_PROMPT]' }}{%- else %}"
    "{{- '[INST]' + message.content[0].text + '[/INST]' }}{%- endif %}{%- endfor %}"
)
PIECES = 700


def _pieces(regex: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE that knows the words of TEXTS as whole tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(regex, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=PIECES, initial_alphabet=letters, show_progress=False)
    core.train_from_iterator(TEXTS, trainer)
    model = json.loads(core.to_str())["model"]
    return model["vocab"], [(a, b) for a, b in model["merges"]]


def _qwen_tokenizer(template: str | None = None) -> Any:
    from tokenizers import Regex
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    vocabulary, merges = _pieces(Regex(PRETOKENIZE_REGEX))
    tokenizer = Qwen2Tokenizer(
        vocabulary, merges, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"], model_max_length=131072,
    )  # fmt: skip
    tokenizer.chat_template = template
    return tokenizer


def _qwen3_config(tokenizer: Any, layers: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=1024,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip


def z_image(folder: Path, *, turbo: bool = True) -> Path:
    torch.manual_seed(0)
    tokenizer = _qwen_tokenizer(QWEN3)
    transformer = ZImageTransformer2DModel(
        in_channels=16, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 6, 6], axes_lens=[1024, 32, 32],
    )  # fmt: skip
    torch.nn.init.normal_(transformer.x_pad_token, std=0.1)
    torch.nn.init.normal_(transformer.cap_pad_token, std=0.1)
    ZImagePipeline(
        vae=vae(16, 0.1159), transformer=transformer, tokenizer=tokenizer,
        text_encoder=Qwen3Model(_qwen3_config(tokenizer, 3)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if turbo else 6.0),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def qwen_image(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = _qwen_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    transformer = QwenImageTransformer2DModel(
        in_channels=64, out_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    QwenImagePipeline(
        vae=AutoencoderKLQwenImage(
            base_dim=8, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True]
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        transformer=transformer, tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
        ),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _flux2_parts(text_width: int, *, guided: bool) -> dict[str, Any]:
    """The parts that klein and dev share in kind."""
    coder = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=8, norm_num_groups=4,
        sample_size=RESOLUTION,
    )  # fmt: skip
    norm: Any = coder.bn
    norm.running_mean.normal_(std=0.2)
    norm.running_var.uniform_(0.5, 2.0)
    transformer = Flux2Transformer2DModel(
        in_channels=32, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=text_width, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guided,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return {"vae": coder, "transformer": transformer, "scheduler": scheduler}


def klein(folder: Path, *, distilled: bool = False) -> Path:
    torch.manual_seed(0)
    tokenizer = _qwen_tokenizer(QWEN3)
    Flux2KleinPipeline(
        text_encoder=Qwen3ForCausalLM(_qwen3_config(tokenizer, 28)), tokenizer=tokenizer, is_distilled=distilled,
        **_flux2_parts(3 * 16, guided=False),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def flux2(folder: Path) -> Path:
    """A plain tokenizer is in the place of the published one's `PixtralProcessor`, which needs torchvision."""
    from tokenizers import Regex

    torch.manual_seed(0)
    vocabulary, merges = _pieces(Regex(r"\s?\S+"))
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left",
        extra_special_tokens=["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"], model_max_length=131072,
    )  # fmt: skip
    tokenizer.chat_template = MISTRAL
    text = {
        "model_type": "mistral", "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 31, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "max_position_embeddings": 1024, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision)),
        tokenizer=tokenizer, **_flux2_parts(3 * 16, guided=True),
    ).save_pretrained(folder)  # fmt: skip
    return folder


LLMS: dict[str, Callable[[Path], Path]] = {
    "flux2": flux2,
    "flux2-klein": klein,
    "qwen-image": qwen_image,
    "z-image": z_image,
}
"""By the families' names."""
