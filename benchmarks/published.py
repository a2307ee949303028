"""The parts of the published models, by their configurations: no weights, any device (meta costs nothing).

`saved_bytes` counts what a training pass through one keeps for its way back, `peak_bytes` what a pass without gradients
holds at once. The sizes in `duo_unlearn.families` come from here, and `tests/settings/test_needs.py` compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.records import Targets

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


def with_adapter(family: str, targets: Targets, rank: int = 32) -> Any:
    """The denoiser with an adapter of PEFT's, on the meta device; the base is frozen, in bf16."""
    from peft import LoraConfig

    denoiser: Any = published_denoiser(family).to(torch.bfloat16).requires_grad_(False)
    pattern = re.compile(FAMILIES.get(family).targets[targets])
    layers = [n for n, layer in denoiser.named_modules() if pattern.fullmatch(n) and isinstance(layer, nn.Linear)]
    denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers))
    return denoiser


class _Attention(torch.autograd.Function):
    """Keeps what a fused attention keeps: query, key, value and output, not the matrix of weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *_gradients: Any) -> Any:
        raise NotImplementedError("counted, never run")


def _attend(query: Tensor, key: Tensor, value: Tensor, *_rest: Any, **_named: Any) -> Tensor:
    out: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return out


def _inputs(family: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One row of what the denoiser reads, at the model's own resolution."""
    size = FAMILIES.get(family).size
    assert size is not None
    side = size.resolution // 8

    def empty(*shape: int) -> Tensor:
        return torch.empty(1, *shape, device="meta", dtype=torch.bfloat16)

    t, text_tokens = torch.empty(1, device="meta"), 512  # as many as the families below read at most
    if family == "z-image":
        return ([empty(16, 1, side, side)[0]], t, [empty(text_tokens, 2560)[0]]), {}
    if family == "qwen-image":
        packed = {"hidden_states": empty((side // 2) ** 2, 64), "img_shapes": [[(1, side // 2, side // 2)]]}
        return (), {**packed, "timestep": t, "encoder_hidden_states": empty(text_tokens, 3584)}
    if family in ("flux2", "flux2-klein"):
        width = 15360 if family == "flux2" else 7680
        places = {"txt_ids": empty(text_tokens, 4)[0], "img_ids": empty((side // 2) ** 2, 4)[0]}
        packed = {"hidden_states": empty((side // 2) ** 2, 128), "guidance": t if family == "flux2" else None}
        return (), {**packed, **places, "timestep": t, "encoder_hidden_states": empty(text_tokens, width)}
    if family in ("sd1", "sd2"):
        return (empty(4, side, side), t), {"encoder_hidden_states": empty(77, 768 if family == "sd1" else 1024)}
    if family == "sdxl":
        added = {"text_embeds": empty(1280), "time_ids": empty(6)}
        return (empty(4, side, side), t), {"encoder_hidden_states": empty(77, 2048), "added_cond_kwargs": added}
    text = {"timestep": t, "encoder_hidden_states": empty(333 if family == "sd3" else 256, 4096)}
    if family == "sd3":
        return (), {**text, "hidden_states": empty(16, side, side), "pooled_projections": empty(2048)}
    tokens = (side // 2) ** 2
    places = {"txt_ids": empty(256, 3)[0], "img_ids": empty(tokens, 3)[0]}
    packed = {"hidden_states": empty(tokens, 64), "pooled_projections": empty(768), "guidance": t}
    return (), {**text, **packed, **places}


def saved_bytes(family: str, *, checkpointing: bool) -> int:
    """Bytes that one row of a bf16 training pass keeps, adapter on the default layers, weights not counted."""
    denoiser = with_adapter(family, "self-attention")
    for name, parameter in denoiser.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()  # as in training
    if checkpointing:
        denoiser.enable_gradient_checkpointing()
    weights = {parameter.untyped_storage()._cdata for parameter in denoiser.parameters()}  # noqa: SLF001
    storages: dict[int, Any] = {}  # the storages themselves, or their addresses would be used again

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:  # noqa: SLF001
            storages[storage._cdata] = storage  # noqa: SLF001
        return tensor

    positional, named = _inputs(family)
    with (
        patch("torch.nn.functional.scaled_dot_product_attention", _attend),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        denoiser(*positional, **named, return_dict=False)
    return sum(int(storage.nbytes()) for storage in storages.values())


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """How many bytes the tensors that are made inside it take at once, at most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[Any, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_storage_of(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and (kept := _storage_of(x)) not in given:
                self.alive[kept] = int(x.untyped_storage().nbytes())
        self.alive = {kept: size for kept, size in self.alive.items() if not kept.expired()}
        self.peak = max(self.peak, sum(self.alive.values()))
        return out


def _storage_of(tensor: Tensor) -> Any:
    """Where its values lie; kept alive by tensors alone."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _peak(run: Callable[[], Any]) -> int:
    with torch.no_grad(), patch("torch.nn.functional.scaled_dot_product_attention", _attend), _Memory() as held:
        run()
    return int(held.peak)


def peak_bytes(family: str) -> tuple[int, int, int]:
    """Bytes that one bf16 row of the denoiser holds at once without gradients, one image's decoding, its encoding.

    Weights and inputs are not counted, nor what a library's kernels take for themselves.
    """
    size = FAMILIES.get(family).size
    assert size is not None
    denoiser, vae = published_denoiser(family).to(torch.bfloat16), published_vae(family).to(torch.bfloat16)
    positional, named = _inputs(family)
    side = size.resolution // 8
    frame = (1,) if family == "qwen-image" else ()  # its VAE reads videos
    latents = torch.empty(1, CHANNELS[family], *frame, side, side, device="meta", dtype=torch.bfloat16)
    pixels = torch.empty(1, 3, *frame, size.resolution, size.resolution, device="meta", dtype=torch.bfloat16)
    return (
        _peak(lambda: denoiser(*positional, **named, return_dict=False)),
        _peak(lambda: vae.decode(latents, return_dict=False)),
        _peak(lambda: vae.encode(pixels, return_dict=False)),
    )
